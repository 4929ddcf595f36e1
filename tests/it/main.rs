//! The integration tests: the real binary on real ports, over a database of its own for each test.

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
mod cli;
mod client_examples;
mod commit;
mod compose;
mod deadlines;
mod demo;
mod examples;
mod gateway_calls;
mod grpc;
mod limits;
mod listeners;
mod migrations;
mod openapi;
mod operations;
mod parity;
mod processes;
mod properties;
mod rate_limits;
mod refusals;
mod reliability;
mod remote;
mod resources;
mod rest;
mod rights;
mod settings;
mod stopping;
mod streams;
mod telemetry;
mod tls;
mod watch;
