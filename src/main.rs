//! The binary: parse, run, exit code.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use orgd::{cli::Cli, telemetry};

fn main() -> ExitCode {
    let cli = Cli::parse();
    telemetry::init();
    match cli.run() {
        Ok(code) => code,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
