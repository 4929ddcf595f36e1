//! What a connection is doing, as far as it decides when the connection must end.

use std::{
    collections::BTreeMap,
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Notify,
    time::Instant,
};

use super::{framing::Framing, held::Holdings};
use crate::config::Limits;

/// Shared by a connection's bytes, its requests and its watch.
#[derive(Clone, Debug)]
pub(super) struct Activity(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    holdings: Holdings,
    /// Says that the client holds more than its share.
    greedy: Notify,
    /// Says that the client has spent a request's whole time on sending it.
    slow: Notify,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Requests whose answers are not out yet.
    under_way: usize,
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
    /// How much the client holds.
    held: usize,
    /// Whether that was more than its share.
    is_greedy: bool,
    /// Since when each answer waits that the client does not take, the oldest first.
    untaken: BTreeMap<u64, Instant>,
    next_answer: u64,
    /// Bytes that may still come before the next request, and when that was last reckoned.
    allowance: u64,
    reckoned: Instant,
}

/// Bytes a second that a connection may send beside its requests in the long run: window updates
/// and answers to pings come to far less.
const STRAY_BYTES_PER_SECOND: u64 = 4096;
/// Requests that a client may give up, or make us give up (CVE-2023-44487, CVE-2025-8671), beyond those
/// that it lets us answer: twice as many as it may have at once. h2 counts only those that it has not yet
/// handed over.
const ABANDONED_MAX: u32 = 200;
/// Bytes that a connection reads in one turn of its task. What these begin is counted before it reads
/// on: h2 would take all streams that there are first, and the others wait meanwhile.
const TURN_BYTES_MAX: usize = 4096;
/// Bytes that come back at once after a long rest.
const STRAY_BYTES_BACK_MAX: u64 = 64 * 1024;

impl Activity {
    /// That of a new connection.
    pub(super) fn new(limits: &Limits, holdings: Holdings) -> Self {
        let now = Instant::now();
        let state = State {
            under_way: 0,
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
            untaken: BTreeMap::new(),
            next_answer: 0,
            allowance: limits.stray_bytes_max.into(),
            reckoned: now,
        };
        let (greedy, slow) = (Notify::new(), Notify::new());
        Self(Arc::new(Shared { holdings, greedy, slow, state: Mutex::new(state) }))
    }

    /// When the connection must end, if nothing happens until then.
    pub(super) fn ends_at(&self, limits: &Limits) -> Instant {
        self.with(|state| {
            let ends_at = match (state.under_way, state.is_http1, state.head_since) {
                (0, None, _) => state.idle_since + limits.header_read_timeout,
                (0, _, Some(head_since)) => head_since + limits.header_read_timeout,
                (0, _, None) => state.idle_since + limits.idle_timeout,
                _ => state.moved + limits.stall_timeout,
            };
            let oldest = state.untaken.first_key_value().map(|(_, since)| *since);
            let stalled = [state.blocked_since, oldest].into_iter().flatten();
            stalled.map(|since| since + limits.stall_timeout).fold(ends_at, Instant::min)
        })
    }

    /// Whether more came than the requests account for, more is held than may be, or requests come only
    /// to be given up.
    pub(super) fn is_offending(&self) -> bool {
        self.with(|state| {
            state.allowance == 0 || state.is_greedy || state.abandoned > ABANDONED_MAX
        })
    }

    /// Whether the connection has read what it may in this turn.
    fn has_read(&self) -> bool {
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

    /// The client holds one thing more, which counts so much.
    pub(super) fn hold(&self, weight: usize) {
        self.0.holdings.add(weight);
        let is_greedy = self.with(|state| {
            state.held += weight;
            state.is_greedy |= self.0.holdings.is_too_much(state.held);
            state.is_greedy
        });
        if is_greedy {
            self.0.greedy.notify_one();
        }
    }

    /// The client holds one thing less.
    pub(super) fn release(&self, weight: usize) {
        self.with(|state| state.held -= weight);
        self.0.holdings.remove(weight);
    }

    /// An answer waits for the client to take it.
    pub(super) fn answer_waits(&self) -> u64 {
        self.with(|state| {
            state.next_answer += 1;
            state.untaken.insert(state.next_answer, Instant::now());
            state.next_answer
        })
    }

    /// It waits no longer.
    pub(super) fn answer_goes_on(&self, answer: u64) {
        self.with(|state| state.untaken.remove(&answer));
    }

    /// Whether this is a connection of HTTP/1 between two requests.
    pub(super) fn is_idle_http1(&self) -> bool {
        self.with(|state| state.under_way == 0 && state.is_http1 == Some(true))
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
        self.with(|state| {
            let own = u64::from(limits.header_bytes_max) + u64::from(limits.body_bytes_max);
            // A flood between two requests is no less one for a few requests before it.
            let max = u64::from(limits.stray_bytes_max) + u64::from(limits.streams_max) * own;
            state.allowance = (state.allowance + own).min(max);
            state.under_way += 1;
            state.is_http1 = Some(is_http1);
            state.head_since = None;
            state.is_body_arriving = false;
        });
        RequestGuard { activity: self.clone(), is_answered: false }
    }

    /// The body of a request broke off: nobody will take its answer, should there be one.
    pub(super) fn note_broken(&self) {
        self.with(|state| state.abandoned = state.abandoned.saturating_add(2));
    }

    fn end_request(&self, is_answered: bool) {
        self.with(|state| {
            state.under_way -= 1;
            state.idle_since = Instant::now();
            state.note_head();
            state.abandoned = if is_answered {
                state.abandoned.saturating_sub(1)
            } else {
                state.abandoned.saturating_add(1)
            };
        });
    }

    /// Notes what was read, and sees to it that it can be read in one way only.
    fn bytes_read(&self, bytes: &mut [u8]) {
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
    fn written<T>(&self, outcome: &Poll<T>) {
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
    /// A head that began behind a request counts from that one's end on.
    fn note_head(&mut self) {
        let is_owed =
            self.under_way == 0 && self.is_http1 == Some(true) && self.framing.is_in_head();
        self.head_since = is_owed.then(|| self.head_since.unwrap_or_else(Instant::now));
    }
}

/// A request that is under way.
#[derive(Debug)]
pub(super) struct RequestGuard {
    activity: Activity,
    is_answered: bool,
}

impl RequestGuard {
    /// There is an answer, whether or not the client takes all of it.
    pub(super) fn answered(&mut self) {
        self.is_answered = true;
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.activity.end_request(self.is_answered);
    }
}

pin_project! {
    /// A connection's bytes, which note when they move.
    pub(super) struct WatchedIo<I> {
        #[pin]
        io: I,
        activity: Activity,
    }
}

impl<I> WatchedIo<I> {
    pub(super) fn new(io: I, activity: Activity) -> Self {
        Self { io, activity }
    }
}

impl<I: AsyncRead> AsyncRead for WatchedIo<I> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.project();
        if this.activity.has_read() {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let room = buffer.remaining().min(TURN_BYTES_MAX);
        let mut turn = ReadBuf::new(buffer.initialize_unfilled_to(room));
        ready!(this.io.poll_read(context, &mut turn))?;
        this.activity.bytes_read(turn.filled_mut());
        let count = turn.filled().len();
        buffer.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite> AsyncWrite for WatchedIo<I> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.project();
        let outcome = this.io.poll_write(context, bytes);
        this.activity.written(&outcome);
        outcome
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().io.poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().io.poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.project();
        let outcome = this.io.poll_write_vectored(context, buffers);
        this.activity.written(&outcome);
        outcome
    }
}
