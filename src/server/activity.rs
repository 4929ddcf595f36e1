//! What a connection is doing, as far as it decides when the connection must end.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::Buf;
use http_body::{Body, Frame, SizeHint};
use hyper::rt::{Read, ReadBufCursor, Write};
use pin_project_lite::pin_project;
use tokio::time::Instant;

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
}

impl Activity {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self(Arc::new(Mutex::new(State {
            under_way: 0,
            is_http1: None,
            idle_since: now,
            head_since: None,
            moved: now,
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

    /// A request whose headers are complete; it is under way until the guard is dropped.
    pub(super) fn begin_request(&self, is_http1: bool) -> RequestGuard {
        self.with(|state| {
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

    fn bytes_read(&self) {
        self.with(|state| {
            state.moved = Instant::now();
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

impl<I: Read> Read for WatchedIo<I> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        let this = self.project();
        ready!(this.io.poll_read(context, buffer))?;
        this.activity.bytes_read();
        Poll::Ready(Ok(()))
    }
}

impl<I: Write> Write for WatchedIo<I> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let this = self.project();
        let written = ready!(this.io.poll_write(context, bytes));
        this.activity.bytes_written();
        Poll::Ready(written)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.project().io.poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.project().io.poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        let this = self.project();
        let written = ready!(this.io.poll_write_vectored(context, buffers));
        this.activity.bytes_written();
        Poll::Ready(written)
    }
}
