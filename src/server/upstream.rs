//! Connections to a service over gRPC: several, so that what one carries does not hold up the rest.

use std::{iter, path::Path, sync::Arc, time::Duration};

use anyhow::{Context, Result, anyhow, ensure};
use http::{Request, Uri};
use orgd_listener::pem;
use tonic::{
    body::Body,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tower::{ServiceExt, service_fn};

use super::unreachable::{Flags, unreachable};
use crate::{
    gateway::{self, Transport},
    proto::v1::organization_service_server::SERVICE_NAME,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Idle connections are pinged. Else a request must fail before it is noticed that the network has lost one.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(3);

/// Calls, or streams, at once on one connection: the service's default (`ORGD_STREAMS_MAX`). The rest wait.
const STREAMS_MAX: u16 = 100;
/// Connections for calls: enough to keep a service busy, and a task reads and writes each.
const CALL_CONNECTIONS: u16 = 4;
/// Bytes of one answer that may come unread: a stream is read only as fast as its client reads.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
/// The windows of all streams together. With less, as in hyper, three streams that nobody reads would stop
/// all others.
const CONNECTION_WINDOW_BYTES: u32 = 100 * STREAM_WINDOW_BYTES;

#[derive(Clone, Copy, Debug)]
pub struct Peer<'a> {
    /// Its listener, over `http` or `https`.
    pub uri: &'a Uri,
    /// PEM file with the CA certificates to trust; none: those of the system.
    pub ca: Option<&'a Path>,
    pub flags: Flags,
}

/// How to connect to a service.
pub fn endpoint(Peer { uri, ca, flags }: Peer<'_>) -> Result<Endpoint> {
    let ca_flag = flags.ca;
    let mut endpoint = Endpoint::from(uri.clone());
    match (uri.scheme_str() == Some("https"), ca) {
        (true, Some(ca)) => {
            let pem = pem::read(ca_flag, ca)?;
            pem::certificates(ca_flag, &pem)?;
            let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem));
            endpoint =
                endpoint.tls_config(tls).with_context(|| format!("{ca_flag} cannot be used"))?;
        }
        (true, None) => {
            let tls = ClientTlsConfig::new().with_native_roots();
            // Only a system without any fails.
            endpoint = endpoint.tls_config(tls).map_err(|_| {
                anyhow!("{uri} needs CA certificates, and this system has none: set {ca_flag}")
            })?;
        }
        (false, _) => {}
    }
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true))
}

/// A gateway's connections to its service. Each is made when it is first used.
pub(super) struct Upstream {
    calls: Arc<Connections>,
    streams: Arc<Connections>,
    /// On a connection of its own: no client can make the gateway not ready.
    probe: Channel,
    uri: Uri,
    flags: Flags,
}

impl Upstream {
    pub(super) fn new(peer: Peer<'_>, streams_max: usize) -> Result<Self> {
        let endpoint = endpoint(peer)?
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
        let for_streams = streams_max.div_ceil(STREAMS_MAX.into());
        Ok(Self {
            calls: Arc::new(Connections::new(&endpoint, CALL_CONNECTIONS.into())),
            streams: Arc::new(Connections::new(&endpoint, for_streams)),
            probe: endpoint.connect_lazy(),
            uri: peer.uri.clone(),
            flags: peer.flags,
        })
    }

    pub(super) fn calls_max() -> usize {
        usize::from(CALL_CONNECTIONS) * usize::from(STREAMS_MAX)
    }

    /// A call uses the connection with the fewest under way, a stream the first one that has room.
    pub(super) fn transport(&self) -> Transport {
        let (calls, streams) = (self.calls.clone(), self.streams.clone());
        gateway::transport(service_fn(move |request: Request<Body>| {
            let is_stream = gateway::is_stream(request.uri());
            let connection = if is_stream { streams.with_room() } else { calls.least_busy() };
            let Connection { channel, under_way } = connection.clone();
            async move {
                let response = channel.oneshot(request).await?;
                Ok::<_, tonic::transport::Error>(gateway::keeping(response, under_way))
            }
        }))
    }

    pub(super) async fn probe(&self) -> Result<()> {
        let request = HealthCheckRequest { service: SERVICE_NAME.to_owned() };
        let answer = HealthClient::new(self.probe.clone()).check(request).await;
        let answer =
            answer.map_err(|status| anyhow!(unreachable(&self.uri, self.flags, &status)))?;
        let is_ready = answer.get_ref().status() == ServingStatus::Serving;
        ensure!(is_ready, "{}: the service is not ready; its own log says why", self.uri);
        Ok(())
    }
}

struct Connections {
    first: Connection,
    others: Vec<Connection>,
}

#[derive(Clone)]
struct Connection {
    channel: Channel,
    /// There is one clone for each call under way.
    under_way: Arc<()>,
}

impl Connections {
    fn new(endpoint: &Endpoint, count: usize) -> Self {
        let connection =
            || Connection { channel: endpoint.connect_lazy(), under_way: Arc::default() };
        let others = iter::repeat_with(connection).take(count.saturating_sub(1)).collect();
        Self { first: connection(), others }
    }

    fn all(&self) -> impl Iterator<Item = &Connection> {
        iter::once(&self.first).chain(&self.others)
    }

    fn least_busy(&self) -> &Connection {
        self.all().min_by_key(|connection| connection.under_way()).unwrap_or(&self.first)
    }

    /// One is filled before the next, so that no more are made than are needed.
    fn with_room(&self) -> &Connection {
        let room = |connection: &&Connection| connection.under_way() < usize::from(STREAMS_MAX);
        self.all().find(room).unwrap_or_else(|| self.least_busy())
    }
}

impl Connection {
    fn under_way(&self) -> usize {
        Arc::strong_count(&self.under_way) - 1
    }
}
