//! When each credential was used last: noted in memory by requests, and written by one task.
//!
//! Coarse on purpose, as it tells an operator which credentials are still in use: at most one write a minute
//! for a credential. A write that fails is tried again and harms nobody.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::domain::CredentialDigest;

/// A use within so many seconds of one that is noted is not noted.
const APART_SECONDS: u64 = 60;
/// Credentials that are noted at most; as many as authentication remembers. Further ones are noted later.
const NOTED_MAX: usize = 10_000;

#[derive(Clone, Debug, Default)]
pub(super) struct Uses(Arc<Mutex<BTreeMap<Digest, Use>>>);

pub(super) type Digest = [u8; 32];

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
    /// Notes a use at a second. Answers the second that is noted.
    pub(super) fn note(&self, digest: CredentialDigest, at: i64) -> i64 {
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
    pub(super) fn unwritten(&self, now: i64) -> Vec<(Digest, i64)> {
        let mut uses = self.lock();
        uses.retain(|_, noted| !noted.is_written || is_noted(noted.at, now));
        let unwritten = uses.iter().filter(|(_, noted)| !noted.is_written);
        unwritten.map(|(digest, noted)| (*digest, noted.at)).collect()
    }

    /// Marks these as written, but for those that were used again meanwhile.
    pub(super) fn written(&self, written: &[(Digest, i64)]) {
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
