//! The id of a request, which a caller may bring and every answer and log line carries.

use http::{HeaderMap, HeaderName, HeaderValue};
use uuid::Uuid;

pub const HEADER: HeaderName = HeaderName::from_static("x-request-id");

const LENGTH_MAX: usize = 64;

/// The caller's own id where it is one line of `[A-Za-z0-9._-]{1,64}`, else a new UUID version 7.
#[must_use]
pub fn of(headers: &HeaderMap) -> HeaderValue {
    let mut lines = headers.get_all(HEADER).iter();
    match (lines.next(), lines.next()) {
        (Some(id), None) if is_valid(id.as_bytes()) => id.clone(),
        _ => new(),
    }
}

fn is_valid(id: &[u8]) -> bool {
    (1..=LENGTH_MAX).contains(&id.len())
        && id.iter().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(byte))
}

fn new() -> HeaderValue {
    let id = Uuid::now_v7().to_string();
    HeaderValue::from_str(&id).unwrap_or(HeaderValue::from_static("none"))
}
