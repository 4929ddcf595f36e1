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
    slots::ConnectionSlots,
};

/// The pause after accepting has failed, for example because file descriptors have run out.
const ACCEPT_FAILURE_PAUSE: Duration = Duration::from_millis(50);

/// Where connections come from: the network, or a simulated one.
pub trait Listener: Send + 'static {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next connection, and its client's address. Must be cancel safe: a dropped future loses no
    /// connection.
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

/// Serves every connection of `listener` until `context.stages.stop`. Then each ends after its requests, and
/// at `context.stages.end` at once. Fails if the listener can take no connections any more.
pub async fn accept_loop(
    mut listener: impl Listener,
    context: ListenerContext,
    connections: TaskTracker,
) -> Result<()> {
    let context = Arc::new(context);
    let slots = ConnectionSlots::new(context.name, context.limits.connections_max);
    // Every connection is accepted, and closed if it has no slot: in the kernel's queue honest clients would
    // wait behind the others.
    while let Some(accepted) = context.stages.stop.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((stream, peer)) => {
                let is_proxy = context.proxies.contain(peer.ip());
                let owner = (!is_proxy).then(|| Source::of(peer.ip()).0);
                let Some(slot) = slots.admit(owner) else { continue };
                let context = context.clone();
                connections.spawn(async move {
                    let _gauge = ConnectionGauge::start(context.name);
                    let peer = Peer { address: peer.ip(), is_proxy, slot: slot.handle() };
                    context.serve(Lingering::new(stream), peer).await;
                    drop(slot);
                });
            }
            // The socket listens no more, and never will.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                return Err(anyhow!("the {} listener has failed: {error}", context.name));
            }
            // The client closed it before it was accepted. No pause is needed.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                tracing::warn!(%error, listener = context.name, "cannot accept a connection");
                sleep(ACCEPT_FAILURE_PAUSE).await;
            }
        }
    }
    Ok(())
}
