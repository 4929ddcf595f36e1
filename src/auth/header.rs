//! The Authorization header: which spellings present a secret.

use http::{HeaderMap, header::AUTHORIZATION};

use super::Secret;
use crate::domain::{CredentialKind, Error, Result, Violation, reason};

/// The secret that a request presents: `Bearer <token or API key>`, `ApiKey <API key>` or a bare
/// API key. The scheme is case-insensitive (RFC 9110 §11.1), the secret is not.
pub fn presented_secret(headers: &HeaderMap) -> Result<Secret> {
    let mut lines = headers.get_all(AUTHORIZATION).iter();
    let Some(line) = lines.next() else { return Err(Error::CredentialMissing) };
    if lines.next().is_some() {
        // Two layers must never pick different ones.
        let description = "Send one Authorization header only.";
        return Err(Error::invalid(Violation::new(
            "authorization",
            reason::HEADER_REPEATED,
            description,
        )));
    }
    let line = line.to_str().map_err(|_| Error::CredentialInvalid)?;
    let (scheme, secret) = line.split_once(' ').unwrap_or((line, ""));
    let secret = secret.trim_start_matches(' ');
    let is_bearer = scheme.eq_ignore_ascii_case("Bearer");
    let is_api_key = scheme.eq_ignore_ascii_case("ApiKey");
    if secret.is_empty() && (is_bearer || is_api_key || scheme.is_empty()) {
        return Err(Error::CredentialMissing);
    }
    let presented = if is_bearer {
        Secret::parse(secret)
    } else if is_api_key {
        api_key(secret)
    } else {
        api_key(line)
    };
    presented.ok_or(Error::CredentialInvalid)
}

fn api_key(text: &str) -> Option<Secret> {
    Secret::parse(text).filter(|secret| secret.kind() == CredentialKind::ApiKey)
}
