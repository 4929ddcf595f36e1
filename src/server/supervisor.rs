//! What systemd is told of a process that it runs (`Type=notify`). Elsewhere nothing is sent.

use std::future::pending;

use anyhow::Result;
use sd_notify::NotifyState;
use tokio::time::sleep;

use super::readiness::Readiness;

/// How often it is told within the watchdog's time that the process lives: one message may be late.
const SIGNS_OF_LIFE: u32 = 3;

/// To be run once the service listens. The start is over when it is ready, so that whoever starts instances one after the
/// other need not ask; also where it is known not to be, as it becomes so by itself: no reason to start it again.
pub(super) async fn tell_of_start(readiness: Readiness) -> Result<()> {
    if readiness.until_known().await {
        tell(NotifyState::Ready);
    }
    pending().await
}

pub(super) fn stopping() {
    tell(NotifyState::Stopping);
}

/// What `systemctl status` shows.
pub(super) fn readiness(ready: bool) {
    tell(NotifyState::Status(if ready { "ready" } else { "not ready" }));
}

/// To be run where clients are served: if these threads are stuck, the watchdog ends the process.
pub(super) async fn keep_telling_of_life() -> Result<()> {
    let timeout = sd_notify::watchdog_enabled().filter(|timeout| !timeout.is_zero());
    let Some(timeout) = timeout else { return pending().await };
    loop {
        tell(NotifyState::Watchdog);
        sleep(timeout / SIGNS_OF_LIFE).await;
    }
}

fn tell(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "systemd cannot be told");
    }
}
