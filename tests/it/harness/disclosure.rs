//! No refusal has internal text: each that a test gets through the harness is searched for words of libraries, of SQL,
//! of paths and of types.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt;
use tonic::{Code, Status, body::Body, metadata::KeyAndValueRef};
use tower::Service;

/// Names of libraries and programs, in any case, as whole words.
const NAMES: [&str; 23] = [
    "sqlx",
    "sea_orm",
    "sea-orm",
    "seaorm",
    "sea_query",
    "seaql",
    "sqlite",
    "sqlite3",
    "postgres",
    "postgresql",
    "pgbouncer",
    "tonic",
    "prost",
    "protobuf",
    "hyper",
    "h2",
    "axum",
    "tower",
    "tokio",
    "serde",
    "serde_json",
    "rustls",
    "rust",
];

/// Pieces of SQL and of what databases say, of code and of what Rust says, of paths, and of what
/// libraries say without their names.
const PIECES: [&str; 64] = [
    "SELECT ",
    "INSERT INTO",
    "UPDATE ",
    "DELETE FROM",
    " WHERE ",
    "RETURNING",
    "SQLSTATE",
    "organization_changes",
    "migration_lease",
    "handshake_version",
    "request_digest",
    "revoked_at",
    "expires_at",
    "created_at",
    "constraint",
    "relation \"",
    "column \"",
    "no such table",
    "no such column",
    "violates",
    "duplicate key",
    "syntax error",
    "is locked",
    "deadlock",
    "serialize",
    "permission denied",
    "timed out",
    "pool ",
    "::",
    ".rs",
    "src/",
    "rustc",
    ".cargo",
    "/usr/",
    "/tmp/",
    "/root",
    ".db",
    "panicked",
    "backtrace",
    "unwrap",
    "Some(",
    "None",
    "Ok(",
    "Err(",
    "Error {",
    "Status {",
    "thread '",
    "os error",
    "onnection refused",
    "broken pipe",
    "transport error",
    "tcp connect",
    "stream error",
    "protocol error",
    "decoding",
    "wire type",
    "tag value",
    "deserialize",
    "expected value",
    "expected `",
    "invalid type",
    "unknown variant",
    "missing field",
    "EOF while",
];

/// The first word of our insides in a text that is for clients.
pub fn insides_in(text: &str) -> Option<&'static str> {
    let lower = text.to_ascii_lowercase();
    let has_name = |name: &&&str| {
        lower.match_indices(**name).any(|(at, _)| {
            let (before, rest) = lower.split_at(at);
            let is_inside = |letter: char| letter.is_alphanumeric() || letter == '_';
            let after = rest.split_at(name.len()).1;
            !before.ends_with(is_inside) && !after.starts_with(is_inside)
        })
    };
    let piece = PIECES.iter().find(|piece| text.contains(**piece));
    NAMES.iter().find(has_name).or(piece).copied()
}

/// Fails where a refusal tells of our insides.
pub fn assert_tells_nothing(refusal: &str) {
    let found = insides_in(refusal);
    assert!(found.is_none(), "a refusal has the internal text {found:?}: {refusal}");
}

/// Fails where what a server says of a call that it refused tells of our insides.
fn search_status(headers: &HeaderMap) {
    let Some(status) = Status::from_header_map(headers) else { return };
    if status.code() == Code::Ok {
        return;
    }
    let details = String::from_utf8_lossy(status.details());
    let mut text = format!("{}\n{details}", status.message());
    for entry in status.metadata().iter() {
        if let KeyAndValueRef::Ascii(name, value) = entry {
            text += &format!("\n{name}: {}", value.to_str().unwrap_or_default());
        }
    }
    assert_tells_nothing(&text);
}

/// A way to a gRPC server on which every refusal is searched, also the one that ends a stream.
#[derive(Clone, Debug)]
pub struct Searched<S>(pub S);

impl<S> Service<Request<Body>> for Searched<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let answering = self.0.call(request);
        Box::pin(async move {
            let response = answering.await?;
            search_status(response.headers());
            Ok(response.map(|body| {
                Body::new(body.map_frame(|frame| {
                    if let Some(trailers) = frame.trailers_ref() {
                        search_status(trailers);
                    }
                    frame
                }))
            }))
        })
    }
}
