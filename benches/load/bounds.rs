//! What counts: ratios of numbers of the same round, and a few absolute ones, each with its bound.

use Bound::{AtLeast, AtMost};

use crate::{
    ladder,
    measure::Measurement,
    results::{Key, Metric, Results},
    systems::Facts,
    table::{Table, number},
};

#[derive(Clone, Copy)]
pub enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Bound {
    fn text(self) -> String {
        match self {
            AtLeast(bound) => format!("≥ {bound}"),
            AtMost(bound) => format!("≤ {bound}"),
        }
    }

    fn holds(self, found: f64) -> bool {
        match self {
            AtLeast(bound) => found >= bound,
            AtMost(bound) => found <= bound,
        }
    }
}

pub const RATE: Metric = |found| Some(found.report.rate);
const P50: Metric = |found| Some(found.report.p50);
pub const P99: Metric = |found| Some(found.report.p99);
pub const SERVICE_CPU: Metric = |found| found.service_cpu;
const DATABASE_CPU: Metric = |found| found.database_cpu;
/// Of the service and of the database, where that has processes of its own.
pub const CPU: Metric = |found: &Measurement| {
    found.service_cpu.map(|service| service + found.database_cpu.unwrap_or(0.0))
};

const PUT: Key<'_> = ("orgd-put-postgres", 64);
const PEER: Key<'_> = ("peer-put", 64);

/// What is divided, by what, and what must come out.
const RATIOS: [(&str, Metric, Key<'_>, Key<'_>, Bound); 13] = [
    ("PUT, PostgreSQL, 64: requests/s ÷ peer", RATE, PUT, PEER, AtLeast(4.0)),
    ("PUT, PostgreSQL, 64: requests/s ÷ pgbench", RATE, PUT, ("pgbench", 64), AtLeast(1.2)),
    ("PUT, PostgreSQL, 64: service CPU ÷ peer", SERVICE_CPU, PUT, PEER, AtMost(0.35)),
    ("PUT, PostgreSQL, 64: database CPU ÷ peer", DATABASE_CPU, PUT, PEER, AtMost(0.4)),
    ("PUT, PostgreSQL, 64: p99 ÷ peer", P99, PUT, PEER, AtMost(0.5)),
    (
        "PUT, PostgreSQL, 16: requests/s ÷ peer",
        RATE,
        ("orgd-put-postgres", 16),
        ("peer-put", 16),
        AtLeast(2.0),
    ),
    (
        "PUT, PostgreSQL, 1: p50 ÷ pgbench",
        P50,
        ("orgd-put-postgres", 1),
        ("pgbench", 1),
        AtMost(1.7),
    ),
    (
        "PUT, SQLite, 64: requests/s ÷ one commit per update",
        RATE,
        ("orgd-put-sqlite", 64),
        ("orgd-put-sqlite-single", 64),
        AtLeast(6.0),
    ),
    (
        "PUT, PostgreSQL, 64: service CPU ÷ gRPC",
        SERVICE_CPU,
        PUT,
        ("orgd-grpc-postgres", 64),
        AtMost(1.25),
    ),
    (
        "PUT, SQLite, 64: service CPU ÷ gRPC",
        SERVICE_CPU,
        ("orgd-put-sqlite", 64),
        ("orgd-grpc-sqlite", 64),
        AtMost(1.25),
    ),
    (
        "GET, PostgreSQL, 64: requests/s ÷ peer",
        RATE,
        ("orgd-get-postgres", 64),
        ("peer-get", 64),
        AtLeast(5.0),
    ),
    // With clients that do not rest after a refusal, as `--pause` is without a flag.
    ("PUT, PostgreSQL, 2000 ÷ 64: requests/s", RATE, (PUT.0, 2000), PUT, AtLeast(0.8)),
    (
        "PUT, SQLite, 2000 ÷ 64: requests/s",
        RATE,
        ("orgd-put-sqlite", 2000),
        ("orgd-put-sqlite", 64),
        AtLeast(0.8),
    ),
];

/// The same of the ladder, whose calls are measured beside bare axum.
const RUNGS: [(&str, Key<'_>, Key<'_>, Bound); 5] = [
    ("OPTIONS, 64: service CPU ÷ bare axum's", ladder::OPTIONS, ladder::AXUM, AtMost(1.6)),
    ("GET, PostgreSQL, 64: service CPU ÷ bare axum's", ladder::GET, ladder::AXUM, AtMost(3.0)),
    ("PUT, PostgreSQL, 64: service CPU ÷ bare axum's", ladder::PUT, ladder::AXUM, AtMost(4.0)),
    ("GET, 64: service CPU, log lines ÷ none", ladder::GET, ladder::QUIET_GET, AtMost(1.12)),
    ("PUT, 64: service CPU, log lines ÷ none", ladder::PUT, ladder::QUIET_PUT, AtMost(1.12)),
];

/// The bounds of the ladder.
pub fn ladder(results: &Results) -> Table {
    let row = |(what, over, under, bound): (&str, _, _, _)| {
        (what.to_owned(), results.ratio(SERVICE_CPU, over, under), bound)
    };
    compared(RUNGS.into_iter().map(row).collect())
}

/// All bounds; a dash where the run did not measure what one is about.
pub fn table(results: &Results, facts: &Facts) -> Table {
    let mut rows: Vec<Row> = Vec::new();
    for (what, metric, over, under, bound) in RATIOS {
        rows.push((what.to_owned(), results.ratio(metric, over, under), bound));
    }
    for (database, millis) in [("PostgreSQL", facts.ready_postgres), ("SQLite", facts.ready_sqlite)]
    {
        rows.push((format!("ready after a start, {database}: ms"), Some(millis), AtMost(150.0)));
    }
    let memory = results.keys().into_iter().filter(|key| key.0.starts_with("orgd") && key.1 == 64);
    let memory = memory.filter_map(|key| results.median(key, |found| found.resident));
    let memory = memory.max_by(f64::total_cmp);
    rows.push(("memory under 64 connections, at most: MiB".to_owned(), memory, AtMost(40.0)));
    rows.push(("stripped binary: MiB".to_owned(), Some(facts.binary), AtMost(25.0)));
    compared(rows)
}

/// What it is, what was found, and what it must be.
pub type Row = (String, Option<f64>, Bound);

/// Numbers beside their bounds.
pub fn compared(rows: Vec<Row>) -> Table {
    let mut table = Table::new(&["what", "found", "bound", "holds"]);
    for (what, found, bound) in rows {
        let holds = found.map_or("–", |found| if bound.holds(found) { "yes" } else { "**no**" });
        table.row(vec![what, number(found, 2), bound.text(), holds.to_owned()]);
    }
    table
}
