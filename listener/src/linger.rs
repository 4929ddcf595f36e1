//! How a connection is closed: in steps, so that its client hears why (RFC 9112 §9.6).

use std::{
    io::{self, IoSlice},
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

/// How long a client may take to close its side. Most do at once.
const LINGER_MAX: Duration = Duration::from_secs(2);
/// What still comes is read in pieces of this size, and dropped.
const PIECE_BYTES: usize = 4096;

pin_project! {
    /// A connection's bytes. Its shutdown ends once the client has closed its side too.
    ///
    /// A socket that is closed while bytes still come answers them with a reset, and the client's next
    /// write fails. A client that writes before it reads then never sees the GOAWAY by which it could
    /// tell which of its requests were not looked at, nor the answer to a body that was refused.
    pub(crate) struct Lingering<I> {
        #[pin]
        io: I,
        // How long the client may still take; set once our side is closed.
        until: Option<Pin<Box<Sleep>>>,
    }
}

impl<I> Lingering<I> {
    pub(crate) fn new(io: I) -> Self {
        Self { io, until: None }
    }
}

impl<I: AsyncRead> AsyncRead for Lingering<I> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.project().io.poll_read(context, buffer)
    }
}

impl<I: AsyncRead + AsyncWrite> AsyncWrite for Lingering<I> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.project().io.poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().io.poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut this = self.project();
        if this.until.is_none() {
            ready!(this.io.as_mut().poll_shutdown(context))?;
        }
        let until = this.until.get_or_insert_with(|| Box::pin(sleep(LINGER_MAX)));
        loop {
            let mut piece = [MaybeUninit::uninit(); PIECE_BYTES];
            let mut piece = ReadBuf::uninit(&mut piece);
            match this.io.as_mut().poll_read(context, &mut piece) {
                Poll::Ready(Ok(())) if !piece.filled().is_empty() => {}
                // The client has closed its side, or the connection has failed.
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => return until.as_mut().poll(context).map(Ok),
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.project().io.poll_write_vectored(context, buffers)
    }
}
