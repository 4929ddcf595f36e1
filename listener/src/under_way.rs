//! The requests of a connection that are under way, and since when their answers wait to be taken.

use std::collections::BTreeMap;

use tokio::{task::AbortHandle, time::Instant};

/// Requests whose answers are not out yet, by numbers that tell them apart.
#[derive(Debug, Default)]
pub(crate) struct UnderWay {
    requests: BTreeMap<u64, UnderWayRequest>,
    next: u64,
    /// The request whose stream is about to be spawned.
    starting: Option<u64>,
}

#[derive(Debug, Default)]
struct UnderWayRequest {
    /// Ends its stream; over HTTP/2.
    abort: Option<AbortHandle>,
    /// Since when its answer, or the next part of it, waits for the client to take it.
    untaken_since: Option<Instant>,
}

impl UnderWay {
    pub(crate) fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    pub(crate) fn start(&mut self) -> u64 {
        self.next += 1;
        self.requests.insert(self.next, UnderWayRequest::default());
        self.starting = Some(self.next);
        self.next
    }

    pub(crate) fn end(&mut self, id: u64) {
        self.requests.remove(&id);
    }

    /// The stream of the request that has just started runs as this task.
    pub(crate) fn stream_runs(&mut self, abort: AbortHandle) {
        let request = self.starting.take().and_then(|id| self.requests.get_mut(&id));
        if let Some(request) = request {
            request.abort = Some(abort);
        }
    }

    /// Notes whether the answer, or its next part, waits for the client to take it.
    pub(crate) fn note_untaken(&mut self, id: u64, is_untaken: bool) {
        if let Some(request) = self.requests.get_mut(&id) {
            request.untaken_since = is_untaken.then(Instant::now);
        }
    }

    /// Since when no answer on the connection is taken; none if one is.
    pub(crate) fn all_untaken_since(&self) -> Option<Instant> {
        let each = self.requests.values().map(|request| request.untaken_since);
        each.collect::<Option<Vec<_>>>()?.into_iter().max()
    }

    /// Resets the streams whose answers have been untaken since `since` or longer.
    pub(crate) fn reset_untaken(&self, since: Instant) {
        for request in self.requests.values() {
            let is_stalled = request.untaken_since.is_some_and(|untaken| untaken <= since);
            if let (true, Some(abort)) = (is_stalled, &request.abort) {
                abort.abort();
                tracing::debug!("a stream was reset, as its answer was not taken");
            }
        }
    }
}
