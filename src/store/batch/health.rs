//! The health of the workers. Each worker reports the outcome of its last batch, so readiness speaks of the
//! connections that do the work, also of those that write.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::{Duration, Instant, timeout_at};

use super::queue::{Job, Queue};
use crate::domain::{Error, Result};

/// How long after a successful batch an idle worker runs an empty one, to test its connection.
const TRIAL_AFTER: Duration = Duration::from_secs(1);
/// The same after a failure: shorter, so that a recovery is noticed soon.
const TRIAL_AFTER_FAILURE: Duration = Duration::from_millis(250);
/// A worker that has noted no outcome for this long counts as hanging.
const AGE_MAX: Duration = Duration::from_secs(10);

#[derive(Clone, Debug)]
pub(crate) struct Health(Arc<Mutex<Finding>>);

#[derive(Clone, Debug)]
struct Finding {
    at: Instant,
    failure: Option<Error>,
}

impl Health {
    /// Starts healthy: a connection is checked when it is opened.
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(Finding { at: Instant::now(), failure: None })))
    }

    /// Fails where the worker cannot do its work.
    pub(crate) fn check(&self) -> Result<()> {
        let Finding { at, failure } = self.last();
        match failure {
            Some(failure) => Err(failure),
            None if at.elapsed() > AGE_MAX => Err(Error::Unavailable("a worker hangs".into())),
            None => Ok(()),
        }
    }

    /// Notes the outcome of a batch. Callers leave out a failure that one of its rows caused: it says nothing
    /// of the connection.
    pub(crate) fn note(&self, failure: Option<Error>) {
        let finding = Finding { at: Instant::now(), failure };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = finding;
    }

    /// The next batch of a queue. When nothing was noted for [`TRIAL_AFTER`], or [`TRIAL_AFTER_FAILURE`]
    /// after a failure, an empty batch, with which the worker tests its connection. None when the queue is
    /// closed and empty.
    pub(crate) async fn next<W, A>(&self, queue: &Arc<Queue<W, A>>) -> Option<Vec<Job<W, A>>> {
        if self.due() <= Instant::now() {
            return Some(Vec::new());
        }
        timeout_at(self.due(), queue.next()).await.unwrap_or_else(|_| Some(Vec::new()))
    }

    fn due(&self) -> Instant {
        let Finding { at, failure } = self.last();
        at + if failure.is_some() { TRIAL_AFTER_FAILURE } else { TRIAL_AFTER }
    }

    fn last(&self) -> Finding {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
