//! The RPCs: convert, call one use case, convert back.

use std::{panic::AssertUnwindSafe, sync::Arc};

use futures_util::{StreamExt, TryStreamExt};
use orgd_listener::AnswerBytes;
use prost::Message;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::{convert, limits::CallLimits, page, status};
use crate::{
    app::{organizations, watch::Watches},
    domain::{self, Call, Error, EtagCondition, Organization, Principal},
    proto::{ChangeStream, request_id, v1},
    store::Store,
    telemetry::{RequestRecord, metrics::OpenWatch},
};

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
        if let Some(organization) = &request.get_ref().organization {
            note(&request, organization.id);
        }
        answer(request, async |mut call, message| {
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
        })
        .await
    }

    async fn create(
        &self,
        request: Request<v1::CreateOrganizationRequest>,
    ) -> Result<Response<v1::Organization>, Status> {
        answer(request, async |mut call, message| {
            call.validate_only = message.validate_only;
            call.idempotency_key = convert::idempotency_key(&message.request_id)?;
            let with_writable = message.include_writable_fields;
            let creation = convert::creation(message)?;
            let created = organizations::create(&self.store, &call, creation).await?;
            Ok(Response::new(organization(&call.principal, created, with_writable)))
        })
        .await
    }

    async fn get(
        &self,
        request: Request<v1::GetOrganizationRequest>,
    ) -> Result<Response<v1::Organization>, Status> {
        note(&request, request.get_ref().id);
        answer(request, async |Call { principal, .. }, message| {
            let id = convert::organization_id("id", message.id)?;
            let found = organizations::get(&self.store, &principal, id).await?;
            Ok(Response::new(organization(&principal, found, message.include_writable_fields)))
        })
        .await
    }

    async fn list(
        &self,
        request: Request<v1::ListOrganizationsRequest>,
    ) -> Result<Response<v1::ListOrganizationsResponse>, Status> {
        const LIST: &str = "organizations";
        answer(request, async |Call { principal, .. }, message| {
            let size = page::size(message.page_size, page::ORGANIZATIONS_MAX)?;
            let after = page::after(LIST, &message.page_token)?;
            let page = organizations::list(&self.store, &principal, after, size).await?;
            let next_page_token = page::next_token(LIST, &page, |last| last.id.get());
            let with_writable = message.include_writable_fields;
            let organizations = page.map(|found| organization(&principal, found, with_writable));
            let organizations = organizations.entries;
            Ok(counted(v1::ListOrganizationsResponse { organizations, next_page_token }))
        })
        .await
    }

    async fn list_changes(
        &self,
        request: Request<v1::ListChangesRequest>,
    ) -> Result<Response<v1::ListChangesResponse>, Status> {
        note(&request, request.get_ref().organization_id);
        answer(request, async |Call { principal, .. }, message| {
            let id = convert::organization_id("organization_id", message.organization_id)?;
            let list = format!("changes-{id}");
            let size = page::size(message.page_size, page::CHANGES_MAX)?;
            let after = page::after(&list, &message.page_token)?;
            let page =
                organizations::list_changes(&self.store, &principal, id, after, size).await?;
            let next_page_token = page::next_token(&list, &page, |last| last.version);
            let changes = page.map(convert::change).entries;
            Ok(counted(v1::ListChangesResponse { changes, next_page_token }))
        })
        .await
    }

    type WatchStream = ChangeStream;

    async fn watch(
        &self,
        request: Request<v1::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        // None: from the gateway in this process, which has it.
        let connection = request.extensions().get::<CancellationToken>().cloned();
        // Several have no one id.
        if let [id] = request.get_ref().organization_ids.as_slice() {
            note(&request, *id);
        }
        answer(request, async |Call { principal, .. }, message| {
            let from = convert::watch(message)?;
            let connection = connection.unwrap_or_default();
            let news = self.watches.watch(principal, from, connection).await?;
            let changes = news.map_ok(convert::news).map_err(status::of);
            // A stream is read after its handler has returned, where nobody else catches a panic.
            let changes = AssertUnwindSafe(changes).catch_unwind();
            let open = OpenWatch::start();
            let changes = changes.map(move |change| {
                let _open = &open;
                change.unwrap_or_else(|_| Err(status::panicked()))
            });
            Ok(Response::new(changes.boxed()))
        })
        .await
    }

    async fn who_am_i(
        &self,
        request: Request<v1::WhoAmIRequest>,
    ) -> Result<Response<v1::Caller>, Status> {
        answer(request, async |Call { principal, .. }, _| {
            Ok(Response::new(convert::caller(&principal)))
        })
        .await
    }
}

/// Notes for the log which organization a call is about.
fn note<T>(request: &Request<T>, organization: i64) {
    if let Some(record) = request.extensions().get::<RequestRecord>() {
        record.set_organization(organization);
    }
}

/// The answer of an RPC for the principal that `Checks` has authenticated, or the status of its refusal.
async fn answer<T, A>(
    mut request: Request<T>,
    rpc: impl AsyncFnOnce(Call, T) -> domain::Result<Response<A>>,
) -> Result<Response<A>, Status> {
    let Some(principal) = request.extensions_mut().remove::<Arc<Principal>>() else {
        return Err(status::of(Error::Internal("a call came past `Checks`".into())));
    };
    let request_id = request.metadata().get(request_id::HEADER.as_str());
    let request_id = request_id.and_then(|id| id.to_str().ok()).unwrap_or_default().to_owned();
    let call = Call { principal, request_id, idempotency_key: None, validate_only: false };
    rpc(call, request.into_inner()).await.map_err(status::of)
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
