//! Starts the real service and talks to it: databases, processes, clients, credentials.

mod command;
mod crash;
mod credential;
mod database;
pub mod disclosure;
mod documented;
pub mod engine;
mod faults;
mod gateway;
mod held;
mod http;
mod http1;
mod http2;
mod messages;
pub mod offender;
mod patroni;
mod postgres;
mod postgres_tls;
pub mod proxies;
mod python;
mod receiver;
mod service;
pub mod strict;
pub mod watching;
mod yaml;

use std::{sync::Arc, time::Duration};

pub use self::{
    command::{Command, cargo, not_run, orgd, orgd_to, orgd_with, orgd_with_input},
    credential::ending_soon,
    database::{Database, WHOLE},
    documented::{DOCUMENTED_HEADERS, assert_documented_headers, assert_examples},
    engine::Engine,
    faults::{Fault, Proxy},
    gateway::gateway_before,
    held::{
        HeldWrites, PRIMED, PRIMER, Spoiled, hold_creations, hold_primers, hold_updates,
        unspoiled_on, unspoiled_on_both_databases,
    },
    http::{Answer, Request, connect_from},
    http1::{OPTIONS, RawHttp1, is_answered, until_closed},
    http2::{END_HEADERS, END_STREAM, PREFACE, RawHttp2, block, frame, kind, write_length},
    patroni::Patroni,
    postgres::{Cluster, binaries},
    postgres_tls::{IN_PLAIN_TEXT, OVER_TLS, TlsCluster},
    python::{interpreter, python},
    receiver::Receiver,
    service::{ANY_PORT, LOGGED, SERVE, Service, authorized, reason},
    yaml::{documents, documents_of, texts},
};

/// The tokens of the documented examples (docs/API.md): the user of organization 90, and an administrator.
pub const USER: &str = "e486a154-3cbe-46b8-87a1-0d46a15c54c8";
pub const ADMINISTRATOR: &str = "111d7a49-b4f7-43c8-8cbd-5b6a67f71066";
/// A support credential of the harness.
pub const SUPPORT: &str = "9d2f1c3e-6a54-4b0e-8a37-5f0f6f1f2b11";

/// How long a test waits for what follows by itself: more than any of it takes on a machine that does much else.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The organizations that every seeded database has; the user belongs to the first.
pub const OWN: i64 = 90;
pub const FOREIGN: i64 = 94;
/// An organization that no database has.
pub const UNKNOWN: i64 = 77;

/// Users have no rate limit, and answers no word on how many calls are left, which is another one each time.
pub const UNCOUNTED: (&str, &str) = ("ORGD_RATE_LIMIT_USER", "0");

/// Limits of time that no load of the machine comes near: for a service whose requests are held until
/// something else has been seen to happen. A request that is held looks like a client that has stalled.
pub const PATIENT: [(&str, &str); 4] = [
    ("ORGD_REQUEST_DEADLINE", "60s"),
    ("ORGD_STALL_TIMEOUT", "60s"),
    ("ORGD_DATABASE_ACQUIRE_TIMEOUT", "20s"),
    ("ORGD_DATABASE_LOCK_TIMEOUT", "20s"),
];

/// Runs a test against a service over SQLite and one over PostgreSQL, each with a fresh, seeded
/// database.
pub async fn on_both_databases(test: impl AsyncFn(Service)) {
    on_both_databases_with(&[], test).await;
}

/// The same with a service that is patient, and has settings besides.
pub async fn patiently_on_both_databases(settings: &[(&str, &str)], test: impl AsyncFn(Service)) {
    on_both_databases_with(&[&PATIENT, settings].concat(), test).await;
}

/// The same with a service that has settings.
pub async fn on_both_databases_with(settings: &[(&str, &str)], test: impl AsyncFn(Service)) {
    for database in Database::of_each_kind().await {
        eprintln!("over {}", database.kind());
        database.seed().await;
        test(Service::start_with(Arc::new(database), settings).await).await;
    }
}
