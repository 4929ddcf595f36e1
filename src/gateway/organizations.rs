//! The organization resource: from a request to a message and back.

use std::pin::pin;

use axum::{
    Extension, Json,
    body::Body,
    extract::{RawPathParams, Request, State},
    http::{
        HeaderMap, HeaderName, HeaderValue, StatusCode,
        header::{CACHE_CONTROL, CONTENT_RANGE, CONTENT_TYPE, ETAG, LOCATION},
        request::Parts,
    },
    response::{IntoResponse, Response},
};
use percent_encoding::percent_decode_str;
use prost_types::FieldMask;
use tokio::task::yield_now;

use super::{
    RequestLimits, Transport, body,
    client::Caller,
    edge::Exchange,
    json::{self, Member, OrganizationBody},
    precondition::Preconditions,
    prefer::Preferences,
    problem::Problem,
    query::Query,
    resource::{Change, ChangePage, Organization, OrganizationPage},
};
use crate::proto::v1;

/// The largest id, 2^53-1.
const ID_MAX: i64 = (1 << 53) - 1;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// For the caller alone, and asked again each time.
const PRIVATE: (HeaderName, HeaderValue) =
    (CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));

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

    fn caller(self, headers: &HeaderMap, exchange: &Exchange) -> Caller {
        Caller::new(self.transport, headers, exchange)
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
    let body_bytes_max = gateway.limits.body_bytes_max;
    let caller = gateway.caller(&head.headers, &exchange);
    let preconditions = Preconditions::read(&head.headers);
    let preferences = Preferences::read(&head.headers);
    let reading = read_update(&path, &head, body, body_bytes_max, preferences);
    let mut message = authenticated_first(&caller, reading).await?;
    let with_writable = message.include_writable_fields;
    if let Some(organization) = &mut message.organization {
        organization.etag = etag(&caller, &preconditions, organization.id).await;
    }
    let updated = caller.update(message).await;
    let updated = updated.map_err(|status| Problem::new_at(status, preconditions.are_some()))?;
    let mut response = if preferences.representation {
        Json(Organization::new(updated, with_writable)).into_response()
    } else {
        id_alone(&updated)
    };
    response.headers_mut().extend(preferences.applied());
    Ok(response)
}

/// The page's answer: the id, a JSON number, and nothing else.
fn id_alone(organization: &v1::Organization) -> Response {
    let body = format!("{{\"id\": {}}}", organization.id);
    ([(CONTENT_TYPE, "application/json")], body).into_response()
}

/// The one etag that an update has over gRPC, for all that HTTP's preconditions can say. Most need
/// no look at the current one; where the look fails, the update tells why, in its order of checks.
async fn etag(caller: &Caller, preconditions: &Preconditions, id: i64) -> String {
    if let Some(etag) = preconditions.fixed_etag() {
        return etag;
    }
    let current = caller.get(v1::GetOrganizationRequest { id, ..Default::default() }).await;
    preconditions.etag(&current.map(|current| current.etag).unwrap_or_default())
}

async fn read_update(
    path: &RawPathParams,
    head: &Parts,
    body: Body,
    body_bytes_max: usize,
    preferences: Preferences,
) -> Result<v1::UpdateOrganizationRequest, Problem> {
    let id = organization_id(path)?;
    if head.headers.contains_key(CONTENT_RANGE) {
        return Err(Problem::partial_put());
    }
    let query = Query::read(&head.uri)?;
    let request_id = idempotency_key(&head.headers)?;
    let bytes = body::read(&head.headers, body, body_bytes_max).await?;
    let body = json::read_update(&bytes, id, preferences.strict)?;
    let (organization, paths) = organization(id, body);
    Ok(v1::UpdateOrganizationRequest {
        organization: Some(organization),
        update_mask: Some(FieldMask { paths }),
        validate_only: query.flag("validateOnly")?,
        request_id,
        include_writable_fields: query.flag("writableFields")?,
    })
}

/// `POST /v1/organizations`: stores a new organization.
pub(super) async fn create(
    State(gateway): State<Gateway>,
    Extension(exchange): Extension<Exchange>,
    request: Request,
) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    let body_bytes_max = gateway.limits.body_bytes_max;
    let caller = gateway.caller(&head.headers, &exchange);
    let preferences = Preferences::read(&head.headers);
    let reading = read_creation(&head, body, body_bytes_max, preferences);
    let message = authenticated_first(&caller, reading).await?;
    let (with_writable, is_stored) = (message.include_writable_fields, !message.validate_only);
    let created = caller.create(message).await?;
    let location = format!("/v1/organizations/{}", created.id);
    let headers = is_stored.then(|| [(LOCATION, location), (ETAG, created.etag.clone())]);
    let status = if is_stored { StatusCode::CREATED } else { StatusCode::OK };
    let resource = Json(Organization::new(created, with_writable));
    Ok(match headers {
        Some(headers) => (status, headers, resource).into_response(),
        None => (status, resource).into_response(),
    })
}

