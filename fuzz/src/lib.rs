//! What holds for every input of the parsers behind both APIs. The fuzz targets call these
//! functions, and `make test` calls them with every file of the corpus.

mod authorization;
mod json_body;
mod message;
mod page_token;
mod update_mask;

pub use self::{
    authorization::authorization, json_body::json_body, message::message, page_token::page_token,
    update_mask::update_mask,
};

use orgd::{domain::Error, grpc::status};
use tonic_types::StatusExt;

/// A target's name, which its corpus has too, and its function.
pub const TARGETS: [(&str, fn(&[u8])); 5] = [
    ("json_body", json_body),
    ("update_mask", update_mask),
    ("authorization", authorization),
    ("message", message),
    ("page_token", page_token),
];

/// What only libraries, languages and paths say, never a refusal.
const INTERNALS: [&str; 10] = [
    "serde",
    "prost",
    "tonic",
    "sqlx",
    "::",
    "src/",
    ".rs",
    "panicked",
    "expected",
    "invalid type",
];

/// Bytes of a status's details at most, so that clients keep its metadata.
const DETAILS_BYTES_MAX: usize = 6 * 1024;

/// Checks a refusal as its caller reads it, and answers its reason: the violations' where it has
/// some, of which all must be the same.
fn refusal(error: Error, input: &[u8]) -> String {
    let status = status::of(error);
    assert!(status.details().len() <= DETAILS_BYTES_MAX, "{} bytes", status.details().len());
    assert_told_to_anyone(status.message(), input);
    let details = status.get_error_details();
    let info = details.error_info().expect("every status has an ErrorInfo");
    assert_eq!(info.domain, "orgd");
    let violations = details.bad_request().map(|bad| bad.field_violations.clone());
    let mut reason = info.reason.clone();
    for violation in violations.unwrap_or_default() {
        assert_told_to_anyone(&violation.description, input);
        reason = violation.reason;
    }
    reason
}

/// Checks that a text has no control character, and nothing internal that its reader did not send.
fn assert_told_to_anyone(text: &str, input: &[u8]) {
    assert!(!text.is_empty());
    assert!(!text.contains(char::is_control), "{text:?}");
    for word in INTERNALS {
        let sent = input.windows(word.len()).any(|bytes| bytes == word.as_bytes());
        assert!(sent || !text.contains(word), "{text:?} has {word:?}");
    }
}
