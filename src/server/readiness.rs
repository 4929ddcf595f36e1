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

/// More than it takes until probes have failed often enough.
const KNOWN_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Never ready so far.
    Starting,
    NotReady,
    Ready,
    Stopping,
}

#[derive(Clone, Debug)]
pub(super) struct Readiness(watch::Sender<State>);

impl Readiness {
    pub(super) fn new() -> Self {
        metrics::ready(false);
        Self(watch::Sender::new(State::Starting))
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
        let mut failures = Failures::default();
        let mut changes = self.0.subscribe();
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                _ = changes.wait_for(|state| *state == State::Stopping) => return Ok(()),
            }
            let failure = match timeout(PROBE_TIMEOUT, probe()).await {
                Ok(Ok(())) => {
                    failures = Failures::default();
                    self.ready();
                    continue;
                }
                Ok(Err(error)) => Some(error),
                Err(_) => None,
            };
            // To find the words takes a moment, so only where they are said.
            if failures.is_news(failure.as_ref()) {
                self.not_ready(&explain(failure).await);
            }
        }
    }

    fn ready(&self) {
        self.change(State::Ready, || tracing::info!(ready = true, "readiness has changed"));
    }

    /// Also where it was not ready before: for another reason, or never ready.
    fn not_ready(&self, reason: &str) {
        let say = || tracing::warn!(ready = false, reason, "readiness has changed");
        if !self.change(State::NotReady, say) && *self.0.borrow() == State::NotReady {
            tracing::warn!(ready = false, reason, "still not ready, for another reason");
        }
    }

    /// Answers whether there was another state before.
    fn change(&self, next: State, say: impl FnOnce()) -> bool {
        self.0.send_if_modified(|state| {
            // A stopping process never becomes ready again.
            let changed = *state != next && *state != State::Stopping;
            if changed {
                say();
                metrics::ready(next == State::Ready);
                *state = next;
            }
            changed
        })
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

    /// Waits until it is known whether the service is ready; [`KNOWN_TIMEOUT`] at most. False where it stops instead.
    pub(super) async fn until_known(&self) -> bool {
        let mut changes = self.0.subscribe();
        let known = changes.wait_for(|state| *state != State::Starting);
        let _ = timeout(KNOWN_TIMEOUT, known).await.map(drop);
        *self.0.borrow() != State::Stopping
    }

    /// `/livez`: the process runs. `/readyz`: it can do its work.
    pub(super) fn router(&self) -> Router {
        let readiness = self.clone();
        let ready = move || async move {
            match *readiness.0.borrow() {
                State::Ready => (StatusCode::OK, "ready\n"),
                State::Starting | State::NotReady => {
                    (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
                }
                State::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "stopping\n"),
            }
        };
        Router::new().route("/livez", get(async || "live\n")).route("/readyz", get(ready))
    }
}

/// The failed probes since the last good one.
#[derive(Debug, Default)]
struct Failures {
    count: u32,
    last: String,
    /// How many in a row were as the last one.
    alike: u32,
    told: Option<String>,
}

impl Failures {
    /// Notes a failure, None for a probe without an answer, and answers whether its cause is to be told: once there
    /// are enough, and again when another cause stays. Causes that alternate are told once.
    fn is_news(&mut self, failure: Option<&Error>) -> bool {
        let failure = failure.map(|error| format!("{error:#}")).unwrap_or_default();
        self.count += 1;
        self.alike = if failure == self.last { self.alike + 1 } else { 1 };
        self.last = failure;
        let is_news = match &self.told {
            None => self.count >= FAILURES_MAX,
            Some(told) => self.alike >= FAILURES_MAX && *told != self.last,
        };
        if is_news {
            self.told = Some(self.last.clone());
        }
        is_news
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn a_cause_is_told_once_and_another_when_it_stays() {
        let mut failures = Failures::default();
        let causes = ["a", "b", "b", "b", "a", "b", "a", "a", "a"];
        let told: Vec<_> =
            causes.iter().map(|cause| failures.is_news(Some(&anyhow!(*cause)))).collect();
        assert_eq!(told, [false, true, false, false, false, false, false, true, false]);
    }

    #[test]
    fn a_probe_that_has_no_answer_is_a_cause_too() {
        let mut failures = Failures::default();
        let told = [(); 3].map(|()| failures.is_news(None));
        assert_eq!(told, [false, true, false]);
    }
}
