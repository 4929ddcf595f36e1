//! What every call passes through before and after its RPC: the request id, the content type, the
//! deadline, authentication, and the wording of what tonic refuses by itself.

use std::{
    any::Any,
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};

use http::{HeaderMap, HeaderValue, Request, Response, header::CONTENT_TYPE};
use tokio::time::timeout;
use tonic::{Status, body::Body, server::NamedService};
use tower::{Service, ServiceExt, service_fn, util::BoxCloneSyncService};
use tower_http::catch_panic::CatchPanic;
use tracing::Instrument;

use super::{CallLimits, organization::OrganizationRpc, status};
use crate::{
    auth::Authenticator,
    proto::{
        request_id, timeout as grpc_timeout,
        v1::organization_service_server::{OrganizationServiceServer, SERVICE_NAME},
    },
    store::Store,
};

type Rpc = OrganizationServiceServer<OrganizationRpc>;

/// The organization service as a tower service: behind the gRPC listener, and as the transport of
/// the gateway's client within one process.
#[derive(Clone, Debug)]
pub struct OrganizationGrpc(BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>);

impl OrganizationGrpc {
    /// The service over a store, for callers that the authenticator knows.
    #[must_use]
    pub fn new(store: Store, authenticator: Authenticator, limits: CallLimits) -> Self {
        let rpc = OrganizationServiceServer::new(OrganizationRpc::new(store))
            .max_decoding_message_size(limits.message_bytes_max);
        let authenticator = Arc::new(authenticator);
        Self(BoxCloneSyncService::new(service_fn(move |request| {
            let (authenticator, rpc) = (authenticator.clone(), rpc.clone());
            async move { Ok(answer(&authenticator, rpc, limits, request).await) }
        })))
    }
}

impl Service<Request<Body>> for OrganizationGrpc {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = <BoxCloneSyncService<Request<Body>, Response<Body>, Infallible> as Service<
        Request<Body>,
    >>::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.0.call(request)
    }
}

impl NamedService for OrganizationGrpc {
    const NAME: &'static str = SERVICE_NAME;
}

async fn answer(
    authenticator: &Authenticator,
    rpc: Rpc,
    limits: CallLimits,
    mut request: Request<Body>,
) -> Response<Body> {
    let request_id = request_id::of(request.headers());
    if !is_grpc(request.headers()) {
        return unsupported_media_type(request_id);
    }
    request.headers_mut().insert(request_id::HEADER, request_id.clone());
    let span = tracing::info_span!(
        "call",
        path = request.uri().path(),
        request_id = request_id.to_str().unwrap_or_default(),
    );
    // In one expression: a future that is moved first is there twice.
    let mut response = within_deadline(authenticator, rpc, limits, request)
        .instrument(span)
        .await
        .unwrap_or_else(Status::into_http);
    response.headers_mut().insert(request_id::HEADER, request_id);
    response
}

async fn within_deadline(
    authenticator: &Authenticator,
    rpc: Rpc,
    limits: CallLimits,
    request: Request<Body>,
) -> Result<Response<Body>, Status> {
    let deadline = grpc_timeout::of(request.headers())
        .map_err(|_| status::malformed_timeout())?
        .map_or(limits.deadline, |asked| asked.min(limits.deadline));
    timeout(deadline, authenticated(authenticator, rpc, request))
        .await
        .map_err(|_| status::deadline_exceeded())?
}

/// Authenticates by the headers alone, before the message is read, and only then calls the RPC.
async fn authenticated(
    authenticator: &Authenticator,
    rpc: Rpc,
    mut request: Request<Body>,
) -> Result<Response<Body>, Status> {
    let principal = authenticator.authenticate(request.headers()).await?;
    request.extensions_mut().insert(principal);
    let Ok(response) = CatchPanic::custom(rpc, on_panic).oneshot(request).await;
    let response = response.map(Body::new);
    Ok(match Status::from_header_map(response.headers()) {
        Some(refusal) => status::in_our_words(refusal).into_http(),
        None => response,
    })
}

fn is_grpc(headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(CONTENT_TYPE).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else { return false };
    let essence = line.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
    let essence = essence.trim_ascii();
    essence.eq_ignore_ascii_case(b"application/grpc")
        || essence.eq_ignore_ascii_case(b"application/grpc+proto")
}

/// What the protocol asks for where the content type is not gRPC's: a plain HTTP status, which a
/// client that speaks something else can read.
fn unsupported_media_type(request_id: HeaderValue) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    response.headers_mut().insert(request_id::HEADER, request_id);
    *response.status_mut() = http::StatusCode::UNSUPPORTED_MEDIA_TYPE;
    response
}

fn on_panic(_: Box<dyn Any + Send>) -> Response<Body> {
    // The panic hook has logged it; its text is not for the caller.
    status::panicked().into_http()
}
