//! The caller itself: by whom the service takes a request to be sent, and what that caller may change.

use axum::{
    Json,
    response::{IntoResponse, Response},
};

use crate::gateway::{
    handlers::incoming::Incoming,
    write::{headers::PRIVATE, problem::Problem, resource::Caller},
};

/// `GET /v1/whoami`, and HEAD.
#[utoipa::path(
    get,
    path = "/v1/whoami",
    operation_id = "whoAmI",
    summary = "Show who the caller is, and which fields it may update",
    responses((status = 200, description = "The caller", body = Caller))
)]
pub(crate) async fn get(Incoming { caller, .. }: Incoming) -> Result<Response, Problem> {
    let found = caller.who_am_i().await?;
    Ok(([PRIVATE], Json(Caller::from(found))).into_response())
}
