//! From a refusal to a status: the one place of the gRPC API that chooses codes (google/rpc/code.proto).
//!
//! Every status carries an ErrorInfo, and a BadRequest where fields are at fault. Clients drop
//! metadata over 8 KiB, so a status stays under 6 KiB.

use std::{borrow::Cow, time::Duration};

use http::HeaderMap;
use tonic::{Code, Status, metadata::MetadataMap};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

use crate::{
    domain::{Error, Violation, reason},
    proto::{ERROR_DOMAIN, code, timeout},
    rate_limit::RateLimitStatus,
    telemetry::causes,
};

/// When to try again, where trying again helps.
const RETRY_DELAY: Duration = Duration::from_secs(1);
/// Violations that a status lists at most.
const VIOLATIONS_MAX: usize = 8;

/// The status of a refusal. What is not for the caller goes to the log.
#[must_use]
pub fn of(error: Error) -> Status {
    let (code, reason) = code_and_reason(&error);
    let message = error.to_string();
    let mut details = details(reason);
    match error {
        Error::Unavailable(source) | Error::OutcomeUnknown(source) => {
            tracing::warn!(error = causes(&*source), "the database is unavailable");
            details.set_retry_info(Some(RETRY_DELAY));
        }
        Error::Overloaded
        | Error::ShareExhausted
        | Error::TooManyWatches
        | Error::Stopping
        | Error::ConnectionAged
        | Error::CredentialChanged => {
            details.set_retry_info(Some(RETRY_DELAY));
        }
        Error::Internal(source) => {
            tracing::error!(error = causes(&*source), "a call failed");
        }
        Error::Invalid(violations) => {
            details.set_bad_request(bad_request(violations.into_iter()));
        }
        Error::ForbiddenFields { fields, .. } => {
            let forbidden = |field| {
                let description = "Your role may not change this field.";
                Violation::of_field(field, reason::FIELD_FORBIDDEN, description)
            };
            details.set_bad_request(bad_request(fields.into_iter().map(forbidden)));
        }
        Error::EtagMismatch { current }
        | Error::EtagWeak { current }
        | Error::EtagMalformed { current } => {
            let metadata = [("etag".to_owned(), current.to_string())];
            details.set_error_info(reason, ERROR_DOMAIN, metadata);
        }
        Error::CredentialMissing
        | Error::CredentialInvalid
        | Error::ForbiddenOrganization
        | Error::ForbiddenCreation
        | Error::IdempotencyKeyReused
        | Error::NotFound(_)
        | Error::AlreadyExists(_) => {}
    }
    Status::with_error_details(code, message, details)
}

#[must_use]
pub fn reason_of(error: &Error) -> &'static str {
    let (_, reason) = code_and_reason(error);
    reason
}

fn code_and_reason(error: &Error) -> (Code, &'static str) {
    match error {
        Error::CredentialMissing => (Code::Unauthenticated, reason::CREDENTIAL_MISSING),
        Error::CredentialInvalid => (Code::Unauthenticated, reason::CREDENTIAL_INVALID),
        Error::ForbiddenOrganization => (Code::PermissionDenied, reason::ORGANIZATION_FORBIDDEN),
        Error::ForbiddenCreation => (Code::PermissionDenied, reason::CREATION_FORBIDDEN),
        Error::IdempotencyKeyReused => (Code::InvalidArgument, reason::IDEMPOTENCY_KEY_REUSED),
        Error::ForbiddenFields { .. } => (Code::PermissionDenied, reason::FIELD_FORBIDDEN),
        Error::Invalid(_) => (Code::InvalidArgument, reason::INVALID_INPUT),
        Error::NotFound(_) => (Code::NotFound, reason::ORGANIZATION_NOT_FOUND),
        Error::AlreadyExists(_) => (Code::AlreadyExists, reason::ORGANIZATION_ALREADY_EXISTS),
        Error::EtagMismatch { .. } => (Code::Aborted, reason::ETAG_MISMATCH),
        Error::EtagWeak { .. } => (Code::Aborted, reason::ETAG_WEAK),
        Error::EtagMalformed { .. } => (Code::Aborted, reason::ETAG_MALFORMED),
        Error::Overloaded => (Code::ResourceExhausted, reason::STORE_OVERLOADED),
        Error::ShareExhausted => (Code::ResourceExhausted, reason::SHARE_EXHAUSTED),
        Error::TooManyWatches => (Code::ResourceExhausted, reason::WATCHES_EXHAUSTED),
        Error::Stopping => (Code::Unavailable, reason::SERVICE_STOPPING),
        Error::ConnectionAged => (Code::Unavailable, reason::CONNECTION_AGED),
        Error::CredentialChanged => (Code::Unavailable, reason::CREDENTIAL_CHANGED),
        Error::Unavailable(_) | Error::OutcomeUnknown(_) => {
            (Code::Unavailable, reason::STORE_UNAVAILABLE)
        }
        Error::Internal(_) => (Code::Internal, reason::INTERNAL),
    }
}

