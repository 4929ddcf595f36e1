//! What every call passes through before and after its RPC: the request id, the content type, the
//! deadline, rate limits, authentication, the wording of what tonic refuses by itself, and what is
//! counted and logged of it.

use std::{
    convert::Infallible,
    net::IpAddr,
    panic::AssertUnwindSafe,
    sync::{Arc, LazyLock},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};
use http::{HeaderMap, Request, Response, header::CONTENT_TYPE, request::Parts};
use http_body::Body as HttpBody;
use http_body_util::BodyExt;
use orgd_listener::{CallerBudget, Source};
use orgd_shares::{Holder, patience};
use prost_reflect::DescriptorPool;
use tokio::time::{sleep, timeout_at};
use tonic::{Status, body::Body, server::NamedService};
use tower::{BoxError, Service, ServiceExt};
use tracing::Instrument;

use super::{limits::CallLimits, organization::OrganizationRpc, status};
use crate::{
    auth::Authenticator,
    domain::{CredentialDigest, Error, Principal},
    proto::{
        COUNTED, FILE_DESCRIPTOR_SET, request_id, timeout as grpc_timeout,
        v1::organization_service_server::{OrganizationServiceServer, SERVICE_NAME},
    },
    rate_limit::{RateLimit, RateLimitStatus},
    store::Store,
    telemetry::{RequestRecord, TraceContext, metrics},
};

/// The call that costs no token of a principal's rate limit, unless its caller asks for it (`orgd-counted`).
const WHO_AM_I: &str = "/organization.v1.OrganizationService/WhoAmI";
/// How long the message of a refused call is awaited.
const MESSAGE_ON_ITS_WAY_MAX: Duration = Duration::from_millis(100);

type Rpc = OrganizationServiceServer<OrganizationRpc>;

/// The organization service as a tower service: behind the gRPC listener, and as the transport of
/// the gateway's client within one process.
#[derive(Clone)]
pub struct OrganizationGrpc {
    rpc: Rpc,
    shared: Arc<Shared>,
}

struct Shared {
    authenticator: Authenticator,
    limits: CallLimits,
}

impl OrganizationGrpc {
    /// The service over a store, for callers that the authenticator knows.
    #[must_use]
    pub fn new(store: Store, authenticator: Authenticator, limits: CallLimits) -> Self {
        let rpc = OrganizationServiceServer::new(OrganizationRpc::new(store, &limits))
            .max_decoding_message_size(limits.message_bytes_max);
        Self { rpc, shared: Arc::new(Shared { authenticator, limits }) }
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
        let Self { rpc, shared } = self.clone();
        Box::pin(async move { Ok(answer(&shared, rpc, request).await) })
    }
}

impl NamedService for OrganizationGrpc {
    const NAME: &'static str = SERVICE_NAME;
}

async fn answer(shared: &Shared, rpc: Rpc, mut request: Request<Body>) -> Response<Body> {
    let start = Instant::now();
    let request_id = request_id::of(request.headers());
    let method = method(request.uri().path());
    // The gateway within this process has a record already, and writes the request's log line.
    let record = request.extensions().get::<RequestRecord>().cloned();
    let is_own = record.is_none();
    let record = record.unwrap_or_else(|| {
        let client = request.extensions().get().map(|Source(source)| *source);
        RequestRecord::start(request_id.clone(), client)
    });
    let span = if is_own {
        TraceContext::request_span(format_args!("{method}"), &request_id, request.headers())
    } else {
        // Only traces use this span.
        tracing::debug_span!("call", otel.name = method, otel.kind = "internal")
    };
    request.headers_mut().insert(request_id::HEADER, request_id.clone());
    if is_own {
        request.extensions_mut().insert(record.clone());
    }
    let caller_budget = request.extensions().get::<CallerBudget>().cloned();
    let mut response = if is_grpc(request.headers()) {
        // In one expression: a future in a variable would be stored twice in this one.
        within_deadline(shared, rpc, request, &record)
            .instrument(span.clone())
            .await
            .unwrap_or_else(Status::into_http)
    } else {
        unsupported_media_type()
    };
    if caller_budget.is_some_and(|caller_budget| caller_budget.take(&mut response).is_err()) {
        response = status::of(Error::ShareExhausted).into_http();
    }
    response.headers_mut().insert(request_id::HEADER, request_id.clone());
    let code = status::code_name(response.headers());
    metrics::rpc_call(method, code, start.elapsed());
    TraceContext::note(&span, "rpc.response.status_code", code);
    if is_own {
        record.end_rpc(method, code, status::reason(response.headers()).as_deref(), &span);
    }
    response
}

