//! The binary: words, exit code.

#![forbid(unsafe_code)]

use std::{env, process::ExitCode};

fn main() -> ExitCode {
    let words: Vec<_> = env::args_os().collect();
    orgd::cli::run(&words)
}
