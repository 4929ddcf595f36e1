//! Following changes as they are made, on whichever instance.
//!
//! Watches look for changes again and again by key, because distributed engines have nothing like
//! LISTEN. A look is one look-up of the organization's version, which the store does together with
//! all others that wait; only a version that is new costs a look into the change log.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use futures_util::{
    future::try_join_all,
    stream::{Stream, try_unfold},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::audit;
use crate::{
    domain::{ChangeEntry, Error, OrganizationId, Principal, Result, Violation, policy, reason},
    store::{Store, now},
};

/// How often a watch looks: well within the second that is promised.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// How often a watch asks whether its credential still holds; as long as others may be remembered.
const CREDENTIAL_INTERVAL: Duration = Duration::from_secs(5);
/// Entries that a watch has in memory at most for each organization.
const ENTRIES_MAX: u64 = 100;

/// What one watch follows: an organization, and the version after which its changes are sent; none:
/// from now on.
pub type Followed = (OrganizationId, Option<i64>);

/// All watches of a process.
#[derive(Clone, Debug)]
pub struct Watches {
    places: Arc<Semaphore>,
    stopping: CancellationToken,
}

/// One watch, between two looks.
struct Watch {
    store: Store,
    principal: Arc<Principal>,
    /// The last version of each organization that was found.
    seen: Vec<(OrganizationId, i64)>,
    /// What was found and is not sent yet.
    found: VecDeque<ChangeEntry>,
    look_at: Instant,
    check_at: Instant,
    stopping: CancellationToken,
    _place: OwnedSemaphorePermit,
}

impl Watches {
    /// At most `max` at once, which all end when the process is to stop.
    #[must_use]
    pub fn new(max: usize, stopping: CancellationToken) -> Self {
        Self { places: Arc::new(Semaphore::new(max)), stopping }
    }

    /// Follows organizations, or where none is named the one that the caller belongs to. Refused as
    /// listing their changes is. The stream has no end but an error.
    pub async fn watch(
        &self,
        store: &Store,
        principal: Arc<Principal>,
        mut followed: Vec<Followed>,
    ) -> Result<impl Stream<Item = Result<ChangeEntry>> + Send + use<>> {
        if followed.is_empty() {
            let own = principal.organization.ok_or_else(|| {
                let description =
                    "organization_ids is required of those who belong to no organization.";
                let reason = reason::FIELD_REQUIRED;
                Error::invalid(Violation::new("organization_ids", reason, description))
            })?;
            followed.push((own, None));
        }
        for (id, _) in &followed {
            let right = policy::authorize_organization(&principal, *id);
            audit::checked(&principal, Some(*id), right)?;
        }
        let place = self.places.clone().try_acquire_owned().map_err(|_| Error::TooManyWatches)?;
        let current = followed.iter().map(|(id, _)| store.get_organization(*id));
        let current = try_join_all(current).await?;
        let seen = followed.into_iter().zip(current);
        let seen = seen.map(|((id, from), now)| (id, from.unwrap_or(now.etag.version())));
        let now = Instant::now();
        let watch = Watch {
            store: store.clone(),
            principal,
            seen: seen.collect(),
            found: VecDeque::new(),
            look_at: now,
            check_at: now + CREDENTIAL_INTERVAL,
            stopping: self.stopping.clone(),
            _place: place,
        };
        Ok(try_unfold(watch, async |mut watch| {
            let entry = watch.next().await?;
            Ok(Some((entry, watch)))
        }))
    }
}

impl Watch {
    /// The next change, once there is one.
    async fn next(&mut self) -> Result<ChangeEntry> {
        loop {
            if let Some(entry) = self.found.pop_front() {
                return Ok(policy::readable_change(&self.principal, entry));
            }
            tokio::select! {
                () = self.stopping.cancelled() => return Err(Error::Stopping),
                () = sleep_until(self.look_at) => {}
            }
            self.look_at = Instant::now() + LOOK_INTERVAL;
            self.check_credential().await?;
            self.look().await?;
        }
    }

    async fn look(&mut self) -> Result<()> {
        let current = self.seen.iter().map(|(id, _)| self.store.find_organization(*id));
        let current = try_join_all(current).await?;
        for ((id, seen), now) in self.seen.iter_mut().zip(current) {
            if now.is_none_or(|now| now.etag.version() <= *seen) {
                continue;
            }
            let entries = self.store.list_changes(*id, *seen, ENTRIES_MAX).await?;
            if let Some(last) = entries.last() {
                *seen = last.version;
            }
            if u64::try_from(entries.len()) == Ok(ENTRIES_MAX) {
                // There may be more.
                self.look_at = Instant::now();
            }
            self.found.extend(entries);
        }
        Ok(())
    }

    /// A stream goes on for long: its credential must hold as long as it does.
    async fn check_credential(&mut self) -> Result<()> {
        if self.principal.expires_at.is_some_and(|end| end <= now()) {
            return Err(Error::CredentialInvalid);
        }
        let Some(digest) = self.principal.credential else { return Ok(()) };
        if self.check_at <= Instant::now() {
            self.check_at = Instant::now() + CREDENTIAL_INTERVAL;
            self.store.find_principal(&digest).await?.ok_or(Error::CredentialInvalid)?;
        }
        Ok(())
    }
}
