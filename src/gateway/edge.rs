//! What every request and answer passes through: the request id, the source's rate limit, the
//! deadline, the wording of a refusal, the documented headers, and what is counted and logged of it.
//! The outermost layer, so that no answer comes past it.

use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock},
};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{
        HeaderMap, HeaderValue, Method, Version,
        header::{CONNECTION, HOST, TRANSFER_ENCODING},
        uri::Authority,
    },
    middleware::Next,
    response::{IntoResponse, Response},
};
use tokio::time::{Instant, timeout_at};
use tracing::Instrument;

use super::{RequestLimits, headers, problem::Problem, request::organization_id};
use crate::{
    proto::{request_id, timeout},
    rate_limit::{Standing, source},
    telemetry::{RequestRecord, TraceContext},
};

/// What is known of a request before it is routed.
#[derive(Clone, Debug)]
pub(super) struct Exchange {
    pub(super) request_id: HeaderValue,
    pub(super) deadline: Instant,
    pub(super) record: RequestRecord,
    /// What the service said of the caller's rate limit.
    pub(super) standing: Arc<OnceLock<HeaderMap>>,
}

pub(super) async fn edge(
    State(limits): State<RequestLimits>,
    mut request: Request,
    next: Next,
) -> Response {
    let record = RequestRecord::begin();
    let request_id = request_id::of(request.headers());
    let method = method(request.method());
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("", MatchedPath::as_str);
    if let Ok(id) = organization_id(request.uri()) {
        record.set_organization(id);
    }
    let span = TraceContext::request_span(
        format_args!("{method} {route}"),
        &request_id,
        request.headers(),
    );
    // Without the query: it may hold what a client should not have put there.
    let path = request.uri().path().to_owned();
    let exchange = Exchange {
        request_id: request_id.clone(),
        deadline: Instant::now() + limits.deadline,
        record: record.clone(),
        standing: Arc::default(),
    };
    let standing = exchange.standing.clone();
    let source = source_standing(&limits, &request);
    let malformed = malformed(&request);
    let (is_malformed, is_http1) = (malformed.is_some(), request.version() < Version::HTTP_2);
    let is_change = matches!(*request.method(), Method::PUT | Method::POST);
    let answer = match timeout::of(request.headers()) {
        _ if let Some(problem) = malformed => problem.into_response(),
        _ if let Some(wait) = source.and_then(|source| source.wait) => {
            Problem::rate_limited(wait).into_response()
        }
        Err(timeout::Malformed) => Problem::malformed_timeout().into_response(),
        Ok(asked) => {
            let time = asked.map_or(limits.deadline, |asked| asked.min(limits.deadline));
            let deadline = Instant::now() + time;
            request.extensions_mut().insert(Exchange { deadline, ..exchange });
            timeout_at(deadline, next.run(request))
                .instrument(span.clone())
                .await
                .unwrap_or_else(|_| Problem::deadline_exceeded(is_change).into_response())
        }
    };
    let mut answer = Problem::render(answer, &path, &request_id);
    let headers = answer.headers_mut();
    headers::document(headers);
    if is_malformed && is_http1 {
        // What comes behind it may be meant as a part of it.
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if let Some(source) = source {
        source.write(headers);
    }
    if let Some(standing) = standing.get() {
        for (name, value) in standing {
            headers.append(name.clone(), value.clone());
        }
    }
    record.end_http(method, route, answer.status().as_u16(), &request_id, &span);
    answer.headers_mut().insert(request_id::HEADER, request_id);
    answer
}

fn source_standing(limits: &RequestLimits, request: &Request) -> Option<Standing> {
    let peer = request.extensions().get::<SocketAddr>()?;
    Some(limits.sources.as_ref()?.check(&source(peer.ip())))
}

/// The method as logs and metrics name it: one of a closed set, whatever clients send.
fn method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::PUT => "PUT",
        Method::POST => "POST",
        Method::OPTIONS => "OPTIONS",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        _ => "_OTHER",
    }
}

/// What is answered 400 because it can be read in two ways: a request of HTTP/1.1 without a Host or with
/// several (RFC 9112 §3.2) or with more codings than `chunked`, once (§6.1), and one of HTTP/2 whose Host
/// is another than its authority (RFC 9113 §8.3.1).
fn malformed(request: &Request) -> Option<Problem> {
    let mut hosts = request.headers().get_all(HOST).iter();
    if request.version() == Version::HTTP_2 {
        let authority = request.uri().authority().map_or("", Authority::as_str);
        let is_same = hosts.all(|host| host.as_bytes().eq_ignore_ascii_case(authority.as_bytes()));
        let detail = "Send one host: the Host header and :authority differ.";
        return (!is_same).then(|| Problem::repeated_header(detail));
    }
    if request.version() == Version::HTTP_11 && hosts.count() != 1 {
        return Some(Problem::missing_host());
    }
    let mut codings = request.headers().get_all(TRANSFER_ENCODING).iter();
    let is_plain = match (codings.next(), codings.next()) {
        (None, _) => true,
        (Some(coding), None) => coding.as_bytes().eq_ignore_ascii_case(b"chunked"),
        _ => false,
    };
    (!is_plain).then(Problem::odd_transfer_coding)
}
