//! orgd, the organization service: the one place where the details of an organization change.
//!
//! A request travels one way, and each room names only rooms to its right (`docs/ARCHITECTURE.md`
//! has the rules, `tests/tidy.rs` holds them):
//!
//! ```text
//! REST ──► gateway ──► generated interface ──► grpc ──► app ──► store ──► SQLite | PostgreSQL
//! gRPC ──────────────────────────────────────► grpc      │       │
//!                                                └► auth ┴───────┴──► domain
//! ```

#![forbid(unsafe_code)]

pub mod app;
pub mod auth;
mod certificate;
pub mod cli;
pub mod config;
pub mod gateway;
pub mod grpc;
pub mod proto;
pub mod rate_limit;
mod rests;
pub mod server;
pub mod store;
pub mod telemetry;

pub use orgd_domain as domain;
