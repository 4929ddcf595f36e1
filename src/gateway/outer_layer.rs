//! The outermost layer, which every request and answer passes: request id, source rate limit, deadline,
//! documented headers, problems, metrics and the log line.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{
        HeaderValue, Method, Version,
        header::{CONNECTION, HOST, ORIGIN, TRANSFER_ENCODING},
        uri::{Authority, Scheme},
    },
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures_util::FutureExt;
use orgd_listener::{CallerBudget, Source};
use tokio::time::{Instant, timeout_at};
use tracing::Instrument;

use crate::{
    gateway::{
        context::{RequestContext, RequestLimits},
        read::path::organization_id,
        write::{cors::Cors, headers, problem::Problem},
    },
    proto::{request_id, timeout},
    rate_limit::RateLimitStatus,
    telemetry::{RequestRecord, TraceContext},
};

pub(super) async fn outer_layer(
    State((limits, cors)): State<(RequestLimits, Cors)>,
    mut request: Request,
    next: Next,
) -> Response {
    let request_id = request_id::of(request.headers());
    let source = request.extensions().get::<Source>().copied();
    let record = RequestRecord::start(request_id.clone(), source.map(|Source(source)| source));
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
    // Without the query, in which a client may have put a secret by mistake.
    let path = request.uri().path().to_owned();
    let origin = request.headers().get_all(ORIGIN).iter().next().cloned();
    let limit_status = Arc::default();
    let caller_budget = request.extensions().get::<CallerBudget>().cloned();
    let Arrival { time, source_status, must_close } = Arrival::of(&request, source, &limits);
    let mut answer = match time {
        Err(problem) => problem.into_response(),
        Ok(time) => {
            let deadline = Instant::now() + time;
            request.extensions_mut().insert(RequestContext {
                request_id: request_id.clone(),
                deadline,
                record: record.clone(),
                source,
                limit_status: Arc::clone(&limit_status),
            });
            routed(request, next, deadline).instrument(span.clone()).await
        }
    };
    if caller_budget.is_some_and(|caller_budget| caller_budget.take(&mut answer).is_err()) {
        answer = Problem::share_exhausted().into_response();
    }
    let reason = Problem::reason(&answer);
    let mut answer = Problem::render(answer, &path, &request_id);
    let headers = answer.headers_mut();
    headers::document(headers, &cors, origin.as_ref());
    if must_close {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if let Some(source_status) = source_status {
        source_status.write(headers);
    }
    for (name, value) in limit_status.get().into_iter().flatten() {
        headers.append(name.clone(), value.clone());
    }
    headers.insert(request_id::HEADER, request_id);
    record.end_http(method, route, answer.status().as_u16(), reason.as_deref(), &span);
    answer
}

/// The answer of the request's route, or why it has none.
async fn routed(request: Request, next: Next, deadline: Instant) -> Response {
    let is_change = matches!(*request.method(), Method::PUT | Method::POST);
    let answering = AssertUnwindSafe(next.run(request)).catch_unwind();
    match timeout_at(deadline, answering).await {
        Ok(Ok(answer)) => answer,
        // The panic hook has logged it.
        Ok(Err(_)) => Problem::panicked().into_response(),
        Err(_) => Problem::deadline_exceeded(is_change).into_response(),
    }
}

/// What is decided about a request before it is routed.
struct Arrival {
    /// How long it may take, or why it is refused.
    time: Result<Duration, Problem>,
    source_status: Option<RateLimitStatus>,
    /// Whether its connection ends: the bytes after it may belong to its body, so they must not be read as the
    /// next request.
    must_close: bool,
}

impl Arrival {
    fn of(request: &Request, source: Option<Source>, limits: &RequestLimits) -> Self {
        let source = source.zip(limits.sources.as_ref());
        let source_status = source.map(|(Source(address), limit)| limit.check(&address));
        let wait = source_status.as_ref().and_then(|status| status.wait);
        let malformed = malformed(request);
        let must_close = malformed.is_some() && request.version() < Version::HTTP_2;
        let time = match timeout::within(request.headers(), limits.deadline) {
            _ if request.extensions().get().is_some_and(CallerBudget::is_exhausted) => {
                Err(Problem::share_exhausted())
            }
            _ if let Some(problem) = malformed => Err(problem),
            _ if let Some(wait) = wait => Err(Problem::rate_limited(wait)),
            Err(timeout::Malformed) => Err(Problem::malformed_timeout()),
            Ok(time) => Ok(time),
        };
        Self { time, source_status, must_close }
    }
}

/// The method as logs and metrics name it: one of a closed set, whatever clients send.
fn method(method: &Method) -> &'static str {
    const NAMES: [&str; 7] = ["GET", "HEAD", "PUT", "POST", "OPTIONS", "PATCH", "DELETE"];
    NAMES.into_iter().find(|name| *name == method.as_str()).unwrap_or("_OTHER")
}

