//! From a request's headers to a principal, mostly from a cache. Writes are safe, as each checks the credential
//! again; reads see a revocation after the cache's time to live at the latest.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use http::HeaderMap;
use moka::future::Cache;
use orgd_shares::Holder;

use super::header::presented_secret;
use crate::{
    domain::{CredentialDigest, Error, Principal, Result},
    store::{Store, is_noted, now},
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
    known: Cache<CredentialDigest, Arc<Known>>,
    unknown: Cache<CredentialDigest, ()>,
    metrics: AuthMetrics,
}

/// What is remembered of a credential that holds.
#[derive(Debug)]
struct Known {
    principal: Arc<Principal>,
    /// The second of its last use that was noted; a long time ago where none was.
    noted_at: AtomicI64,
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
        let Some(cache) = &self.cache else {
            let known = find(&self.store, holder, digest).await?;
            self.note_use(digest, &known, now().unix_timestamp());
            return Ok(known.principal.clone());
        };
        let known = match cache.known.get(&digest).await {
            Some(known) => {
                cache.metrics.known.increment(1);
                known
            }
            None => Box::pin(self.look_up(cache, holder, digest)).await?,
        };
        // An expiry is exact also inside the cache.
        let now = now();
        if !known.principal.holds(now) {
            return Err(Error::CredentialInvalid);
        }
        self.note_use(digest, &known, now.unix_timestamp());
        Ok(known.principal.clone())
    }

    /// Most requests find here that another has noted it, without a lock.
    fn note_use(&self, digest: CredentialDigest, known: &Known, at: i64) {
        if !is_noted(known.noted_at.load(Ordering::Relaxed), at) {
            known.noted_at.store(self.store.note_use(digest, at), Ordering::Relaxed);
        }
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
    ) -> Result<Arc<Known>> {
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

async fn find(store: &Store, holder: &Holder, digest: CredentialDigest) -> Result<Arc<Known>> {
    let found = store.find_principal(holder, &digest).await?.ok_or(Error::CredentialInvalid)?;
    Ok(Arc::new(Known { principal: Arc::new(found), noted_at: AtomicI64::new(i64::MIN) }))
}
