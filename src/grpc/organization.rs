//! The RPCs: convert, call one use case, convert back.

use std::{panic::AssertUnwindSafe, sync::Arc};

use futures_util::{StreamExt, TryStreamExt, stream::BoxStream};
use orgd_listener::AnswerBytes;
use prost::Message;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::{convert, limits::CallLimits, page, status};
use crate::{
    app::{organizations, watch::Watches},
    domain::{Call, Error, EtagCondition, Organization, Principal},
    proto::{request_id, v1},
    store::Store,
    telemetry::RequestRecord,
};

/// The RPCs over a store.
#[derive(Debug)]
pub(super) struct OrganizationRpc {
    store: Store,
    watches: Watches,
}

impl OrganizationRpc {
    pub(super) fn new(store: Store, limits: &CallLimits) -> Self {
        Self { store, watches: limits.watches.clone() }
    }
}

#[tonic::async_trait]
impl v1::organization_service_server::OrganizationService for OrganizationRpc {
    async fn update(
        &self,
        request: Request<v1::UpdateOrganizationRequest>,
    ) -> Result<Response<v1::Organization>, Status> {
        let (mut call, message) = parts(request, |message| {
            message.organization.as_ref().map(|organization| organization.id)
        })?;
        call.validate_only = message.validate_only;
        call.idempotency_key = convert::idempotency_key(&message.request_id)?;
        let (with_writable, id_only) = (message.include_writable_fields, message.id_only);
        let etag = message.organization.as_ref().map(|organization| organization.etag.clone());
        let etag = etag.unwrap_or_default();
        let condition = EtagCondition::parse(&etag);
        let update = convert::update(message)?;
        let updated = organizations::update(&self.store, &call, update, condition).await;
        let updated = updated.map_err(|error| convert::refusal(&etag, error))?;
        Ok(Response::new(if id_only {
            v1::Organization { id: updated.id.get(), ..v1::Organization::default() }
        } else {
            organization(&call.principal, updated, with_writable)
        }))
    }

    async fn create(
        &self,
        request: Request<v1::CreateOrganizationRequest>,
    ) -> Result<Response<v1::Organization>, Status> {
        let (mut call, message) = parts(request, |_| None)?;
        call.validate_only = message.validate_only;
        call.idempotency_key = convert::idempotency_key(&message.request_id)?;
        let with_writable = message.include_writable_fields;
        let creation = convert::creation(message)?;
        let created = organizations::create(&self.store, &call, creation).await?;
        Ok(Response::new(organization(&call.principal, created, with_writable)))
    }

    async fn get(
        &self,
        request: Request<v1::GetOrganizationRequest>,
    ) -> Result<Response<v1::Organization>, Status> {
        let (Call { principal, .. }, message) = parts(request, |message| Some(message.id))?;
        let id = convert::organization_id("id", message.id)?;
        let found = organizations::get(&self.store, &principal, id).await?;
        Ok(Response::new(organization(&principal, found, message.include_writable_fields)))
    }

    async fn list(
        &self,
        request: Request<v1::ListOrganizationsRequest>,
    ) -> Result<Response<v1::ListOrganizationsResponse>, Status> {
        const LIST: &str = "organizations";
        let (Call { principal, .. }, message) = parts(request, |_| None)?;
        let size = page::size(message.page_size, page::ORGANIZATIONS_MAX)?;
        let after = page::after(LIST, &message.page_token)?;
        let page = organizations::list(&self.store, &principal, after, size).await?;
        let next_page_token = page::next_token(LIST, &page, |last| last.id.get());
        let with_writable = message.include_writable_fields;
        let organizations = page.map(|found| organization(&principal, found, with_writable));
        let organizations = organizations.entries;
        Ok(counted(v1::ListOrganizationsResponse { organizations, next_page_token }))
    }

    async fn list_changes(
        &self,
        request: Request<v1::ListChangesRequest>,
    ) -> Result<Response<v1::ListChangesResponse>, Status> {
        let (Call { principal, .. }, message) =
            parts(request, |message| Some(message.organization_id))?;
        let id = convert::organization_id("organization_id", message.organization_id)?;
        let list = format!("changes-{id}");
        let size = page::size(message.page_size, page::CHANGES_MAX)?;
        let after = page::after(&list, &message.page_token)?;
        let page = organizations::list_changes(&self.store, &principal, id, after, size).await?;
        let next_page_token = page::next_token(&list, &page, |last| last.version);
        let changes = page.map(convert::change).entries;
        Ok(counted(v1::ListChangesResponse { changes, next_page_token }))
    }

    type WatchStream = BoxStream<'static, Result<v1::Change, Status>>;

    async fn watch(
        &self,
        request: Request<v1::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        // None: from the gateway in this process, which has it.
        let connection = request.extensions().get::<CancellationToken>().cloned();
        let (Call { principal, .. }, message) = parts(request, |message| {
            // Several have no one id.
            <[i64; 1]>::try_from(message.organization_ids.as_slice()).ok().map(|[id]| id)
        })?;
        let from = convert::watch(message)?;
        let connection = connection.unwrap_or_default();
        let news = self.watches.watch(principal, from, connection).await?;
        let changes = news.map_ok(convert::news).map_err(Status::from);
        // A stream is read after its handler has returned, where nobody else catches a panic.
        let changes = AssertUnwindSafe(changes).catch_unwind();
        let changes = changes.map(|change| change.unwrap_or_else(|_| Err(status::panicked())));
        Ok(Response::new(changes.boxed()))
    }

    async fn who_am_i(
        &self,
        request: Request<v1::WhoAmIRequest>,
    ) -> Result<Response<v1::Caller>, Status> {
        let (Call { principal, .. }, _) = parts(request, |_| None)?;
        Ok(Response::new(convert::caller(&principal)))
    }
}

/// The call, whose principal `call` has authenticated, and the message; `organization` is the one
/// that it names, for the log.
fn parts<T>(
    mut request: Request<T>,
    organization: impl FnOnce(&T) -> Option<i64>,
) -> Result<(Call, T), Error> {
    if let Some(record) = request.extensions().get::<RequestRecord>()
        && let Some(id) = organization(request.get_ref())
    {
        record.set_organization(id);
    }
    let principal = request.extensions_mut().remove::<Arc<Principal>>();
    let principal = principal.ok_or_else(|| Error::Internal("a call came past `call`".into()))?;
    let request_id = request.metadata().get(request_id::HEADER.as_str());
    let request_id = request_id.and_then(|id| id.to_str().ok()).unwrap_or_default().to_owned();
    let call = Call { principal, request_id, idempotency_key: None, validate_only: false };
    Ok((call, request.into_inner()))
}

/// An answer that may be large, with its size for whoever counts what waits unread.
fn counted<T: Message>(message: T) -> Response<T> {
    let bytes = AnswerBytes(message.encoded_len());
    let mut response = Response::new(message);
    response.extensions_mut().insert(bytes);
    response
}

fn organization(
    principal: &Principal,
    organization: Organization,
    with_writable: bool,
) -> v1::Organization {
    let writable_fields = with_writable.then(|| convert::writable_fields(principal));
    v1::Organization {
        writable_fields: writable_fields.unwrap_or_default(),
        ..convert::organization(organization)
    }
}
