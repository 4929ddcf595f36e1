//! The composition root: binds, wires the rooms together, serves, and drains.
//!
//! Architecture invariant: only this room spawns tasks and holds lifetimes.

mod accept;
mod activity;
mod readiness;
mod signals;

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result};
use http::Uri;
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use self::{
    accept::{Protocol, accept_loop},
    readiness::Readiness,
    signals::Signals,
};
use crate::{
    auth::Authenticator,
    config::{AuthArgs, HttpListenArgs, Limits, ListenArgs},
    gateway::{self, RequestLimits},
    grpc::{self, CallLimits, OrganizationGrpc},
    proto::v1::organization_service_server::SERVICE_NAME,
    store::Store,
};

/// How long a gateway tries to connect to its service.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How often an idle connection between a gateway and its service is tested, and how soon it must
/// answer; without it a connection that a network swallowed is found out by a failing request.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(3);

/// What a message may have over a REST body of the same content: mask, id, etag and key.
const MESSAGE_EXTRA_BYTES_MAX: usize = 1024;

/// The listeners that clients of REST and operators come to.
#[derive(Debug)]
pub struct HttpListeners {
    http: TcpListener,
    ops: TcpListener,
}

/// The listeners of a whole service.
#[derive(Debug)]
pub struct Listeners {
    grpc: TcpListener,
    http: HttpListeners,
}

/// Where listeners are bound, which for port 0 is only known afterwards.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// The gRPC listener.
    pub grpc: SocketAddr,
    /// The REST listener.
    pub http: SocketAddr,
    /// The operations listener.
    pub ops: SocketAddr,
}

impl HttpListeners {
    /// Binds the listeners of a gateway.
    pub async fn bind(args: &HttpListenArgs) -> Result<Self> {
        Ok(Self {
            http: bind("--http-addr", args.http_addr).await?,
            ops: bind("--ops-addr", args.ops.ops_addr).await?,
        })
    }
}

impl Listeners {
    /// Binds the listeners of a service.
    pub async fn bind(args: &ListenArgs) -> Result<Self> {
        Ok(Self {
            grpc: bind("--grpc-addr", args.grpc_addr).await?,
            http: HttpListeners::bind(&args.http).await?,
        })
    }

    /// Where they are bound.
    pub fn addresses(&self) -> Result<Addresses> {
        Ok(Addresses {
            grpc: self.grpc.local_addr()?,
            http: self.http.http.local_addr()?,
            ops: self.http.ops.local_addr()?,
        })
    }
}

async fn bind(flag: &str, addr: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(addr).await.with_context(|| format!("cannot listen on {addr} ({flag})"))
}

/// Serves both doors over a store until a signal, then drains.
pub async fn serve(
    listeners: Listeners,
    store: Store,
    auth: AuthArgs,
    limits: Limits,
) -> Result<()> {
    let addresses = listeners.addresses()?;
    let authenticator = Authenticator::new(store.clone(), auth.auth_cache_ttl);
    let organization = OrganizationGrpc::new(store.clone(), authenticator, call_limits(limits));
    let (grpc_routes, health) = grpc::routes(organization.clone())?;
    let rest = gateway::router(gateway::transport(organization), request_limits(limits));

    let running = Running::start(limits)?;
    let readiness = Readiness::new();
    let probed = store.clone();
    running.tasks.spawn(readiness.clone().keep_probing(move || {
        let store = probed.clone();
        async move { store.check().await.is_ok() }
    }));
    running.tasks.spawn(readiness.clone().keep_reporting(move |ready| {
        let health = health.clone();
        async move { grpc::report_health(&health, ready).await }
    }));
    let with_fallback = grpc_routes.prepare().into_axum_router().fallback(grpc::unknown_service);
    running.accept(listeners.grpc, with_fallback, Protocol::Http2);
    running.accept(listeners.http.http, rest, Protocol::Any);
    running.accept_operators(listeners.http.ops, readiness.router());
    tracing::info!(
        grpc = %addresses.grpc, http = %addresses.http, ops = %addresses.ops, "listening"
    );
    running.until_stopped(&readiness).await;
    store.close().await.context("cannot close the database")?;
    Ok(())
}

