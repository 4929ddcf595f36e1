//! The REST door: a thin translator from HTTP to the generated gRPC client.
//!
//! Architecture invariant: it imports the client, the messages and the table of fields and nothing else
//! of ours, so the same code runs inside the service's process and alone in front of a remote service.

mod body;
mod client;
mod docs;
mod edge;
mod field_error;
mod headers;
mod json;
mod openapi;
mod organizations;
mod precondition;
mod prefer;
mod problem;
mod query;
mod request;
mod resource;
mod share;
mod watch;

use std::{net::IpAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::Request,
    http::{HeaderValue, Method, StatusCode, header::ALLOW},
    middleware,
    response::{IntoResponse, Response},
    routing::{MethodRouter, get},
};
pub use client::{Transport, transport};
use problem::Problem;
pub(crate) use request::update_message;
pub(crate) use resource::Organization;
pub use share::{holding, in_shares, is_stream};
use tower_http::catch_panic::CatchPanicLayer;

use crate::{proto::v1, rate_limit::RateLimit};

/// What the REST door may spend on a request.
#[derive(Clone, Debug)]
pub struct RequestLimits {
    /// The time of a request whose caller brings no deadline, and the longest that one may bring.
    pub deadline: Duration,
    /// Bytes of a body at most.
    pub body_bytes_max: usize,
    /// How often requests may come from one source.
    pub sources: Option<Arc<RateLimit<IpAddr>>>,
    /// How often a stream without news sends a sign of life.
    pub heartbeat: Duration,
}

/// The message of an update's JSON body, or the problem that its caller reads. Public for the
/// benchmarks and the fuzzing.
#[doc(hidden)]
pub fn update_of_body(
    bytes: &[u8],
    id: i64,
    strict: bool,
) -> Result<v1::UpdateOrganizationRequest, String> {
    let read = request::update_of_body(bytes, id, strict);
    read.map_err(|problem| problem.event("", &HeaderValue::from_static("")))
}

/// The REST routes, in front of the service that `transport` leads to.
pub fn router(transport: Transport, limits: RequestLimits) -> Router {
    let gateway = organizations::Gateway::new(transport, limits.clone());
    Router::new()
        .route(
            "/v1/organizations/{id}",
            resource("GET, HEAD, PUT, OPTIONS", get(organizations::get).put(organizations::update)),
        )
        .route(
            "/v1/organizations",
            resource(
                "GET, HEAD, POST, OPTIONS",
                get(organizations::list).post(organizations::create),
            ),
        )
        .route(
            "/v1/organizations/{id}/changes",
            resource("GET, HEAD, OPTIONS", get(organizations::list_changes)),
        )
        .route("/openapi.json", resource("GET, HEAD, OPTIONS", get(openapi::handler())))
        .merge(docs::routes())
        .fallback(unknown_route)
        .with_state(gateway)
        .layer(CatchPanicLayer::custom(|_| Problem::panicked().into_response()))
        .layer(middleware::from_fn_with_state(limits, edge::edge))
}

/// A resource that has these methods: OPTIONS names them, and so does the refusal of any other.
fn resource<S>(allow: &'static str, methods: MethodRouter<S>) -> MethodRouter<S>
where
    S: Clone + Send + Sync + 'static,
{
    let allow = HeaderValue::from_static(allow);
    let refusal = Problem::method_not_allowed(allow.clone());
    methods.options(move || async { options(allow) }).fallback(move || async { refusal })
}

/// The answer to OPTIONS, a preflight or not, without authentication (Fetch §3.2.2).
fn options(allow: HeaderValue) -> Response {
    (StatusCode::NO_CONTENT, [(ALLOW, allow), headers::MAX_AGE]).into_response()
}

async fn unknown_route(request: Request) -> Response {
    if request.method() == Method::OPTIONS {
        return options(HeaderValue::from_static("OPTIONS"));
    }
    Problem::route_not_found().into_response()
}
