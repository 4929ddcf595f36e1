//! The accept loop of every listener.
//!
//! Our own because neither `axum::serve` nor tonic's server ever closes a slow client, and tonic's
//! drops the stream and reset limits that hyper has.

use std::{
    convert::Infallible, future::poll_fn, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration,
};

use anyhow::{Result, anyhow};
use axum::Router;
use http::{
    HeaderValue, Request, Version,
    header::{CONNECTION, EXPECT},
};
use hyper::{body::Incoming, rt::Executor, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic_health::pb::health_server::SERVICE_NAME as HEALTH_SERVICE;
use tower::ServiceExt;

use super::{
    activity::{Activity, WatchedIo},
    held::{ArrivingBody, GuardedBody, Hold, Holdings, LASTING},
    linger::Lingering,
};
use crate::{
    config::Limits,
    telemetry::metrics::{self, ConnectionGauge},
};

/// How long accepting rests after it failed, as it does when file descriptors have run out.
const ACCEPT_FAILURE_PAUSE: Duration = Duration::from_millis(50);
/// How often a connection is looked at.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// The protocol's own default: a body of the default limit, but for a byte.
const STREAM_WINDOW_BYTES: u32 = 65_535;
const CONNECTION_WINDOW_BYTES: u32 = 256 * 1024;
const SEND_BUFFER_BYTES_MAX: usize = 64 * 1024;

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
    metrics::no_connections(door.name);
    let holdings = Holdings::new(door.limits.held_max.get());
    let places = Arc::new(Semaphore::new(door.limits.connections_max.get()));
    loop {
        let next = async {
            // A connection over the limit waits in the kernel's queue.
            let place = places.clone().acquire_owned().await;
            (listener.accept().await, place)
        };
        let Some((accepted, place)) = door.stages.stop.run_until_cancelled(next).await else {
            return Ok(());
        };
        match accepted {
            Ok((stream, peer)) => {
                let (door, holdings) = (door.clone(), holdings.clone());
                connections.spawn(async move {
                    let _gauge = ConnectionGauge::begin(door.name);
                    door.serve(Lingering::new(stream), peer, holdings).await;
                    drop(place);
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
}

impl Door {
    async fn serve(
        self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        peer: SocketAddr,
        holdings: Holdings,
    ) {
        let Some(tls) = &self.tls else { return self.serve_plain(stream, peer, holdings).await };
        match timeout(self.limits.header_read_timeout, tls.accept(stream)).await {
            // Boxed, or every connection would have its size.
            Ok(Ok(stream)) => Box::pin(self.serve_plain(stream, peer, holdings)).await,
            Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
            Err(_) => tracing::debug!("a TLS handshake took too long"),
        }
    }

    async fn serve_plain(
        self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        peer: SocketAddr,
        holdings: Holdings,
    ) {
        let limits = self.limits;
        let activity = Activity::new(&limits, holdings);
        let is_last = self.stages.leave.child_token();
        let is_ending = self.stages.stop.child_token();
        let io = TokioIo::new(WatchedIo::new(stream, activity.clone()));
        let requests = Requests {
            router: self.router.clone(),
            activity: activity.clone(),
            limits,
            peer,
            is_last: is_last.clone(),
            is_ending: is_ending.clone(),
        };
        let service = service_fn(move |request| requests.clone().answer(request));
        let builder = builder(self.protocol, &limits, activity.clone());
        let mut connection = pin!(builder.serve_connection(io, service));
        let mut overdue = pin!(overdue(&activity, &limits));
        let mut next_age = Age::Grown;
        let mut aged = pin!(sleep(age_max(&limits)));
        let mut is_stopping = false;
        loop {
            tokio::select! {
                // In this order: a connection that always has something to read would use up the turn
                // of what limits it.
                biased;
                () = self.stages.end.cancelled() => return,
                () = &mut overdue => {
                    tracing::debug!("a connection was idle or slow for too long, or a flood");
                    return;
                }
                () = self.stages.stop.cancelled(), if !is_stopping => {
                    is_stopping = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = &mut aged => {
                    match next_age {
                        // HTTP/2 can take back what is closed to new requests; HTTP/1 can only say so
                        // with an answer.
                        Age::Grown if !activity.is_http2() => next_age = Age::Told,
                        // Nothing was asked since, so nobody was told. The idle time has an end as well.
                        Age::Told if activity.is_idle_http1() => {}
                        Age::Grown | Age::Told => {
                            connection.as_mut().graceful_shutdown();
                            is_ending.cancel();
                            next_age = Age::Over;
                        }
                        Age::Over => {
                            tracing::debug!("a connection was too old, and its requests too slow");
                            return;
                        }
                    }
                    is_last.cancel();
                    aged.as_mut().reset(Instant::now() + limits.connection_age_grace);
                }
                () = activity.slow(), if next_age != Age::Over => {
                    tracing::debug!("a request did not come in its time");
                    connection.as_mut().graceful_shutdown();
                    is_ending.cancel();
                    is_last.cancel();
                    next_age = Age::Over;
                    aged.as_mut().reset(Instant::now() + limits.connection_age_grace);
                }
                ended = &mut connection => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "a connection ended with an error");
                    }
                    return;
                }
                // Before its next turn, in which it might bring as much again.
                () = poll_fn(|_| activity.end_turn()) => {
                    tracing::debug!("a connection was a flood, or held more than its share");
                    return;
                }
            }
        }
    }
}

/// What comes next in a connection's life.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Age {
    /// It is old enough.
    Grown,
    /// Its client was to be told with the next answer, but there was none, or it goes on.
    Told,
    /// Its last requests have had their time.
    Over,
}

/// Runs the streams of a connection.
#[derive(Clone)]
struct Streams(Activity);

impl<F> Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        // Those of a connection that is about to end would only take memory until it has.
        if !self.0.is_offending() {
            TokioExecutor::new().execute(stream);
        }
    }
}

