//! The composition root: binds, wires the rooms together, serves, and drains.

mod readiness;
mod running;
mod signals;
mod supervisor;
mod unreachable;
mod upstream;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    middleware::{Next, from_fn_with_state},
    response::Response,
    routing::get,
};
use orgd_listener::{Budget, Protocol};
use tokio::{
    net::{TcpListener, TcpSocket},
    time::{MissedTickBehavior, interval},
};
use tonic::service::Routes;
use tonic_health::server::HealthReporter;

use self::{
    running::{Operators, Running},
    unreachable::silent,
    upstream::Upstream,
};
pub use self::{
    unreachable::{Flags, is_of_tls, not_connected, unreachable},
    upstream::{Peer, endpoint},
};
use crate::{
    app::watch::Watches,
    auth::Authenticator,
    config::{
        AuthArgs, CorsArgs, HttpListenArgs, Limits, ListenArgs, RateLimitArgs, ServingArgs,
        UpstreamArgs,
    },
    gateway::{self, Cors, RequestLimits},
    grpc::{self, CallLimits, InProcess, OrganizationGrpc, PrincipalLimits},
    rate_limit::RateLimit,
    store::Store,
    telemetry::metrics::{COMPACTION_INTERVAL, Metrics, RateScope},
};

/// Bytes that a gRPC message may have beyond the limit of a REST body: for mask, id, etag and key.
const MESSAGE_EXTRA_BYTES_MAX: usize = 1024;

/// Connections that the kernel keeps until they are accepted; fewer where `net.core.somaxconn` is less. With the
/// usual 128 the clients of a burst have to try again, after a second and then after three.
const BACKLOG: u32 = 4096;

pub struct HttpListeners {
    http: TcpListener,
    ops: TcpListener,
}

pub struct Listeners {
    grpc: TcpListener,
    http: HttpListeners,
}

/// Where listeners are bound, which for port 0 is only known afterwards.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    pub grpc: SocketAddr,
    pub http: SocketAddr,
    pub ops: SocketAddr,
}

impl HttpListeners {
    pub fn bind(args: &HttpListenArgs) -> Result<Self> {
        Ok(Self {
            http: bind("--http-addr", args.http_addr)?,
            ops: bind("--ops-addr", args.ops.ops_addr)?,
        })
    }
}

impl Listeners {
    pub fn bind(args: &ListenArgs) -> Result<Self> {
        Ok(Self {
            grpc: bind("--grpc-addr", args.grpc_addr)?,
            http: HttpListeners::bind(&args.http)?,
        })
    }

    pub fn addresses(&self) -> Result<Addresses> {
        Ok(Addresses {
            grpc: self.grpc.local_addr()?,
            http: self.http.http.local_addr()?,
            ops: self.http.ops.local_addr()?,
        })
    }
}

fn bind(flag: &str, addr: SocketAddr) -> Result<TcpListener> {
    listen(addr).with_context(|| format!("cannot listen on {addr} ({flag})"))
}

fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Else the address stays taken for a minute after a service that had connections.
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

/// Serves both APIs over a store until a signal, then drains.
pub async fn serve(
    listeners: Listeners,
    store: Store,
    auth: AuthArgs,
    serving: ServingArgs,
) -> Result<()> {
    let (limits, rates, cors) = (serving.limits, serving.rates, cors_of(&serving.cors));
    let (addresses, tls) = (listeners.addresses()?, serving.tls.tls_cert.is_some());
    let metrics = Metrics::start()?;
    let authenticator = Authenticator::new(store.clone(), auth.auth_cache_ttl);
    let operators = Operators::start().context("cannot start the operators' thread")?;
    let mut running = Running::start(serving, &operators).await?;
    let sources = RateLimit::new(RateScope::Source, rates.rate_limit_source);
    let principals = principal_limits(&rates);
    let watches =
        Watches::new(store.clone(), limits.watches_max, heartbeat(limits), running.stopping());
    let call_limits = CallLimits {
        deadline: limits.request_deadline.0,
        message_bytes_max: body_bytes_max(limits) + MESSAGE_EXTRA_BYTES_MAX,
        sources: sources.clone(),
        principals: principals.clone(),
        watches: watches.clone(),
    };
    running.keep(async move {
        watches.keep_looking().await;
        Ok(())
    });
    // The gateway in this process has counted the source of each request.
    let counted = CallLimits { sources: None, ..call_limits.clone() };
    let in_process = InProcess::new(store.clone(), authenticator.clone(), counted);
    let rest = gateway::router(Arc::new(in_process), request_limits(limits, sources.clone()), cors);
    let organization = OrganizationGrpc::new(store.clone(), authenticator.clone(), call_limits);
    let (routes, health) = grpc_routes(organization, sources.clone(), limits)?;
    watch_store(&mut running, &store);
    let used = store.clone();
    running.keep(async move {
        used.keep_writing_uses().await;
        Ok(())
    });
    report_health(&mut running, health);
    running.keep(housekeeping(metrics.clone(), running.budget(), sources, principals));
    let observed = store.clone();
    let render = get(async move || {
        observed.observe().await;
        authenticator.observe().await;
        metrics.render()
    });
    running.accept("grpc", listeners.grpc, routes, Protocol::Http2)?;
    running.accept("http", listeners.http.http, rest, Protocol::Any)?;
    running.accept_operators(listeners.http.ops, render)?;
    tracing::info!(
        grpc = %addresses.grpc, http = %addresses.http, tls, ops = %addresses.ops, ops_tls = false, "listening"
    );
    let stopped = running.until_stopped().await;
    store.close().await.context("cannot close the database")?;
    stopped
}

