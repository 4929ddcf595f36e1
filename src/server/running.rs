//! The life of a process that serves: its tasks, the signals, and the end.

use std::{io, sync::Arc, thread, time::Duration};

use anyhow::{Context, Result, anyhow};
use axum::{
    Router,
    http::{HeaderValue, header::CACHE_CONTROL},
    middleware::map_response,
    response::Response,
    routing::MethodRouter,
};
use orgd_listener::{Budget, ListenerContext, Protocol, Stages, Tls, accept_loop};
use tokio::{
    net::TcpListener,
    runtime::{self, Handle},
    task::{JoinError, JoinSet, spawn_blocking},
    time::sleep,
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};
use tonic_health::server::HealthReporter;

use super::{readiness::Readiness, signals::Signals, supervisor};
use crate::{
    config::{Limits, ProxyArgs, ServingArgs, TlsArgs},
    grpc,
};

/// How long operators' own requests may take at the end.
const OPERATORS_GRACE: Duration = Duration::from_millis(100);

/// How often unused memory is given back to the system. Rarely, as a busy service needs it again at once.
const GIVE_BACK_INTERVAL: Duration = Duration::from_secs(10);

/// A thread for operators alone, so that `/readyz` does not wait behind clients. Drop it last: what was
/// connected on it ends with it.
#[derive(Debug)]
pub(super) struct Operators {
    runtime: Handle,
    _end: DropGuard,
}

impl Operators {
    pub(super) fn start() -> io::Result<Self> {
        let own = runtime::Builder::new_current_thread().enable_all().build()?;
        let (runtime, end) = (own.handle().clone(), CancellationToken::new());
        let ended = end.clone().cancelled_owned();
        thread::Builder::new().name("operators".into()).spawn(move || own.block_on(ended))?;
        Ok(Self { runtime, _end: end.drop_guard() })
    }
}

pub(super) struct Running {
    limits: Limits,
    proxies: ProxyArgs,
    tls: Option<Arc<Tls>>,
    /// What the clients of all listeners but the operators' hold.
    budget: Budget,
    signals: Signals,
    readiness: Readiness,
    operators: Handle,
    services: JoinSet<Result<()>>,
    connections: TaskTracker,
    ops_connections: TaskTracker,
    stages: Stages,
    /// Stops the operations listener. Cancelled last: during the drain operators ask why there is no new
    /// work.
    ops_stop: CancellationToken,
}

impl Running {
    pub(super) async fn start(serving: ServingArgs, operators: &Operators) -> Result<Self> {
        let ServingArgs { limits, proxies, tls, .. } = serving;
        let tls = certificate(tls).await?;
        let mut running = Self {
            limits,
            proxies,
            tls: tls.clone(),
            budget: Budget::new(limits.held_bytes_max),
            signals: Signals::listen().context("cannot listen for signals")?,
            readiness: Readiness::new(),
            operators: operators.runtime.clone(),
            services: JoinSet::new(),
            connections: TaskTracker::new(),
            ops_connections: TaskTracker::new(),
            stages: Stages::default(),
            ops_stop: CancellationToken::new(),
        };
        if let Some(tls) = tls {
            running.keep(tls.keep_fresh());
        }
        running.keep_for_operators(keep_giving_back());
        let report = async |ready| supervisor::readiness(ready);
        running.keep_for_operators(running.readiness.clone().keep_reporting(report));
        running.keep(supervisor::keep_telling_of_life());
        Ok(running)
    }

    /// Runs a task that the process needs: when it ends, the process ends.
    pub(super) fn keep(&mut self, task: impl Future<Output = Result<()>> + Send + 'static) {
        self.services.spawn(task);
    }

    /// The same on the operators' thread.
    fn keep_for_operators(&mut self, task: impl Future<Output = Result<()>> + Send + 'static) {
        self.services.spawn_on(task, &self.operators);
    }

    pub(super) fn keep_probing<F, W>(
        &mut self,
        probe: impl Fn() -> F + Send + 'static,
        explain: impl Fn(Option<anyhow::Error>) -> W + Send + 'static,
    ) where
        F: Future<Output = Result<()>> + Send + 'static,
        W: Future<Output = String> + Send + 'static,
    {
        self.keep_for_operators(self.readiness.clone().keep_probing(probe, explain));
    }

    pub(super) fn keep_reporting(&mut self, health: HealthReporter) {
        let report = async move |ready| grpc::report_health(&health, ready).await;
        self.keep_for_operators(self.readiness.clone().keep_reporting(report));
    }

    /// Cancelled when no new requests are taken. Streams without an end of their own must end then.
    pub(super) fn stopping(&self) -> CancellationToken {
        self.stages.stop.clone()
    }

