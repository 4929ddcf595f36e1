//! The REST routes: for each path its methods and handlers, and the OpenAPI document of them.

use std::sync::Arc;

use axum::{
    Router,
    extract::Request,
    http::{HeaderValue, Method, StatusCode, header::ALLOW},
    middleware,
    response::{IntoResponse, Response},
    routing::{MethodRouter, get},
};
use utoipa::OpenApi;

use crate::gateway::{
    client::Api,
    context::RequestLimits,
    docs,
    handlers::{incoming::Gateway, organizations, watch, whoami},
    openapi, outer_layer,
    write::{
        cors::Cors,
        headers,
        problem::{self, Problem},
        resource,
    },
};

const READ: &str = "GET, HEAD, OPTIONS";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "orgd",
        description = "The organization service: one safe place to change the details of an \
            organization."
    ),
    paths(
        organizations::update,
        organizations::get,
        organizations::list,
        organizations::create,
        organizations::list_changes,
        watch::watch,
        whoami::get,
    ),
    components(schemas(
        resource::Organization,
        openapi::OrganizationUpdate,
        openapi::OrganizationCreation,
        openapi::Updated,
        problem::Rendered
    ))
)]
struct Document;

/// The REST routes, in front of a service.
pub fn router(api: Arc<Api>, limits: RequestLimits, cors: Cors) -> Router {
    let one = get(organizations::get).put(organizations::update);
    let all = get(organizations::list).post(organizations::create);
    let document = get(openapi::handler(Document::openapi()));
    let routes = Router::new()
        .route("/v1/organizations/{id}", resource("GET, HEAD, PUT, OPTIONS", one))
        .route("/v1/organizations", resource("GET, HEAD, POST, OPTIONS", all))
        .route("/v1/organizations/{id}/changes", resource(READ, get(organizations::list_changes)))
        .route("/v1/organizations/{id}/events", resource(READ, get(watch::watch)))
        .route("/v1/whoami", resource(READ, get(whoami::get)))
        .route("/openapi.json", resource(READ, document));
    docs::files()
        .fold(routes, |routes, (path, answer)| routes.route(&path, resource(READ, answer)))
        .fallback(unknown_route)
        .with_state(Gateway { api, limits: limits.clone() })
        .layer(middleware::from_fn_with_state((limits, cors), outer_layer::outer_layer))
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
