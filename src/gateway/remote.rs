//! The service as another process: the generated client over a transport.

use std::{
    error::Error,
    sync::Arc,
    task::{Context, Poll},
};

use axum::http::{Request, Response};
use bytes::Bytes;
use futures_util::{StreamExt, future::BoxFuture};
use http_body::Body as HttpBody;
use tonic::{Status, TimeoutExpired, body::Body};
use tower::{BoxError, Service, ServiceExt};

use crate::{
    gateway::client::{Api, chain},
    proto::{
        ChangeStream,
        v1::{
            self, organization_service_client::OrganizationServiceClient,
            organization_service_server::OrganizationService,
        },
    },
};

type Sent = BoxFuture<'static, Result<Response<Body>, Status>>;

/// The way to a service that is another process. A request clones it several times, so a clone allocates
/// nothing.
#[derive(Clone)]
pub struct Transport(Arc<dyn Fn(Request<Body>) -> Sent + Send + Sync>);

impl Transport {
    pub fn new<F>(send: impl Fn(Request<Body>) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Response<Body>, Status>> + Send + 'static,
    {
        Self(Arc::new(move |request| Box::pin(send(request))))
    }
}

impl Service<Request<Body>> for Transport {
    type Response = Response<Body>;
    type Error = Status;
    type Future = Sent;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Sent {
        (self.0)(request)
    }
}

pub fn transport<S, B>(service: S) -> Transport
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    Transport::new(move |request| {
        let answer = service.clone().oneshot(request);
        async { Ok(answer.await.map_err(|error| transport_status(error.into()))?.map(Body::new)) }
    })
}

/// tonic reports its own timeout as `CANCELLED`, like a lost connection. Here it becomes `DEADLINE_EXCEEDED`.
fn transport_status(error: BoxError) -> Status {
    if chain(&*error).any(<dyn Error>::is::<TimeoutExpired>) {
        return Status::deadline_exceeded("the channel's timer");
    }
    Status::from_error(error)
}

/// The service that `transport` leads to.
#[must_use]
pub fn remote(transport: Transport) -> Arc<Api> {
    Arc::new(Remote(transport))
}

struct Remote(Transport);

type Answer<T> = Result<tonic::Response<T>, Status>;

impl Remote {
    fn client(&self) -> OrganizationServiceClient<Transport> {
        OrganizationServiceClient::new(self.0.clone())
    }
}

#[tonic::async_trait]
impl OrganizationService for Remote {
    async fn update(
        &self,
        request: tonic::Request<v1::UpdateOrganizationRequest>,
    ) -> Answer<v1::Organization> {
        self.client().update(request).await
    }

    async fn create(
        &self,
        request: tonic::Request<v1::CreateOrganizationRequest>,
    ) -> Answer<v1::Organization> {
        self.client().create(request).await
    }

    async fn get(
        &self,
        request: tonic::Request<v1::GetOrganizationRequest>,
    ) -> Answer<v1::Organization> {
        self.client().get(request).await
    }

    async fn list(
        &self,
        request: tonic::Request<v1::ListOrganizationsRequest>,
    ) -> Answer<v1::ListOrganizationsResponse> {
        self.client().list(request).await
    }

    async fn list_changes(
        &self,
        request: tonic::Request<v1::ListChangesRequest>,
    ) -> Answer<v1::ListChangesResponse> {
        self.client().list_changes(request).await
    }

    type WatchStream = ChangeStream;

    async fn watch(&self, request: tonic::Request<v1::WatchRequest>) -> Answer<Self::WatchStream> {
        Ok(self.client().watch(request).await?.map(StreamExt::boxed))
    }

    async fn who_am_i(&self, request: tonic::Request<v1::WhoAmIRequest>) -> Answer<v1::Caller> {
        self.client().who_am_i(request).await
    }
}
