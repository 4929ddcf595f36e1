//! W3C trace context: read from a request where callers are trusted, and sent on.

use std::{fmt, sync::OnceLock};

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::{
    Context, Value,
    propagation::{Extractor, Injector, TextMapPropagator},
    trace::TraceContextExt,
};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// Whether remote parents are trusted; none where there are no traces.
static TRACES: OnceLock<Option<bool>> = OnceLock::new();

pub(super) fn set(trusts_remote_parents: Option<bool>) {
    let _ = TRACES.set(trusts_remote_parents);
}

/// The traces of a request. Does nothing where there are none.
#[derive(Debug)]
pub struct TraceContext;

impl TraceContext {
    #[must_use]
    pub fn is_on() -> bool {
        TRACES.get().copied().flatten().is_some()
    }

    /// All log lines within the span have its id, so what only traces need is left out where there are none.
    #[must_use]
    pub fn request_span(
        name: fmt::Arguments<'_>,
        request_id: &HeaderValue,
        headers: &HeaderMap,
    ) -> Span {
        let request_id = request_id.to_str().unwrap_or_default();
        if !Self::is_on() {
            return tracing::info_span!("request", request_id);
        }
        let span =
            tracing::info_span!("request", otel.name = name, otel.kind = "server", request_id);
        if TRACES.get().copied().flatten() == Some(true) {
            let parent = TraceContextPropagator::new()
                .extract_with_context(&Context::new(), &Headers(headers));
            // Fails only for a span that has begun, which this one has not.
            let _ = span.set_parent(parent);
        }
        span
    }

    /// Names the current span as the parent of whoever gets these headers.
    pub fn hand_on(headers: &mut HeaderMap) {
        if Self::is_on() {
            let context = Span::current().context();
            TraceContextPropagator::new().inject_context(&context, &mut HeadersMut(headers));
        }
    }

    #[must_use]
    pub fn trace_id(span: &Span) -> Option<String> {
        let context = Self::is_on().then(|| span.context())?;
        let trace_id = context.span().span_context().trace_id();
        Some(trace_id.to_string())
    }

    /// Notes what is known of a request only after it.
    pub fn note(span: &Span, name: &'static str, value: impl Into<Value>) {
        if Self::is_on() {
            span.set_attribute(name, value);
        }
    }
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        // Of several, none is to be believed.
        let mut lines = self.0.get_all(key).iter();
        let (Some(line), None) = (lines.next(), lines.next()) else { return None };
        line.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

struct HeadersMut<'a>(&'a mut HeaderMap);

impl Injector for HeadersMut<'_> {
    fn set(&mut self, key: &str, value: String) {
        if let (Ok(name), Ok(value)) = (key.parse::<HeaderName>(), HeaderValue::try_from(value)) {
            self.0.insert(name, value);
        }
    }
}
