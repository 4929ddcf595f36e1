//! Metrics, named by OpenTelemetry's semantic conventions where these have a name.

use std::{cell::RefCell, collections::BTreeMap, sync::OnceLock, thread::LocalKey, time::Duration};

use anyhow::{Context, Result};
use metrics::{
    Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    histogram,
};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_process::Collector;
use tracing::Span;
use tracing_appender::non_blocking::ErrorCounter;

const HTTP_REQUEST: &str = "http_server_request_duration_seconds";
const RPC_CALL: &str = "rpc_server_call_duration_seconds";
const DB_OPERATION: &str = "db_client_operation_duration_seconds";
const DB_CONNECTIONS: &str = "db_client_connection_count";
const DB_CONNECTIONS_MAX: &str = "db_client_connection_max";
const RATE_LIMIT_REFUSALS: &str = "orgd_rate_limit_refusals_total";
const QUEUE_WAITING: &str = "orgd_queue_waiting";
const QUEUE_REFUSALS: &str = "orgd_queue_refusals_total";
const BATCH_SIZE: &str = "orgd_batch_size";
const CHANGE_LOG_ENTRIES: &str = "orgd_change_log_entries_total";
const CHANGE_LOG_BYTES: &str = "orgd_change_log_bytes_total";
const AUTH_LOOKUPS: &str = "orgd_auth_cache_lookups_total";
const AUTH_ENTRIES: &str = "orgd_auth_cache_entries";
const MIGRATIONS: &str = "orgd_migrations";
const WATCHES: &str = "orgd_watches";
const READY: &str = "orgd_ready";
const BUILD: &str = "orgd_build_info";
const DROPPED_LINES: &str = "orgd_log_lines_dropped_total";

const SECONDS: [f64; 14] =
    [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const SIZES: [f64; 8] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0];

/// How often histograms are compacted when nobody scrapes; otherwise each sample stays in memory.
pub const COMPACTION_INTERVAL: Duration = Duration::from_secs(1);

static EXPORTER: OnceLock<PrometheusHandle> = OnceLock::new();
static LINES: OnceLock<ErrorCounter> = OnceLock::new();

#[derive(Clone, Debug)]
pub struct Metrics {
    exporter: PrometheusHandle,
    process: Collector,
}

impl Metrics {
    /// Begins to count; a second time, goes on.
    pub fn start() -> Result<Self> {
        let exporter = if let Some(exporter) = EXPORTER.get() {
            exporter
        } else {
            let exporter = PrometheusBuilder::new()
                .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?
                .set_buckets_for_metric(Matcher::Full(BATCH_SIZE.to_owned()), &SIZES)?
                .install_recorder()
                .context("cannot count metrics")?;
            describe();
            EXPORTER.get_or_init(|| exporter)
        };
        let process = Collector::default();
        process.describe();
        Ok(Self { exporter: exporter.clone(), process })
    }

    pub fn compact(&self) {
        self.exporter.run_upkeep();
    }

    #[must_use]
    pub fn render(&self) -> String {
        self.process.collect();
        if let Some(lines) = LINES.get() {
            let dropped = u64::try_from(lines.dropped_lines()).unwrap_or(u64::MAX);
            counter!(DROPPED_LINES).absolute(dropped);
        }
        self.exporter.render()
    }
}

