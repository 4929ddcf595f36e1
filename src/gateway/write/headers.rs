//! The headers of every answer, as docs/API.md lists them: values byte for byte, each once.

use axum::http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{
        ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
        ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, CACHE_CONTROL,
        CONTENT_SECURITY_POLICY, REFERRER_POLICY, STRICT_TRANSPORT_SECURITY,
        X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS, X_XSS_PROTECTION,
    },
};

use crate::gateway::write::cors::Cors;

const DOCUMENTED: [(HeaderName, HeaderValue); 12] = [
    (ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("authorization, content-type")),
    (ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("authorization, content-type")),
    (ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, DELETE, OPTIONS, PUT")),
    (ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*")),
    (STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000; includeSubDomains")),
    (X_FRAME_OPTIONS, HeaderValue::from_static("SAMEORIGIN")),
    (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (X_XSS_PROTECTION, HeaderValue::from_static("1; mode=block")),
    (
        CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
        ),
    ),
    (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (HeaderName::from_static("feature-policy"), HeaderValue::from_static("self")),
    (HeaderName::from_static("permissions-policy"), HeaderValue::from_static("interest-cohort=()")),
];

/// How long a browser may keep the answer to a preflight: two hours, the most that any keeps.
pub(crate) const MAX_AGE: (HeaderName, HeaderValue) =
    (ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("7200"));

pub(crate) const PRIVATE: (HeaderName, HeaderValue) =
    (CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));

/// Replaces the headers of an answer; only a content security policy of its own stays (`docs.rs`).
pub(crate) fn document(headers: &mut HeaderMap, cors: &Cors, origin: Option<&HeaderValue>) {
    // One allocation in place of several; the last few are those that an answer has of its own.
    headers.reserve(DOCUMENTED.len() + 4);
    let policy = headers.remove(CONTENT_SECURITY_POLICY);
    for (name, value) in DOCUMENTED {
        headers.insert(name, value);
    }
    if let Some(policy) = policy {
        headers.insert(CONTENT_SECURITY_POLICY, policy);
    }
    cors.write(origin, headers);
}
