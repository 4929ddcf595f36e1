//! Whether the service can do its work, as the workers themselves last found it: on the connections
//! that do the work, writing included.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::{Duration, Instant, timeout_at};

use super::queue::{Job, Queue};
use crate::domain::{Error, Result};

/// How old a good finding is before a worker tries itself by an empty batch.
const TRIAL_AFTER: Duration = Duration::from_secs(1);
/// The same of a bad one: what has passed is found out soon.
const TRIAL_AFTER_FAILURE: Duration = Duration::from_millis(250);
/// How old a finding may be. It is older only where the worker hangs.
const AGE_MAX: Duration = Duration::from_secs(10);

#[derive(Clone, Debug)]
pub(crate) struct Health(Arc<Mutex<Finding>>);

#[derive(Clone, Debug)]
struct Finding {
    at: Instant,
    failure: Option<Error>,
}

impl Health {
    /// Good until something else is found: connections are looked at when they are made.
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

    /// A batch was done, or it failed. What failed because of one of its rows is no finding.
    pub(crate) fn note(&self, failure: Option<Error>) {
        let finding = Finding { at: Instant::now(), failure };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = finding;
    }

    /// The next batch of a queue. While there is none, and while batches tell nothing, it is now and
    /// then an empty one, by which the worker finds out whether it could do another. None when there
    /// will be no other.
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
