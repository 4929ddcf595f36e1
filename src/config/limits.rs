//! What clients may take of the service.

use std::{num::NonZeroUsize, time::Duration};

use clap::{Args, builder::RangedU64ValueParser};

use super::values::{TimeSpan, number, time_span_or_none};

#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Limits")]
pub struct Limits {
    /// The most connections of one listener. Half of those that other source addresses leave free may be of one address. If an address opens more, its connection that is idle for longest is closed
    #[arg(
        long,
        env = "ORGD_CONNECTIONS_MAX",
        default_value = "4096",
        value_name = "NUMBER",
        value_parser = number(1_000_000)
    )]
    pub connections_max: NonZeroUsize,
    /// Requests at once on one HTTP/2 connection
    #[arg(
        long,
        env = "ORGD_STREAMS_MAX",
        default_value = "100",
        value_name = "NUMBER",
        value_parser = RangedU64ValueParser::<u32>::new().range(1..=u32::MAX.into())
    )]
    pub streams_max: u32,
    /// The most bytes that clients of the gRPC and REST listeners hold together: 16 KiB for each request under way, and more for large bodies and for answers that are not taken. Half of what others leave free is for one source address, and for the answers of one credential; an eighth of all is for one connection
    #[arg(
        long,
        env = "ORGD_HELD_BYTES_MAX",
        default_value = "67108864",
        value_name = "BYTES",
        // A connection's part is one request at least.
        value_parser = RangedU64ValueParser::<usize>::new().range(131_072..=1 << 40)
    )]
    pub held_bytes_max: usize,
    /// Bytes of a request's headers, counted as HTTP/2 counts them
    #[arg(
        long,
        env = "ORGD_HEADER_BYTES_MAX",
        default_value = "16384",
        value_name = "BYTES",
        value_parser = RangedU64ValueParser::<u32>::new().range(8192..=1_048_576)
    )]
    pub header_bytes_max: u32,
    /// Bytes of a REST body at most; a gRPC message may have 1 KiB more, for mask, id and key
    #[arg(
        long,
        env = "ORGD_BODY_BYTES_MAX",
        default_value = "65536",
        value_name = "BYTES",
        value_parser = RangedU64ValueParser::<u32>::new().range(1024..=16_777_216)
    )]
    pub body_bytes_max: u32,
    /// How long the headers of a request may take from its first byte on; for the first request, from the start of the connection on
    #[arg(long, env = "ORGD_HEADER_READ_TIMEOUT", default_value = "5s", value_name = "TIME")]
    pub header_read_timeout: TimeSpan,
    /// How long a connection may stay open without a request after its first one. Clients that keep connections should close them sooner: over HTTP/1.1 the service cannot announce that it closes one
    #[arg(long, env = "ORGD_IDLE_TIMEOUT", default_value = "120s", value_name = "TIME")]
    pub idle_timeout: TimeSpan,
    /// How long a client with a request under way may neither send nor take a byte; then its connection is closed. Over HTTP/2 an answer that is not taken for as long is reset, and such connections are pinged after half of this time
    #[arg(long, env = "ORGD_STALL_TIMEOUT", default_value = "8s", value_name = "TIME")]
    pub stall_timeout: TimeSpan,
    /// How old a connection becomes, more or less a tenth, before it takes no new requests. Clients then connect again, and find new instances
    #[arg(long, env = "ORGD_CONNECTION_AGE_MAX", default_value = "15m", value_name = "TIME")]
    pub connection_age_max: TimeSpan,
    /// How long a connection that is old enough may still take for its requests
    #[arg(long, env = "ORGD_CONNECTION_AGE_GRACE", default_value = "30s", value_name = "TIME")]
    pub connection_age_grace: TimeSpan,
    /// The time of one request; a caller may ask for less
    #[arg(long, env = "ORGD_REQUEST_DEADLINE", default_value = "5s", value_name = "TIME")]
    pub request_deadline: TimeSpan,
    /// Watches of changes at once; more are refused
    #[arg(
        long,
        env = "ORGD_WATCHES_MAX",
        default_value = "1000",
        value_name = "NUMBER",
        value_parser = RangedU64ValueParser::<usize>::new().range(1..=100_000)
    )]
    pub watches_max: usize,
    /// How long a process that was told to stop still takes requests, while it says that it is not ready
    #[arg(
        long,
        env = "ORGD_LAME_DUCK_TIME",
        default_value = "2s",
        value_name = "TIME",
        value_parser = time_span_or_none
    )]
    pub lame_duck_time: Duration,
    /// How long a stop then waits for requests under way
    #[arg(
        long,
        env = "ORGD_DRAIN_DEADLINE",
        default_value = "20s",
        value_name = "TIME",
        value_parser = time_span_or_none
    )]
    pub drain_deadline: Duration,
}

impl Limits {
    #[must_use]
    pub fn of_listener(&self) -> orgd_listener::Limits {
        orgd_listener::Limits {
            connections_max: self.connections_max.get(),
            streams_max: self.streams_max,
            header_bytes_max: self.header_bytes_max,
            body_bytes_max: self.body_bytes_max,
            header_read_timeout: self.header_read_timeout.0,
            idle_timeout: self.idle_timeout.0,
            stall_timeout: self.stall_timeout.0,
            connection_age_max: self.connection_age_max.0,
            connection_age_grace: self.connection_age_grace.0,
            request_deadline: self.request_deadline.0,
        }
    }
}
