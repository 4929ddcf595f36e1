//! What is known of one request, from its headers to its answer: its log line and its metrics.

use std::{
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
    subject: OnceLock<String>,
    organization: OnceLock<i64>,
}

impl RequestRecord {
    #[must_use]
    pub fn start() -> Self {
        Self(Arc::new(Known {
            start: Instant::now(),
            subject: OnceLock::new(),
            organization: OnceLock::new(),
        }))
    }

    pub fn set_subject(&self, subject: &str) {
        let _ = self.0.subject.set(subject.to_owned());
    }

    pub fn set_organization(&self, id: i64) {
        let _ = self.0.organization.set(id);
    }

    pub fn end_http(
        &self,
        method: &'static str,
        route: &str,
        status: u16,
        request_id: &HeaderValue,
        span: &Span,
    ) {
        let time = self.0.start.elapsed();
        metrics::http_request(method, route, status, time);
        TraceContext::note(span, "http.response.status_code", i64::from(status));
        self.log(method, Some((route, status)), None, time, request_id, span);
    }

    pub fn end_rpc(
        &self,
        method: &'static str,
        code: &'static str,
        request_id: &HeaderValue,
        span: &Span,
    ) {
        self.log(method, None, Some(code), self.0.start.elapsed(), request_id, span);
    }

    /// The one line of a request. A field without a value is not in it.
    fn log(
        &self,
        method: &str,
        http: Option<(&str, u16)>,
        code: Option<&str>,
        time: Duration,
        request_id: &HeaderValue,
        span: &Span,
    ) {
        tracing::info!(
            target: "orgd::request",
            method,
            route = http.map(|(route, _)| route),
            status = http.map(|(_, status)| status),
            code,
            subject = self.0.subject.get(),
            organization = self.0.organization.get(),
            latency_ms = time.as_secs_f64() * 1e3,
            request_id = request_id.to_str().unwrap_or_default(),
            trace_id = TraceContext::trace_id(span),
            "answered"
        );
    }
}
