//! Looks up the versions of all watched organizations together, so many watches of one organization cost as
//! much as one.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};

use crate::{
    domain::{Error, OrganizationId, Principal, Result},
    store::Store,
};

/// How often versions are looked up: well within the second that is promised to watches.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

#[derive(Clone, Debug)]
pub(super) struct Followed(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    versions: Mutex<BTreeMap<OrganizationId, Known>>,
    /// Notified after each look that found a new version, and after each that failed.
    looks: watch::Sender<Result<()>>,
}

#[derive(Debug)]
struct Known {
    version: i64,
    followers: usize,
}

/// What one watch follows, until the value is dropped.
#[derive(Debug)]
pub(super) struct Following {
    followed: Followed,
    seen: Vec<(OrganizationId, i64)>,
    looks: watch::Receiver<Result<()>>,
}

impl Followed {
    pub(super) fn new() -> Self {
        let (looks, versions) = (watch::Sender::new(Ok(())), Mutex::default());
        Self(Arc::new(Shared { versions, looks }))
    }

    pub(super) async fn keep_looking(&self, store: &Store) {
        let mut ticks = interval(LOOK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let ids: Vec<_> = self.lock().keys().copied().collect();
            if ids.is_empty() {
                continue;
            }
            match store.organization_versions(None, &ids).await {
                Ok(found) => {
                    if self.note(found) {
                        let _ = self.0.looks.send_replace(Ok(()));
                    }
                }
                Err(error) => {
                    let _ = self.0.looks.send_replace(Err(error));
                }
            }
        }
    }

    /// Follows organizations, each once, from the version after one that is given, or from now on.
    pub(super) async fn follow(
        &self,
        store: &Store,
        caller: &Principal,
        organizations: Vec<(OrganizationId, Option<i64>)>,
    ) -> Result<Following> {
        let looks = self.0.looks.subscribe();
        let ids: Vec<_> = organizations.iter().map(|(id, _)| *id).collect();
        let current: BTreeMap<_, _> =
            store.organization_versions(Some(caller), &ids).await?.into_iter().collect();
        let mut seen = Vec::with_capacity(organizations.len());
        for (id, from) in organizations {
            let now = *current.get(&id).ok_or(Error::NotFound(id))?;
            seen.push((id, from.unwrap_or(now)));
        }
        let mut versions = self.lock();
        for (id, now) in current {
            let known = versions.entry(id).or_insert(Known { version: now, followers: 0 });
            known.version = known.version.max(now);
            known.followers += 1;
        }
        drop(versions);
        Ok(Following { followed: self.clone(), seen, looks })
    }

    fn note(&self, found: Vec<(OrganizationId, i64)>) -> bool {
        let mut versions = self.lock();
        let mut is_new = false;
        for (id, version) in found {
            if let Some(known) = versions.get_mut(&id) {
                is_new |= version > known.version;
                known.version = known.version.max(version);
            }
        }
        is_new
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<OrganizationId, Known>> {
        self.0.versions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Following {
    /// Waits for the next look that found a new version, for any watch, or that failed.
    pub(super) async fn looked(&mut self) -> Result<()> {
        if self.looks.changed().await.is_err() {
            // Nobody looks any more, which is the end of the process.
            return Err(Error::Stopping);
        }
        self.looks.borrow_and_update().clone()
    }

    /// The organizations with a newer version than the watch has seen, each with the version that it has
    /// seen.
    pub(super) fn behind(&self) -> Vec<(OrganizationId, i64)> {
        let versions = self.followed.lock();
        let is_behind = |(id, seen): &(OrganizationId, i64)| {
            versions.get(id).is_some_and(|known| known.version > *seen)
        };
        self.seen.iter().copied().filter(is_behind).collect()
    }

    pub(super) fn note_seen(&mut self, id: OrganizationId, version: i64) {
        for (followed, seen) in &mut self.seen {
            if *followed == id {
                *seen = version;
            }
        }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let mut versions = self.followed.lock();
        for (id, _) in &self.seen {
            if let Some(known) = versions.get_mut(id) {
                known.followers -= 1;
                if known.followers == 0 {
                    versions.remove(id);
                }
            }
        }
    }
}
