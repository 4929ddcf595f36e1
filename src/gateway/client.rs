//! The calls of the service on behalf of a REST request: which parts of it are sent, and which calls are made
//! again.

use std::{error::Error, sync::Arc, time::Duration};

use axum::http::{HeaderMap, HeaderName, HeaderValue, header::AUTHORIZATION};
use futures_util::future::BoxFuture;
use tokio::time::{Instant, sleep};
use tonic::{
    Code, ConnectError, Status,
    metadata::{MetadataMap, MetadataValue},
};

use crate::{
    gateway::context::RequestContext,
    proto::{
        COUNTED, ChangeStream, request_id,
        v1::{self, organization_service_server::OrganizationService},
    },
    rate_limit::{RATE_LIMIT, RATE_LIMIT_POLICY},
    rests::rests,
    telemetry::TraceContext,
};

/// The service as the gateway calls it: in the same process, or by way of a connection.
pub type Api = dyn OrganizationService<WatchStream = ChangeStream>;

type Answering<'a, T> = BoxFuture<'a, Result<tonic::Response<T>, Status>>;

/// Request headers that are sent on to the service; no others are.
const FORWARDED: [HeaderName; 3] =
    [AUTHORIZATION, HeaderName::from_static("traceparent"), HeaderName::from_static("tracestate")];

/// Retries of one call. Several connections may be closing at once, and a restart takes a moment.
const RETRIES_MAX: usize = 7;
/// The longest pause before the first retry. It doubles with each retry, up to 640 ms.
const REST_FIRST: Duration = Duration::from_millis(10);

pub(super) fn chain<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error: &&'a (dyn Error + 'static)| error.source())
}

/// Whether a call may be retried: its connection failed, and either the service did not process it or doing
/// it twice does no harm.
fn may_be_repeated(status: &Status, is_harmless: bool) -> bool {
    let Some(cause) = status.source() else { return false };
    let was_late = status.code() == Code::DeadlineExceeded;
    !was_late && (is_harmless || chain(cause).any(was_never_processed))
}

