//! The integration tests: the real binary on real ports, over a database of its own for each test.
//!
//! A test that fails beside other work has found a fault. So: wait for what must have happened (`until_…`,
//! [`harness::PATIENT`]), never for a time; bound a time from below, or from above by what only a fault
//! takes; and where a set-up comes too late on a slow machine, make the set-up again, not the assertion.

#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::unreachable,
    clippy::format_push_string,
    clippy::format_collect,
    clippy::type_complexity,
    reason = "a test fails by panicking, and helpers of tests are tests too"
)]

mod harness;

mod access;
mod api;
mod changes;
mod fairness;
mod gateway;
mod listener;
mod operations;
mod processes;
mod reliability;
mod rest;
mod store;