fn builder(protocol: Protocol, limits: &Limits, activity: Activity) -> Builder<Streams> {
    let builder = Builder::new(Streams(activity));
    // As the published page writes the names of headers.
    let builder = builder.title_case_headers(true);
    let mut builder = if protocol == Protocol::Http2 { builder.http2_only() } else { builder };
    let header_bytes_max = usize::try_from(limits.header_bytes_max).unwrap_or(usize::MAX);
    // No `header_read_timeout`: hyper's runs while a connection is idle too, is on unless it is turned off,
    // and would end every kept-alive connection after it. `Activity` tells the two apart.
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_buf_size(header_bytes_max);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams_max)
        .max_local_error_reset_streams(limits.local_resets_max)
        .max_header_list_size(limits.header_bytes_max)
        // What a client may send, or leave, without being read or taken: hyper's own are sixteen times
        // and six times as much.
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES_MAX)
        // Often enough that a quiet stream, such as a health watch, is no stalled client; and a client
        // that is gone has neither sent nor taken a byte for the whole of it.
        .keep_alive_interval(limits.stall_timeout / 2)
        .keep_alive_timeout(limits.stall_timeout / 2);
    builder
}

/// How old a connection becomes: not all of one deployment's clients come back at once.
fn age_max(limits: &Limits) -> Duration {
    let random = getrandom::u32().map_or(0.5, |random| f64::from(random) / f64::from(u32::MAX));
    limits.connection_age_max.mul_f64(0.9 + 0.2 * random)
}

/// Ends when the connection must.
async fn overdue(activity: &Activity, limits: &Limits) {
    loop {
        let now = Instant::now();
        let ends_at = activity.ends_at(limits);
        if ends_at <= now || activity.is_offending() {
            return;
        }
        tokio::select! {
            biased;
            () = activity.greedy() => {}
            () = sleep_until(ends_at.min(now + WATCH_INTERVAL)) => {}
        }
    }
}

/// What the requests of a connection have in common.
#[derive(Clone)]
struct Requests {
    router: Router,
    activity: Activity,
    limits: Limits,
    peer: SocketAddr,
    /// Whether each may be the connection's last.
    is_last: CancellationToken,
    /// When the connection takes no new requests, and what has no end of its own is to end.
    is_ending: CancellationToken,
}

impl Requests {
    /// What a request counts for is counted before this returns: one turn of a connection may bring
    /// as many as there may be.
    fn answer(
        self,
        request: Request<Incoming>,
    ) -> impl Future<Output = Result<http::Response<GuardedBody<axum::body::Body>>, Infallible>>
    {
        let Self { router, activity, limits, peer, is_last, is_ending } = self;
        let is_http1 = request.version() < Version::HTTP_2;
        let is_asked_for = request.headers().contains_key(EXPECT);
        let guard = activity.begin_request(is_http1, &limits);
        // Nobody needs a credential to watch the health, and it has no end of its own.
        let watch = is_health_watch(request.uri().path()).then(|| Hold::begin(&activity, LASTING));
        let patience = limits.request_deadline;
        let mut request =
            request.map(|body| ArrivingBody::new(body, is_http1, &activity, patience));
        // The source, for its rate limit.
        request.extensions_mut().insert(peer);
        // For answers that have no end of their own.
        request.extensions_mut().insert(is_ending);
        async move {
            if is_http1 && !is_asked_for {
                request.body_mut().look();
            }
            // Boxed, so that a long answer has not the size of what made it.
            let mut response = Box::pin(router.oneshot(request)).await?;
            // hyper closes a connection of which it cannot read the next request, and does not say so.
            if is_http1 && (is_last.is_cancelled() || activity.is_body_arriving()) {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(response.map(|body| GuardedBody::new(body, activity, guard, watch)))
        }
    }
}

fn is_health_watch(path: &str) -> bool {
    let method = path.strip_prefix('/').and_then(|path| path.strip_prefix(HEALTH_SERVICE));
    method == Some("/Watch")
}
