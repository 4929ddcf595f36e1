//! The workers that look up rows by key. One statement looks up all keys of a batch.

use std::{sync::Arc, time::Instant};

use sea_orm::DbErr;
use tokio::{sync::OwnedMutexGuard, time::sleep};

use super::{
    queue::Queue,
    worker::{Worker, caught},
};
use crate::{
    domain::{CredentialDigest, OrganizationId, Result},
    store::{
        entity::{credentials, organizations},
        error::{
            failure, is_about_a_row, is_cut_off, is_lost_to_another, is_outlived, is_unreachable,
        },
        retry::rests,
        sql::row::Row,
    },
};

/// The rows that were found, each with its key as it is stored.
type Found<K> = std::result::Result<Vec<Row<<K as Key>::Stored, <K as Key>::Model>>, DbErr>;

/// A key of rows that are looked up in batches.
pub(crate) trait Key: Copy + Send + Sync + 'static {
    type Model: Clone + Send + 'static;
    /// The key as it is stored.
    type Stored: Send;

    fn look_up(worker: &mut Worker, keys: &[Self]) -> impl Future<Output = Found<Self>> + Send;

    fn is(self, stored: &Self::Stored) -> bool;
}

impl Key for OrganizationId {
    type Model = organizations::Model;
    type Stored = i64;

    async fn look_up(worker: &mut Worker, keys: &[Self]) -> Found<Self> {
        worker.organizations(keys).await
    }

    fn is(self, stored: &i64) -> bool {
        *stored == self.get()
    }
}

impl Key for CredentialDigest {
    type Model = credentials::Model;
    type Stored = Vec<u8>;

    async fn look_up(worker: &mut Worker, keys: &[Self]) -> Found<Self> {
        worker.credentials(keys).await
    }

    fn is(self, stored: &Vec<u8>) -> bool {
        *stored == self.0
    }
}

/// The queue of keys to look up. The answer is None where there is no such row.
pub(crate) type Lookups<K> = Queue<K, Result<Option<<K as Key>::Model>>>;

/// Looks up batches of keys until the queue is closed and empty.
pub(crate) async fn serve<K: Key>(lookups: Arc<Lookups<K>>, mut worker: Worker) {
    let health = worker.health.clone();
    while let Some(mut jobs) = health.next(&lookups).await {
        let keys: Vec<K> = jobs.iter().map(|job| job.work).collect();
        let start = Instant::now();
        let found = found(&mut worker, &keys).await;
        lookups.done(keys.len(), start);
        match found {
            Ok(rows) => {
                health.note(None);
                for job in jobs {
                    let row = rows.iter().find(|(stored, _)| job.work.is(stored));
                    job.answer(row.map(|(_, row)| row.clone()).transpose());
                }
            }
            Err(error) => {
                if is_unreachable(&error) {
                    // The database cannot be reached, so fail what waits as well: it would only wait in vain.
                    jobs.extend(lookups.take_all());
                }
                let is_about_a_row = !keys.is_empty() && is_about_a_row(&error);
                let error = failure(error);
                if !is_about_a_row {
                    health.note(Some(error.clone()));
                }
                for job in jobs {
                    job.answer(Err(error.clone()));
                }
            }
        }
    }
}

/// The row of one key, for a caller that needs no worker; None where there is none.
pub(crate) async fn alone<K: Key>(
    mut worker: OwnedMutexGuard<Worker>,
    key: K,
) -> Result<Option<K::Model>> {
    let rows = found(&mut worker, &[key]).await.map_err(failure)?;
    rows.into_iter().next().map(|(_, row)| row).transpose()
}

/// A lookup changes nothing, so it may be done again, also on another connection.
async fn found<K: Key>(worker: &mut Worker, keys: &[K]) -> Found<K> {
    let mut rests = rests();
    loop {
        match caught(K::look_up(worker, keys)).await {
            Err(error)
                if (is_lost_to_another(&error) || is_cut_off(&error) || is_outlived(&error))
                    && let Some(rest) = rests.next() =>
            {
                sleep(rest).await;
            }
            found => return found,
        }
    }
}
