//! One member of a body at fault: where it stands, why, and what to do.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use tonic_types::{ErrorDetails, FieldViolation};
use utoipa::ToSchema;

use crate::gateway::write::resource::member;

const POINTER_CHARS_MAX: usize = 32;
/// What stands for itself in the fragment of a URI, of what keys commonly have (RFC 3986 §3.5).
const FRAGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'_').remove(b'-').remove(b'.').remove(b'~');

/// One member of the body, or parameter, at fault.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = ProblemError)]
pub(crate) struct FieldError {
    /// Where in the body (RFC 6901, as a fragment); not there where the fault is not in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pointer: Option<String>,
    /// The stable reason.
    reason: Cow<'static, str>,
    /// What is wrong.
    detail: Cow<'static, str>,
}

impl FieldError {
    fn new(pointer: String, reason: &'static str, detail: &'static str) -> Self {
        Self { pointer: Some(pointer), reason: reason.into(), detail: detail.into() }
    }

    pub(crate) fn not_a_string(key: &str) -> Self {
        let detail = match key {
            "name" => "This must be a string.",
            _ => "This must be a string, or null to clear it.",
        };
        Self::new(pointer(key), "FIELD_TYPE", detail)
    }

    pub(crate) fn two_spellings(key: &str) -> Self {
        let detail = "This field is there under another spelling too; send one of them.";
        Self::new(pointer(key), "FIELD_REPEATED", detail)
    }

    pub(crate) fn not_updated(key: &str) -> Self {
        let detail = "This is not a field that a request sets; leave it out.";
        Self::new(pointer(key), "FIELD_UNKNOWN", detail)
    }

    pub(crate) fn id_differs() -> Self {
        let detail = "The id must be the one of the path; it can be left out.";
        Self::new(pointer("id"), "FIELD_IMMUTABLE", detail)
    }
}

/// The violations of a status, by where the client finds them in its body.
pub(crate) fn listed(details: &ErrorDetails) -> Vec<FieldError> {
    let violations = details.bad_request().map(|bad| bad.field_violations.as_slice());
    let field_error = |violation: &FieldViolation| FieldError {
        // Its field is a path of the message; only those of the organization are in the body.
        pointer: violation.field.strip_prefix("organization.").map(|field| pointer(member(field))),
        reason: violation.reason.clone().into(),
        detail: violation.description.clone().into(),
    };
    violations.unwrap_or_default().iter().map(field_error).collect()
}

/// The pointer to a member of the body (RFC 6901, as a fragment). Long keys are cut.
fn pointer(key: &str) -> String {
    let shown: String = key.chars().take(POINTER_CHARS_MAX).collect();
    let escaped = shown.replace('~', "~0").replace('/', "~1");
    format!("#/{}", utf8_percent_encode(&escaped, FRAGMENT))
}
