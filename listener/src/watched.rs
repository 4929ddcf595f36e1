//! A connection's bytes, which note when they move.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::activity::Activity;

/// Bytes that a connection reads in one turn of its task. What these begin is counted before it reads
/// on: h2 would take all streams that there are first, and the others wait meanwhile.
const TURN_BYTES_MAX: usize = 4096;

pin_project! {
    /// A connection's bytes, which note when they move.
    pub(crate) struct WatchedIo<I> {
        #[pin]
        io: I,
        activity: Activity,
    }
}

impl<I> WatchedIo<I> {
    pub(crate) fn new(io: I, activity: Activity) -> Self {
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
