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

mod authentication;
mod authz;
mod batches;
mod bodies;
mod browser;
mod change_log;
mod cli;
mod client_examples;
mod commit;
mod compose;
mod connecting;
mod creations;
mod deadlines;
mod demo;
mod examples;
mod expectations;
mod extremes;
mod fairness;
mod gateway_calls;
mod gateway_shares;
mod grpc;
mod head;
mod hosts;
mod keep_alive;
mod limits;
mod listeners;
mod migrations;
mod openapi;
mod operations;
mod outcomes;
mod pages;
mod parity;
mod places;
mod processes;
mod properties;
mod rate_limits;
mod refusals;
mod reliability;
mod remote;
mod resources;
mod rest;
mod rights;
mod secrets;
mod settings;
mod signals;
mod sources;
mod stopping;
mod streams;
mod telemetry;
mod tls;
mod watch;
mod whoami;
