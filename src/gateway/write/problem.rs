//! A refusal as `application/problem+json` (RFC 9457), and the one place that chooses its HTTP status. The
//! google.rpc details of a status are kept; no text of a library is.

mod render;

use std::{borrow::Cow, collections::BTreeMap, time::Duration};

use axum::{
    body::Body,
    http::{
        HeaderMap, HeaderName, HeaderValue, StatusCode,
        header::{ALLOW, RETRY_AFTER, WWW_AUTHENTICATE},
    },
    response::{IntoResponse, Response},
};
pub(crate) use render::Rendered;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::{
    domain::{fields::ID_MAX, reason},
    gateway::write::field_error::{self, FieldError},
    proto::{ERROR_DOMAIN, timeout},
    telemetry::causes,
};

pub(crate) const ERRORS_MAX: usize = 16;
/// The seconds of a Retry-After where the service named none.
const RETRY_AFTER_SECONDS: u64 = 1;

/// A refusal, until [`Problem::render`] writes it.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    code: Code,
    reason: Cow<'static, str>,
    detail: Cow<'static, str>,
    errors: Vec<FieldError>,
    metadata: BTreeMap<String, String>,
    headers: HeaderMap,
}

impl Problem {
    fn new(
        status: StatusCode,
        code: Code,
        reason: &'static str,
        detail: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            status,
            code,
            reason: reason.into(),
            detail: detail.into(),
            errors: Vec::new(),
            metadata: BTreeMap::new(),
            headers: HeaderMap::new(),
        }
    }

    fn invalid(reason: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, Code::InvalidArgument, reason, detail)
    }

    fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// With the time to wait, in the body as well: pages of other origins cannot read the header.
    fn retrying_after(mut self, delay: Option<Duration>) -> Self {
        let seconds = retry_after(delay);
        self.metadata.insert("retryAfterSeconds".to_owned(), seconds.to_string());
        self.with_header(RETRY_AFTER, seconds.into())
    }

    pub(crate) fn route_not_found() -> Self {
        let detail = "There is nothing at this path. Paths have no trailing slash and are in lower \
                      case. The page at /docs lists them all.";
        Self::new(StatusCode::NOT_FOUND, Code::NotFound, "ROUTE_NOT_FOUND", detail)
    }

    pub(crate) fn method_not_allowed(allow: HeaderValue) -> Self {
        let detail =
            "This resource does not have this method; the Allow header lists those it has.";
        let status = StatusCode::METHOD_NOT_ALLOWED;
        Self::new(status, Code::Unimplemented, "METHOD_NOT_ALLOWED", detail)
            .with_header(ALLOW, allow)
    }

    pub(crate) fn malformed_timeout() -> Self {
        Self::invalid(reason::DEADLINE_MALFORMED, format!("Grpc-Timeout {}", timeout::RULE))
    }

    pub(crate) fn malformed_id() -> Self {
        let detail = format!(
            "The id in the path must be a number from 1 to {ID_MAX}, \
             without sign, leading zeros or fraction."
        );
        Self::invalid("ID_MALFORMED", detail)
    }

    pub(crate) fn invalid_parameter(name: &str, rule: &str) -> Self {
        Self::invalid("PARAMETER_INVALID", format!("The query parameter {name} {rule}."))
    }

    pub(crate) fn malformed_event_id() -> Self {
        let detail =
            "Last-Event-ID must be the version of a change: a number that is not negative.";
        Self::invalid("EVENT_ID_MALFORMED", detail)
    }

    pub(crate) fn repeated_header(detail: &'static str) -> Self {
        Self::invalid(reason::HEADER_REPEATED, detail)
    }

    pub(crate) fn missing_host() -> Self {
        let detail = "Send one Host header, a host and its port; or :authority over HTTP/2.";
        Self::invalid("HOST_MISSING", detail)
    }

    pub(crate) fn odd_transfer_coding() -> Self {
        let detail = "The only Transfer-Encoding of a request is chunked, once.";
        Self::invalid("TRANSFER_CODING_UNSUPPORTED", detail)
    }

    pub(crate) fn partial_put() -> Self {
        let detail = "Content-Range has no meaning here: send the fields to change, whole.";
        Self::invalid("CONTENT_RANGE_UNSUPPORTED", detail)
    }

    pub(crate) fn unsupported(
        detail: &'static str,
        (name, accepted): (HeaderName, HeaderValue),
    ) -> Self {
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        Self::new(status, Code::InvalidArgument, "MEDIA_TYPE_UNSUPPORTED", detail)
            .with_header(name, accepted)
    }

    pub(crate) fn body_too_large(bytes_max: usize) -> Self {
        let detail = format!("The body must have at most {bytes_max} bytes.");
        let status = StatusCode::PAYLOAD_TOO_LARGE;
        Self::new(status, Code::ResourceExhausted, "BODY_TOO_LARGE", detail)
    }

    pub(crate) fn body_incomplete() -> Self {
        Self::invalid("BODY_INCOMPLETE", "The body ended before it was complete. Send it again.")
    }

    pub(crate) fn not_an_object() -> Self {
        let detail = "The body must be a JSON object with the fields to change.";
        Self::invalid("BODY_NOT_AN_OBJECT", detail)
    }

    pub(crate) fn malformed_json(line: usize, column: usize) -> Self {
        let detail = format!("The body is not valid JSON; look at line {line}, column {column}.");
        Self::invalid("BODY_MALFORMED", detail)
    }

    pub(crate) fn duplicate_key(line: usize, column: usize) -> Self {
        let detail = format!(
            "An object of the body has a key twice; look before line {line}, column {column}."
        );
        Self::invalid("KEY_REPEATED", detail)
    }

    pub(crate) fn invalid_body(errors: Vec<FieldError>) -> Self {
        let detail = "The body is not valid; the errors say which members and why.";
        Self { errors, ..Self::invalid(reason::INVALID_INPUT, detail) }
    }

    /// With `is_change`, while a change may have been under way.
    pub(crate) fn deadline_exceeded(is_change: bool) -> Self {
        let (status, detail) = (StatusCode::GATEWAY_TIMEOUT, timeout::passed("request", is_change));
        Self::new(status, Code::DeadlineExceeded, reason::DEADLINE_EXCEEDED, detail)
    }

    pub(crate) fn rate_limited(wait: Duration) -> Self {
        let detail = "Too many requests come from your address; your request was not carried out. \
            Try again after the time that Retry-After says.";
        let status = StatusCode::TOO_MANY_REQUESTS;
        Self::new(status, Code::ResourceExhausted, reason::RATE_LIMITED, detail)
            .retrying_after(Some(wait))
    }

    /// The caller, or its source, does not take its answers or has too many requests under way.
    pub(crate) fn share_exhausted() -> Self {
        let detail = "You have as much under way as one caller may have, so your request was not \
            carried out. Wait until some of it is done, and try again after the time that \
            Retry-After says.";
        let status = StatusCode::TOO_MANY_REQUESTS;
        Self::new(status, Code::ResourceExhausted, reason::SHARE_EXHAUSTED, detail)
            .retrying_after(None)
    }

    pub(crate) fn panicked() -> Self {
        let detail =
            "The service has failed. Try again; if it happens again, report the request id.";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, Code::Internal, reason::INTERNAL, detail)
    }
}

