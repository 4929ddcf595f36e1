//! From a request's headers to a principal, mostly from a cache. Writes are safe, as each checks the credential
//! again; reads see a revocation after the cache's time to live at the latest.

use std::{sync::Arc, time::Duration};

use http::HeaderMap;
use moka::future::Cache;
use orgd_shares::Holder;

use super::header::presented_secret;
use crate::{
    domain::{CredentialDigest, Error, Principal, Result},
    store::{Store, now},
    telemetry::metrics::{self, AuthMetrics},
};

const KNOWN_MAX: u64 = 10_000;
/// Digests without a credential are remembered apart, so that guessing drives out no good credential.
const UNKNOWN_MAX: u64 = 10_000;
/// For so long a credential may be refused that was issued after somebody tried it.
const UNKNOWN_TTL_MAX: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
pub struct Authenticator {
    store: Store,
    /// None where every call is to ask the database.
    cache: Option<Caches>,
}

#[derive(Clone, Debug)]
struct Caches {
    known: Cache<CredentialDigest, Arc<Principal>>,
    unknown: Cache<CredentialDigest, ()>,
    metrics: AuthMetrics,
}

impl Authenticator {
    /// One that remembers a principal for `ttl`; zero: that asks the database each time.
    #[must_use]
    pub fn new(store: Store, ttl: Duration) -> Self {
        let cache = (!ttl.is_zero()).then(|| Caches {
            known: Cache::builder().max_capacity(KNOWN_MAX).time_to_live(ttl).build(),
            unknown: Cache::builder()
                .max_capacity(UNKNOWN_MAX)
                .time_to_live(ttl.min(UNKNOWN_TTL_MAX))
                .build(),
            metrics: AuthMetrics::default(),
        });
        Self { store, cache }
    }

    /// A look at the database comes out of the source's share: the principal is not known yet.
    pub async fn authenticate(
        &self,
        holder: &Holder,
        headers: &HeaderMap,
    ) -> Result<Arc<Principal>> {
        let digest = presented_secret(headers)?.digest();
        let Some(cache) = &self.cache else { return find(&self.store, holder, digest).await };
        let principal = match cache.known.get(&digest).await {
            Some(principal) => {
                cache.metrics.known.increment(1);
                principal
            }
            None => Box::pin(self.look_up(cache, holder, digest)).await?,
        };
        // An expiry is exact also inside the cache.
        if principal.holds(now()) { Ok(principal) } else { Err(Error::CredentialInvalid) }
    }

    /// Sets the metrics that are states rather than events.
    pub async fn observe(&self) {
        if let Some(Caches { known, unknown, .. }) = &self.cache {
            known.run_pending_tasks().await;
            unknown.run_pending_tasks().await;
            metrics::auth_entries(known.entry_count(), unknown.entry_count());
        }
    }

    async fn look_up(
        &self,
        cache: &Caches,
        holder: &Holder,
        digest: CredentialDigest,
    ) -> Result<Arc<Principal>> {
        if cache.unknown.contains_key(&digest) {
            cache.metrics.unknown.increment(1);
            return Err(Error::CredentialInvalid);
        }
        cache.metrics.miss.increment(1);
        // Concurrent misses of one credential are one query.
        let found = cache.known.try_get_with(digest, find(&self.store, holder, digest)).await;
        if let Err(error) = &found
            && matches!(**error, Error::CredentialInvalid)
        {
            cache.unknown.insert(digest, ()).await;
        }
        found.map_err(|error| Error::clone(&error))
    }
}

async fn find(store: &Store, holder: &Holder, digest: CredentialDigest) -> Result<Arc<Principal>> {
    store.find_principal(holder, &digest).await?.map(Arc::new).ok_or(Error::CredentialInvalid)
}
