//! The binary: words, exit code.

#![forbid(unsafe_code)]

use std::{
    env,
    io::{Write, stderr},
    process::ExitCode,
};

fn main() -> ExitCode {
    let words: Vec<_> = env::args_os().collect();
    orgd::cli::run(&words).unwrap_or_else(|error| {
        // Before there is a log.
        let _ = writeln!(stderr(), "orgd: {error:#}");
        ExitCode::FAILURE
    })
}
