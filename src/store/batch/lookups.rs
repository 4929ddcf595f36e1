//! The workers that look up rows by key. One statement looks up all keys of a batch.

use std::{sync::Arc, time::Instant};

use orgd_shares::Holder;
use sea_orm::DbErr;
use tokio::time::sleep;

use super::{
    queue::Queue,
    worker::{Worker, caught},
};
use crate::{
    domain::Result,
    store::{
        error::{
            failure, is_about_a_row, is_cut_off, is_lost_to_another, is_outlived, is_unreachable,
        },
        retry::rests,
        sql::row::Row,
    },
};

/// The queue of keys to look up.
pub(crate) type Lookups<K, M> = Queue<K, Result<Option<M>>>;

/// Looks up the row with this key, out of the share of `holder`. None: there is no such row.
pub(crate) async fn find<K, M>(
    lookups: &Arc<Lookups<K, M>>,
    holder: &Holder,
    key: K,
) -> Result<Option<M>> {
    let (found, _) = lookups.ask(holder, None, key).await?;
    found
}

/// Looks up batches of keys until the queue is closed and empty. `is_key` tells whether a row has a key.
pub(crate) async fn serve<K: Copy, R, M: Clone>(
    lookups: Arc<Lookups<K, M>>,
    mut worker: Worker,
    look_up: impl AsyncFn(&mut Worker, &[K]) -> std::result::Result<Vec<Row<R, M>>, DbErr>,
    is_key: impl Fn(&R, K) -> bool,
) {
    let health = worker.health.clone();
    while let Some(mut jobs) = health.next(&lookups).await {
        let keys: Vec<K> = jobs.iter().map(|job| job.work).collect();
        let start = Instant::now();
        let mut rests = rests();
        let found = loop {
            match caught(look_up(&mut worker, &keys)).await {
                // A lookup changes nothing, so it may be done again, also on another connection.
                Err(error)
                    if (is_lost_to_another(&error)
                        || is_cut_off(&error)
                        || is_outlived(&error))
                        && let Some(rest) = rests.next() =>
                {
                    sleep(rest).await;
                }
                found => break found,
            }
        };
        lookups.done(keys.len(), start);
        match found {
            Ok(rows) => {
                health.note(None);
                for job in jobs {
                    let row = rows.iter().find(|(key, _)| is_key(key, job.work));
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