/// Our service, and beside it health and reflection.
fn grpc_routes(
    organization: OrganizationGrpc,
    sources: Option<Arc<RateLimit<IpAddr>>>,
    limits: Limits,
) -> Result<(Router, HealthReporter)> {
    let (others, health) = grpc::other_services()?;
    // Not around our own service, which counts its calls itself: a layer costs each call microseconds.
    let counted = from_fn_with_state((sources, limits), count_other);
    let others = others.into_axum_router().fallback(grpc::unknown_service).layer(counted);
    let routes = Routes::from(others).add_service(organization);
    Ok((routes.prepare().into_axum_router(), health))
}

fn principal_limits(rates: &RateLimitArgs) -> PrincipalLimits {
    let of_role = |per_second| RateLimit::new(RateScope::Principal, per_second);
    PrincipalLimits {
        user: of_role(rates.rate_limit_user),
        support: of_role(rates.rate_limit_support),
        administrator: of_role(rates.rate_limit_administrator),
    }
}

/// Readiness follows the database, and the process ends if the store's workers do.
fn watch_store(running: &mut Running, store: &Store) {
    let (probed, explaining) = (store.clone(), store.clone());
    let probe = move || {
        let store = probed.clone();
        async move { Ok(store.check().await?) }
    };
    running.keep_probing(probe, move |failure| {
        let store = explaining.clone();
        async move {
            let failure = failure.as_ref().and_then(|failure| failure.downcast_ref());
            store.explain(failure).await.to_string()
        }
    });
    let workers = store.clone();
    running.keep(async move { Err(workers.failed().await.into()) });
}

/// gRPC health follows readiness, and its watches end when the process stops.
fn report_health(running: &mut Running, health: HealthReporter) {
    running.keep_reporting(health.clone());
    let stopping = running.stopping();
    running.keep(async move {
        stopping.cancelled().await;
        grpc::end_health_watches(health).await;
        Ok(())
    });
}

/// Serves the REST API alone, in front of a remote service, until a signal, then drains.
pub async fn serve_gateway(
    listeners: HttpListeners,
    UpstreamArgs { upstream, upstream_ca }: UpstreamArgs,
    serving: ServingArgs,
) -> Result<()> {
    let (limits, rates, cors) = (serving.limits, serving.rates, cors_of(&serving.cors));
    let (http, ops) = (listeners.http.local_addr()?, listeners.ops.local_addr()?);
    let tls = serving.tls.tls_cert.is_some();
    let metrics = Metrics::start()?;
    let operators = Operators::start().context("cannot start the operators' thread")?;
    let mut running = Running::start(serving, &operators).await?;
    let sources = RateLimit::new(RateScope::Source, rates.rate_limit_source);
    let flags = Flags { uri: "--upstream (ORGD_UPSTREAM)", ca: "--upstream-ca (ORGD_UPSTREAM_CA)" };
    let silent = silent(&upstream);
    let peer = Peer { uri: &upstream, ca: upstream_ca.as_deref(), flags };
    let upstream = Arc::new(Upstream::new(peer, limits.watches_max)?);
    let transport = upstream.transport();
    let transport = gateway::in_shares(transport, Upstream::calls_max(), limits.watches_max);
    let service = gateway::remote(transport);
    let rest = gateway::router(service, request_limits(limits, sources.clone()), cors);
    let probe = move || {
        let upstream = upstream.clone();
        async move { upstream.probe().await }
    };
    running.keep_probing(probe, move |failure| {
        let reason = failure.map_or_else(|| silent.clone(), |failure| format!("{failure:#}"));
        async move { reason }
    });
    let no_principals = PrincipalLimits::default();
    running.keep(housekeeping(metrics.clone(), running.budget(), sources, no_principals));
    running.accept("http", listeners.http, rest, Protocol::Any)?;
    running.accept_operators(listeners.ops, get(async move || metrics.render()))?;
    tracing::info!(%http, tls, %ops, ops_tls = false, "listening");
    running.until_stopped().await
}

/// Compacts histograms, forgets callers whose rate limits are full again (else memory grows), and sets the
/// gauge of the bytes that clients hold.
async fn housekeeping(
    metrics: Metrics,
    budget: Budget,
    sources: Option<Arc<RateLimit<IpAddr>>>,
    principals: PrincipalLimits,
) -> Result<()> {
    let mut ticks = interval(COMPACTION_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        budget.measure();
        metrics.compact();
        if let Some(sources) = &sources {
            sources.forget_quiet();
        }
        principals.forget_quiet();
    }
}

fn request_limits(limits: Limits, sources: Option<Arc<RateLimit<IpAddr>>>) -> RequestLimits {
    RequestLimits {
        deadline: limits.request_deadline.0,
        body_bytes_max: body_bytes_max(limits),
        sources,
        heartbeat: heartbeat(limits),
    }
}

fn cors_of(args: &CorsArgs) -> Cors {
    let CorsArgs { cors_origins, cors_headers, cors_exposed_headers } = args;
    Cors::new(cors_origins.0.clone(), &cors_headers.0, &cors_exposed_headers.0)
}

async fn count_other(
    State((sources, limits)): State<(Option<Arc<RateLimit<IpAddr>>>, Limits)>,
    request: Request,
    next: Next,
) -> Response {
    match grpc::count_other(sources.as_deref(), body_bytes_max(limits), request).await {
        Ok(request) => next.run(request).await,
        Err(refusal) => refusal.map(Body::new),
    }
}

/// Half of the stall timeout: a stream without a byte for the whole of it counts as a stalled client.
fn heartbeat(limits: Limits) -> Duration {
    limits.stall_timeout.0 / 2
}

fn body_bytes_max(limits: Limits) -> usize {
    usize::try_from(limits.body_bytes_max).unwrap_or(usize::MAX)
}
