//! The accept loop of every listener.
//!
//! Our own because neither `axum::serve` nor tonic's server ever closes a slow client, and tonic's
//! drops the stream and reset limits that hyper has.

use std::{io, net::SocketAddr, time::Duration};

use anyhow::{Result, anyhow};
use axum::Router;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    time::sleep,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{connection::Peer, linger::Lingering, seats::Seats};
use crate::{
    config::{Limits, Networks},
    rate_limit::source,
    shares::HeldBytes,
    telemetry::metrics::ConnectionGauge,
};

/// How long accepting rests after it failed, as it does when file descriptors have run out.
const ACCEPT_FAILURE_PAUSE: Duration = Duration::from_millis(50);

/// Where connections come from: the network, or a simulated one.
pub trait Listener: Send + 'static {
    /// A connection's bytes.
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

/// What a listener speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/2 alone, as gRPC needs it.
    Http2,
    /// HTTP/1.1 or HTTP/2, as the client begins.
    Any,
}

/// How connections are told to end, one after the other.
#[derive(Clone, Debug, Default)]
pub struct Stages {
    /// Answers over HTTP/1 say that they are their connection's last: else a client could send its
    /// next request just when the connection is closed.
    pub leave: CancellationToken,
    /// No new connection, no new request.
    pub stop: CancellationToken,
    /// Whatever is still under way ends.
    pub end: CancellationToken,
}

/// What all connections of a listener have in common.
#[derive(Clone)]
pub struct Door {
    /// The listener's name in logs and metrics.
    pub name: &'static str,
    /// What is spoken.
    pub protocol: Protocol,
    /// None where plain text is spoken.
    pub tls: Option<TlsAcceptor>,
    /// What answers.
    pub router: Router,
    /// What a client may take.
    pub limits: Limits,
    /// What clients hold, here and elsewhere.
    pub held: HeldBytes,
    /// Who is believed about where a request comes from.
    pub proxies: Networks,
    /// When it ends.
    pub stages: Stages,
}

impl std::fmt::Debug for Door {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Door").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Serves every connection that comes to `listener`, until the door is to stop. Each ends after its
/// requests then, and at once at the end. An error: the listener takes no connections any more.
pub async fn accept_loop(
    mut listener: impl Listener,
    door: Door,
    connections: TaskTracker,
) -> Result<()> {
    let seats = Seats::new(door.name, door.limits.connections_max.get());
    // Whoever has to wait is told so, or closed: in the kernel's queue the honest would wait with the others.
    while let Some(accepted) = door.stages.stop.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((stream, peer)) => {
                let is_proxy = door.proxies.contain(peer.ip());
                let owner = (!is_proxy).then(|| source(peer.ip()));
                let Some(seat) = seats.admit(owner) else { continue };
                let door = door.clone();
                connections.spawn(async move {
                    let _gauge = ConnectionGauge::begin(door.name);
                    let peer = Peer { address: peer.ip(), is_proxy, place: seat.place() };
                    door.serve(Lingering::new(stream), peer).await;
                    drop(seat);
                });
            }
            // The socket listens no more, and never will.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                return Err(anyhow!("the {} listener has failed: {error}", door.name));
            }
            // The client's own doing, and nothing to rest for.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                tracing::warn!(%error, listener = door.name, "cannot accept a connection");
                sleep(ACCEPT_FAILURE_PAUSE).await;
            }
        }
    }
    Ok(())
}