async fn read_creation(
    head: &Parts,
    body: Body,
    body_bytes_max: usize,
    preferences: Preferences,
) -> Result<v1::CreateOrganizationRequest, Problem> {
    let query = Query::read(&head.uri)?;
    let request_id = idempotency_key(&head.headers)?;
    let bytes = body::read(&head.headers, body, body_bytes_max).await?;
    let (id, body) = json::read_creation(&bytes, preferences.strict)?;
    Ok(v1::CreateOrganizationRequest {
        organization: Some(organization(id, body).0),
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

/// `GET /v1/organizations/{id}`, and HEAD.
pub(super) async fn get(
    State(gateway): State<Gateway>,
    Extension(exchange): Extension<Exchange>,
    path: RawPathParams,
    request: Request,
) -> Result<Response, Problem> {
    let (head, _) = request.into_parts();
    let caller = gateway.caller(&head.headers, &exchange);
    let reading = async {
        let include_writable_fields = Query::read(&head.uri)?.flag("writableFields")?;
        Ok(v1::GetOrganizationRequest { id: organization_id(&path)?, include_writable_fields })
    };
    let message = authenticated_first(&caller, reading).await?;
    let with_writable = message.include_writable_fields;
    let found = caller.get(message).await?;
    let etag = [(ETAG, found.etag.clone())];
    if Preconditions::read(&head.headers).if_none_match_met(&found.etag) {
        return Ok((StatusCode::NOT_MODIFIED, [PRIVATE], etag).into_response());
    }
    Ok(([PRIVATE], etag, Json(Organization::new(found, with_writable))).into_response())
}

/// `GET /v1/organizations`: a page of the organizations that the caller has a right to.
pub(super) async fn list(
    State(gateway): State<Gateway>,
    Extension(exchange): Extension<Exchange>,
    request: Request,
) -> Result<Response, Problem> {
    let (head, _) = request.into_parts();
    let caller = gateway.caller(&head.headers, &exchange);
    let reading = async {
        let query = Query::read(&head.uri)?;
        Ok(v1::ListOrganizationsRequest {
            page_size: query.page_size()?,
            page_token: query.page_token(),
            include_writable_fields: query.flag("writableFields")?,
        })
    };
    let message = authenticated_first(&caller, reading).await?;
    let with_writable = message.include_writable_fields;
    let page = caller.list(message).await?;
    let organizations = page.organizations.into_iter();
    let page = OrganizationPage {
        organizations: organizations.map(|found| Organization::new(found, with_writable)).collect(),
        next_page_token: page.next_page_token,
    };
    Ok(([PRIVATE], Json(page)).into_response())
}

/// `GET /v1/organizations/{id}/changes`: a page of the organization's change log.
pub(super) async fn list_changes(
    State(gateway): State<Gateway>,
    Extension(exchange): Extension<Exchange>,
    path: RawPathParams,
    request: Request,
) -> Result<Response, Problem> {
    let (head, _) = request.into_parts();
    let caller = gateway.caller(&head.headers, &exchange);
    let reading = async {
        let query = Query::read(&head.uri)?;
        Ok(v1::ListChangesRequest {
            organization_id: organization_id(&path)?,
            page_size: query.page_size()?,
            page_token: query.page_token(),
        })
    };
    let message = authenticated_first(&caller, reading).await?;
    let page = caller.list_changes(message).await?;
    let changes = page.changes.into_iter().map(Change::from).collect();
    let page = ChangePage { changes, next_page_token: page.next_page_token };
    Ok(([PRIVATE], Json(page)).into_response())
}

/// The id of the path: one spelling of each number from 1 to 2^53-1, percent-encoded or not.
fn organization_id(path: &RawPathParams) -> Result<i64, Problem> {
    let segment = path.iter().next().map_or("", |(_, segment)| segment);
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
    // An empty key is a fault of the caller's, not the absence of one.
    Ok(if unquoted.is_empty() { "empty" } else { unquoted }.to_owned())
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
