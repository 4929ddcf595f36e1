//! The REST API: a thin translator from HTTP to calls of the generated service.
//!
//! Of our own code it imports only the generated code, the tables of fields and of reasons, and small rooms
//! (rate limits, telemetry, pauses). So the same code runs in the service's process and alone in front of a
//! remote service.

mod client;
mod context;
mod docs;
mod handlers;
mod openapi;
mod outer_layer;
mod read;
mod remote;
mod router;
mod share;
mod write;

use axum::http::HeaderValue;
pub use client::Api;
pub use context::RequestLimits;
pub(crate) use read::request::update_message;
pub use remote::{Transport, remote, transport};
pub use router::router;
pub use share::{in_shares, is_stream, keeping};
pub use write::cors::Cors;
pub(crate) use write::resource::{Caller, Change, Organization};

use crate::proto::v1;

/// Public for the benchmarks and the fuzzing.
#[doc(hidden)]
pub fn update_of_body(
    bytes: &[u8],
    id: i64,
    strict: bool,
) -> Result<v1::UpdateOrganizationRequest, String> {
    let body = read::json::read_update(bytes, id, strict);
    let message = body.map(|changes| update_message(id, changes));
    message.map_err(|problem| problem.event("", &HeaderValue::from_static("")))
}
