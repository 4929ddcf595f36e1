//! When each credential was used last: noted in memory by requests, and written by one task.
//!
//! Coarse on purpose, as it tells an operator which credentials are still in use: at most one write a minute
//! for a credential. A write that fails is tried again and harms nobody.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sea_orm::{
    ColumnTrait, Condition, EntityTrait, QueryFilter, QueryTrait,
    sea_query::{Expr, UpdateStatement},
};
use time::OffsetDateTime;
use tokio::time::{MissedTickBehavior, interval};

use super::{Store, clock, entity::credentials};
use crate::domain::CredentialDigest;

/// A use within so many seconds of one that is noted is not noted.
const APART_SECONDS: u64 = 60;
/// How often the task writes what is new.
const WRITE_INTERVAL: Duration = Duration::from_secs(5);
/// Credentials that are noted at most; as many as authentication remembers. Further ones are noted later.
const NOTED_MAX: usize = 10_000;
/// Credentials in one statement. Shorter lists are filled up, so that there is one text to prepare.
const STATEMENT_CREDENTIALS: usize = 64;

#[derive(Clone, Debug, Default)]
pub(super) struct Uses(Arc<Mutex<BTreeMap<Digest, Use>>>);

type Digest = [u8; 32];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Use {
    /// In seconds since 1970.
    at: i64,
    is_written: bool,
}

/// Whether a use that is noted does for another.
#[must_use]
pub fn is_noted(noted_at: i64, at: i64) -> bool {
    at.abs_diff(noted_at) < APART_SECONDS
}

impl Uses {
    fn note(&self, digest: CredentialDigest, at: i64) -> i64 {
        let mut uses = self.lock();
        let is_full = uses.len() >= NOTED_MAX;
        match uses.get_mut(&digest.0) {
            Some(noted) if is_noted(noted.at, at) => return noted.at,
            Some(noted) => *noted = Use { at, is_written: false },
            None if !is_full => {
                uses.insert(digest.0, Use { at, is_written: false });
            }
            None => {}
        }
        at
    }

    /// What is to be written. Forgets what was written and is old.
    fn unwritten(&self, now: i64) -> Vec<(Digest, i64)> {
        let mut uses = self.lock();
        uses.retain(|_, noted| !noted.is_written || is_noted(noted.at, now));
        let unwritten = uses.iter().filter(|(_, noted)| !noted.is_written);
        unwritten.map(|(digest, noted)| (*digest, noted.at)).collect()
    }

    /// Marks these as written, but for those that were used again meanwhile.
    fn written(&self, written: &[(Digest, i64)]) {
        let mut uses = self.lock();
        for (digest, at) in written {
            if let Some(noted) = uses.get_mut(digest)
                && noted.at == *at
            {
                noted.is_written = true;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Digest, Use>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// Notes that a credential was used at a second. Answers the second that is noted, which does for every
    /// use that [`is_noted`] says it does for.
    pub fn note_use(&self, digest: CredentialDigest, at: i64) -> i64 {
        self.uses.note(digest, at)
    }

    /// Writes what is noted, again and again. What is new at the end of the process is lost.
    pub async fn keep_writing_uses(&self) {
        let mut ticks = interval(WRITE_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.write_uses().await;
        }
    }

    async fn write_uses(&self) {
        let now = clock::now_in_seconds();
        let unwritten = self.uses.unwritten(now.unix_timestamp());
        for some in unwritten.chunks(STATEMENT_CREDENTIALS) {
            if let Err(error) = self.write(&used(some, now)).await {
                // Of a database that takes no writes others tell.
                tracing::debug!(%error, "cannot write when credentials were used");
                return;
            }
            self.uses.written(some);
        }
    }
}

/// The statement that notes a use of each of these, unless another instance has noted a later one.
fn used(credentials: &[(Digest, i64)], now: OffsetDateTime) -> UpdateStatement {
    let digests = credentials.iter().map(|(digest, _)| digest.to_vec());
    let last = digests.clone().last().unwrap_or_default();
    let filled = digests.chain(std::iter::repeat(last)).take(STATEMENT_CREDENTIALS);
    let last_used = credentials::Column::LastUsedTime;
    credentials::Entity::update_many()
        .col_expr(last_used, Expr::value(now))
        .filter(credentials::Column::Digest.is_in(filled))
        .filter(Condition::any().add(last_used.is_null()).add(last_used.lt(now)))
        .into_query()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: CredentialDigest = CredentialDigest([1; 32]);

    #[test]
    fn a_credential_is_written_once_a_minute_and_again_where_that_failed() {
        let uses = Uses::default();
        assert_eq!(uses.note(FIRST, 100), 100);
        assert_eq!(uses.note(FIRST, 159), 100);
        assert_eq!(uses.unwritten(160), [(FIRST.0, 100)], "until it is written");
        assert_eq!(uses.note(FIRST, 160), 160);
        uses.written(&[(FIRST.0, 100)]);
        assert_eq!(uses.unwritten(161), [(FIRST.0, 160)], "it was used again meanwhile");
        uses.written(&[(FIRST.0, 160)]);
        assert_eq!(uses.unwritten(161), []);
        assert_eq!(uses.note(FIRST, 219), 160);
        assert_eq!(uses.unwritten(219), []);
        assert_eq!(uses.lock().len(), 1);
        assert_eq!(uses.unwritten(220), []);
        assert_eq!(uses.lock().len(), 0, "what was written is forgotten");
        // A clock that was set back.
        assert_eq!(uses.note(FIRST, 500), 500);
        assert_eq!(uses.note(FIRST, 100), 100);
    }

    #[test]
    fn no_more_are_noted_than_are_remembered() {
        let uses = Uses::default();
        for number in 0..NOTED_MAX + 10 {
            let mut digest = [0; 32];
            digest[..8].copy_from_slice(&number.to_be_bytes());
            assert_eq!(uses.note(CredentialDigest(digest), 100), 100);
        }
        assert_eq!(uses.unwritten(100).len(), NOTED_MAX);
    }
}
