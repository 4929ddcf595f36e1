//! The organization resource: from a request to a message and back.

use std::convert::Infallible;

use axum::{
    Json,
    body::Body,
    http::{
        HeaderName, Method, StatusCode,
        header::{CONTENT_TYPE, ETAG, LOCATION},
        request::Parts,
    },
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::stream;
use serde::Serialize;

use crate::{
    gateway::{
        handlers::{
            incoming::{Incoming, authenticated_first},
            watch,
        },
        openapi::{OrganizationCreation, OrganizationUpdate, Updated},
        read::{
            path::organization_id,
            preconditions::Preconditions,
            prefer::Preferences,
            query::Query,
            request::{read_creation, read_update},
        },
        write::{
            headers::PRIVATE,
            problem::Problem,
            resource::{Change, ChangePage, Organization, OrganizationPage},
        },
    },
    proto::v1,
};

const JSON: [(HeaderName, &str); 1] = [(CONTENT_TYPE, "application/json")];

/// `PUT /v1/organizations/{id}`: changes the fields that the body has.
#[utoipa::path(
    put,
    path = "/v1/organizations/{id}",
    operation_id = "updateOrganization",
    summary = "Update organization details",
    params(
        ("id" = i64, Path, description = "Which organization", minimum = 1, maximum = 9_007_199_254_740_991_i64, example = 90),
        ("validateOnly" = Option<bool>, Query, description = "Runs every check and answers as the request would, writing nothing"),
        ("writableFields" = Option<bool>, Query, description = "Whether the answer has writableFields"),
        ("Prefer" = Option<String>, Header, description = "return=representation: answer the whole resource. handling=strict: refuse members that are not updated"),
        ("If-Match" = Option<String>, Header, description = "Etags of which the organization must have one"),
        ("If-None-Match" = Option<String>, Header, description = "Etags of which the organization must have none"),
        ("Idempotency-Key" = Option<String>, Header, pattern = "^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$", description = "A UUID. Sent again under the same key, the same request changes nothing more"),
    ),
    request_body(content = OrganizationUpdate, description = "The fields to change; null clears"),
    responses(
        (status = 200, description = "All ok", body = Updated),
        (status = 412),
        (status = 422),
    )
)]
pub(crate) async fn update(
    Incoming { caller, head, body, limits }: Incoming,
) -> Result<Response, Problem> {
    let preconditions = Preconditions::read(&head.headers);
    let preferences = Preferences::read(&head.headers);
    let reading = read_update(&head, body, limits.body_bytes_max, preferences.strict);
    let mut message = authenticated_first(&caller, &head.headers, reading).await?;
    message.id_only = !preferences.representation;
    let with_writable = message.include_writable_fields;
    if let Some(organization) = &mut message.organization {
        organization.etag = preconditions.etag();
    }
    let updated = caller.update(message).await;
    let updated = updated.map_err(|status| {
        let problem = Problem::of_change(&status, preconditions.are_some());
        match problem.etag() {
            Some(current) if preconditions.if_none_match_met(current) => problem.excluded(),
            _ => problem,
        }
    })?;
    let mut response = if preferences.representation {
        Json(Organization::new(updated, with_writable)).into_response()
    } else {
        id_alone(&updated)
    };
    response.headers_mut().extend(preferences.applied());
    Ok(response)
}

/// The documented answer (docs/API.md): the id, a JSON number, and nothing else.
fn id_alone(organization: &v1::Organization) -> Response {
    let body = format!("{{\"id\": {}}}", organization.id);
    (JSON, body).into_response()
}

/// `POST /v1/organizations`: stores a new organization.
#[utoipa::path(
    post,
    path = "/v1/organizations",
    operation_id = "createOrganization",
    summary = "Store a new organization (administrators)",
    params(
        ("validateOnly" = Option<bool>, Query, description = "Runs every check and answers as the request would, writing nothing"),
        ("writableFields" = Option<bool>, Query, description = "Whether the answer has writableFields"),
        ("Prefer" = Option<String>, Header, description = "handling=strict: refuse members that are not updated"),
        ("Idempotency-Key" = Option<String>, Header, pattern = "^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$", description = "A UUID. Sent again under the same key, the same request changes nothing more"),
    ),
    request_body(content = OrganizationCreation, description = "The new organization"),
    responses(
        (status = 200, description = "With validateOnly: as it would be stored", body = Organization),
        (status = 201, description = "Stored", body = Organization, headers(("Location", description = "Where it is"), ("ETag", description = "Its etag"))),
        (status = 422),
    )
)]
pub(crate) async fn create(
    Incoming { caller, head, body, limits }: Incoming,
) -> Result<Response, Problem> {
    let preferences = Preferences::read(&head.headers);
    let reading = read_creation(&head, body, limits.body_bytes_max, preferences.strict);
    let message = authenticated_first(&caller, &head.headers, reading).await?;
    let (with_writable, is_stored) = (message.include_writable_fields, !message.validate_only);
    let created = caller.create(message).await;
    let created = created.map_err(|status| Problem::of_change(&status, false))?;
    let location = format!("/v1/organizations/{}", created.id);
    let headers = [(LOCATION, location), (ETAG, created.etag.clone())];
    let resource = Json(Organization::new(created, with_writable));
    if !is_stored {
        return Ok(resource.into_response());
    }
    Ok((StatusCode::CREATED, headers, resource).into_response())
}

