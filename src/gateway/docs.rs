//! Swagger UI at `/docs`, all from the binary. Page and style are ours: Swagger UI's own do not fit narrow screens.

use std::{borrow::Cow, future::ready, sync::Arc};

use axum::{
    http::{
        HeaderMap, HeaderName, HeaderValue, StatusCode,
        header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG},
    },
    response::{IntoResponse, Response},
    routing::{MethodRouter, get},
};
use bytes::Bytes;
use utoipa_swagger_ui::{Config, SwaggerFile};

use crate::gateway::read::preconditions::Preconditions;

/// The hash is of the one inline style of Swagger UI, in a logo.
const POLICY: (HeaderName, HeaderValue) = (
    CONTENT_SECURITY_POLICY,
    HeaderValue::from_static(
        "default-src 'none'; script-src 'self'; connect-src 'self'; img-src 'self' data:; \
         style-src 'self' 'sha256-RL3ie0nH+Lzz2YNqQN83mnU0J1ot4QL7b99vMdIX99w='; \
         frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    ),
);

/// Browsers store the files and revalidate them each time: another version of the binary has other files.
const REVALIDATED: (HeaderName, HeaderValue) =
    (CACHE_CONTROL, HeaderValue::from_static("public, no-cache"));

const SWAGGER_UI: [&str; 5] = [
    "swagger-ui.css",
    "swagger-ui-bundle.js",
    "swagger-ui-standalone-preset.js",
    "swagger-initializer.js",
    "favicon-32x32.png",
];

/// `GET /docs` and the files below it, without authentication, each with its path.
pub(super) fn files<S>() -> impl Iterator<Item = (String, MethodRouter<S>)>
where
    S: Clone + Send + Sync + 'static,
{
    let page = File::ours("text/html; charset=utf-8", include_str!("docs/page.html"));
    let style = File::ours("text/css; charset=utf-8", include_str!("docs/page.css"));
    let config = Arc::new(config());
    let theirs = SWAGGER_UI.into_iter().filter_map(move |name| {
        let file = utoipa_swagger_ui::serve(name, config.clone()).ok()??;
        Some((format!("/docs/{name}"), File::theirs(file)?))
    });
    let ours = [("/docs".to_owned(), page), ("/docs/page.css".to_owned(), style)];
    ours.into_iter()
        .chain(theirs)
        .map(|(path, file)| (path, get(move |headers: HeaderMap| ready(file.answer(&headers)))))
}

/// The settings of Swagger UI: "Try it out" is on, and the validator of its makers is off.
fn config() -> Config<'static> {
    Config::new(["openapi.json"])
        .try_it_out_enabled(true)
        .display_request_duration(true)
        .show_extensions(true)
        .default_models_expand_depth(0)
        .validator_url("none")
}

#[derive(Clone)]
struct File {
    content_type: HeaderValue,
    gzipped: bool,
    bytes: Bytes,
    etag: String,
}

impl File {
    fn ours(content_type: &'static str, text: &'static str) -> Self {
        let bytes = Bytes::from_static(text.as_bytes());
        Self::new(HeaderValue::from_static(content_type), false, bytes)
    }

    fn theirs(file: SwaggerFile<'static>) -> Option<Self> {
        let bytes = match file.bytes {
            Cow::Borrowed(bytes) => Bytes::from_static(bytes),
            Cow::Owned(bytes) => bytes.into(),
        };
        Some(Self::new(file.content_type.try_into().ok()?, file.gzpipped, bytes))
    }

    fn new(content_type: HeaderValue, gzipped: bool, bytes: Bytes) -> Self {
        let etag = format!("\"{:08x}-{:x}\"", crc32fast::hash(&bytes), bytes.len());
        Self { content_type, gzipped, bytes, etag }
    }

    fn answer(&self, headers: &HeaderMap) -> Response {
        let kept = [REVALIDATED, POLICY];
        let etag = [(ETAG, self.etag.clone())];
        if Preconditions::read(headers).if_none_match_met(&self.etag) {
            return (StatusCode::NOT_MODIFIED, kept, etag).into_response();
        }
        // These files are stored only compressed, and every browser accepts gzip.
        let coding = self.gzipped.then_some([(CONTENT_ENCODING, HeaderValue::from_static("gzip"))]);
        let content_type = [(CONTENT_TYPE, self.content_type.clone())];
        let mut answer = (kept, etag, content_type, self.bytes.clone()).into_response();
        answer.headers_mut().extend(coding.into_iter().flatten());
        answer
    }
}