/// A request that a proxy could read differently: without a host or with two, or with a transfer coding other
/// than one `chunked` (RFC 9112 §6.1).
fn malformed(request: &Request) -> Option<Problem> {
    let mut codings = request.headers().get_all(TRANSFER_ENCODING).iter();
    let is_plain = match (codings.next(), codings.next()) {
        (None, _) => true,
        (Some(coding), None) => coding.as_bytes().eq_ignore_ascii_case(b"chunked"),
        _ => false,
    };
    host_problem(request).or_else(|| (!is_plain).then(Problem::odd_transfer_coding))
}

/// Checks the Host header (RFC 9112 §3.2) and `:authority`, beside which a proxy may have left the header
/// (RFC 9113 §8.3.1). If both are there they must agree: else two layers could pick different hosts.
fn host_problem(request: &Request) -> Option<Problem> {
    let mut lines = request.headers().get_all(HOST).iter();
    let (line, second) = (lines.next(), lines.next());
    let is_https = request.uri().scheme() == Some(&Scheme::HTTPS);
    let named = |text: &[u8]| host_and_port(text, if is_https { 443 } else { 80 });
    match (line.map(HeaderValue::as_bytes), request.uri().authority()) {
        _ if second.is_some() => Some(Problem::missing_host()),
        // HTTP/1.0 does not require a host.
        (None, None) if request.version() == Version::HTTP_10 => None,
        (None, Some(_)) if request.version() != Version::HTTP_11 => None,
        (None, _) => Some(Problem::missing_host()),
        // An empty Host is valid in HTTP/1.1 if the target has no authority.
        (Some(b""), None) if request.version() < Version::HTTP_2 => None,
        (Some(line), authority) => {
            let Some(host) = named(line) else { return Some(Problem::missing_host()) };
            let authority = authority.map(|authority| named(authority.as_str().as_bytes()));
            let is_other = authority.is_some_and(|authority| authority != Some(host));
            let detail = "Send one host: the Host header and the request's target differ.";
            is_other.then(|| Problem::repeated_header(detail))
        }
    }
}

/// Host and port, by which authorities are compared (RFC 9110 §4.2.3). None with a user, or without a host.
fn host_and_port(text: &[u8], default_port: u16) -> Option<(String, u16)> {
    let authority = Authority::try_from(text).ok()?;
    let host = authority.host();
    let port = match authority.as_str().strip_prefix(host)? {
        "" | ":" => default_port,
        port => {
            let digits = port.strip_prefix(':')?;
            let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
            digits.parse().ok().filter(|_| is_number)?
        }
    };
    (!host.is_empty()).then(|| (host.to_ascii_lowercase(), port))
}

#[cfg(test)]
mod tests {
    use super::host_and_port;

    #[test]
    fn authorities_are_compared_as_what_they_name() {
        let same = |one: &str, other: &str, port| {
            let one = host_and_port(one.as_bytes(), port);
            one.is_some() && one == host_and_port(other.as_bytes(), port)
        };
        for (one, other, port, expected) in [
            ("x", "x", 80, true),
            ("x", "X", 80, true),
            ("x", "x:80", 80, true),
            ("x", "x:", 80, true),
            ("x:080", "x", 80, true),
            ("x", "x:443", 443, true),
            ("x", "x:443", 80, false),
            ("x:80", "x:443", 80, false),
            ("x", "y", 80, false),
            ("x", "x.", 80, false),
            ("x", "x x", 80, false),
            ("x", "", 80, false),
            ("x", "u@x", 80, false),
            ("u@x", "u@x", 80, false),
            ("[::1]", "[::1]:80", 80, true),
            ("[FE80::1]", "[fe80::1]:80", 80, true),
            ("[::1]", "[::2]", 80, false),
            ("::1", "::1", 80, false),
            ("x:99999", "x:99999", 80, false),
            ("x:+80", "x", 80, false),
            ("x/y", "x/y", 80, false),
            ("\u{e4}", "\u{e4}", 80, false),
        ] {
            assert_eq!(same(one, other, port), expected, "{one} and {other}, {port}");
        }
    }
}
