//! The workers that write: each does one batch of updates, or of creations, after the other.
//!
//! A batch that fails because of one of its rows is taken apart: each of its callers tries its own
//! row alone, so that no row fails its neighbours.

use std::{sync::Arc, time::Instant};

use super::{
    queue::Queue,
    worker::{Worker, caught},
};
use crate::{
    domain::Error,
    store::{
        entity::organizations,
        error::{failure, is_about_a_row, is_unreachable},
        sql::pending::{PendingUpdate, Write},
    },
};

/// What became of one row of a batch.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The organization as it is since.
    Changed(organizations::Model),
    /// A condition did not hold; which one, the statement does not tell.
    Untouched,
    /// The batch failed because of one of its rows, and nothing of it is stored.
    RolledBack,
    /// The batch failed, or its row cannot be decoded; whether it is stored may not be known.
    Failed(Error),
}

/// Updates, or creations, that wait for a worker.
pub(crate) type Writes = Queue<Arc<PendingUpdate>, Outcome>;

/// Does the work of the queue until it is closed and empty.
pub(crate) async fn serve(writes: Arc<Writes>, write: Write, mut worker: Worker) {
    let health = worker.health.clone();
    while let Some(mut jobs) = health.next(&writes).await {
        // The order in which every batch locks its rows.
        jobs.sort_by_key(|job| job.work.id);
        let rows: Vec<&PendingUpdate> = jobs.iter().map(|job| &*job.work).collect();
        let start = Instant::now();
        let outcome = caught(worker.write(write, &rows)).await;
        writes.done(rows.len(), start);
        match outcome {
            Ok(touched) => {
                health.note(None);
                for (job, row) in jobs.into_iter().zip(touched) {
                    job.answer(match row {
                        Some(Ok(model)) => Outcome::Changed(model),
                        Some(Err(error)) => Outcome::Failed(error),
                        None => Outcome::Untouched,
                    });
                }
            }
            // Says nothing of the database's health, but where no row can be at fault.
            Err(error) if !jobs.is_empty() && is_about_a_row(&error) => {
                for job in jobs {
                    job.answer(Outcome::RolledBack);
                }
            }
            Err(error) => {
                if is_unreachable(&error) {
                    // What waits behind it would wait for nothing.
                    jobs.extend(writes.take_all());
                }
                let error = failure(error);
                health.note(Some(error.clone()));
                for job in jobs {
                    job.answer(Outcome::Failed(error.clone()));
                }
            }
        }
    }
}
