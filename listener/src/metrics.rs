//! The metrics of listeners.

use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};

const CONNECTIONS: &str = "orgd_connections";
const CONNECTIONS_CLOSED: &str = "orgd_connections_closed_total";
const HELD_BYTES: &str = "orgd_held_bytes";
const CERTIFICATE_EXPIRY: &str = "orgd_tls_certificate_expiry_timestamp_seconds";

pub fn describe_metrics() {
    describe_gauge!(CONNECTIONS, "Connections of clients");
    describe_counter!(
        CONNECTIONS_CLOSED,
        "Connections closed because of a share, by what was over it"
    );
    describe_gauge!(
        HELD_BYTES,
        "Bytes that clients hold: requests under way, and answers not taken"
    );
    describe_gauge!(
        CERTIFICATE_EXPIRY,
        Unit::Seconds,
        "When a listener's certificate ends, in seconds since 1970"
    );
}

/// A client's connection to a listener, for as long as the value lives.
#[derive(Debug)]
pub(crate) struct ConnectionGauge(metrics::Gauge);

impl ConnectionGauge {
    pub(crate) fn start(listener: &'static str) -> Self {
        let gauge = gauge!(CONNECTIONS, "listener" => listener);
        gauge.increment(1.0);
        Self(gauge)
    }
}

impl Drop for ConnectionGauge {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

pub(crate) fn no_connections(listener: &'static str) {
    gauge!(CONNECTIONS, "listener" => listener).set(0.0);
    for closed in [Closed::Idle, Closed::Refused, Closed::OverBudget] {
        counter!(CONNECTIONS_CLOSED, "listener" => listener, "reason" => closed.name())
            .increment(0);
    }
}

/// Why a connection is closed so that others have their share.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Closed {
    /// It was idle for longest, and its source has a new one.
    Idle,
    /// It was new, and its source has no idle one.
    Refused,
    /// Its client holds more than its share of bytes.
    OverBudget,
}

impl Closed {
    fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Refused => "refused",
            Self::OverBudget => "holding",
        }
    }
}

pub(crate) fn connection_closed(listener: &'static str, closed: Closed) {
    counter!(CONNECTIONS_CLOSED, "listener" => listener, "reason" => closed.name()).increment(1);
}

/// When the certificate of a listener ends, since 1970.
pub(crate) fn certificate_expiry(listener: &'static str, expiry: Duration) {
    gauge!(CERTIFICATE_EXPIRY, "listener" => listener).set(expiry.as_secs_f64());
}

pub(crate) fn held_bytes(bytes: usize) {
    // Whole KiB: a gauge takes a u32 without loss, which as bytes would end at 4 GiB.
    let kibibytes = u32::try_from(bytes / 1024).unwrap_or(u32::MAX);
    gauge!(HELD_BYTES).set(f64::from(kibibytes) * 1024.0);
}
