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
    domain::{
        ChangeEntry, Error, OrganizationId, Page, PageSize, Principal, Result, Violation, policy,
        reason,
    },
    shares::Holder,
    store::{Store, now},
};

/// How often a watch looks: well within the second that is promised.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// How often a watch asks whether its credential still holds; as long as others may be remembered.
const CREDENTIAL_INTERVAL: Duration = Duration::from_secs(5);
/// How long a watch may be quiet at most: what is between it and its client may take a stream on which
/// nothing moves for dead, after 50 s or more.
const HEARTBEAT_MAX: Duration = Duration::from_secs(20);
/// What a watch has in memory at most for each organization.
const FOUND_MAX: PageSize = PageSize { entries: 100, bytes: 32 * 1024 };

/// What one watch follows: an organization, and the version after which its changes are sent; none:
/// from now on.
pub type Followed = (OrganizationId, Option<i64>);

/// What a watch sends: a change, or none as a sign of life.
pub type News = Option<ChangeEntry>;

/// All watches of a process.
#[derive(Clone, Debug)]
pub struct Watches {
    places: Arc<Semaphore>,
    heartbeat: Duration,
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
    heartbeat: Duration,
    /// When there is to be a sign of life.
    quiet_until: Instant,
    ending: Ending,
    _place: OwnedSemaphorePermit,
}

/// What ends a watch beside its credential.
struct Ending {
    /// The process is to stop.
    process: CancellationToken,
    /// The connection takes no new requests.
    connection: CancellationToken,
}

impl Ending {
    async fn reached(&self) -> Error {
        tokio::select! {
            // An end of the process is one of its connections, too.
            biased;
            () = self.process.cancelled() => Error::Stopping,
            () = self.connection.cancelled() => Error::ConnectionAged,
        }
    }
}

impl Watches {
    /// At most `max` at once, which all end when the process is to stop. Each sends a sign of life
    /// after `heartbeat` without news.
    #[must_use]
    pub fn new(max: usize, heartbeat: Duration, stopping: CancellationToken) -> Self {
        let heartbeat = heartbeat.min(HEARTBEAT_MAX);
        Self { places: Arc::new(Semaphore::new(max)), heartbeat, stopping }
    }

    /// Follows organizations, or where none is named the one that the caller belongs to. Refused as
    /// listing their changes is. The stream has no end but an error; one is that of its `connection`.
    pub async fn watch(
        &self,
        store: &Store,
        principal: Arc<Principal>,
        mut followed: Vec<Followed>,
        connection: CancellationToken,
    ) -> Result<impl Stream<Item = Result<News>> + Send + use<>> {
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
        let current = followed.iter().map(|(id, _)| store.get_organization(&principal, *id));
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
            // At once: authentication may have remembered what has changed since.
            check_at: now,
            heartbeat: self.heartbeat,
            quiet_until: now + self.heartbeat,
            ending: Ending { process: self.stopping.clone(), connection },
            _place: place,
        };
        Ok(try_unfold(watch, async |mut watch| {
            let news = watch.next().await?;
            watch.quiet_until = Instant::now() + watch.heartbeat;
            Ok(Some((news, watch)))
        }))
    }
}

impl Watch {
    /// The next change, once there is one, or a sign of life where that takes long.
    async fn next(&mut self) -> Result<News> {
        loop {
            if let Some(entry) = self.found.pop_front() {
                return Ok(Some(policy::readable_change(&self.principal, entry)));
            }
            tokio::select! {
                end = self.ending.reached() => return Err(end),
                () = sleep_until(self.look_at) => {}
                () = sleep_until(self.quiet_until) => return Ok(None),
            }
            self.look_at = Instant::now() + LOOK_INTERVAL;
            self.check_credential().await?;
            self.look().await?;
        }
    }

    async fn look(&mut self) -> Result<()> {
        let current =
            self.seen.iter().map(|(id, _)| self.store.find_organization(&self.principal, *id));
        let current = try_join_all(current).await?;
        for ((id, seen), now) in self.seen.iter_mut().zip(current) {
            if now.is_none_or(|now| now.etag.version() <= *seen) {
                continue;
            }
            let page = self.store.list_changes(&self.principal, *id, *seen, FOUND_MAX).await?;
            let Page { entries, has_more } = page;
            if let Some(last) = entries.last() {
                *seen = last.version;
            }
            if has_more {
                self.look_at = Instant::now();
            }
            self.found.extend(entries);
        }
        Ok(())
    }

    /// A stream goes on for long: its credential must prove the same as long as it does.
    async fn check_credential(&mut self) -> Result<()> {
        if self.principal.expires_at.is_some_and(|end| end <= now()) {
            return Err(Error::CredentialInvalid);
        }
        let Some(digest) = self.principal.credential else { return Ok(()) };
        if self.check_at <= Instant::now() {
            self.check_at = Instant::now() + CREDENTIAL_INTERVAL;
            let holder = Holder::Principal(self.principal.subject.clone());
            let proved = self.store.find_principal(&holder, &digest).await?;
            if proved.ok_or(Error::CredentialInvalid)? != *self.principal {
                return Err(Error::CredentialChanged);
            }
        }
        Ok(())
    }
}
