//! What a client may take of a listener.

use std::time::Duration;

/// What a client may take of a listener. What is no choice of an operator's is a constant, beside what it limits.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub connections_max: usize,
    /// Requests at once on one connection of HTTP/2.
    pub streams_max: u32,
    /// Bytes of a request's headers.
    pub header_bytes_max: u32,
    /// Bytes that a request's body accounts for. Whoever reads the body has to end it there.
    pub body_bytes_max: u32,
    /// From the first byte of a head to its last, and from the begin of a connection to the first head's last.
    pub header_read_timeout: Duration,
    pub idle_timeout: Duration,
    /// How long a client with a request under way may neither send nor take a byte, or leave an answer untaken.
    pub stall_timeout: Duration,
    /// How old a connection becomes, more or less a tenth, before it takes no new requests.
    pub connection_age_max: Duration,
    /// How long a connection that takes no new requests may take for those that it has.
    pub connection_age_grace: Duration,
    /// The time of one request. A client that has not sent all of its body by then has its connection closed.
    pub request_deadline: Duration,
}
