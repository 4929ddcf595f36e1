//! What a client may take of a listener.

use std::time::Duration;

/// The limits that an operator may choose. The others are constants, beside what they limit.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub connections_max: usize,
    /// Requests at once on one connection of HTTP/2.
    pub streams_max: u32,
    /// Bytes of a request's headers.
    pub header_bytes_max: u32,
    /// Bytes that a request's body may have. The service must enforce it; the listener only uses it to tell a
    /// flood.
    pub body_bytes_max: u32,
    /// From the first byte of a head to its last. For the first head, from the start of the connection.
    pub header_read_timeout: Duration,
    pub idle_timeout: Duration,
    /// How long a client with a request under way may neither send nor take a byte, or may leave an answer
    /// untaken.
    pub stall_timeout: Duration,
    /// How old a connection becomes, more or less a tenth, before it takes no new requests.
    pub connection_age_max: Duration,
    /// How long a connection that takes no new requests may take for those that it has.
    pub connection_age_grace: Duration,
    /// The time of one request. A client that has not sent all of its body by then has its connection closed.
    pub request_deadline: Duration,
}
