//! Sets up hyper: its limits, and the tasks in which its streams run.

use hyper::rt::Executor;
use hyper_util::{rt::TokioTimer, server::conn::auto::Builder};

use crate::{connection_state::ConnectionState, limits::Limits};

/// The default of HTTP/2. It is one byte less than the default limit of a body.
const STREAM_WINDOW_BYTES: u32 = 65_535;
const CONNECTION_WINDOW_BYTES: u32 = 256 * 1024;
const SEND_BUFFER_BYTES_MAX: usize = 64 * 1024;
/// Streams that one connection may make us reset (CVE-2025-8671, "MadeYouReset"). It is hyper's default, set
/// here so that another version of hyper does not change it. A client without faults causes none.
const LOCAL_RESETS_MAX: usize = 1024;

/// What a listener speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/2 alone, as gRPC needs it.
    Http2,
    /// HTTP/1.1 or HTTP/2, as the client starts.
    Any,
}

/// Runs the streams of a connection.
#[derive(Clone)]
pub(crate) struct Streams(ConnectionState);

impl<F> Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        // The streams of a connection that is about to end would only take memory until then.
        if !self.0.is_offending() {
            #[expect(clippy::disallowed_methods, reason = "a stream ends with its connection")]
            let stream = tokio::spawn(stream);
            self.0.stream_runs(stream.abort_handle());
        }
    }
}

pub(crate) fn builder(
    protocol: Protocol,
    limits: &Limits,
    state: ConnectionState,
) -> Builder<Streams> {
    let builder = Builder::new(Streams(state));
    // As docs/API.md writes the names of headers.
    let builder = builder.title_case_headers(true);
    let mut builder = if protocol == Protocol::Http2 { builder.http2_only() } else { builder };
    let header_bytes_max = usize::try_from(limits.header_bytes_max).unwrap_or(usize::MAX);
    // No `header_read_timeout`: hyper's runs while a connection is idle too, is on unless it is turned off,
    // and would end every kept-alive connection after it. `ConnectionState` tells the two apart.
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_buf_size(header_bytes_max);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams_max)
        .max_local_error_reset_streams(LOCAL_RESETS_MAX)
        .max_header_list_size(limits.header_bytes_max)
        // How much a client may send before it is read, or leave before it is taken. hyper's defaults are
        // sixteen and six times as much.
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES_MAX)
        // Half of the stall timeout: a client with a quiet stream, such as a health watch, answers the ping
        // and does not count as stalled. One that is gone does.
        .keep_alive_interval(limits.stall_timeout / 2)
        .keep_alive_timeout(limits.stall_timeout / 2);
    builder
}
