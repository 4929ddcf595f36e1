//! The accept loop of every listener.
//!
//! Our own because neither `axum::serve` nor tonic's server ever closes a slow client, and tonic's
//! drops the stream and reset limits that hyper has.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Result, anyhow};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    time::sleep,
};
use tokio_util::task::TaskTracker;

use crate::{
    context::{ListenerContext, Peer},
    forwarded::Source,
    linger::Lingering,
    metrics::ConnectionGauge,
    seats::Seats,
};

/// How long accepting rests after it failed, as it does when file descriptors have run out.
const ACCEPT_FAILURE_PAUSE: Duration = Duration::from_millis(50);

/// Where connections come from: the network, or a simulated one.
pub trait Listener: Send + 'static {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next connection, and whose it is. Loses none where it is dropped.
    fn accept(&mut self) -> impl Future<Output = io::Result<(Self::Stream, SocketAddr)>> + Send;
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, peer) = Self::accept(self).await?;
        // Answers are small; waiting to fill a packet only delays them. Fails on a closed socket only.
        let _ = stream.set_nodelay(true);
        Ok((stream, peer))
    }
}

/// Serves every connection that comes to `listener`, until the context is to stop. Each ends after its
/// requests then, and at once at the end. An error: the listener takes no connections any more.
pub async fn accept_loop(
    mut listener: impl Listener,
    context: ListenerContext,
    connections: TaskTracker,
) -> Result<()> {
    let context = Arc::new(context);
    let seats = Seats::new(context.name, context.limits.connections_max);
    // Whoever has to wait is told so, or closed: in the kernel's queue the honest would wait with the others.
    while let Some(accepted) = context.stages.stop.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((stream, peer)) => {
                let is_proxy = context.proxies.contain(peer.ip());
                let owner = (!is_proxy).then(|| Source::of(peer.ip()).0);
                let Some(seat) = seats.admit(owner) else { continue };
                let context = context.clone();
                connections.spawn(async move {
                    let _gauge = ConnectionGauge::start(context.name);
                    let peer = Peer { address: peer.ip(), is_proxy, place: seat.place() };
                    context.serve(Lingering::new(stream), peer).await;
                    drop(seat);
                });
            }
            // The socket listens no more, and never will.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                return Err(anyhow!("the {} listener has failed: {error}", context.name));
            }
            // The client's own doing, and nothing to rest for.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                tracing::warn!(%error, listener = context.name, "cannot accept a connection");
                sleep(ACCEPT_FAILURE_PAUSE).await;
            }
        }
    }
    Ok(())
}