/// `GET /v1/organizations/{id}`, and HEAD.
#[utoipa::path(
    get,
    path = "/v1/organizations/{id}",
    operation_id = "getOrganization",
    summary = "Show an organization",
    params(
        ("id" = i64, Path, description = "Which organization", minimum = 1, maximum = 9_007_199_254_740_991_i64, example = 90),
        ("writableFields" = Option<bool>, Query, description = "Whether the answer has writableFields"),
        ("If-None-Match" = Option<String>, Header, description = "Etags that the caller has"),
    ),
    responses(
        (status = 200, description = "The organization", body = Organization, headers(("ETag", description = "Its etag"))),
        (status = 304, description = "The caller has it"),
    )
)]
pub(crate) async fn get(Incoming { caller, head, .. }: Incoming) -> Result<Response, Problem> {
    let reading = async {
        let include_writable_fields = Query::read(&head.uri)?.flag("writableFields")?;
        Ok(v1::GetOrganizationRequest { id: organization_id(&head.uri)?, include_writable_fields })
    };
    let message = authenticated_first(&caller, &head.headers, reading).await?;
    let with_writable = message.include_writable_fields;
    let found = caller.read(message, |api, request| api.get(request)).await?;
    let etag = [(ETAG, found.etag.clone())];
    if Preconditions::read(&head.headers).if_none_match_met(&found.etag) {
        return Ok((StatusCode::NOT_MODIFIED, [PRIVATE], etag).into_response());
    }
    Ok(([PRIVATE], etag, Json(Organization::new(found, with_writable))).into_response())
}

/// `GET /v1/organizations`: a page of the organizations that the caller has a right to.
#[utoipa::path(
    get,
    path = "/v1/organizations",
    operation_id = "listOrganizations",
    summary = "List the organizations that the caller has a right to",
    params(
        ("pageSize" = Option<i32>, Query, description = "Entries at most; 1000 where it is more. A page of long values has fewer", minimum = 1, maximum = 2_147_483_647),
        ("pageToken" = Option<String>, Query, pattern = "^[A-Za-z0-9_-]*$", description = "The nextPageToken of the page before"),
        ("writableFields" = Option<bool>, Query, description = "Whether the answer has writableFields"),
    ),
    responses((status = 200, description = "A page, by ascending id", body = OrganizationPage))
)]
pub(crate) async fn list(Incoming { caller, head, .. }: Incoming) -> Result<Response, Problem> {
    let reading = async {
        let query = Query::read(&head.uri)?;
        Ok(v1::ListOrganizationsRequest {
            page_size: page_size(&head, &query)?,
            page_token: query.page_token(),
            include_writable_fields: query.flag("writableFields")?,
        })
    };
    let message = authenticated_first(&caller, &head.headers, reading).await?;
    let with_writable = message.include_writable_fields;
    let page = caller.read(message, |api, request| api.list(request)).await?;
    let organizations = page.organizations.into_iter();
    let page = OrganizationPage {
        organizations: organizations.map(|found| Organization::new(found, with_writable)).collect(),
        next_page_token: page.next_page_token,
    };
    Ok(page_of(&head, &page))
}

/// `GET /v1/organizations/{id}/changes`: a page of the organization's change log.
#[utoipa::path(
    get,
    path = "/v1/organizations/{id}/changes",
    operation_id = "listOrganizationChanges",
    summary = "List the changes of an organization",
    params(
        ("id" = i64, Path, description = "Which organization", minimum = 1, maximum = 9_007_199_254_740_991_i64, example = 90),
        ("pageSize" = Option<i32>, Query, description = "Entries at most; 500 where it is more. A page of long values has fewer", minimum = 1, maximum = 2_147_483_647),
        ("pageToken" = Option<String>, Query, pattern = "^[A-Za-z0-9_-]*$", description = "The nextPageToken of the page before"),
    ),
    responses((status = 200, description = "A page, the oldest first", body = ChangePage))
)]
pub(crate) async fn list_changes(incoming: Incoming) -> Result<Response, Problem> {
    // As before the events had a path of their own. The document has one media type for each path, as the
    // results of generated clients would else have mixed types.
    if watch::is_asked(&incoming.head.headers) {
        return watch::watch(incoming).await;
    }
    let Incoming { caller, head, .. } = incoming;
    let reading = async {
        let query = Query::read(&head.uri)?;
        Ok(v1::ListChangesRequest {
            organization_id: organization_id(&head.uri)?,
            page_size: page_size(&head, &query)?,
            page_token: query.page_token(),
        })
    };
    let message = authenticated_first(&caller, &head.headers, reading).await?;
    let page = caller.read(message, |api, request| api.list_changes(request)).await?;
    let changes = page.changes.into_iter().map(Change::from).collect();
    let page = ChangePage { changes, next_page_token: page.next_page_token };
    Ok(page_of(&head, &page))
}

/// HEAD is refused where GET is, for which one entry is enough.
fn page_size(head: &Parts, query: &Query) -> Result<i32, Problem> {
    let asked = query.page_size()?;
    Ok(if head.method == Method::HEAD { 1 } else { asked })
}

/// A page, in no more memory than it needs: its client may take it slowly. HEAD asked for one entry
/// only, so the length of the page is not known and not told (RFC 9110 §9.3.2).
fn page_of(head: &Parts, page: &impl Serialize) -> Response {
    let body = if head.method == Method::HEAD {
        Body::from_stream(stream::empty::<Result<Bytes, Infallible>>())
    } else {
        Bytes::from(serde_json::to_vec(page).unwrap_or_default().into_boxed_slice()).into()
    };
    ([PRIVATE], JSON, body).into_response()
}