    pub(super) fn budget(&self) -> Budget {
        self.budget.clone()
    }

    /// Serves a listener's clients, over TLS where there is a certificate.
    pub(super) fn accept(
        &mut self,
        name: &'static str,
        listener: TcpListener,
        router: Router,
        protocol: Protocol,
    ) -> Result<()> {
        let mut context = self.context(name, router, protocol);
        let names: &[&str] = match protocol {
            Protocol::Http2 => &["h2"],
            Protocol::Any => &["h2", "http/1.1"],
        };
        context.tls = self.tls.as_ref().map(|tls| tls.acceptor(name, names)).transpose()?;
        self.services.spawn(accept_loop(listener, context, self.connections.clone()));
        Ok(())
    }

    pub(super) fn accept_operators(
        &mut self,
        listener: TcpListener,
        metrics: MethodRouter,
    ) -> Result<()> {
        // What it answers is true for a moment, its refusals too.
        let router = self.readiness.router().route("/metrics", metrics).layer(map_response(
            async |mut answer: Response| {
                answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
                answer
            },
        ));
        let mut context = self.context("ops", router, Protocol::Any);
        context.stages.stop = self.ops_stop.clone();
        // Prometheus and those who ask for readiness come without a proxy.
        context.has_proxy_protocol = false;
        context.budget = Budget::new(self.limits.held_bytes_max);
        let listener = listener.into_std()?;
        let within = self.operators.enter();
        let listener = TcpListener::from_std(listener)?;
        drop(within);
        self.keep_for_operators(accept_loop(listener, context, self.ops_connections.clone()));
        Ok(())
    }

    fn context(&self, name: &'static str, router: Router, protocol: Protocol) -> ListenerContext {
        let (limits, stages) = (self.limits.of_listener(), self.stages.clone());
        ListenerContext {
            name,
            protocol,
            tls: None,
            router,
            limits,
            budget: self.budget.clone(),
            proxies: self.proxies.trusted_proxies.clone(),
            has_proxy_protocol: self.proxies.proxy_protocol,
            stages,
        }
    }

    /// Waits for a signal, or for a failed task, which becomes the error. Then: not ready, lame-duck time, no
    /// new requests, and a drain until its deadline or a second signal.
    pub(super) async fn until_stopped(mut self) -> Result<()> {
        self.keep(supervisor::tell_of_start(self.readiness.clone()));
        let failure = tokio::select! {
            () = self.signals.next() => None,
            Some(ended) = self.services.join_next() => Some(failure(ended)),
        };
        match &failure {
            None => tracing::info!("stopping: not ready from now on"),
            Some(error) => tracing::error!("stopping: {error:#}"),
        }
        supervisor::stopping();
        self.readiness.stop();
        self.stages.leave.cancel();
        let finished = async {
            // After a failure there is no lame-duck time, as the process cannot do its work.
            if failure.is_none() {
                sleep(self.limits.lame_duck_time).await;
            }
            tracing::info!("stopping: no new requests");
            self.stages.stop.cancel();
            self.connections.close();
            tokio::time::timeout(self.limits.drain_deadline, self.connections.wait()).await
        };
        tokio::select! {
            finished = finished => if finished.is_ok() {
                tracing::info!("stopped: every request was answered");
            } else {
                tracing::warn!("stopped: the drain's deadline has passed");
            },
            () = self.signals.next() => tracing::warn!("stopped: a second signal came"),
        }
        self.stages.stop.cancel();
        self.ops_stop.cancel();
        self.ops_connections.close();
        let _ = tokio::time::timeout(OPERATORS_GRACE, self.ops_connections.wait()).await;
        self.stages.end.cancel();
        self.connections.close();
        self.connections.wait().await;
        self.ops_connections.wait().await;
        self.services.shutdown().await;
        failure.map_or(Ok(()), Err)
    }
}

async fn certificate(TlsArgs { tls_cert, tls_key }: TlsArgs) -> Result<Option<Arc<Tls>>> {
    let (Some(cert), Some(key)) = (tls_cert, tls_key) else { return Ok(None) };
    Tls::load(("--tls-cert", cert), ("--tls-key", key)).await.map(Some)
}

async fn keep_giving_back() -> Result<()> {
    loop {
        sleep(GIVE_BACK_INTERVAL).await;
        spawn_blocking(orgd_memory::give_back).await?;
    }
}

fn failure(ended: Result<Result<()>, JoinError>) -> anyhow::Error {
    match ended {
        Ok(Err(error)) => error,
        Ok(Ok(())) => anyhow!("a task of the service has ended"),
        Err(error) => anyhow!("a task of the service has failed: {error}"),
    }
}
