//! Signals that a serving process survives; by default each would end it without answers.

use std::{convert::Infallible, ffi::OsString, io};

use anyhow::Result;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task::spawn_blocking,
};

use crate::{config::LogArgs, telemetry::Telemetry};

/// Reads the settings of the log that the words of a command and the environment name, and whether there is a
/// settings file.
type ReadLog = fn(&[OsString]) -> Result<(LogArgs, bool)>;

/// SIGHUP, and those which supervisors and log rotation send to other programs.
pub(super) struct Nudges {
    hangup: Signal,
    alarm: Signal,
    user1: Signal,
    user2: Signal,
}

impl Nudges {
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            alarm: signal(SignalKind::alarm())?,
            user1: signal(SignalKind::user_defined1())?,
            user2: signal(SignalKind::user_defined2())?,
        })
    }

    /// Reads the log's filter again at each SIGHUP, and ignores the others.
    pub(super) async fn heed(
        mut self,
        words: &[OsString],
        read: ReadLog,
        telemetry: &Telemetry,
    ) -> Infallible {
        loop {
            let signal = tokio::select! {
                _ = self.hangup.recv() => {
                    set_filter(words, read, telemetry).await;
                    continue;
                }
                _ = self.alarm.recv() => "SIGALRM",
                _ = self.user1.recv() => "SIGUSR1",
                _ = self.user2.recv() => "SIGUSR2",
            };
            tracing::info!(signal, "a signal without a meaning here was ignored");
        }
    }
}

async fn set_filter(words: &[OsString], read: ReadLog, telemetry: &Telemetry) {
    let words = words.to_vec();
    // A settings file may be slow, and whoever serves must not be.
    let log = spawn_blocking(move || read(&words)).await.map_err(Into::into).flatten();
    match log.and_then(|(log, has_file)| telemetry.set_filter(&log).map(|()| has_file)) {
        Ok(true) => tracing::info!(
            "SIGHUP: the log's filter was read again; certificates are whenever they change"
        ),
        // The environment of a process stays as it was at its start.
        Ok(false) => tracing::info!(
            "SIGHUP: there is no settings file to read again; certificates are read whenever they change"
        ),
        Err(error) => {
            let error = format!("{error:#}");
            let error = error.lines().next().unwrap_or_default();
            tracing::warn!(error, "SIGHUP: the settings cannot be read; the log's filter stays");
        }
    }
}
