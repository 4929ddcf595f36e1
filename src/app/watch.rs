//! Following changes as they are made, on any instance. Versions are polled (`followed`), because distributed
//! engines have no LISTEN; only a new version costs a look into the change log.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use futures_util::stream::{Stream, try_unfold};
use orgd_shares::{Holder, Share, Shares};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{
    audit,
    followed::{Followed, Following},
};
use crate::{
    domain::{
        ChangeEntry, Error, OrganizationId, Page, PageSize, Principal, Result, policy, reason,
    },
    store::{Store, now},
};

/// How often a watch checks its credential: as long as authentication remembers one by default.
const CREDENTIAL_INTERVAL: Duration = Duration::from_secs(5);
/// The longest pause on a stream. A proxy may close one on which nothing moves for 50 s.
const HEARTBEAT_MAX: Duration = Duration::from_secs(20);
const FOUND_MAX: PageSize = PageSize { entries: 100, bytes: 32 * 1024 };
/// One principal may have a tenth of the watches that others leave: 100 of 1,000.
const SHARE_PARTS: usize = 10;

/// What a watch sends: a change, or none as a sign of life.
pub type News = Option<ChangeEntry>;

#[derive(Clone, Debug)]
pub struct Watches {
    store: Store,
    places: Shares<Holder>,
    followed: Followed,
    heartbeat: Duration,
    stopping: CancellationToken,
}

struct Watch {
    store: Store,
    principal: Arc<Principal>,
    following: Following,
    /// What is to be read from the change log: organizations, and the versions that were seen of them.
    behind: VecDeque<(OrganizationId, i64)>,
    found: VecDeque<ChangeEntry>,
    check_at: Instant,
    heartbeat: Duration,
    quiet_until: Instant,
    ending: Ending,
    _place: Share<Holder>,
}

#[derive(Clone)]
struct Ending {
    process: CancellationToken,
    /// The connection takes no new requests.
    connection: CancellationToken,
}

impl Ending {
    async fn reached(&self) -> Error {
        tokio::select! {
            // In this order: the end of the process also ends its connections, and is the better reason.
            biased;
            () = self.process.cancelled() => Error::Stopping,
            () = self.connection.cancelled() => Error::ConnectionAged,
        }
    }
}

impl Watches {
    /// At most `max` at once. Each sends a sign of life after `heartbeat` without news.
    #[must_use]
    pub fn new(store: Store, max: usize, heartbeat: Duration, stopping: CancellationToken) -> Self {
        let heartbeat = heartbeat.min(HEARTBEAT_MAX);
        let (places, followed) = (Shares::new(max, SHARE_PARTS), Followed::new());
        Self { store, places, followed, heartbeat, stopping }
    }

    pub async fn keep_looking(&self) {
        self.stopping.run_until_cancelled(self.followed.keep_looking(&self.store)).await;
    }

    /// Follows organizations, each from the version after the given one, or from now on; without any, the
    /// caller's own. The stream ends only with an error.
    pub async fn watch(
        &self,
        principal: Arc<Principal>,
        mut organizations: Vec<(OrganizationId, Option<i64>)>,
        connection: CancellationToken,
    ) -> Result<impl Stream<Item = Result<News>> + Send + use<>> {
        if organizations.is_empty() {
            let own = principal.organization.ok_or_else(|| {
                let description =
                    "organization_ids is required of those who belong to no organization.";
                Error::invalid("organization_ids", reason::FIELD_REQUIRED, description)
            })?;
            organizations.push((own, None));
        }
        for (id, _) in &organizations {
            let right = policy::authorize_organization(&principal, *id);
            audit::checked(&principal, Some(*id), right)?;
        }
        let holder = Holder::Principal(principal.subject.clone());
        let place = self.places.take(&holder, 1).map_err(|_| Error::TooManyWatches)?;
        let following = self.followed.follow(&self.store, &principal, organizations).await?;
        let now = Instant::now();
        let watch = Watch {
            store: self.store.clone(),
            principal,
            behind: following.behind().into(),
            following,
            found: VecDeque::new(),
            // At once, as authentication may have used a remembered credential that has changed since.
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
    async fn next(&mut self) -> Result<News> {
        loop {
            if let Some(entry) = self.found.pop_front() {
                return Ok(Some(policy::readable_change(&self.principal, entry)));
            }
            self.check_credential().await?;
            let is_behind = !self.behind.is_empty();
            tokio::select! {
                biased;
                end = self.ending.reached() => return Err(end),
                () = sleep_until(self.quiet_until) => return Ok(None),
                () = std::future::ready(()), if is_behind => {}
                looked = self.following.looked() => looked?,
                () = sleep_until(self.check_at) => {}
            }
            let ending = self.ending.clone();
            tokio::select! {
                biased;
                end = ending.reached() => return Err(end),
                read = self.read() => read?,
            }
        }
    }

    /// Reads the next entries of one organization only, so that little waits in memory for a slow client.
    async fn read(&mut self) -> Result<()> {
        if self.behind.is_empty() {
            self.behind = self.following.behind().into();
        }
        let Some((id, seen)) = self.behind.pop_front() else { return Ok(()) };
        let page = self.store.list_changes(&self.principal, id, seen, FOUND_MAX).await;
        if let Err(Error::ShareExhausted | Error::Overloaded) = page {
            // There is no place, as this caller or all together have too many. Try again after the others.
            self.behind.push_back((id, seen));
            return Ok(());
        }
        let Page { entries, has_more } = page?;
        let Some(last) = entries.last() else { return Ok(()) };
        self.following.note_seen(id, last.version);
        if has_more {
            // The others come first.
            self.behind.push_back((id, last.version));
        }
        self.found.extend(entries);
        Ok(())
    }

    /// Checks that the credential still proves the same, as a stream may outlast it.
    async fn check_credential(&mut self) -> Result<()> {
        let now = now();
        if !self.principal.holds(now) {
            return Err(Error::CredentialInvalid);
        }
        let Some(digest) = self.principal.credential else { return Ok(()) };
        if self.check_at > Instant::now() {
            return Ok(());
        }
        let left = self.principal.expires_at.and_then(|end| Duration::try_from(end - now).ok());
        let interval = left.map_or(CREDENTIAL_INTERVAL, |left| CREDENTIAL_INTERVAL.min(left));
        self.check_at = Instant::now() + interval;
        let holder = Holder::Principal(self.principal.subject.clone());
        match self.store.find_principal(&holder, &digest).await {
            Ok(Some(proved)) if proved == *self.principal => {
                let _ = self.store.note_use(digest, now.unix_timestamp());
                Ok(())
            }
            Ok(Some(_)) => Err(Error::CredentialChanged),
            Ok(None) => Err(Error::CredentialInvalid),
            // The store has too much to do. The next check asks again.
            Err(Error::ShareExhausted | Error::Overloaded) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
