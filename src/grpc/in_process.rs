//! The service for a gateway in the same process: messages are handed over as they are, behind the same checks
//! as on the wire.

use std::time::Instant;

use tonic::{Request, Response, Status};
use tracing::Instrument;

use super::{
    checks::{Checks, rest},
    limits::CallLimits,
    method::Method,
    organization::OrganizationRpc,
    status,
};
use crate::{
    auth::Authenticator,
    proto::{
        ChangeStream,
        v1::{self, organization_service_server::OrganizationService},
    },
    store::Store,
    telemetry::{TraceContext, metrics},
};

type Answer<T> = Result<Response<T>, Status>;

pub struct InProcess {
    rpc: OrganizationRpc,
    checks: Checks,
}

impl InProcess {
    #[must_use]
    pub fn new(store: Store, authenticator: Authenticator, limits: CallLimits) -> Self {
        let rpc = OrganizationRpc::new(store, &limits);
        Self { rpc, checks: Checks { authenticator, limits } }
    }

    /// A call of the method `name`, which `rpc` carries out for its caller.
    async fn call<'a, T, A, F>(
        &'a self,
        name: &str,
        request: Request<T>,
        rpc: impl FnOnce(&'a OrganizationRpc, Request<T>) -> F,
    ) -> Answer<A>
    where
        F: Future<Output = Answer<A>>,
    {
        let start = Instant::now();
        let method = Method::named(name);
        // Only traces use this span. The request's log line is the gateway's.
        let span = tracing::debug_span!("call", otel.name = method.name(), otel.kind = "internal");
        let answer = self.checked(method, request, rpc).instrument(span.clone()).await;
        let code = status::code_name_of(&answer);
        metrics::rpc_call(method.name(), code, start.elapsed());
        TraceContext::note(&span, "rpc.response.status_code", code);
        answer
    }

    async fn checked<'a, T, A, F>(
        &'a self,
        method: Method,
        mut request: Request<T>,
        rpc: impl FnOnce(&'a OrganizationRpc, Request<T>) -> F,
    ) -> Answer<A>
    where
        F: Future<Output = Answer<A>>,
    {
        let (headers, extensions) = (request.metadata().as_ref(), request.extensions());
        let deadline = self.checks.deadline(headers)?;
        let answer = match self.checks.admitted(method, headers, extensions, deadline).await {
            Ok(admitted) => {
                request.extensions_mut().insert(admitted.principal.clone());
                let answering = rpc(&self.rpc, request);
                admitted.call(answering, |answer| answer.metadata_mut().as_mut()).await
            }
            Err(refusal) => Err(refusal),
        };
        if let Err(refusal) = &answer {
            rest(refusal, deadline).await;
        }
        answer
    }
}

#[tonic::async_trait]
impl OrganizationService for InProcess {
    async fn update(
        &self,
        request: Request<v1::UpdateOrganizationRequest>,
    ) -> Answer<v1::Organization> {
        self.call("Update", request, OrganizationRpc::update).await
    }

    async fn create(
        &self,
        request: Request<v1::CreateOrganizationRequest>,
    ) -> Answer<v1::Organization> {
        self.call("Create", request, OrganizationRpc::create).await
    }

    async fn get(&self, request: Request<v1::GetOrganizationRequest>) -> Answer<v1::Organization> {
        self.call("Get", request, OrganizationRpc::get).await
    }

    async fn list(
        &self,
        request: Request<v1::ListOrganizationsRequest>,
    ) -> Answer<v1::ListOrganizationsResponse> {
        self.call("List", request, OrganizationRpc::list).await
    }

    async fn list_changes(
        &self,
        request: Request<v1::ListChangesRequest>,
    ) -> Answer<v1::ListChangesResponse> {
        self.call("ListChanges", request, OrganizationRpc::list_changes).await
    }

    type WatchStream = ChangeStream;

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Answer<Self::WatchStream> {
        self.call("Watch", request, OrganizationRpc::watch).await
    }

    async fn who_am_i(&self, request: Request<v1::WhoAmIRequest>) -> Answer<v1::Caller> {
        self.call("WhoAmI", request, OrganizationRpc::who_am_i).await
    }
}
