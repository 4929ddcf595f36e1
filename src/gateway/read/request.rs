//! Reading a request of the organization resource into a message, in the order of docs/API.md.

use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, header::CONTENT_RANGE, request::Parts},
};
use prost_types::FieldMask;

use crate::{
    gateway::{
        read::{
            body,
            json::{self, Member, OrganizationBody},
            path::organization_id,
            query::Query,
        },
        write::problem::Problem,
    },
    proto::v1,
};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Bytes of a key that are sent on at most; a UUID has 36.
const KEY_BYTES_MAX: usize = 64;

/// The message of an update.
pub(in crate::gateway) async fn read_update(
    head: &Parts,
    body: Body,
    body_bytes_max: usize,
    strict: bool,
) -> Result<v1::UpdateOrganizationRequest, Problem> {
    let id = organization_id(&head.uri)?;
    if head.headers.contains_key(CONTENT_RANGE) {
        return Err(Problem::partial_put());
    }
    let query = Query::read(&head.uri)?;
    let request_id = idempotency_key(&head.headers)?;
    let bytes = body::read(&head.headers, body, body_bytes_max).await?;
    Ok(v1::UpdateOrganizationRequest {
        validate_only: query.flag("validateOnly")?,
        request_id,
        include_writable_fields: query.flag("writableFields")?,
        ..update_of_body(&bytes, id, strict)?
    })
}

/// What of an update its body says.
pub(in crate::gateway) fn update_of_body(
    bytes: &[u8],
    id: i64,
    strict: bool,
) -> Result<v1::UpdateOrganizationRequest, Problem> {
    let (organization, paths) = organization(id, json::read_update(bytes, id, strict)?);
    Ok(v1::UpdateOrganizationRequest {
        organization: Some(organization),
        update_mask: Some(FieldMask { paths }),
        ..v1::UpdateOrganizationRequest::default()
    })
}

/// The message of a creation.
pub(in crate::gateway) async fn read_creation(
    head: &Parts,
    body: Body,
    body_bytes_max: usize,
    strict: bool,
) -> Result<v1::CreateOrganizationRequest, Problem> {
    let query = Query::read(&head.uri)?;
    let request_id = idempotency_key(&head.headers)?;
    let bytes = body::read(&head.headers, body, body_bytes_max).await?;
    let body = json::read_creation(&bytes, strict)?;
    Ok(v1::CreateOrganizationRequest {
        organization: Some(organization(0, body).0),
        validate_only: query.flag("validateOnly")?,
        request_id,
        include_writable_fields: query.flag("writableFields")?,
    })
}

/// The message of a body, and the paths of the fields that it has.
fn organization(id: i64, body: OrganizationBody) -> (v1::Organization, Vec<String>) {
    let mut organization = v1::Organization { id, ..Default::default() };
    let mut paths = Vec::new();
    let OrganizationBody { name, subscription_id, handshake } = body;
    for (path, member, field) in [
        ("name", name, &mut organization.name),
        ("subscription_id", subscription_id, &mut organization.subscription_id),
        ("handshake", handshake, &mut organization.handshake),
    ] {
        *field = match member {
            Member::Absent => continue,
            Member::Null => None,
            Member::Text(text) => Some(text),
        };
        paths.push(path.to_owned());
    }
    (organization, paths)
}

/// The caller's key for the request, quoted or not; empty where there is none. The service checks
/// its form.
fn idempotency_key(headers: &HeaderMap) -> Result<String, Problem> {
    let mut lines = headers.get_all(IDEMPOTENCY_KEY).iter();
    let (Some(line), second) = (lines.next(), lines.next()) else { return Ok(String::new()) };
    if second.is_some() {
        return Err(Problem::repeated_header("Send one Idempotency-Key header only."));
    }
    let text = line.to_str().unwrap_or("not ASCII");
    let unquoted = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    // An empty key is a fault of the caller's, not the absence of one; of a long one, the fault is
    // all that is sent on.
    Ok(match unquoted.len() {
        0 => "empty",
        1..=KEY_BYTES_MAX => unquoted,
        _ => "too long",
    }
    .to_owned())
}
