//! The life of a process that serves: its tasks, the signals, and the end.

use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use tokio::{
    net::TcpListener,
    task::{JoinError, JoinSet},
    time::sleep,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    accept::{Door, Protocol, accept_loop},
    held::Holdings,
    readiness::Readiness,
    signals::Signals,
};
use crate::config::Limits;

/// How long operators' own requests may take at the end.
const OPERATORS_GRACE: Duration = Duration::from_millis(100);

/// The tasks of a process that serves, from its start to its end.
pub(super) struct Running {
    limits: Limits,
    signals: Signals,
    readiness: Readiness,
    /// What must run as long as the process does.
    services: JoinSet<Result<()>>,
    connections: TaskTracker,
    ops_connections: TaskTracker,
    /// No new connection, no new request.
    stop: CancellationToken,
    /// The same for operators, who can ask until the very end, also why there is no new work.
    ops_stop: CancellationToken,
    /// Whatever is still under way ends.
    end: CancellationToken,
}

impl Running {
    pub(super) fn start(limits: Limits, readiness: Readiness) -> Result<Self> {
        Ok(Self {
            limits,
            signals: Signals::listen().context("cannot listen for signals")?,
            readiness,
            services: JoinSet::new(),
            connections: TaskTracker::new(),
            ops_connections: TaskTracker::new(),
            stop: CancellationToken::new(),
            ops_stop: CancellationToken::new(),
            end: CancellationToken::new(),
        })
    }

    /// Runs a task without which the process is not whole: when it ends, the process does.
    pub(super) fn keep(&mut self, task: impl Future<Output = Result<()>> + Send + 'static) {
        self.services.spawn(task);
    }

    /// Tells when no new requests are taken, and what has no end of its own is to end.
    pub(super) fn stopping(&self) -> CancellationToken {
        self.stop.clone()
    }

    pub(super) fn door(
        &self,
        name: &'static str,
        router: axum::Router,
        protocol: Protocol,
    ) -> Door {
        let (limits, stop, end) = (self.limits, self.stop.clone(), self.end.clone());
        let holdings = Holdings::new(limits.held_max.get());
        Door { name, protocol, tls: None, router, limits, holdings, stop, end }
    }

    pub(super) fn accept(&mut self, listener: TcpListener, door: Door) {
        self.services.spawn(accept_loop(listener, door, self.connections.clone()));
    }

    pub(super) fn accept_operators(&mut self, listener: TcpListener, router: axum::Router) {
        let door = self.door("ops", router, Protocol::Any);
        let door = Door { stop: self.ops_stop.clone(), ..door };
        self.services.spawn(accept_loop(listener, door, self.ops_connections.clone()));
    }

    /// Waits until the process must stop: for a signal, or for a task that has failed, which is the
    /// error. Then says that it is not ready, takes requests for a while yet, and waits for those
    /// under way: until the drain's deadline or a second signal, whichever is first.
    pub(super) async fn until_stopped(mut self) -> Result<()> {
        let failure = tokio::select! {
            () = self.signals.next() => None,
            Some(ended) = self.services.join_next() => Some(failure(ended)),
        };
        match &failure {
            None => tracing::info!("stopping: not ready from now on"),
            Some(error) => tracing::error!("stopping: {error:#}"),
        }
        self.readiness.stop();
        let finished = async {
            // Nobody is to wait for a process that is no longer whole.
            if failure.is_none() {
                sleep(self.limits.lame_duck_time).await;
            }
            tracing::info!("stopping: no new requests");
            self.stop.cancel();
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
        self.stop.cancel();
        self.ops_stop.cancel();
        self.ops_connections.close();
        let _ = tokio::time::timeout(OPERATORS_GRACE, self.ops_connections.wait()).await;
        self.end.cancel();
        self.connections.close();
        self.connections.wait().await;
        self.ops_connections.wait().await;
        self.services.shutdown().await;
        failure.map_or(Ok(()), Err)
    }
}

fn failure(ended: Result<Result<()>, JoinError>) -> anyhow::Error {
    match ended {
        Ok(Err(error)) => error,
        Ok(Ok(())) => anyhow!("a task of the service has ended"),
        Err(error) => anyhow!("a task of the service has failed: {error}"),
    }
}
