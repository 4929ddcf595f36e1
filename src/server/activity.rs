//! What a connection is doing, as far as it decides when the connection must end.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    task::Poll,
    time::Duration,
};

use tokio::{sync::Notify, task::AbortHandle, time::Instant};

use super::{framing::Framing, seats::Place};
use crate::config::Limits;

/// Shared by a connection's bytes, its requests and its watch.
#[derive(Clone, Debug)]
pub(super) struct Activity(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Where it is known whether the connection is idle.
    place: Place,
    /// How many bytes the client may hold by this connection.
    held_max: usize,
    /// Says that the client holds more than its share.
    greedy: Notify,
    /// Says that the client has spent a request's whole time on sending it.
    slow: Notify,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Requests whose answers are not out yet, by numbers that tell them apart.
    under_way: BTreeMap<u64, UnderWay>,
    next_request: u64,
    /// That of which the stream is about to run.
    beginning: Option<u64>,
    /// The protocol of the requests, once there was one.
    is_http1: Option<bool>,
    /// When the connection was accepted or its last request ended.
    idle_since: Instant,
    /// Since when the client owes us the end of a head that it has begun; HTTP/1 only, as an idle
    /// HTTP/2 connection has bytes too.
    head_since: Option<Instant>,
    /// Where that ends, and the next begins.
    framing: Framing,
    /// Whether a request's body is not all here; of use over HTTP/1 alone, which has one at a time.
    is_body_arriving: bool,
    /// Whether the connection has read in this turn of its task.
    has_read: bool,
    /// When a byte last moved.
    moved: Instant,
    /// Since when the client takes no bytes that are to be written.
    blocked_since: Option<Instant>,
    /// Requests that ended without their answers, less those that had one.
    abandoned: u32,
    /// How many bytes the client holds.
    held: usize,
    /// Whether that was more than its share.
    is_greedy: bool,
    /// Bytes that may still come before the next request, and when that was last reckoned.
    allowance: u64,
    reckoned: Instant,
}

#[derive(Debug, Default)]
struct UnderWay {
    /// Ends its stream; over HTTP/2.
    abort: Option<AbortHandle>,
    /// Since when its answer, or the next part of it, waits for the client to take it.
    untaken_since: Option<Instant>,
}

/// Bytes a second that a connection may send beside its requests in the long run: window updates
/// and answers to pings come to far less.
const STRAY_BYTES_PER_SECOND: u64 = 4096;
/// Requests that a client may give up, or make us give up (CVE-2023-44487, CVE-2025-8671), beyond those
/// that it lets us answer: twice as many as it may have at once. h2 counts only those that it has not yet
/// handed over.
const ABANDONED_MAX: u32 = 200;
/// Bytes that come back at once after a long rest.
const STRAY_BYTES_BACK_MAX: u64 = 64 * 1024;

impl Activity {
    /// That of a new connection, by which its client may hold so many bytes.
    pub(super) fn new(limits: &Limits, place: Place, held_max: usize) -> Self {
        let now = Instant::now();
        let state = State {
            under_way: BTreeMap::new(),
            next_request: 0,
            beginning: None,
            is_http1: None,
            idle_since: now,
            head_since: None,
            framing: Framing::default(),
            is_body_arriving: false,
            has_read: false,
            moved: now,
            blocked_since: None,
            abandoned: 0,
            held: 0,
            is_greedy: false,
            allowance: limits.stray_bytes_max.into(),
            reckoned: now,
        };
        let (greedy, slow) = (Notify::new(), Notify::new());
        Self(Arc::new(Shared { place, held_max, greedy, slow, state: Mutex::new(state) }))
    }

    /// When the connection must end, if nothing happens until then.
    pub(super) fn ends_at(&self, limits: &Limits) -> Instant {
        self.with(|state| {
            let ends_at = match (state.under_way.len(), state.is_http1, state.head_since) {
                (0, None, _) => state.idle_since + limits.header_read_timeout,
                (0, _, Some(head_since)) => head_since + limits.header_read_timeout,
                (0, _, None) => state.idle_since + limits.idle_timeout,
                _ => state.moved + limits.stall_timeout,
            };
            let stalled = [state.blocked_since, state.all_untaken_since()].into_iter().flatten();
            stalled.map(|since| since + limits.stall_timeout).fold(ends_at, Instant::min)
        })
    }

    /// Ends the streams whose answers have waited too long to be taken, where others on the connection go on:
    /// a proxy's has many clients.
    pub(super) fn reset_stalled(&self, limits: &Limits) {
        let now = Instant::now();
        self.with(|state| {
            for request in state.under_way.values_mut() {
                let is_stalled =
                    request.untaken_since.is_some_and(|since| since + limits.stall_timeout <= now);
                if let (true, Some(abort)) = (is_stalled, &request.abort) {
                    abort.abort();
                    tracing::debug!("a stream was reset, as its answer was not taken");
                }
            }
        });
    }

    /// Whether more came than the requests account for, more is held than may be, or requests come only
    /// to be given up.
    pub(super) fn is_offending(&self) -> bool {
        self.with(|state| {
            state.allowance == 0 || state.is_greedy || state.abandoned > ABANDONED_MAX
        })
    }

    /// Whether the connection has read what it may in this turn.
    pub(super) fn has_read(&self) -> bool {
        self.with(|state| state.has_read)
    }