fn describe() {
    let seconds = Unit::Seconds;
    describe_histogram!(HTTP_REQUEST, seconds, "Time from a REST request's headers to its answer");
    describe_histogram!(RPC_CALL, seconds, "Time of a call, over gRPC or from the gateway");
    describe_histogram!(DB_OPERATION, seconds, "Time of a batch in the database");
    describe_gauge!(DB_CONNECTIONS, "Connections to the database");
    describe_gauge!(DB_CONNECTIONS_MAX, "Connections to the database at most");
    orgd_listener::describe_metrics();
    describe_counter!(RATE_LIMIT_REFUSALS, "Requests over a rate limit");
    describe_gauge!(QUEUE_WAITING, "Work that waits for the database");
    describe_counter!(QUEUE_REFUSALS, "Work refused because too much waited");
    describe_histogram!(BATCH_SIZE, "Work that was done in one batch");
    describe_counter!(CHANGE_LOG_ENTRIES, "Changes that were recorded");
    describe_counter!(CHANGE_LOG_BYTES, Unit::Bytes, "Bytes of the values in recorded changes");
    describe_counter!(AUTH_LOOKUPS, "Credentials that were known, known to be none, or looked up");
    describe_gauge!(AUTH_ENTRIES, "Credentials that are remembered");
    describe_gauge!(MIGRATIONS, "Migrations: applied, pending, or unknown to this version");
    describe_gauge!(WATCHES, "Watches of changes that are open; of a gateway: through it");
    describe_gauge!(READY, "1: the service can do its work");
    describe_gauge!(BUILD, "1, with the version");
    describe_counter!(DROPPED_LINES, "Log lines that nobody took in time");
    gauge!(WATCHES).set(0.0);
    gauge!(BUILD, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    // What may not happen for days is there from the start, so that its first time is a rise.
    for scope in [RateScope::Principal, RateScope::Source] {
        counter!(RATE_LIMIT_REFUSALS, "scope" => scope.name()).increment(0);
    }
    for counter in [DROPPED_LINES, CHANGE_LOG_ENTRIES, CHANGE_LOG_BYTES] {
        counter!(counter).increment(0);
    }
}

#[derive(Clone, Copy, Debug)]
pub enum RateScope {
    Principal,
    Source,
}

impl RateScope {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Principal => "principal",
            Self::Source => "source",
        }
    }
}

pub fn rate_limited(scope: RateScope) {
    counter!(RATE_LIMIT_REFUSALS, "scope" => scope.name()).increment(1);
}

pub(super) fn count_dropped_lines(lines: ErrorCounter) {
    let _ = LINES.set(lines);
}

/// Histograms that this thread has found by their labels. To find them anew took 7,000 of a GET's 250,000
/// instructions, and threads that share a map would wait for each other.
type Found<L> = RefCell<BTreeMap<L, Histogram>>;

fn record<L: Ord>(
    found: &'static LocalKey<Found<L>>,
    labels: L,
    find: impl FnOnce(&L) -> Histogram,
    time: Duration,
) {
    found.with_borrow_mut(|found| found.entry(labels).or_insert_with_key(find).record(time));
}

