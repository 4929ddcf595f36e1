//! The signals that ask the process to stop.

use std::io::{self, IsTerminal, stderr, stdin};

use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGTERM, SIGINT and SIGQUIT, and a SIGHUP that comes because the process's terminal was closed.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    hangup: Signal,
    had_terminal: bool,
}

impl Signals {
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            hangup: signal(SignalKind::hangup())?,
            had_terminal: has_terminal(),
        })
    }

    pub(super) async fn next(&mut self) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.quit.recv() => return,
                // Any other SIGHUP asks for the log's filter to be read again (`cli/nudges.rs`), not for a
                // stop.
                _ = self.hangup.recv() => if self.had_terminal && !has_terminal() {
                    return;
                },
            }
        }
    }
}

/// Whether the process has a terminal; false once it was closed.
fn has_terminal() -> bool {
    stdin().is_terminal() || stderr().is_terminal()
}
