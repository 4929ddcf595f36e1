//! Liveness and readiness: whether the process runs, and whether it can do its work.

use std::time::Duration;

use anyhow::{Error, Result};
use axum::{Router, http::StatusCode, routing::get};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval, timeout},
};

use crate::telemetry::metrics;

/// How often the probe runs, and how long it may take.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// Failed probes in a row after which the service is not ready. A single failure may be chance.
const FAILURES_MAX: u32 = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    NotReady,
    Ready,
    Stopping,
}

#[derive(Clone, Debug)]
pub(super) struct Readiness(watch::Sender<State>);

impl Readiness {
    pub(super) fn new() -> Self {
        metrics::ready(false);
        Self(watch::Sender::new(State::NotReady))
    }

    /// Asks `probe` again and again whether the service can do its work, until it is stopping. `explain` has
    /// words for a failure, or for a probe without an answer in time.
    pub(super) async fn keep_probing<F: Future<Output = Result<()>>, W: Future<Output = String>>(
        self,
        probe: impl Fn() -> F,
        explain: impl Fn(Option<Error>) -> W,
    ) -> Result<()> {
        let mut ticks = interval(PROBE_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failures = 0;
        let mut changes = self.0.subscribe();
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                _ = changes.wait_for(|state| *state == State::Stopping) => return Ok(()),
            }
            let failure = match timeout(PROBE_TIMEOUT, probe()).await {
                Ok(Ok(())) => {
                    failures = 0;
                    self.set(State::Ready, "");
                    continue;
                }
                Ok(Err(error)) => Some(error),
                Err(_) => None,
            };
            failures += 1;
            // To find the words takes a moment, so only where they are said.
            if failures >= FAILURES_MAX && *self.0.borrow() == State::Ready {
                let reason = explain(failure).await;
                self.set(State::NotReady, &reason);
            }
        }
    }

    fn set(&self, next: State, reason: &str) {
        let ready = next == State::Ready;
        self.0.send_if_modified(|state| {
            // A stopping process never becomes ready again.
            let changed = *state != next && *state != State::Stopping;
            if changed {
                if ready {
                    tracing::info!(ready, "readiness has changed");
                } else {
                    tracing::warn!(ready, reason, "readiness has changed");
                }
                metrics::ready(ready);
                *state = next;
            }
            changed
        });
    }

    pub(super) fn stop(&self) {
        metrics::ready(false);
        self.0.send_replace(State::Stopping);
    }

    /// Tells `report` whether the service is ready: now, and at each change until it is stopping.
    pub(super) async fn keep_reporting(self, report: impl AsyncFn(bool)) -> Result<()> {
        let mut changes = self.0.subscribe();
        loop {
            let state = *changes.borrow_and_update();
            report(state == State::Ready).await;
            if state == State::Stopping || changes.changed().await.is_err() {
                return Ok(());
            }
        }
    }

    /// `/livez`: the process runs. `/readyz`: it can do its work.
    pub(super) fn router(&self) -> Router {
        let readiness = self.clone();
        let ready = move || async move {
            match *readiness.0.borrow() {
                State::Ready => (StatusCode::OK, "ready\n"),
                State::NotReady => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
                State::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "stopping\n"),
            }
        };
        Router::new().route("/livez", get(async || "live\n")).route("/readyz", get(ready))
    }
}
