//! The workers that write: each does one batch of updates, or of creations, after the other.
//!
//! A batch that lost to another transaction is done again. One that fails because of one of its rows is rolled back,
//! and each caller tries its own row alone. So no row fails the others.

use std::{sync::Arc, time::Instant};

use tokio::{sync::OwnedMutexGuard, time::sleep};

use super::{
    queue::Queue,
    worker::{Worker, Written, caught},
};
use crate::{
    domain::{Error, Result},
    store::{
        entity::organizations,
        error::{failure, is_about_a_row, is_lost_to_another, is_unreachable},
        retry::rests,
        sql::{
            pending::{PendingUpdate, Write},
            row::only,
        },
    },
};

/// What became of one row of a batch.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The organization after the change.
    Changed(organizations::Model),
    /// A condition did not hold. The statement does not tell which one.
    Untouched,
    /// The batch failed because of one of its rows, so often, and nothing of it is stored.
    RolledBack { tries: usize },
    /// The batch failed, or its row cannot be decoded; whether it is stored may not be known.
    Failed(Error),
}

impl Outcome {
    fn of(row: Option<Result<organizations::Model>>) -> Self {
        match row {
            Some(Ok(model)) => Self::Changed(model),
            Some(Err(error)) => Self::Failed(error),
            None => Self::Untouched,
        }
    }
}

/// How often a batch is done again that lost to another transaction, before each row is done alone.
const BATCH_RETRIES_MAX: usize = 2;

/// Updates, or creations, that wait for a worker.
pub(crate) type Writes = Queue<Arc<PendingUpdate>, Outcome>;

/// Writes batches until the queue is closed and empty.
pub(crate) async fn serve(writes: Arc<Writes>, write: Write, mut worker: Worker) {
    let health = worker.health.clone();
    while let Some(mut jobs) = health.next(&writes).await {
        // Every batch locks its rows in this order, so two batches cannot deadlock.
        jobs.sort_by_key(|job| job.work.id);
        let rows: Vec<&PendingUpdate> = jobs.iter().map(|job| &*job.work).collect();
        let start = Instant::now();
        let (outcome, tries) = written(&mut worker, write, &rows).await;
        writes.done(rows.len(), start);
        match outcome {
            Ok(touched) => {
                health.note(None);
                for (job, row) in jobs.into_iter().zip(touched) {
                    job.answer(Outcome::of(row));
                }
            }
            // A row is at fault, which says nothing of the connection. An empty batch has no row to blame.
            Err(error) if !jobs.is_empty() && is_about_a_row(&error) => {
                for job in jobs {
                    job.answer(Outcome::RolledBack { tries });
                }
            }
            Err(error) => {
                if is_unreachable(&error) {
                    // The database cannot be reached, so fail what waits as well: it would only wait in vain.
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

/// One row, for a caller that needs no worker. It is not done again here if it lost: its caller retries it.
pub(crate) async fn alone(
    mut worker: OwnedMutexGuard<Worker>,
    write: Write,
    row: Arc<PendingUpdate>,
) -> Outcome {
    match written(&mut worker, write, &[&row]).await {
        (Ok(touched), _) => Outcome::of(only(touched).flatten()),
        (Err(error), tries) if is_about_a_row(&error) => Outcome::RolledBack { tries },
        (Err(error), _) => Outcome::Failed(failure(error)),
    }
}

/// Writes a batch, and says how often it was tried. A batch that lost to another transaction is done again as a whole:
/// each of its rows alone would need a connection, and many at once lose more often. A batch of one row is left to
/// its caller, which ends its retries at its deadline.
async fn written(worker: &mut Worker, write: Write, rows: &[&PendingUpdate]) -> (Written, usize) {
    let retries_max = if rows.len() > 1 { BATCH_RETRIES_MAX } else { 0 };
    let mut rests = rests().take(retries_max);
    let mut tries = 1;
    loop {
        match caught(worker.write(write, rows)).await {
            Err(error)
                if is_lost_to_another(&error)
                    && let Some(rest) = rests.next() =>
            {
                sleep(rest).await;
                tries += 1;
            }
            done => return (done, tries),
        }
    }
}
