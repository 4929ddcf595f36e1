//! The accept loop of every listener.
//!
//! Our own because neither `axum::serve` nor tonic's server ever closes a slow client, and tonic's
//! drops the stream and reset limits that hyper has.

use std::{
    convert::Infallible, future::poll_fn, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration,
};

use anyhow::{Result, anyhow};
use axum::Router;
use http::{Request, Version};
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
    held::{ArrivingBody, GuardedBody, Hold, Holdings},
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

/// What a listener speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// HTTP/2 alone, as gRPC needs it.
    Http2,
    /// HTTP/1.1 or HTTP/2, as the client begins.
    Any,
}

/// What all connections of a listener have in common.
#[derive(Clone)]
pub(super) struct Door {
    /// The listener's name in logs and metrics.
    pub(super) name: &'static str,
    pub(super) protocol: Protocol,
    /// None where plain text is spoken.
    pub(super) tls: Option<TlsAcceptor>,
    pub(super) router: Router,
    pub(super) limits: Limits,
    pub(super) holdings: Holdings,
    /// No new connection, no new request.
    pub(super) stop: CancellationToken,
    /// Whatever is still under way ends.
    pub(super) end: CancellationToken,
}

/// Serves every connection that comes to `listener`, until the door is to stop. Each ends after its
/// requests then, and at once at the end. An error: the listener takes no connections any more.
pub(super) async fn accept_loop(
    listener: TcpListener,
    door: Door,
    connections: TaskTracker,
) -> Result<()> {
    metrics::no_connections(door.name);
    let places = Arc::new(Semaphore::new(door.limits.connections_max.get()));
    loop {
        let next = async {
            // A connection over the limit waits in the kernel's queue.
            let place = places.clone().acquire_owned().await;
            (listener.accept().await, place)
        };
        let Some((accepted, place)) = door.stop.run_until_cancelled(next).await else {
            return Ok(());
        };
        match accepted {
            Ok((stream, peer)) => {
                let door = door.clone();
                connections.spawn(async move {
                    let _gauge = ConnectionGauge::begin(door.name);
                    door.serve(stream, peer).await;
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
    async fn serve(self, stream: TcpStream, peer: SocketAddr) {
        // Answers are small; waiting to fill a packet only delays them. Fails on a closed socket only.
        let _ = stream.set_nodelay(true);
        let Some(tls) = &self.tls else { return self.serve_plain(stream, peer).await };
        match timeout(self.limits.header_read_timeout, tls.accept(stream)).await {
            // Boxed, or every connection would have its size.
            Ok(Ok(stream)) => Box::pin(self.serve_plain(stream, peer)).await,
            Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
            Err(_) => tracing::debug!("a TLS handshake took too long"),
        }
    }

    async fn serve_plain(
        self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        peer: SocketAddr,
    ) {
        let limits = self.limits;
        let activity = Activity::new(&limits, self.holdings.clone());
        let io = TokioIo::new(WatchedIo::new(stream, activity.clone()));
        let service = service_fn({
            let (router, activity) = (self.router.clone(), activity.clone());
            move |request| answer(request, router.clone(), &activity, limits, peer)
        });
        let builder = builder(self.protocol, &limits, activity.clone());
        let mut connection = pin!(builder.serve_connection(io, service));
        let mut stopping = pin!(async {
            tokio::select! {
                () = self.stop.cancelled() => {}
                () = sleep(age_max(&limits)) => {}
                () = activity.slow() => tracing::debug!("a request did not come in its time"),
            }
        });
        let mut overdue = pin!(overdue(&activity, &limits));
        let mut grace_over = pin!(sleep(Duration::MAX));
        let mut is_stopping = false;
        loop {
            tokio::select! {
                // In this order: a connection that always has something to read would use up the turn
                // of what limits it.
                biased;
                () = self.end.cancelled() => return,
                () = &mut overdue => {
                    tracing::debug!("a connection was idle or slow for too long, or a flood");
                    return;
                }
                () = &mut grace_over => {
                    tracing::debug!("a connection was too old, and its requests too slow");
                    return;
                }
                () = &mut stopping, if !is_stopping => {
                    is_stopping = true;
                    connection.as_mut().graceful_shutdown();
                    if !self.stop.is_cancelled() {
                        grace_over.as_mut().reset(Instant::now() + limits.connection_age_grace);
                    }
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
    // No `header_read_timeout`: hyper's runs while a connection is idle too, and would end every
    // kept-alive connection after it. `Activity` tells the two apart.
    builder.http1().timer(TokioTimer::new()).max_buf_size(header_bytes_max);
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

/// What a request counts for is counted before this returns: one turn of a connection may bring as
/// many as there may be.
fn answer(
    request: Request<Incoming>,
    router: Router,
    activity: &Activity,
    limits: Limits,
    peer: SocketAddr,
) -> impl Future<Output = Result<http::Response<GuardedBody<axum::body::Body>>, Infallible>> + use<>
{
    let is_http1 = request.version() < Version::HTTP_2;
    let guard = activity.begin_request(is_http1, &limits);
    // Nobody needs a credential to watch the health, and it has no end of its own.
    let watch = is_health_watch(request.uri().path()).then(|| Hold::begin(activity));
    let mut request =
        request.map(|body| ArrivingBody::new(body, is_http1, activity, limits.request_deadline));
    // The source, for its rate limit.
    request.extensions_mut().insert(peer);
    let activity = activity.clone();
    async move {
        // Boxed, so that a long answer has not the size of what made it.
        let response = Box::pin(router.oneshot(request)).await?;
        Ok(response.map(|body| GuardedBody::new(body, activity, guard, watch)))
    }
}

fn is_health_watch(path: &str) -> bool {
    let method = path.strip_prefix('/').and_then(|path| path.strip_prefix(HEALTH_SERVICE));
    method == Some("/Watch")
}
