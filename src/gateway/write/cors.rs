//! What pages of other origins may do beyond the documented headers, where an operator says so (Fetch §3.3).

use std::sync::Arc;

use axum::http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{
        ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS,
        VARY,
    },
};

/// By default nothing: then every answer has the documented headers as they are.
#[derive(Clone, Debug, Default)]
pub struct Cors {
    /// None: pages of every origin may use the API.
    origins: Arc<[HeaderValue]>,
    allowed: Option<HeaderValue>,
    exposed: Option<HeaderValue>,
}

impl Cors {
    /// For pages of these origins, or of all where there are none; with these headers beside the documented.
    #[must_use]
    pub fn new(origins: Vec<HeaderValue>, allowed: &[HeaderName], exposed: &[HeaderName]) -> Self {
        Self { origins: origins.into(), allowed: beside(allowed), exposed: beside(exposed) }
    }

    /// Changes the documented headers of an answer to a page of this origin.
    pub(crate) fn write(&self, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
        if let Some(allowed) = &self.allowed {
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, allowed.clone());
        }
        if let Some(exposed) = &self.exposed {
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed.clone());
        }
        if self.origins.is_empty() {
            return;
        }
        // A cache must not give one origin's answer to another.
        headers.append(VARY, HeaderValue::from_static("origin"));
        match origin.filter(|origin| self.origins.contains(origin)) {
            Some(origin) => headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone()),
            None => headers.remove(ACCESS_CONTROL_ALLOW_ORIGIN),
        };
    }
}

/// The documented names and these.
fn beside(names: &[HeaderName]) -> Option<HeaderValue> {
    let documented = ["authorization", "content-type"];
    let names = names.iter().map(HeaderName::as_str).filter(|name| !documented.contains(name));
    let all: Vec<&str> = documented.into_iter().chain(names).collect();
    (all.len() > documented.len()).then(|| all.join(", ").try_into().ok())?
}
