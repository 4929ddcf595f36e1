//! A connection's bytes, which note when they move.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf, Take};

use crate::connection_state::ConnectionState;

/// Bytes that a connection reads in one poll of its task. The requests in them are charged before it reads
/// more: h2 would else take all streams first, while other connections wait.
const TURN_BYTES_MAX: u64 = 4096;

/// A connection's bytes, which note when they move.
pub(crate) struct WatchedIo<I> {
    /// `Take` limits each read. A limit of our own would have to fill each buffer with zeros first.
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
