//! Reading a request of the organization resource into a message, in the order of the contract.

use std::pin::pin;

use axum::{
    body::Body,
    http::{
        HeaderMap, HeaderName, Uri,
        header::{CONTENT_RANGE, EXPECT},
        request::Parts,
    },
};
use percent_encoding::percent_decode_str;
use prost_types::FieldMask;
use tokio::task::yield_now;

use super::{body, client::Caller, json, problem::Problem, query::Query};
use crate::{
    domain::fields::{Change, Fields, ID_MAX},
    proto::v1,
};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Bytes of a key that are sent on at most; a UUID has 36.
const KEY_BYTES_MAX: usize = 64;

/// The message of an update.
pub(super) async fn read_update(
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
pub(super) fn update_of_body(
    bytes: &[u8],
    id: i64,
    strict: bool,
) -> Result<v1::UpdateOrganizationRequest, Problem> {
    Ok(update_message(id, json::read_update(bytes, id, strict)?))
}

/// The message of a creation.
pub(super) async fn read_creation(
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

/// The id of `/v1/organizations/{id}`: one spelling of each number from 1 to 2^53-1, of which the
/// digits may be percent-encoded. Read from the path itself: axum's parameters are decoded already,
/// or refused in its own words.
pub(super) fn organization_id(uri: &Uri) -> Result<i64, Problem> {
    let segment = uri.path().split('/').nth(3).unwrap_or_default();
    let segment = percent_decode_str(segment).decode_utf8_lossy();
    let canonical = segment.bytes().all(|byte| byte.is_ascii_digit()) && !segment.starts_with('0');
    let id = segment.parse().ok().filter(|id| canonical && (1..=ID_MAX).contains(id));
    id.ok_or_else(Problem::malformed_id)
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

/// Reads a request, and authenticates its caller where that must come first.
///
/// The contract asks for authentication before the body is read and before anything in it is
/// refused. The service authenticates every call anyway; a call of its own is spent only where the
/// order shows: where the body is not here yet, and where the request is refused without a call. The
/// second counts for the caller's rate limit, as the request's own call would have.
///
/// A body that waits to be asked for (`Expect: 100-continue`) is asked for by whoever looks at it, so
/// nobody does before the caller is known.
pub(super) async fn authenticated_first<T>(
    caller: &Caller,
    headers: &HeaderMap,
    reading: impl Future<Output = Result<T, Problem>>,
) -> Result<T, Problem> {
    let mut reading = pin!(reading);
    let read = tokio::select! {
        biased;
        read = &mut reading, if !headers.contains_key(EXPECT) => read,
        // One turn of the connection's task, which hands over a body that has arrived.
        () = yield_now() => {
            // Boxed, as the rare case: every request would carry its size.
            Box::pin(caller.authenticate()).await?;
            reading.await
        }
    };
    if read.is_err() {
        Box::pin(caller.count()).await?;
    }
    read
}
