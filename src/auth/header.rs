//! The Authorization header: which spellings present a secret.

use http::{HeaderMap, header::AUTHORIZATION};

use super::secret::Secret;
use crate::domain::{CredentialKind, Error, Result, reason};

const BEARER: &str = "Bearer";
const API_KEY: &str = "ApiKey";

/// The secret that a request presents: `Bearer <token or API key>`, `ApiKey <API key>` or a bare
/// API key. The scheme is case-insensitive (RFC 9110 §11.1), the secret is not.
pub fn presented_secret(headers: &HeaderMap) -> Result<Secret> {
    let mut lines = headers.get_all(AUTHORIZATION).iter();
    let Some(line) = lines.next() else { return Err(Error::CredentialMissing) };
    if lines.next().is_some() {
        // Two layers must never pick different ones.
        let description = "Send one Authorization header only.";
        return Err(Error::invalid("authorization", reason::HEADER_REPEATED, description));
    }
    // What is not UTF-8 is no secret of ours, whichever its scheme.
    let line = String::from_utf8_lossy(line.as_bytes());
    let presented = match line.split_once(' ') {
        // A word alone is a key, unless it is a scheme of which the secret is missing.
        None if line.is_empty() || is_scheme(&line, BEARER) || is_scheme(&line, API_KEY) => {
            return Err(Error::CredentialMissing);
        }
        None => api_key(&line),
        Some((scheme, secret)) => {
            let secret = secret.trim_start_matches(' ');
            let is_bearer = is_scheme(scheme, BEARER);
            if secret.is_empty() || !(is_bearer || is_scheme(scheme, API_KEY)) {
                // Another scheme presents something else than a token (RFC 6750 §3.1).
                return Err(Error::CredentialMissing);
            }
            if is_bearer { Secret::parse(secret) } else { api_key(secret) }
        }
    };
    presented.ok_or(Error::CredentialInvalid)
}

fn is_scheme(text: &str, scheme: &str) -> bool {
    text.eq_ignore_ascii_case(scheme)
}

fn api_key(text: &str) -> Option<Secret> {
    Secret::parse(text).filter(|secret| secret.kind() == CredentialKind::ApiKey)
}
