//! A connection's bytes, which note when they move.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf, Take};

use crate::connection_state::ConnectionState;

/// Bytes that a connection reads in one turn of its task. What these begin is counted before it reads
/// on: h2 would take all streams that there are first, and the others wait meanwhile.
const TURN_BYTES_MAX: u64 = 4096;

/// A connection's bytes, which note when they move.
pub(crate) struct WatchedIo<I> {
    /// A limit of its own would have to write zeros into each buffer before it is read into.
    io: Take<I>,
    state: ConnectionState,
}

impl<I: AsyncRead> WatchedIo<I> {
    pub(crate) fn new(io: I, state: ConnectionState) -> Self {
        Self { io: io.take(TURN_BYTES_MAX), state }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for WatchedIo<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.state.has_read() {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        self.io.set_limit(TURN_BYTES_MAX);
        ready!(Pin::new(&mut self.io).poll_read(context, buffer))?;
        self.state.bytes_read(buffer.filled_mut().split_at_mut(before).1);
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WatchedIo<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(self.io.get_mut()).poll_write(context, bytes);
        self.state.written(&outcome);
        outcome
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.io.get_mut()).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.io.get_mut()).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.get_ref().is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(self.io.get_mut()).poll_write_vectored(context, buffers);
        self.state.written(&outcome);
        outcome
    }
}