    /// The connection has had its turn; ready where that was one too many.
    pub(super) fn end_turn(&self) -> Poll<()> {
        self.with(|state| state.has_read = false);
        if self.is_offending() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Ends once the client holds more than its share.
    pub(super) async fn greedy(&self) {
        self.0.greedy.notified().await;
    }

    /// Ends once the client has spent a request's whole time on sending it.
    pub(super) async fn slow(&self) {
        self.0.slow.notified().await;
    }

    pub(super) fn note_slow(&self) {
        self.0.slow.notify_one();
    }

    /// The client holds so much more.
    pub(super) fn hold(&self, bytes: usize) {
        let is_too_much = self.with(|state| {
            state.held = state.held.saturating_add(bytes);
            state.held > self.0.held_max
        });
        if is_too_much {
            self.note_greedy();
        }
    }

    /// The client holds so much less.
    pub(super) fn release(&self, bytes: usize) {
        self.with(|state| state.held = state.held.saturating_sub(bytes));
    }

    /// The client holds more than its share, and this connection is its own.
    pub(super) fn note_greedy(&self) {
        self.with(|state| state.is_greedy = true);
        self.0.greedy.notify_one();
    }

    /// Whether the client was found to hold more than its share.
    pub(super) fn is_greedy(&self) -> bool {
        self.with(|state| state.is_greedy)
    }

    /// The stream of the request that has just begun runs as this task.
    pub(super) fn stream_runs(&self, abort: AbortHandle) {
        self.with(|state| {
            let request = state.beginning.take().and_then(|id| state.under_way.get_mut(&id));
            if let Some(request) = request {
                request.abort = Some(abort);
            }
        });
    }

    /// Whether no request is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.with(|state| state.under_way.is_empty())
    }

    /// Whether this is a connection of HTTP/1 between two requests.
    pub(super) fn is_idle_http1(&self) -> bool {
        self.with(|state| state.under_way.is_empty() && state.is_http1 == Some(true))
    }

    /// Whether the body of a connection's only request is not all here, so that the connection can have
    /// no other behind it.
    pub(super) fn is_body_arriving(&self) -> bool {
        self.with(|state| state.is_body_arriving)
    }

    pub(super) fn note_body(&self, is_arriving: bool) {
        self.with(|state| state.is_body_arriving = is_arriving);
    }

    /// Whether requests over HTTP/2 have come.
    pub(super) fn is_http2(&self) -> bool {
        self.with(|state| state.is_http1 == Some(false))
    }

    /// A request whose headers are complete; it is under way until the guard is dropped.
    pub(super) fn begin_request(&self, is_http1: bool, limits: &Limits) -> RequestGuard {
        let id = self.with(|state| {
            let own = u64::from(limits.header_bytes_max) + u64::from(limits.body_bytes_max);
            // A flood between two requests is no less one for a few requests before it.
            let max = u64::from(limits.stray_bytes_max) + u64::from(limits.streams_max) * own;
            state.allowance = (state.allowance + own).min(max);
            state.next_request += 1;
            state.under_way.insert(state.next_request, UnderWay::default());
            state.beginning = Some(state.next_request);
            state.is_http1 = Some(is_http1);
            state.head_since = None;
            state.is_body_arriving = false;
            self.0.place.busy();
            state.next_request
        });
        RequestGuard { activity: self.clone(), id, is_answered: false }
    }

    /// The body of a request broke off: nobody will take its answer, should there be one.
    pub(super) fn note_broken(&self) {
        self.with(|state| state.abandoned = state.abandoned.saturating_add(2));
    }

    fn end_request(&self, id: u64, is_answered: bool) {
        self.with(|state| {
            state.under_way.remove(&id);
            state.idle_since = Instant::now();
            if state.under_way.is_empty() {
                self.0.place.idle();
            }
            state.note_head();
            state.abandoned = if is_answered {
                state.abandoned.saturating_sub(1)
            } else {
                state.abandoned.saturating_add(1)
            };
        });
    }

    /// Notes what was read, and sees to it that it can be read in one way only.
    pub(super) fn bytes_read(&self, bytes: &mut [u8]) {
        self.with(|state| {
            (state.moved, state.has_read) = (Instant::now(), true);
            let seconds = (state.moved - state.reckoned).as_secs();
            state.reckoned += Duration::from_secs(seconds);
            let back = (seconds * STRAY_BYTES_PER_SECOND).min(STRAY_BYTES_BACK_MAX);
            let count = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            state.allowance = (state.allowance + back).saturating_sub(count);
            if state.is_http1 != Some(false) {
                state.framing.follow(bytes);
            }
            state.note_head();
        });
    }

    /// The client took bytes that were to be written, or did not.
    pub(super) fn written<T>(&self, outcome: &Poll<T>) {
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
    /// Since when the client takes none of the answers under way, where that is so.
    fn all_untaken_since(&self) -> Option<Instant> {
        let each = self.under_way.values().map(|request| request.untaken_since);
        each.collect::<Option<Vec<_>>>()?.into_iter().max()
    }

    /// A head that began behind a request counts from that one's end on.
    fn note_head(&mut self) {
        let is_owed =
            self.under_way.is_empty() && self.is_http1 == Some(true) && self.framing.is_in_head();
        self.head_since = is_owed.then(|| self.head_since.unwrap_or_else(Instant::now));
    }
}

/// A request that is under way.
#[derive(Debug)]
pub(super) struct RequestGuard {
    activity: Activity,
    id: u64,
    is_answered: bool,
}

impl RequestGuard {
    /// There is an answer, whether or not the client takes all of it.
    pub(super) fn answered(&mut self) {
        self.is_answered = true;
    }

    /// The answer, or the next part of one, waits for the client to take it; or it does no longer.
    pub(super) fn note_untaken(&self, is_untaken: bool) {
        self.activity.with(|state| {
            if let Some(request) = state.under_way.get_mut(&self.id) {
                request.untaken_since = is_untaken.then(Instant::now);
            }
        });
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.activity.end_request(self.id, self.is_answered);
    }
}
