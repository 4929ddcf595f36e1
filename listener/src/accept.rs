//! The accept loop of every listener.
//!
//! Our own because neither `axum::serve` nor tonic's server ever closes a slow client, and tonic's
//! drops the stream and reset limits that hyper has.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::{Result, anyhow};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_util::task::TaskTracker;

use crate::{
    context::{ListenerContext, Peer},
    forwarded::Source,
    linger::Lingering,
    metrics::ConnectionGauge,
    proxied,
    slots::{ConnectionSlots, Slot},
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

impl ListenerContext {
    /// A slot for a connection from this address.
    fn admit(&self, slots: &ConnectionSlots, address: IpAddr) -> Option<Slot> {
        let owner = (!self.proxies.contain(address)).then(|| Source::of(address).0);
        slots.admit(owner)
    }

    /// Serves a connection that has a slot. With slots, it begins with the PROXY protocol, and is its client's from
    /// then on.
    async fn serve_admitted(
        self: Arc<Self>,
        mut stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        mut address: IpAddr,
        mut slot: Slot,
        slots: Option<ConnectionSlots>,
    ) {
        if let Some(slots) = slots {
            let handle = slot.handle();
            let read = timeout(self.limits.header_read_timeout, proxied::read(&mut stream));
            let read = tokio::select! {
                read = read => read,
                () = self.stages.end.cancelled() => return,
                _ = handle.attention().next() => return,
            };
            match read {
                Ok(Ok(client)) => address = client.unwrap_or(address),
                Ok(Err(error)) => {
                    return tracing::debug!(%error, %address, "a connection did not begin as it must");
                }
                Err(_) => {
                    return tracing::debug!(%address, "the head of the PROXY protocol took too long");
                }
            }
            // The proxy's place is given back first: a connection has one.
            drop(slot);
            let Some(own) = self.admit(&slots, address) else { return };
            slot = own;
        }
        let is_proxy = self.proxies.contain(address);
        let peer = Peer { address, is_proxy, slot: slot.handle() };
        self.serve(Lingering::new(stream), peer).await;
        drop(slot);
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
                let address = peer.ip();
                if context.has_proxy_protocol && !context.proxies.contain(address) {
                    tracing::debug!(%address, "a connection came from no trusted proxy");
                    continue;
                }
                let Some(slot) = context.admit(&slots, address) else { continue };
                let (context, slots) = (context.clone(), slots.clone());
                connections.spawn(async move {
                    let _gauge = ConnectionGauge::start(context.name);
                    let proxied = context.has_proxy_protocol.then_some(slots);
                    context.serve_admitted(stream, address, slot, proxied).await;
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
