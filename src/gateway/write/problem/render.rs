//! A problem as its reader gets it: the members of RFC 9457, and ours beside them. Decides nothing.

use std::{borrow::Cow, collections::BTreeMap};

use axum::{
    body::Body,
    http::{
        HeaderValue, StatusCode,
        header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE},
    },
    response::Response,
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{ERRORS_MAX, FieldError, Problem};
use crate::proto::{ERROR_DOMAIN, code};

/// Bytes of a problem at most; the last of its errors give way.
const BODY_BYTES_MAX: usize = 4096;
/// Bytes of the path that a problem repeats at most.
const INSTANCE_BYTES_MAX: usize = 256;

/// A refusal (RFC 9457).
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Problem)]
pub(crate) struct Rendered<'a> {
    /// Names the kind of problem.
    r#type: String,
    /// The kind of problem, in words.
    title: &'a str,
    /// The HTTP status.
    #[schema(value_type = i32)]
    status: u16,
    /// What is wrong and what to do.
    detail: &'a str,
    /// The path of the request.
    instance: &'a str,
    /// The gRPC code.
    code: &'static str,
    /// The stable reason.
    reason: &'a str,
    /// Whose reasons these are.
    domain: &'a str,
    /// The request's id, for a report.
    request_id: &'a str,
    /// More of the reason, such as the current etag.
    #[schema(value_type = BTreeMap<String, String>)]
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    metadata: &'a BTreeMap<String, String>,
    /// The members of the body at fault.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [FieldError],
}

impl Problem {
    /// The reason of the refusal that an answer is, before it is rendered.
    pub(crate) fn reason(answer: &Response) -> Option<Cow<'static, str>> {
        answer.extensions().get().map(|problem: &Self| problem.reason.clone())
    }

    /// The answer with its problem, where it is one, written into the body.
    pub(crate) fn render(mut answer: Response, path: &str, request_id: &HeaderValue) -> Response {
        let Some(problem) = answer.extensions_mut().remove::<Self>() else { return answer };
        let bytes = problem.body(path, request_id);
        let headers = answer.headers_mut();
        headers.extend(problem.headers);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        // A cache may else store some refusals, such as 404, by itself (RFC 9111 §4.2.2).
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(CONTENT_LENGTH, bytes.len().into());
        *answer.body_mut() = Body::from(bytes);
        answer
    }

    /// The data of the event with which a stream ends.
    pub(crate) fn event(&self, path: &str, request_id: &HeaderValue) -> String {
        String::from_utf8(self.body(path, request_id)).unwrap_or_default()
    }

    fn body(&self, path: &str, request_id: &HeaderValue) -> Vec<u8> {
        let mut rendered = Rendered {
            r#type: format!("urn:orgd:problem:{}", kebab(&self.reason)),
            title: title(self.status),
            status: self.status.as_u16(),
            detail: &self.detail,
            instance: path.split_at(path.floor_char_boundary(INSTANCE_BYTES_MAX)).0,
            code: code::name(self.code),
            reason: &self.reason,
            domain: ERROR_DOMAIN,
            request_id: request_id.to_str().unwrap_or_default(),
            metadata: &self.metadata,
            errors: self.errors.get(..ERRORS_MAX).unwrap_or(&self.errors),
        };
        let mut bytes = serde_json::to_vec(&rendered).unwrap_or_default();
        while bytes.len() > BODY_BYTES_MAX
            && let Some((_, fewer)) = rendered.errors.split_last()
        {
            rendered.errors = fewer;
            bytes = serde_json::to_vec(&rendered).unwrap_or_default();
        }
        bytes
    }
}

/// The words of docs/API.md where it has some.
fn title(status: StatusCode) -> &'static str {
    match status {
        StatusCode::BAD_REQUEST => "Invalid input",
        StatusCode::UNAUTHORIZED => "Invalid authentication token",
        StatusCode::FORBIDDEN => "Insufficient rights",
        other => other.canonical_reason().unwrap_or("Client closed request"),
    }
}

fn kebab(reason: &str) -> String {
    reason.to_ascii_lowercase().replace('_', "-")
}
