//! The RPCs: convert, call one use case, convert back.

use tonic::{Request, Response, Status};

use super::convert;
use crate::{
    app,
    domain::{Error, Principal},
    proto::v1::{
        Organization, UpdateOrganizationRequest, organization_service_server::OrganizationService,
    },
    store::Store,
};

/// The RPCs over a store.
#[derive(Debug)]
pub(super) struct OrganizationRpc {
    store: Store,
}

impl OrganizationRpc {
    pub(super) fn new(store: Store) -> Self {
        Self { store }
    }
}

#[tonic::async_trait]
impl OrganizationService for OrganizationRpc {
    async fn update(
        &self,
        request: Request<UpdateOrganizationRequest>,
    ) -> Result<Response<Organization>, Status> {
        let (principal, message) = parts(request)?;
        let update = convert::update(message)?;
        let organization = app::organizations::update(&self.store, &principal, update).await?;
        Ok(Response::new(convert::organization(organization)))
    }
}

/// The principal, whom `call` has authenticated, and the message.
fn parts<T>(mut request: Request<T>) -> Result<(Principal, T), Error> {
    let principal = request.extensions_mut().remove::<Principal>();
    let principal = principal.ok_or_else(|| Error::Internal("a call came past `call`".into()))?;
    Ok((principal, request.into_inner()))
}
