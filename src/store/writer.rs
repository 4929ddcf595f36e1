//! The lanes that write: each does one batch of updates after the other.
//!
//! A batch that fails because of one of its rows is taken apart: each of its callers tries its own
//! row alone, so that no row fails its neighbours.

use std::{sync::Arc, time::Instant};

use super::{
    entity::organizations,
    error::{is_about_a_row, is_unreachable},
    lane::{Lane, caught},
    queue::Queue,
    update::Asked,
};
use crate::domain::Error;

/// What became of one update of a batch.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The organization as it is since.
    Changed(organizations::Model),
    /// A condition did not hold; which one, the statement does not tell.
    Untouched,
    /// The batch failed because of one of its rows, and nothing of it is stored.
    Refused,
    /// The batch failed; whether it is stored may not be known.
    Failed(Error),
}

/// Updates that wait for a lane.
pub(super) type Updates = Queue<Arc<Asked>, Outcome>;

/// Does the work of the queue until it is closed and empty.
pub(super) async fn serve(updates: Arc<Updates>, mut lane: Lane) {
    while let Some(mut jobs) = updates.next().await {
        // The order in which every batch locks its rows.
        jobs.sort_unstable_by_key(|job| job.work.id());
        let rows: Vec<&Asked> = jobs.iter().map(|job| &*job.work).collect();
        let begin = Instant::now();
        let outcome = caught(lane.update(&rows)).await;
        updates.done(rows.len(), begin);
        match outcome {
            Ok(mut changed) => {
                for job in jobs {
                    let id = job.work.id().get();
                    let at = changed.iter().position(|model| model.id == id);
                    job.answer(match at {
                        Some(at) => Outcome::Changed(changed.swap_remove(at)),
                        None => Outcome::Untouched,
                    });
                }
            }
            Err(error) if is_about_a_row(&error) => {
                for job in jobs {
                    job.answer(Outcome::Refused);
                }
            }
            Err(error) => {
                if is_unreachable(&error) {
                    // What waits behind it would wait for nothing.
                    jobs.extend(updates.take_all());
                }
                let error = Error::from(error);
                for job in jobs {
                    job.answer(Outcome::Failed(error.clone()));
                }
            }
        }
    }
}
