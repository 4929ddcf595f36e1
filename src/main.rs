//! The binary: words, exit code.

#![forbid(unsafe_code)]

use std::{env, process::ExitCode};

use tikv_jemallocator::Jemalloc;

/// Gives memory back to the system. glibc's allocator, with an arena a thread, keeps most of what a flood of
/// requests took (docs/DEPENDENCIES.md has the figures).
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    let words: Vec<_> = env::args_os().collect();
    orgd::cli::run(&words)
}
