//! Logs: readable on a terminal, JSON elsewhere. Set up once, by the binary.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::{EnvFilter, fmt};

/// Sends log lines to standard error; standard output is for what a command answers.
pub fn init() {
    // Level by default: our own words, and the warnings of libraries.
    let filter = EnvFilter::new("warn,orgd=info");
    let builder = fmt().with_env_filter(filter).with_writer(stderr);
    if stderr().is_terminal() {
        builder.init();
    } else {
        builder.json().flatten_event(true).init();
    }
}
