//! A call over the wire, around the generated server: the request id, the content type, the checks of every
//! call, the wording of what tonic refuses by itself, and what is counted and logged of it.

use std::{
    convert::Infallible,
    net::IpAddr,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Request, Response, header::CONTENT_TYPE};
use http_body::Body as HttpBody;
use http_body_util::BodyExt;
use orgd_listener::{CallerBudget, Source};
use tokio::time::timeout_at;
use tonic::{Status, body::Body, server::NamedService};
use tower::{BoxError, Service, ServiceExt};
use tracing::Instrument;

use super::{
    checks::{Checks, rest, within_rate},
    limits::CallLimits,
    method::Method,
    organization::OrganizationRpc,
    status,
};
use crate::{
    auth::Authenticator,
    domain::Error,
    proto::{
        request_id,
        v1::organization_service_server::{OrganizationServiceServer, SERVICE_NAME},
    },
    rate_limit::RateLimit,
    store::Store,
    telemetry::{RequestRecord, TraceContext, metrics},
};

/// How long the message of a refused call is awaited.
const MESSAGE_ON_ITS_WAY_MAX: Duration = Duration::from_millis(100);

type Rpc = OrganizationServiceServer<OrganizationRpc>;

/// The organization service as a tower service, behind the gRPC listener.
#[derive(Clone)]
pub struct OrganizationGrpc {
    rpc: Rpc,
    checks: Arc<Checks>,
}

impl OrganizationGrpc {
    /// The service over a store, for callers that the authenticator knows.
    #[must_use]
    pub fn new(store: Store, authenticator: Authenticator, limits: CallLimits) -> Self {
        let rpc = OrganizationServiceServer::new(OrganizationRpc::new(store, &limits))
            .max_decoding_message_size(limits.message_bytes_max);
        Self { rpc, checks: Arc::new(Checks { authenticator, limits }) }
    }
}

impl Service<Request<Body>> for OrganizationGrpc {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Self { rpc, checks } = self.clone();
        Box::pin(async move { Ok(answer(&checks, rpc, request).await) })
    }
}

impl NamedService for OrganizationGrpc {
    const NAME: &'static str = SERVICE_NAME;
}

async fn answer(checks: &Checks, rpc: Rpc, mut request: Request<Body>) -> Response<Body> {
    let start = Instant::now();
    let request_id = request_id::of(request.headers());
    let method = Method::of_path(request.uri().path());
    let client = request.extensions().get().map(|Source(source)| *source);
    let record = RequestRecord::start(request_id.clone(), client);
    let name = method.name();
    let span = TraceContext::request_span(format_args!("{name}"), &request_id, request.headers());
    request.headers_mut().insert(request_id::HEADER, request_id.clone());
    request.extensions_mut().insert(record.clone());
    let caller_budget = request.extensions().get::<CallerBudget>().cloned();
    let mut response = if is_grpc(request.headers()) {
        // In one expression: a future in a variable would be stored twice in this one.
        checked(checks, rpc, method, request)
            .instrument(span.clone())
            .await
            .unwrap_or_else(Status::into_http)
    } else {
        unsupported_media_type()
    };
    if caller_budget.is_some_and(|caller_budget| caller_budget.take(&mut response).is_err()) {
        response = status::of(Error::ShareExhausted).into_http();
    }
    response.headers_mut().insert(request_id::HEADER, request_id);
    let code = status::code_name(response.headers());
    metrics::rpc_call(name, code, start.elapsed());
    TraceContext::note(&span, "rpc.response.status_code", code);
    record.end_rpc(name, code, status::reason(response.headers()).as_deref(), &span);
    response
}

/// The answer of the RPC, if the call passes the checks; all of it within the call's time.
async fn checked(
    checks: &Checks,
    rpc: Rpc,
    method: Method,
    request: Request<Body>,
) -> Result<Response<Body>, Status> {
    let deadline = checks.deadline(request.headers())?;
    let (mut head, body) = request.into_parts();
    let answer = match checks.admitted(method, &head.headers, &head.extensions, deadline).await {
        Ok(admitted) => {
            head.extensions.insert(admitted.principal.clone());
            let answering = answer_of(rpc, Request::from_parts(head, body));
            admitted.call(answering, Response::headers_mut).await
        }
        Err(refusal) => {
            // Boxed: else the future of every call would have the size of this rare case.
            Box::pin(take_message(body, checks.limits.message_bytes_max, deadline)).await;
            Err(refusal)
        }
    };
    if let Err(refusal) = &answer {
        rest(refusal, deadline).await;
    }
    answer
}

async fn answer_of(rpc: Rpc, request: Request<Body>) -> Result<Response<Body>, Status> {
    let Ok(response) = rpc.oneshot(request).await;
    match Status::from_header_map(response.headers()) {
        Some(refusal) => Err(status::in_our_words(refusal)),
        None => Ok(response),
    }
}

/// Counts a call of another service (health, reflection, an unknown one) for its source, and refuses it over
/// the rate limit. Calls of our own service are counted in `admitted`.
pub async fn count_other<B>(
    limits: Option<&RateLimit<IpAddr>>,
    bytes_max: usize,
    request: Request<B>,
) -> Result<Request<B>, Response<Body>>
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let extensions = request.extensions();
    let admitted = match (limits, extensions.get()) {
        _ if extensions.get().is_some_and(CallerBudget::is_exhausted) => {
            Err(status::of(Error::ShareExhausted))
        }
        (Some(limits), Some(Source(source))) => within_rate(limits.check(source)).map(|_| ()),
        _ => Ok(()),
    };
    let Err(refusal) = admitted else { return Ok(request) };
    let end = Instant::now() + MESSAGE_ON_ITS_WAY_MAX;
    take_message(Body::new(request.into_body()), bytes_max, end).await;
    Err(refusal.into_http())
}

/// Reads the message of a refused call before the answer is sent. The answer ends the stream, and h2 counts
/// data that comes afterwards as an error of the stream. After a thousand of these it would close the
/// connection of a client that has only been refused.
async fn take_message(mut body: Body, bytes_max: usize, deadline: Instant) {
    let taking = async {
        let mut taken = 0;
        while let Some(Ok(frame)) = body.frame().await {
            taken += frame.data_ref().map_or(0, Bytes::len);
            if taken > bytes_max {
                return;
            }
        }
    };
    let end = deadline.min(Instant::now() + MESSAGE_ON_ITS_WAY_MAX);
    let _ = timeout_at(end.into(), taking).await;
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
fn unsupported_media_type() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = http::StatusCode::UNSUPPORTED_MEDIA_TYPE;
    response
}