fn details(reason: &str) -> ErrorDetails {
    ErrorDetails::with_error_info(reason, ERROR_DOMAIN, [])
}

fn bad_request(violations: impl Iterator<Item = Violation>) -> Vec<FieldViolation> {
    let field_violation = |violation: Violation| FieldViolation {
        field: violation.path.into_owned(),
        description: violation.description.into_owned(),
        reason: violation.reason.to_owned(),
        localized_message: None,
    };
    violations.take(VIOLATIONS_MAX).map(field_violation).collect()
}

fn plain(code: Code, reason: &str, message: &str) -> Status {
    Status::with_error_details(code, message, details(reason))
}

/// A `grpc-timeout` that breaks its grammar, which tonic would ignore.
pub(super) fn malformed_timeout() -> Status {
    let message = format!("grpc-timeout {}", timeout::RULE);
    plain(Code::InvalidArgument, reason::DEADLINE_MALFORMED, &message)
}

pub(super) fn unknown_service() -> Status {
    plain(Code::Unimplemented, reason::NOT_IMPLEMENTED, "There is no such service here.")
}

/// The deadline has passed; with `is_change`, while a change was under way.
pub(super) fn deadline_exceeded(is_change: bool) -> Status {
    let message = timeout::passed("call", is_change);
    plain(Code::DeadlineExceeded, reason::DEADLINE_EXCEEDED, &message)
}

/// One call too many of a caller, whose limit status is told beside.
pub(super) fn rate_limited(wait: Duration, limit_status: &RateLimitStatus) -> Status {
    let message = format!(
        "You call too often ({}); your request was not carried out. \
         Try again after the time that the answer says.",
        limit_status.limit()
    );
    let mut details = details(reason::RATE_LIMITED);
    details.set_retry_info(Some(wait));
    let mut metadata = HeaderMap::new();
    limit_status.write(&mut metadata);
    Status::with_error_details_and_metadata(
        Code::ResourceExhausted,
        message,
        details,
        MetadataMap::from_headers(metadata),
    )
}

/// Whether a refusal is of its caller's own making: it calls too often, or has its share.
pub(super) fn is_of_own_making(refusal: &Status) -> bool {
    const REASONS: [&str; 3] =
        [reason::RATE_LIMITED, reason::SHARE_EXHAUSTED, reason::WATCHES_EXHAUSTED];
    refusal.code() == Code::ResourceExhausted
        && refusal
            .get_details_error_info()
            .is_some_and(|info| REASONS.contains(&info.reason.as_str()))
}

/// The name of the code that an answer has; of one that streams, OK.
pub(super) fn code_name(headers: &HeaderMap) -> &'static str {
    code::name(Status::from_header_map(headers).map_or(Code::Ok, |status| status.code()))
}

/// The same of an answer that is not on the wire.
pub(super) fn code_name_of<A>(answer: &Result<A, Status>) -> &'static str {
    code::name(answer.as_ref().map_or_else(Status::code, |_| Code::Ok))
}

/// The reason of the refusal that an answer is.
pub(super) fn reason(headers: &HeaderMap) -> Option<Cow<'static, str>> {
    let info = Status::from_header_map(headers)?.get_details_error_info()?;
    Some(info.reason.into())
}

pub(super) fn panicked() -> Status {
    of(Error::Internal("a handler panicked".into()))
}

/// A status that tonic made, which has no details and tells of its decoder, in our words; one of
/// ours as it is.
pub(super) fn in_our_words(status: Status) -> Status {
    if status.get_details_error_info().is_some() {
        return status;
    }
    tracing::debug!(code = ?status.code(), text = status.message(), "tonic refused a call");
    match status.code() {
        Code::OutOfRange | Code::ResourceExhausted => plain(
            Code::ResourceExhausted,
            reason::MESSAGE_TOO_LARGE,
            "The request message is too large.",
        ),
        Code::Unimplemented => plain(
            Code::Unimplemented,
            reason::NOT_IMPLEMENTED,
            "The service has no such method, or does not read this grpc-encoding.",
        ),
        // All that tonic refuses by itself besides is a message that it cannot read.
        _ => plain(
            Code::InvalidArgument,
            reason::MESSAGE_MALFORMED,
            "The request message cannot be decoded; check that it is the type that the method takes.",
        ),
    }
}