/// As the service itself refuses, for the gateway's shares of the connections to it.
pub(crate) fn share_exhausted() -> Status {
    exhausted(
        reason::SHARE_EXHAUSTED,
        "You have as much under way as one caller may have, so your request was not carried out. \
            Wait until some of it is done, and try again after the time that the answer says.",
    )
}

/// The same where others have the rest.
pub(crate) fn overloaded() -> Status {
    exhausted(
        reason::STORE_OVERLOADED,
        "The service has more to do than it can do in time; your request was not carried out. \
            Try again after the time that the answer says.",
    )
}

pub(crate) fn watches_exhausted() -> Status {
    exhausted(
        reason::WATCHES_EXHAUSTED,
        "Too many watches are open: as many as one caller may have, or as many as there may be. \
            Close one, or try again after the time that the answer says, or list the changes.",
    )
}

fn exhausted(reason: &str, message: &str) -> Status {
    let mut details = ErrorDetails::with_error_info(reason, ERROR_DOMAIN, []);
    details.set_retry_info(Some(Duration::from_secs(RETRY_AFTER_SECONDS)));
    Status::with_error_details(Code::ResourceExhausted, message, details)
}

/// Refusals of the service, of a request that changes nothing.
impl From<Status> for Problem {
    fn from(status: Status) -> Self {
        Self::from_status(&status, false, false)
    }
}

