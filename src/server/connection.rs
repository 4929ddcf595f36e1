//! A connection from its first byte to its last: the handshake, its requests, and what ends it.

use std::{convert::Infallible, future::poll_fn, net::IpAddr, pin::pin, time::Duration};

use axum::Router;
use http::{
    HeaderMap, HeaderValue, Request, Version,
    header::{CONNECTION, EXPECT},
};
use hyper::{body::Incoming, rt::Executor, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::{
    accept::{Door, Protocol},
    activity::Activity,
    forwarded,
    held::{ArrivingBody, GuardedBody, Origin, REQUEST_BYTES},
    seats::Place,
    watched::WatchedIo,
};
use crate::{
    config::{Limits, Networks},
    rate_limit,
    shares::{HeldBytes, Source, spread},
    telemetry::metrics::{self, Closed},
};

/// How often a connection is looked at.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// How long a connection that makes place for another has to say so.
const LEAVING_GRACE: Duration = Duration::from_secs(1);
/// A connection may hold one of so many parts of what all may hold.
const CONNECTION_PART: usize = 8;

/// The protocol's own default: a body of the default limit, but for a byte.
const STREAM_WINDOW_BYTES: u32 = 65_535;
const CONNECTION_WINDOW_BYTES: u32 = 256 * 1024;
const SEND_BUFFER_BYTES_MAX: usize = 64 * 1024;

/// Whose connection it is.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) address: IpAddr,
    /// A trusted proxy's has many clients, and does not end for what one of them does.
    pub(super) is_proxy: bool,
    pub(super) place: Place,
}

impl Door {
    /// Serves a connection to its end.
    pub(super) async fn serve(
        self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        peer: Peer,
    ) {
        let Some(tls) = &self.tls else { return self.serve_plain(stream, peer).await };
        let handshake = timeout(self.limits.header_read_timeout, tls.accept(stream));
        let shaken = tokio::select! {
            shaken = handshake => shaken,
            () = peer.place.leave() => return,
        };
        match shaken {
            // Boxed, or every connection would have its size.
            Ok(Ok(stream)) => Box::pin(self.serve_plain(stream, peer)).await,
            Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
            Err(_) => tracing::debug!("a TLS handshake took too long"),
        }
    }

    async fn serve_plain(
        self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        peer: Peer,
    ) {
        let limits = self.limits;
        let share = self.held.max() / CONNECTION_PART;
        let held_max = if peer.is_proxy { usize::MAX } else { share };
        let activity = Activity::new(&limits, peer.place.clone(), held_max);
        let is_last = self.stages.leave.child_token();
        let is_ending = self.stages.stop.child_token();
        let io = TokioIo::new(WatchedIo::new(stream, activity.clone()));
        let requests = Requests {
            router: self.router.clone(),
            activity: activity.clone(),
            limits,
            held: self.held.clone(),
            proxies: self.proxies.clone(),
            peer: peer.clone(),
            is_last: is_last.clone(),
            is_ending: is_ending.clone(),
        };
        let service = service_fn(move |request| requests.clone().answer(request));
        let builder = builder(self.protocol, &limits, activity.clone());
        let mut connection = pin!(builder.serve_connection(io, service));
        let mut overdue = pin!(overdue(&activity, &limits));
        let mut next_age = Age::Grown;
        let mut aged = pin!(sleep(age_max(&limits)));
        let (mut is_stopping, mut is_leaving) = (false, false);
        loop {
            tokio::select! {
                // In this order: a connection that always has something to read would use up the turn
                // of what limits it.
                biased;
                () = self.stages.end.cancelled() => return,
                () = &mut overdue => {
                    self.note_end(&activity);
                    return;
                }
                () = self.stages.stop.cancelled(), if !is_stopping => {
                    is_stopping = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = peer.place.leave(), if !is_leaving => {
                    is_leaving = true;
                    if activity.is_idle() && !activity.is_http2() {
                        return;
                    }
                    connection.as_mut().graceful_shutdown();
                    is_ending.cancel();
                    is_last.cancel();
                    if activity.is_idle() {
                        next_age = Age::Over;
                        aged.as_mut().reset(Instant::now() + LEAVING_GRACE);
                    }
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
                    self.note_end(&activity);
                    return;
                }
            }
        }
    }

    fn note_end(&self, activity: &Activity) {
        if activity.is_greedy() {
            metrics::connection_closed(self.name, Closed::Holding);
        }
        tracing::debug!("a connection was idle or slow for too long, a flood, or held too much");
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
            #[expect(clippy::disallowed_methods, reason = "a stream ends with its connection")]
            let stream = tokio::spawn(stream);
            self.0.stream_runs(stream.abort_handle());
        }
    }
}

fn builder(protocol: Protocol, limits: &Limits, activity: Activity) -> Builder<Streams> {
    let builder = Builder::new(Streams(activity));
    // As docs/API.md writes the names of headers.
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
    spread(limits.connection_age_max, 0.9..1.1)
}

/// Ends when the connection must.
async fn overdue(activity: &Activity, limits: &Limits) {
    loop {
        let now = Instant::now();
        let ends_at = activity.ends_at(limits);
        if ends_at <= now || activity.is_offending() {
            return;
        }
        activity.reset_stalled(limits);
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
    held: HeldBytes,
    proxies: Networks,
    peer: Peer,
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
        let is_http1 = request.version() < Version::HTTP_2;
        let is_asked_for = request.headers().contains_key(EXPECT);
        let source = self.source(request.headers());
        let Self { router, activity, limits, held, peer, is_last, is_ending, .. } = self;
        let guard = activity.begin_request(is_http1, &limits);
        let mut holding = held.holding(source, request.headers(), REQUEST_BYTES);
        let origin = Origin { held, source, is_proxied: peer.is_proxy };
        let (hold, is_within) = origin.hold(&activity, REQUEST_BYTES);
        if !is_within {
            holding.refuse();
        }
        let patience = limits.request_deadline;
        let mut request =
            request.map(|body| ArrivingBody::new(body, is_http1, &activity, (origin, patience)));
        // For its rate limit.
        request.extensions_mut().insert(source);
        request.extensions_mut().insert(holding.clone());
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
            Ok(GuardedBody::guard(response, activity, guard, (holding, hold)))
        }
    }

    fn source(&self, headers: &HeaderMap) -> Source {
        if self.peer.is_proxy {
            forwarded::source(self.peer.address, headers, &self.proxies)
        } else {
            Source(rate_limit::source(self.peer.address))
        }
    }
}
