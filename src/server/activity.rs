//! What a connection is doing, as far as it decides when the connection must end.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Buf;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use crate::config::Limits;

/// Shared by a connection's bytes, its requests and its watch.
#[derive(Clone, Debug)]
pub(super) struct Activity(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// Requests whose answers are not out yet.
    under_way: usize,
    /// The protocol of the requests, once there was one.
    is_http1: Option<bool>,
    /// When the connection was accepted or its last request ended.
    idle_since: Instant,
    /// When the first byte of a request came whose headers are not complete; HTTP/1 only, as an
    /// idle HTTP/2 connection has bytes too.
    head_since: Option<Instant>,
    /// When a byte last moved.
    moved: Instant,
    /// Bytes that may still come before the next request, and when that was last reckoned.
    allowance: u64,
    reckoned: Instant,
}

/// Bytes a second that a connection may send beside its requests in the long run: window updates
/// and answers to pings come to far less.
const STRAY_BYTES_PER_SECOND: u64 = 4096;
/// Bytes that come back at once after a long rest.
const STRAY_BYTES_BACK_MAX: u64 = 64 * 1024;

impl Activity {
    pub(super) fn new(limits: &Limits) -> Self {
        let now = Instant::now();
        Self(Arc::new(Mutex::new(State {
            under_way: 0,
            is_http1: None,
            idle_since: now,
            head_since: None,
            moved: now,
            allowance: limits.stray_bytes_max.into(),
            reckoned: now,
        })))
    }

    /// When the connection must end, if nothing happens until then.
    pub(super) fn ends_at(&self, limits: &Limits) -> Instant {
        self.with(|state| match (state.under_way, state.is_http1, state.head_since) {
            (0, None, _) => state.idle_since + limits.header_read_timeout,
            (0, _, Some(head_since)) => head_since + limits.header_read_timeout,
            (0, _, None) => state.idle_since + limits.idle_timeout,
            _ => state.moved + limits.stall_timeout,
        })
    }

    /// Whether more came than the requests account for.
    pub(super) fn is_flooded(&self) -> bool {
        self.with(|state| state.allowance == 0)
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
        });
        RequestGuard(self.clone())
    }

    fn end_request(&self) {
        self.with(|state| {
            state.under_way -= 1;
            state.idle_since = Instant::now();
        });
    }

    fn bytes_read(&self, count: usize) {
        self.with(|state| {
            state.moved = Instant::now();
            let seconds = (state.moved - state.reckoned).as_secs();
            state.reckoned += Duration::from_secs(seconds);
            let back = (seconds * STRAY_BYTES_PER_SECOND).min(STRAY_BYTES_BACK_MAX);
            let count = u64::try_from(count).unwrap_or(u64::MAX);
            state.allowance = (state.allowance + back).saturating_sub(count);
            if state.under_way == 0 && state.is_http1 == Some(true) {
                state.head_since.get_or_insert(state.moved);
            }
        });
    }

    fn bytes_written(&self) {
        self.with(|state| state.moved = Instant::now());
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A request that is under way.
#[derive(Debug)]
pub(super) struct RequestGuard(Activity);

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.0.end_request();
    }
}

pin_project! {
    /// An answer's body, with which the request ends.
    pub(super) struct GuardedBody<B> {
        #[pin]
        body: B,
        guard: RequestGuard,
    }
}

impl<B> GuardedBody<B> {
    pub(super) fn new(body: B, guard: RequestGuard) -> Self {
        Self { body, guard }
    }
}

impl<B: Body> Body for GuardedBody<B>
where
    B::Data: Buf,
{
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        self.project().body.poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
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
        let before = buffer.filled().len();
        ready!(this.io.poll_read(context, buffer))?;
        this.activity.bytes_read(buffer.filled().len() - before);
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
        let written = ready!(this.io.poll_write(context, bytes));
        this.activity.bytes_written();
        Poll::Ready(written)
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
        let written = ready!(this.io.poll_write_vectored(context, buffers));
        this.activity.bytes_written();
        Poll::Ready(written)
    }
}
