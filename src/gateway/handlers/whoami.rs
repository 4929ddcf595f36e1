//! The caller itself: by whom the service takes a request to be sent, and what that caller may change.

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    gateway::{
        handlers::incoming::Incoming,
        write::{
            headers::PRIVATE,
            problem::Problem,
            resource::{date, member},
        },
    },
    proto::v1,
};

/// A caller, as its credential proves it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(example = json!({
    "subject": "acme",
    "role": "user",
    "organizationId": 90,
    "credentialId": "c4f5d6ae3f0b7a9e8f1d2c3b4a5968778695a4b3c2d1e0f90817263544536271",
    "expireTime": "2027-01-01T00:00:00Z",
    "writableFields": ["name"]
}))]
pub(crate) struct Caller {
    /// Its name, as in the change log.
    subject: String,
    /// What kind of caller it is: user, support or administrator.
    role: String,
    /// The organization that a user belongs to; not there for the other roles.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 9_007_199_254_740_991_i64, nullable = false)]
    organization_id: Option<i64>,
    /// Names the credential, as operators see it; it is no secret.
    credential_id: String,
    /// When the credential ends by itself; not there: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime, nullable = false)]
    expire_time: Option<String>,
    /// The names of the fields that the caller may update on an organization that it has a right to.
    writable_fields: Vec<String>,
}

impl From<v1::Caller> for Caller {
    fn from(caller: v1::Caller) -> Self {
        let role = caller.role().name();
        Self {
            subject: caller.subject,
            role,
            organization_id: caller.organization_id,
            credential_id: caller.credential_id,
            expire_time: caller.expire_time.map(|time| date(Some(time))),
            writable_fields: caller
                .writable_fields
                .iter()
                .map(|name| member(name).to_owned())
                .collect(),
        }
    }
}

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