impl Problem {
    /// A refusal of the service, of a change; `conditional`: the request had a precondition.
    pub(crate) fn of_change(status: &Status, conditional: bool) -> Self {
        Self::from_status(status, true, conditional)
    }

    fn from_status(status: &Status, is_change: bool, conditional: bool) -> Self {
        let details = status.get_error_details();
        let Some(info) = details.error_info() else {
            return Self::transport_failed(status, is_change);
        };
        let http_status = http_status(status.code(), &info.reason, conditional);
        let mut problem = Self::new(http_status, status.code(), "", status.message().to_owned());
        problem.reason = info.reason.clone().into();
        problem.metadata =
            info.metadata.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        problem.errors = field_error::listed(&details);
        match problem.status {
            StatusCode::UNAUTHORIZED => problem.challenging(),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                problem.retrying_after(details.retry_info().and_then(|info| info.retry_delay))
            }
            _ => problem,
        }
    }

    /// RFC 6750 §3.1: an error code only where a credential was presented.
    fn challenging(self) -> Self {
        let challenge = if self.reason == reason::CREDENTIAL_MISSING {
            "Bearer realm=\"organizations\""
        } else {
            "Bearer realm=\"organizations\", error=\"invalid_token\""
        };
        self.with_header(WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
    }

    pub(crate) fn etag(&self) -> Option<&str> {
        self.metadata.get("etag").map(String::as_str)
    }

    /// The same where the organization has what it must not have.
    pub(crate) fn excluded(self) -> Self {
        let detail = "The organization exists, and its etag is one that the request excludes; \
            the metadata has it.";
        Self { reason: "ETAG_EXCLUDED".into(), detail: detail.into(), ..self }
    }

    /// A status without our details was made on the way to the service; its text is not for clients.
    fn transport_failed(status: &Status, is_change: bool) -> Self {
        let (code, cause) = (status.code(), std::error::Error::source(status).map(causes));
        tracing::warn!(?code, text = status.message(), cause, "the service did not answer");
        if status.code() == Code::DeadlineExceeded {
            return Self::deadline_exceeded(is_change);
        }
        let detail = if is_change {
            "The service cannot be reached at the moment; whether a change was stored is not known. \
                Read the organization before you try again."
        } else {
            "The service cannot be reached at the moment. \
                Try again after the time that Retry-After says."
        };
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Self::new(status, Code::Unavailable, "SERVICE_UNREACHABLE", detail).retrying_after(None)
    }
}

/// As google/rpc/code.proto maps them; two reasons have a closer status.
fn http_status(code: Code, reason: &str, conditional: bool) -> StatusCode {
    match code {
        Code::Aborted if conditional => StatusCode::PRECONDITION_FAILED,
        Code::InvalidArgument if reason == reason::IDEMPOTENCY_KEY_REUSED => {
            StatusCode::UNPROCESSABLE_ENTITY
        }
        Code::Ok => StatusCode::OK,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => {
            StatusCode::BAD_REQUEST
        }
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Cancelled => StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
    }
}

/// The seconds of a Retry-After, rounded up: zero would ask the client to come back at once.
fn retry_after(delay: Option<Duration>) -> u64 {
    let seconds = delay.map_or(0, |delay| delay.as_millis().div_ceil(1000));
    u64::try_from(seconds).unwrap_or(u64::MAX).max(RETRY_AFTER_SECONDS)
}

/// A response that stands for the problem until it is rendered.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.status;
        response.extensions_mut().insert(self);
        response
    }
}
