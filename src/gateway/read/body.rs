//! The bytes of a request's body: which are taken, and how many.

use axum::{
    body::Body,
    http::{
        HeaderMap, HeaderValue,
        header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE},
    },
};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};

use crate::gateway::write::problem::Problem;

/// Media types that are read as UTF-8 JSON, whatever their parameters.
const MEDIA_TYPES: [&str; 2] = ["application/json", "application/merge-patch+json"];

/// The body of a request that has at most `bytes_max` bytes of JSON in no content coding.
pub(crate) async fn read(
    headers: &HeaderMap,
    body: Body,
    bytes_max: usize,
) -> Result<Bytes, Problem> {
    check_content_coding(headers)?;
    check_media_type(headers)?;
    // Refused before it is read, where it is declared: nobody waits for three gigabytes.
    if declared_length(headers).is_some_and(|length| length > bytes_max) {
        return Err(Problem::body_too_large(bytes_max));
    }
    match Limited::new(body, bytes_max).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Problem::body_too_large(bytes_max)),
        Err(_) => Err(Problem::body_incomplete()),
    }
}

fn check_content_coding(headers: &HeaderMap) -> Result<(), Problem> {
    let identity = |line: &HeaderValue| line.as_bytes().eq_ignore_ascii_case(b"identity");
    if headers.get_all(CONTENT_ENCODING).iter().all(identity) {
        return Ok(());
    }
    let accepted = (ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    Err(Problem::unsupported("The body must not be compressed; send it as it is.", accepted))
}

/// The examples of docs/API.md have no Content-Type, so none is fine; one that says something else is not.
fn check_media_type(headers: &HeaderMap) -> Result<(), Problem> {
    let mut lines = headers.get_all(CONTENT_TYPE).iter();
    let is_json = match (lines.next(), lines.next()) {
        (None, _) => true,
        (Some(line), None) => is_json(line),
        _ => false,
    };
    if is_json {
        return Ok(());
    }
    let accepted =
        (ACCEPT, HeaderValue::from_static("application/json, application/merge-patch+json"));
    let detail = "The body must be JSON; send Content-Type application/json.";
    Err(Problem::unsupported(detail, accepted))
}

fn is_json(line: &HeaderValue) -> bool {
    let essence = line.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
    let essence = essence.trim_ascii();
    MEDIA_TYPES.iter().any(|media_type| essence.eq_ignore_ascii_case(media_type.as_bytes()))
}

fn declared_length(headers: &HeaderMap) -> Option<usize> {
    let line = headers.get_all(CONTENT_LENGTH).iter().next()?;
    // hyper has checked that it is a number; one over usize is larger than any limit.
    line.to_str().ok().map(|digits| digits.parse().unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use axum::{
        body::Body,
        http::{HeaderMap, HeaderName, HeaderValue},
    };
    use futures_util::FutureExt;

    use super::read;

    const NONE: &[(&str, &str)] = &[];

    #[test]
    fn a_body_is_plain_json_of_so_many_bytes_at_most() {
        for (lines, body, is_read) in [
            (NONE, "{}", true),
            (&[("content-type", "application/json")], "{}", true),
            (&[("content-type", "Application/JSON ; charset=latin1")], "{}", true),
            (&[("content-type", "application/merge-patch+json")], "{}", true),
            (&[("content-type", "application/jsonp")], "{}", false),
            (&[("content-type", "text/json")], "{}", false),
            (&[("content-type", "")], "{}", false),
            (
                &[("content-type", "application/json"), ("content-type", "application/json")],
                "{}",
                false,
            ),
            (&[("content-encoding", "identity")], "{}", true),
            (&[("content-encoding", "Identity"), ("content-encoding", "identity")], "{}", true),
            (&[("content-encoding", "gzip")], "{}", false),
            (&[("content-encoding", "identity, gzip")], "{}", false),
            (&[], "12345678", true),
            (&[], "123456789", false),
            (&[("content-length", "9")], "", false),
            (&[("content-length", "99999999999999999999999")], "", false),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                let name = HeaderName::from_static(name);
                headers.append(name, HeaderValue::from_static(value));
            }
            let read = read(&headers, Body::from(body), 8).now_or_never().unwrap();
            let expected = is_read.then_some(body.as_bytes());
            assert_eq!(read.ok().as_deref(), expected, "{lines:?} {body}");
        }
    }
}