/// The method as logs and metrics name it: one of a closed set, whatever clients call.
fn method(path: &str) -> &'static str {
    static METHODS: LazyLock<Vec<String>> = LazyLock::new(|| {
        let service = DescriptorPool::decode(FILE_DESCRIPTOR_SET)
            .ok()
            .and_then(|pool| pool.get_service_by_name(SERVICE_NAME));
        let methods = service.iter().flat_map(|service| service.methods().collect::<Vec<_>>());
        methods.map(|method| format!("{SERVICE_NAME}/{}", method.name())).collect()
    });
    let asked = path.trim_start_matches('/');
    METHODS.iter().find(|method| *method == asked).map_or("_OTHER", String::as_str)
}

/// Authenticates by the headers alone, before the message is read, and only then calls the RPC; all of it
/// within the call's time.
async fn within_deadline(
    shared: &Shared,
    rpc: Rpc,
    request: Request<Body>,
    record: &RequestRecord,
) -> Result<Response<Body>, Status> {
    let time = grpc_timeout::of(request.headers())
        .map_err(|_| status::malformed_timeout())?
        .map_or(shared.limits.deadline, |asked| asked.min(shared.limits.deadline));
    let deadline = Instant::now() + time;
    let (mut head, body) = request.into_parts();
    let admitted = timeout_at(deadline.into(), admitted(shared, &head, record)).await;
    let (principal, limit_statuses) = match admitted {
        Ok(Ok(admitted)) => admitted,
        Ok(Err(refusal)) => {
            // Boxed: else the future of every call would have the size of this rare case.
            Box::pin(take_message(body, shared.limits.message_bytes_max, deadline)).await;
            if status::is_of_own_making(&refusal) {
                Box::pin(rest(deadline)).await;
            }
            return Err(refusal);
        }
        Err(_) => return Err(status::deadline_exceeded(false)),
    };
    let rpc_name = head.uri.path().rsplit('/').next();
    let is_change = matches!(rpc_name, Some("Update" | "Create"));
    head.extensions.insert(principal);
    let request = Request::from_parts(head, body);
    let calling = AssertUnwindSafe(rpc.oneshot(request)).catch_unwind();
    let response = timeout_at(deadline.into(), calling)
        .await
        .map_err(|_| status::deadline_exceeded(is_change))?
        // The panic hook has logged it; its text is not for the caller.
        .unwrap_or_else(|_| Ok(status::panicked().into_http()));
    let Ok(response) = response;
    let mut response = match Status::from_header_map(response.headers()) {
        Some(refusal) => {
            if status::is_of_own_making(&refusal) {
                Box::pin(rest(deadline)).await;
            }
            status::in_our_words(refusal).into_http()
        }
        None => response,
    };
    for limit_status in limit_statuses {
        limit_status.write(response.headers_mut());
    }
    Ok(response)
}

/// Delays a refusal that its caller caused: a client that comes back at once, whatever it was told, would
/// else use up the processors. Its callers box this future, as else every call would have its size.
async fn rest(deadline: Instant) {
    let left = deadline.saturating_duration_since(Instant::now());
    sleep(patience().min(left / 2)).await;
}

/// Authenticates the caller and checks its rate limits. Returns the principal and the status of each limit.
async fn admitted(
    Shared { authenticator, limits }: &Shared,
    head: &Parts,
    record: &RequestRecord,
) -> Result<(Arc<Principal>, Vec<RateLimitStatus>), Status> {
    if head.extensions.get().is_some_and(CallerBudget::is_exhausted) {
        return Err(status::of(Error::ShareExhausted));
    }
    let mut limit_statuses = Vec::new();
    let source = head.extensions.get().map(|Source(source)| *source);
    if let (Some(sources), Some(source)) = (&limits.sources, source) {
        limit_statuses.push(within_rate(sources.check(&source))?);
    }
    let holder = source.map_or(Holder::Process, Holder::Source);
    let principal = authenticator.authenticate(&holder, &head.headers).await;
    let principal = principal.map_err(status::of)?;
    let credential = principal.credential.as_ref().map(CredentialDigest::short_id);
    record.set_caller(principal.subject.clone(), credential);
    if head.uri.path() == WHO_AM_I && !head.headers.contains_key(COUNTED) {
        // A gateway asks this before the call that is counted. The answer to that one reports the limits.
        return Ok((principal, Vec::new()));
    }
    if let Some(principals) = limits.principals.of(principal.role) {
        limit_statuses.push(within_rate(principals.check(&principal.subject))?);
    }
    Ok((principal, limit_statuses))
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

/// A caller's limit status, or the refusal where it called too often.
fn within_rate(limit_status: RateLimitStatus) -> Result<RateLimitStatus, Status> {
    match limit_status.wait {
        Some(wait) => Err(status::rate_limited(wait, &limit_status)),
        None => Ok(limit_status),
    }
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