/// Serves the REST door alone, in front of a remote service, until a signal, then drains.
pub async fn serve_gateway(listeners: HttpListeners, upstream: Uri, limits: Limits) -> Result<()> {
    let (http, ops) = (listeners.http.local_addr()?, listeners.ops.local_addr()?);
    let channel = channel(upstream);
    let rest = gateway::router(gateway::transport(channel.clone()), request_limits(limits));

    let running = Running::start(limits)?;
    let readiness = Readiness::new();
    running.tasks.spawn(readiness.clone().keep_probing(move || upstream_serves(channel.clone())));
    running.accept(listeners.http, rest, Protocol::Any);
    running.accept_operators(listeners.ops, readiness.router());
    tracing::info!(%http, %ops, "listening");
    running.until_stopped(&readiness).await;
    Ok(())
}

fn channel(upstream: Uri) -> Channel {
    Endpoint::from(upstream)
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .connect_lazy()
}

async fn upstream_serves(channel: Channel) -> bool {
    let request = HealthCheckRequest { service: SERVICE_NAME.to_owned() };
    let answer = HealthClient::new(channel).check(request).await;
    answer.is_ok_and(|answer| answer.get_ref().status() == ServingStatus::Serving)
}

fn call_limits(limits: Limits) -> CallLimits {
    let message_bytes_max = limits.body_bytes_max + MESSAGE_EXTRA_BYTES_MAX;
    CallLimits { deadline: limits.request_deadline, message_bytes_max }
}

fn request_limits(limits: Limits) -> RequestLimits {
    RequestLimits { deadline: limits.request_deadline, body_bytes_max: limits.body_bytes_max }
}

/// The tasks of a process that serves, from its start to its end.
struct Running {
    limits: Limits,
    signals: Signals,
    tasks: TaskTracker,
    ops_tasks: TaskTracker,
    /// No new connection, no new request.
    stop: CancellationToken,
    /// Whatever is still under way ends.
    end: CancellationToken,
}

impl Running {
    fn start(limits: Limits) -> Result<Self> {
        Ok(Self {
            limits,
            signals: Signals::listen().context("cannot listen for signals")?,
            tasks: TaskTracker::new(),
            ops_tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            end: CancellationToken::new(),
        })
    }

    fn accept(&self, listener: TcpListener, router: axum::Router, protocol: Protocol) {
        let tasks = self.tasks.clone();
        let (stop, end) = (self.stop.clone(), self.end.clone());
        self.tasks.spawn(accept_loop(listener, router, protocol, self.limits, tasks, stop, end));
    }

    /// Operators can ask until the very end, also why there is no new work.
    fn accept_operators(&self, listener: TcpListener, router: axum::Router) {
        let tasks = self.ops_tasks.clone();
        let end = self.end.clone();
        let limits = self.limits;
        let accepting =
            accept_loop(listener, router, Protocol::Any, limits, tasks, end.clone(), end);
        self.ops_tasks.spawn(accepting);
    }

    /// Waits for a signal, then for what is under way: until the drain's deadline or a second
    /// signal, whichever is first.
    async fn until_stopped(mut self, readiness: &Readiness) {
        self.signals.next().await;
        tracing::info!("stopping: no new requests");
        readiness.stop();
        self.stop.cancel();
        self.tasks.close();
        tokio::select! {
            () = self.tasks.wait() => tracing::info!("stopped: every request was answered"),
            () = tokio::time::sleep(self.limits.drain_deadline) => {
                tracing::warn!("stopped: the drain's deadline has passed");
            }
            () = self.signals.next() => tracing::warn!("stopped: a second signal came"),
        }
        self.end.cancel();
        self.ops_tasks.close();
        self.tasks.wait().await;
        self.ops_tasks.wait().await;
    }
}
