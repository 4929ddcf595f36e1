//! What a connection is doing, as far as it decides when the connection must end.

use std::{
    sync::{Arc, Mutex, PoisonError},
    task::Poll,
};

use tokio::{task::AbortHandle, time::Instant};

use crate::{
    attention::Reason, charge::ConnectionBudget, flood::Flood, framing::Framing, limits::Limits,
    slots::SlotHandle, under_way::UnderWay,
};

/// Shared by a connection's bytes, its requests and its watch.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionState(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// The connection's slot in its listener, which records whether it is idle.
    slot: SlotHandle,
    budget: ConnectionBudget,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    under_way: UnderWay,
    /// The protocol of the requests, once there was one.
    is_http1: Option<bool>,
    /// When the connection was accepted or its last request ended.
    idle_since: Instant,
    /// Since when a head is incomplete. HTTP/1 only, as an idle HTTP/2 connection has bytes too.
    head_since: Option<Instant>,
    /// Where heads and bodies of HTTP/1 start and end.
    framing: Framing,
    /// Whether a request's body has not arrived completely. For HTTP/1 alone, which has one at a time.
    is_body_arriving: bool,
    /// Whether the connection has read in this poll of its task.
    has_read: bool,
    moved: Instant,
    /// Since when the client takes no bytes that are to be written.
    blocked_since: Option<Instant>,
    flood: Flood,
}

impl ConnectionState {
    pub(crate) fn new(slot: SlotHandle, budget: ConnectionBudget) -> Self {
        let now = Instant::now();
        let state = State {
            under_way: UnderWay::default(),
            is_http1: None,
            idle_since: now,
            head_since: None,
            framing: Framing::default(),
            is_body_arriving: false,
            has_read: false,
            moved: now,
            blocked_since: None,
            flood: Flood::new(now),
        };
        Self(Arc::new(Shared { slot, budget, state: Mutex::new(state) }))
    }

    pub(crate) fn budget(&self) -> &ConnectionBudget {
        &self.0.budget
    }

    /// When the connection must end, if nothing happens until then.
    pub(crate) fn ends_at(&self, limits: &Limits) -> Instant {
        self.with(|state| {
            let is_idle = state.under_way.is_empty();
            let ends_at = match (is_idle, state.is_http1, state.head_since) {
                (true, None, _) => state.idle_since + limits.header_read_timeout,
                (true, _, Some(head_since)) => head_since + limits.header_read_timeout,
                (true, _, None) => state.idle_since + limits.idle_timeout,
                _ => state.moved + limits.stall_timeout,
            };
            let stalled =
                [state.blocked_since, state.under_way.all_untaken_since()].into_iter().flatten();
            stalled.map(|since| since + limits.stall_timeout).fold(ends_at, Instant::min)
        })
    }

    /// Resets the streams whose answers have waited too long to be taken. Others on the connection go on, as
    /// a proxy's has many clients.
    pub(crate) fn reset_stalled(&self, limits: &Limits) {
        let Some(since) = Instant::now().checked_sub(limits.stall_timeout) else { return };
        self.with(|state| state.under_way.reset_untaken(since));
    }

    /// Whether the connection must end: its client holds too much, sends too many bytes beside its requests,
    /// or makes requests only to give them up.
    pub(crate) fn is_offending(&self) -> bool {
        self.0.budget.is_greedy() || self.with(|state| state.flood.is_one())
    }

    /// Whether the connection has read what it may in this poll of its task.
    pub(crate) fn has_read(&self) -> bool {
        self.with(|state| state.has_read)
    }

    /// Called after each poll of the connection. Ready if the connection must end.
    pub(crate) fn end_turn(&self) -> Poll<()> {
        self.with(|state| state.has_read = false);
        if self.is_offending() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// The client has spent a request's whole time on sending it.
    pub(crate) fn note_slow(&self) {
        self.0.slot.attention().call(Reason::Slow);
    }

    /// The stream of the request that has just started runs as this task.
    pub(crate) fn stream_runs(&self, abort: AbortHandle) {
        self.with(|state| state.under_way.stream_runs(abort));
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.with(|state| state.under_way.is_empty())
    }

    /// Whether this is a connection of HTTP/1 between two requests.
    pub(crate) fn is_idle_http1(&self) -> bool {
        self.with(|state| state.under_way.is_empty() && state.is_http1 == Some(true))
    }

    /// Whether the body of a connection's only request has not arrived completely, so that no other request
    /// can follow on it.
    pub(crate) fn is_body_arriving(&self) -> bool {
        self.with(|state| state.is_body_arriving)
    }

    pub(crate) fn note_body(&self, is_arriving: bool) {
        self.with(|state| state.is_body_arriving = is_arriving);
    }

    pub(crate) fn is_http2(&self) -> bool {
        self.with(|state| state.is_http1 == Some(false))
    }

    /// A request whose headers are complete; it is under way until the guard is dropped.
    pub(crate) fn start_request(&self, is_http1: bool, limits: &Limits) -> RequestGuard {
        let id = self.with(|state| {
            state.flood.request_started(limits);
            state.is_http1 = Some(is_http1);
            state.head_since = None;
            state.is_body_arriving = false;
            self.0.slot.busy();
            state.under_way.start()
        });
        RequestGuard { state: self.clone(), id, is_answered: false }
    }

    /// The body of a request broke off: nobody will take its answer, should there be one.
    pub(crate) fn note_broken(&self) {
        self.with(|state| state.flood.request_broken());
    }

    fn end_request(&self, id: u64, is_answered: bool) {
        self.with(|state| {
            state.under_way.end(id);
            state.idle_since = Instant::now();
            if state.under_way.is_empty() {
                self.0.slot.idle();
            }
            state.note_head();
            state.flood.request_ended(is_answered);
        });
    }

    /// Notes what was read. Over HTTP/1 it also replaces bare LFs, so that a request can be read in one way
    /// only.
    pub(crate) fn bytes_read(&self, bytes: &mut [u8]) {
        self.with(|state| {
            (state.moved, state.has_read) = (Instant::now(), true);
            state.flood.bytes_read(state.moved, bytes.len());
            if state.is_http1 != Some(false) {
                state.framing.follow(bytes);
            }
            state.note_head();
        });
    }

    /// Notes whether the client took bytes that were to be written.
    pub(crate) fn written<T>(&self, outcome: &Poll<T>) {
        self.with(|state| {
            let now = Instant::now();
            if outcome.is_ready() {
                (state.moved, state.blocked_since) = (now, None);
            } else {
                state.blocked_since.get_or_insert(now);
            }
        });
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.0.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    /// The time of a head that came during a request counts from the end of that request.
    fn note_head(&mut self) {
        let is_owed =
            self.under_way.is_empty() && self.is_http1 == Some(true) && self.framing.is_in_head();
        self.head_since = is_owed.then(|| self.head_since.unwrap_or_else(Instant::now));
    }
}

#[derive(Debug)]
pub(crate) struct RequestGuard {
    state: ConnectionState,
    id: u64,
    is_answered: bool,
}

impl RequestGuard {
    /// There is an answer, whether or not the client takes all of it.
    pub(crate) fn answered(&mut self) {
        self.is_answered = true;
    }

    /// Notes whether the answer, or its next part, waits for the client to take it.
    pub(crate) fn note_untaken(&self, is_untaken: bool) {
        self.state.with(|state| state.under_way.note_untaken(self.id, is_untaken));
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.state.end_request(self.id, self.is_answered);
    }
}