/// The causes by which a call certainly was not processed: no connection, hyper dropped a request that waited
/// for one, GOAWAY before the stream (RFC 9113 §6.8), or `REFUSED_STREAM` (§8.7).
fn was_never_processed(error: &(dyn Error + 'static)) -> bool {
    if error.is::<ConnectError>() {
        return true;
    }
    if let Some(error) = error.downcast_ref::<hyper::Error>() {
        return error.is_canceled();
    }
    error.downcast_ref().is_some_and(|error: &h2::Error| {
        let was_refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
        error.is_remote() && (error.is_go_away() || was_refused)
    })
}

/// The service on behalf of one REST request: with its credential, its id and its deadline.
pub(super) struct Caller {
    api: Arc<Api>,
    metadata: MetadataMap,
    pub(super) context: RequestContext,
}

impl Caller {
    pub(super) fn new(api: Arc<Api>, headers: &HeaderMap, context: &RequestContext) -> Self {
        let mut forwarded = HeaderMap::new();
        for name in FORWARDED {
            for line in headers.get_all(&name) {
                forwarded.append(name.clone(), line.clone());
            }
        }
        TraceContext::hand_on(&mut forwarded);
        forwarded.insert(request_id::HEADER, context.request_id.clone());
        Self { api, metadata: MetadataMap::from_headers(forwarded), context: context.clone() }
    }

    /// A call that changes nothing. For a stream, the request's deadline covers only its start.
    pub(super) async fn read<M: Clone, T>(
        &self,
        message: M,
        send: impl for<'a> Fn(&'a Api, tonic::Request<M>) -> Answering<'a, T>,
    ) -> Result<T, Status> {
        self.call(true, message, send).await
    }

    pub(super) async fn update(
        &self,
        message: v1::UpdateOrganizationRequest,
    ) -> Result<v1::Organization, Status> {
        let is_harmless = message.validate_only || !message.request_id.is_empty();
        self.call(is_harmless, message, |api, request| api.update(request)).await
    }

    pub(super) async fn create(
        &self,
        message: v1::CreateOrganizationRequest,
    ) -> Result<v1::Organization, Status> {
        let is_harmless = message.validate_only || !message.request_id.is_empty();
        self.call(is_harmless, message, |api, request| api.create(request)).await
    }

    /// Who the caller is. Costs one call of its rate limit, as every request does.
    pub(super) async fn who_am_i(&self) -> Result<v1::Caller, Status> {
        self.read(v1::WhoAmIRequest {}, |api, mut request| {
            request.metadata_mut().insert(COUNTED, MetadataValue::from_static("1"));
            api.who_am_i(request)
        })
        .await
    }

    /// Whether the service takes the caller's credential. Costs nothing: another call counts the request.
    pub(super) async fn authenticate(&self) -> Result<(), Status> {
        let answer = self.read(v1::WhoAmIRequest {}, |api, request| api.who_am_i(request)).await;
        accepted(answer).map(drop)
    }

    /// Makes a call, and retries it if its connection failed. `is_harmless`: it changes nothing or has an
    /// idempotency key, so it may be made twice.
    async fn call<M: Clone, T>(
        &self,
        is_harmless: bool,
        message: M,
        send: impl for<'a> Fn(&'a Api, tonic::Request<M>) -> Answering<'a, T>,
    ) -> Result<T, Status> {
        let start = Instant::now();
        // Half of the deadline, so that there is time left to answer that the service cannot be reached.
        let give_up_at = start + self.context.deadline.saturating_duration_since(start) / 2;
        let mut rests = rests(REST_FIRST, Duration::MAX).take(RETRIES_MAX);
        loop {
            let answer = send(&*self.api, self.request(message.clone())).await;
            match answer {
                Err(status)
                    if may_be_repeated(&status, is_harmless)
                        && let Some(rest) = rests.next()
                        && Instant::now() + rest < give_up_at =>
                {
                    tracing::debug!(cause = ?status.source(), "a call is made again");
                    sleep(rest).await;
                }
                answer => return self.answer(answer),
            }
        }
    }

    fn request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        *request.metadata_mut() = self.metadata.clone();
        let left = self.context.deadline.saturating_duration_since(Instant::now());
        // The grammar of grpc-timeout has no zero. The service finds one nanosecond exceeded.
        request.set_timeout(left.max(Duration::from_nanos(1)));
        // Whoever finds out who the caller is notes it: the service in this process, or the caller's share.
        request.extensions_mut().insert(self.context.record.clone());
        // For the caller's share of the connections, where the service is another process.
        if let Some(source) = self.context.source {
            request.extensions_mut().insert(source);
        }
        request
    }

    /// The message of an answer. What it says of the caller's rate limit is kept for the client.
    fn answer<T>(&self, answer: Result<tonic::Response<T>, Status>) -> Result<T, Status> {
        let metadata = match &answer {
            Ok(response) => response.metadata(),
            Err(status) => status.metadata(),
        };
        let mut limit_status = HeaderMap::new();
        for name in [RATE_LIMIT, RATE_LIMIT_POLICY] {
            for value in metadata.get_all(name.as_str()) {
                if let Ok(value) = HeaderValue::from_bytes(value.as_encoded_bytes()) {
                    limit_status.append(name.clone(), value);
                }
            }
        }
        if !limit_status.is_empty() {
            let _ = self.context.limit_status.set(limit_status);
        }
        answer.map(tonic::Response::into_inner)
    }
}

/// The caller, if the service accepts its credential. None where it says UNIMPLEMENTED: an older service has no
/// `WhoAmI`, and says so only after it has accepted the credential.
pub(super) fn accepted(answer: Result<v1::Caller, Status>) -> Result<Option<v1::Caller>, Status> {
    match answer {
        Err(status) if status.code() == Code::Unimplemented => Ok(None),
        answer => answer.map(Some),
    }
}
