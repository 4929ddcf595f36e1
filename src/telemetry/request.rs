//! What is known of one request, from its headers to its answer: its log line and its metrics.

use std::{
    net::IpAddr,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use http::HeaderValue;
use tracing::Span;

use super::{TraceContext, metrics};

/// A REST request and the gRPC call that it becomes in the same process share one record.
#[derive(Clone, Debug)]
pub struct RequestRecord(Arc<Known>);

#[derive(Debug)]
struct Known {
    start: Instant,
    id: HeaderValue,
    client: Option<IpAddr>,
    caller: OnceLock<Caller>,
    organization: OnceLock<i64>,
}

#[derive(Debug)]
struct Caller {
    subject: Arc<str>,
    /// The start of the credential's id.
    credential: Option<String>,
}

/// How a request was answered.
enum Answer<'a> {
    Http { route: &'a str, status: u16 },
    Rpc { code: &'static str },
}

impl RequestRecord {
    /// The request with this id, which comes from the address `client`.
    #[must_use]
    pub fn start(id: HeaderValue, client: Option<IpAddr>) -> Self {
        Self(Arc::new(Known {
            start: Instant::now(),
            id,
            client,
            caller: OnceLock::new(),
            organization: OnceLock::new(),
        }))
    }

    pub fn set_caller(&self, subject: Arc<str>, credential: Option<String>) {
        let _ = self.0.caller.set(Caller { subject, credential });
    }

    pub fn set_organization(&self, id: i64) {
        let _ = self.0.organization.set(id);
    }

    /// `reason` is that of a refusal, as docs/ERRORS.md lists them.
    pub fn end_http(
        &self,
        method: &'static str,
        route: &str,
        status: u16,
        reason: Option<&str>,
        span: &Span,
    ) {
        let time = self.0.start.elapsed();
        metrics::http_request(method, route, status, time);
        TraceContext::note(span, "http.response.status_code", i64::from(status));
        self.log(method, &Answer::Http { route, status }, reason, time, span);
    }

    pub fn end_rpc(
        &self,
        method: &'static str,
        code: &'static str,
        reason: Option<&str>,
        span: &Span,
    ) {
        let time = self.0.start.elapsed();
        self.log(method, &Answer::Rpc { code }, reason, time, span);
    }

    /// The one line of a request. A field without a value is not in it.
    fn log(
        &self,
        method: &str,
        answer: &Answer<'_>,
        reason: Option<&str>,
        time: Duration,
        span: &Span,
    ) {
        let (route, status, code) = match *answer {
            Answer::Http { route, status } => (Some(route), Some(status), None),
            Answer::Rpc { code } => (None, None, Some(code)),
        };
        let caller = self.0.caller.get();
        tracing::info!(
            target: "orgd::request",
            method,
            route,
            status,
            code,
            reason,
            subject = caller.map(|caller| &*caller.subject),
            credential = caller.and_then(|caller| caller.credential.as_deref()),
            client = self.0.client.map(tracing::field::display),
            organization = self.0.organization.get(),
            latency_ms = time.as_secs_f64() * 1e3,
            request_id = self.0.id.to_str().unwrap_or_default(),
            trace_id = TraceContext::trace_id(span),
            "answered"
        );
    }
}