/// A REST request was answered. Method, route and status are of closed sets.
pub(super) fn http_request(method: &'static str, route: &str, status: u16, time: Duration) {
    thread_local!(static FOUND: Found<(&'static str, String, u16)> = RefCell::default());
    let find = |(method, route, status): &(&'static str, String, u16)| {
        histogram!(
            HTTP_REQUEST,
            "http_request_method" => *method,
            "http_route" => route.clone(),
            "http_response_status_code" => status.to_string(),
        )
    };
    record(&FOUND, (method, route.to_owned(), status), find, time);
}

/// A call was answered; both names are of a closed set.
pub fn rpc_call(method: &'static str, code: &'static str, time: Duration) {
    thread_local!(static FOUND: Found<(&'static str, &'static str)> = RefCell::default());
    let find = |(method, code): &(&'static str, &'static str)| {
        histogram!(
            RPC_CALL,
            "rpc_system_name" => "grpc",
            "rpc_method" => *method,
            "rpc_response_status_code" => *code,
        )
    };
    record(&FOUND, (method, code), find, time);
}

/// What is told of a queue: what it counts, and the span of whoever waits for it.
#[derive(Clone, Debug)]
pub struct QueueTelemetry {
    system: &'static str,
    operation: &'static str,
    collection: &'static str,
    refusals: metrics::Counter,
    waiting: metrics::Gauge,
    batch_size: Histogram,
    time: Histogram,
}

impl QueueTelemetry {
    /// `operation` is that of the queue's batches, on the table `collection`.
    #[must_use]
    pub fn new(
        queue: &'static str,
        system: &'static str,
        operation: &'static str,
        collection: &'static str,
    ) -> Self {
        let refusals = counter!(QUEUE_REFUSALS, "queue" => queue);
        refusals.increment(0);
        let waiting = gauge!(QUEUE_WAITING, "queue" => queue);
        waiting.set(0.0);
        Self {
            system,
            operation,
            collection,
            refusals,
            waiting,
            batch_size: histogram!(BATCH_SIZE, "queue" => queue),
            time: histogram!(
                DB_OPERATION, "db_system_name" => system, "db_operation_name" => operation
            ),
        }
    }

    #[must_use]
    pub fn span(&self) -> Span {
        db_span(self.system, self.operation, self.collection)
    }

    pub fn refused(&self) {
        self.refusals.increment(1);
    }

    pub fn waiting(&self, waiting: usize) {
        self.waiting.set(number(waiting));
    }

    pub fn done(&self, size: usize, time: Duration) {
        self.batch_size.record(number(size));
        self.time.record(time);
    }
}

pub fn change_log(entries: usize, bytes: usize) {
    for (counter, count) in [(CHANGE_LOG_ENTRIES, entries), (CHANGE_LOG_BYTES, bytes)] {
        counter!(counter).increment(u64::try_from(count).unwrap_or(u64::MAX));
    }
}

#[must_use]
pub fn db_span(system: &'static str, operation: &'static str, collection: &'static str) -> Span {
    tracing::debug_span!(
        "db",
        otel.name = format_args!("{operation} {collection}"),
        otel.kind = "client",
        db.system.name = system,
        db.operation.name = operation,
        db.collection.name = collection,
    )
}

pub fn pool(name: &'static str, idle: usize, used: usize, max: usize) {
    for (state, count) in [("idle", idle), ("used", used)] {
        gauge!(
            DB_CONNECTIONS,
            "db_client_connection_pool_name" => name,
            "db_client_connection_state" => state,
        )
        .set(number(count));
    }
    gauge!(DB_CONNECTIONS_MAX, "db_client_connection_pool_name" => name).set(number(max));
}

/// How a credential was found: `known`, `unknown`, or `miss`, which asks the database.
#[derive(Clone, Debug)]
pub struct AuthMetrics {
    pub known: metrics::Counter,
    pub unknown: metrics::Counter,
    pub miss: metrics::Counter,
}

impl Default for AuthMetrics {
    fn default() -> Self {
        let [known, unknown, miss] = ["known", "unknown", "miss"].map(|result| {
            let counter = counter!(AUTH_LOOKUPS, "result" => result);
            counter.increment(0);
            counter
        });
        Self { known, unknown, miss }
    }
}

pub fn auth_entries(known: u64, unknown: u64) {
    for (cache, entries) in [("known", known), ("unknown", unknown)] {
        gauge!(AUTH_ENTRIES, "cache" => cache).set(number(entries));
    }
}

/// A watch that is open, for as long as the value lives.
#[derive(Debug)]
pub struct OpenWatch(metrics::Gauge);

impl OpenWatch {
    #[must_use]
    pub fn start() -> Self {
        let gauge = gauge!(WATCHES);
        gauge.increment(1.0);
        Self(gauge)
    }
}

impl Drop for OpenWatch {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

/// Steps of the schema. The `unknown` ones are of a later version.
pub fn migrations(applied: usize, pending: usize, unknown: usize) {
    for (state, steps) in [("applied", applied), ("pending", pending), ("unknown", unknown)] {
        gauge!(MIGRATIONS, "state" => state).set(number(steps));
    }
}

pub fn ready(ready: bool) {
    gauge!(READY).set(if ready { 1.0 } else { 0.0 });
}

/// Counts are far below what a float has exactly.
fn number(count: impl TryInto<u32>) -> f64 {
    count.try_into().map_or(f64::from(u32::MAX), f64::from)
}
