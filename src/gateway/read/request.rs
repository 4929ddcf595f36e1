//! Reading a request of the organization resource into a message, in the order of docs/API.md.

use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, header::CONTENT_RANGE, request::Parts},
};
use prost_types::FieldMask;

use crate::{
    domain::fields::{Change, Fields},
    gateway::{
        read::{body, json, path::organization_id, query::Query},
        write::problem::Problem,
    },
    proto::v1,
};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Bytes of a key that are sent on at most; a UUID has 36.
const KEY_BYTES_MAX: usize = 64;

pub(crate) async fn read_update(
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
        ..update_message(id, json::read_update(&bytes, id, strict)?)
    })
}

pub(crate) async fn read_creation(
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
        organization: update_message(0, body).organization,
        validate_only: query.flag("validateOnly")?,
        request_id,
        include_writable_fields: query.flag("writableFields")?,
    })
}

/// The message that asks for these changes, with the mask of the fields that change.
pub(crate) fn update_message(
    id: i64,
    changes: Fields<Change<String>>,
) -> v1::UpdateOrganizationRequest {
    let mut organization = v1::Organization { id, ..Default::default() };
    let mut paths = Vec::new();
    for (field, change) in changes {
        *organization.text_mut(field) = match change {
            Change::Keep => continue,
            Change::Clear => None,
            Change::Set(text) => Some(text),
        };
        paths.push(field.path().to_owned());
    }
    v1::UpdateOrganizationRequest {
        organization: Some(organization),
        update_mask: Some(FieldMask { paths }),
        ..Default::default()
    }
}

/// The idempotency key, quoted or not; empty: none. The service checks its form.
fn idempotency_key(headers: &HeaderMap) -> Result<String, Problem> {
    let mut lines = headers.get_all(IDEMPOTENCY_KEY).iter();
    let (Some(line), second) = (lines.next(), lines.next()) else { return Ok(String::new()) };
    if second.is_some() {
        return Err(Problem::repeated_header("Send one Idempotency-Key header only."));
    }
    let text = line.to_str().unwrap_or("not ASCII");
    let unquoted = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    // An empty or long key is a fault, which the service is to find.
    Ok(match unquoted.len() {
        0 => "empty",
        1..=KEY_BYTES_MAX => unquoted,
        _ => "too long",
    }
    .to_owned())
}
