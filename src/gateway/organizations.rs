//! The organization resource: from a request to a message and back.

use std::pin::pin;

use axum::{
    Extension,
    body::Body,
    extract::{RawPathParams, Request, State},
    http::{header::CONTENT_TYPE, request::Parts},
    response::{IntoResponse, Response},
};
use percent_encoding::percent_decode_str;
use prost_types::FieldMask;
use tokio::task::yield_now;

use super::{
    RequestLimits, Transport, body,
    client::Caller,
    edge::Exchange,
    json::{self, Member},
    problem::Problem,
};
use crate::proto::v1::{Organization, UpdateOrganizationRequest};

/// The largest id, 2^53-1.
const ID_MAX: i64 = (1 << 53) - 1;

/// What the handlers share.
#[derive(Clone)]
pub(super) struct Gateway {
    transport: Transport,
    limits: RequestLimits,
}

impl Gateway {
    pub(super) fn new(transport: Transport, limits: RequestLimits) -> Self {
        Self { transport, limits }
    }
}

/// `PUT /v1/organizations/{id}`: changes the fields that the body has.
pub(super) async fn update(
    State(gateway): State<Gateway>,
    Extension(exchange): Extension<Exchange>,
    path: RawPathParams,
    request: Request,
) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    let caller = Caller::new(gateway.transport, &head.headers, &exchange);
    let reading = read_update(path, head, body, gateway.limits.body_bytes_max);
    let message = authenticated_first(&caller, reading).await?;
    let organization = caller.update(message).await?;
    Ok(updated(&organization))
}

/// The page's answer: the id, a JSON number, and nothing else.
fn updated(organization: &Organization) -> Response {
    let body = format!("{{\"id\": {}}}", organization.id);
    ([(CONTENT_TYPE, "application/json")], body).into_response()
}

async fn read_update(
    path: RawPathParams,
    head: Parts,
    body: Body,
    body_bytes_max: usize,
) -> Result<UpdateOrganizationRequest, Problem> {
    let id = organization_id(&path)?;
    let bytes = body::read(&head.headers, body, body_bytes_max).await?;
    let body = json::read_update(&bytes, id)?;
    let mut organization = Organization { id, ..Organization::default() };
    let mut mask = FieldMask::default();
    for (path, member, field) in [
        ("name", body.name, &mut organization.name),
        ("subscription_id", body.subscription_id, &mut organization.subscription_id),
        ("handshake", body.handshake, &mut organization.handshake),
    ] {
        *field = match member {
            Member::Absent => continue,
            Member::Null => None,
            Member::Text(text) => Some(text),
        };
        mask.paths.push(path.to_owned());
    }
    Ok(UpdateOrganizationRequest {
        organization: Some(organization),
        update_mask: Some(mask),
        validate_only: false,
    })
}

/// The id of the path: one spelling of each number from 1 to 2^53-1, percent-encoded or not.
fn organization_id(path: &RawPathParams) -> Result<i64, Problem> {
    let segment = path.iter().next().map_or("", |(_, segment)| segment);
    let segment = percent_decode_str(segment).decode_utf8_lossy();
    let canonical = segment.bytes().all(|byte| byte.is_ascii_digit()) && !segment.starts_with('0');
    let id = segment.parse().ok().filter(|id| canonical && (1..=ID_MAX).contains(id));
    id.ok_or_else(Problem::malformed_id)
}

/// Reads a request, and authenticates its caller where that must come first.
///
/// The contract asks for authentication before the body is read and before anything in it is
/// refused. The service authenticates every call anyway; a call of its own is spent only where the
/// order shows: where the body is not here yet, and where the request is refused without a call.
async fn authenticated_first<T>(
    caller: &Caller,
    reading: impl Future<Output = Result<T, Problem>>,
) -> Result<T, Problem> {
    let mut reading = pin!(reading);
    tokio::select! {
        biased;
        read = &mut reading => {
            if read.is_err() {
                caller.authenticate().await?;
            }
            read
        }
        // One turn of the connection's task, which hands over a body that has arrived.
        () = yield_now() => {
            caller.authenticate().await?;
            reading.await
        }
    }
}
