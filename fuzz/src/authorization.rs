//! The Authorization header: what presents a secret, and that nothing else does.

use data_encoding::HEXLOWER;
use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};
use orgd::{
    auth::{Secret, header::presented_secret},
    domain::{CredentialKind, Error},
};

use super::refusal;

/// Header lines, with line breaks between them. The first bytes make secrets as well.
pub fn authorization(bytes: &[u8]) {
    issued(bytes);
    let mut headers = HeaderMap::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        // No other line comes out of an HTTP parser.
        let Ok(line) = HeaderValue::from_bytes(line) else { return };
        headers.append(AUTHORIZATION, line);
    }
    let presented = presented_secret(&headers);
    if headers.len() > 1 {
        assert_eq!(refusal(presented.expect_err("two lines"), b""), "HEADER_REPEATED");
        return;
    }
    let line = String::from_utf8_lossy(bytes).to_ascii_lowercase();
    match presented {
        Ok(secret) => {
            let scheme = bytes.strip_suffix(secret.expose().as_bytes()).expect("the line's end");
            let name = scheme.trim_ascii_end().to_ascii_lowercase();
            assert_eq!(name.is_empty(), scheme.is_empty(), "a scheme is followed by a blank");
            assert!(scheme.is_empty() || scheme.ends_with(b" "), "{line:?}");
            let is_key = secret.kind() == CredentialKind::ApiKey;
            assert!(name == b"bearer" || (is_key && [&b"apikey"[..], b""].contains(&&*name)));
            let again = Secret::parse(secret.expose()).expect("what is presented is a secret");
            assert_eq!((again.kind(), again.digest()), (secret.kind(), secret.digest()));
        }
        Err(error) => {
            let (scheme, secret) = line.split_once(' ').unwrap_or((&line, ""));
            let is_ours = ["bearer", "apikey"].contains(&scheme);
            let is_word = !is_ours && !scheme.is_empty() && !line.contains(' ');
            let is_presented = is_word || is_ours && !secret.trim_matches(' ').is_empty();
            let reason = if is_presented { "CREDENTIAL_INVALID" } else { "CREDENTIAL_MISSING" };
            // Nothing of the line is in the refusal, so no word of it excuses one.
            assert_eq!(refusal(error, b""), reason, "{line:?}");
        }
    }
}

/// Secrets as they are issued, of these bytes: presented in every spelling, and not when mistyped.
fn issued(bytes: &[u8]) {
    let mut random = [0; 20];
    random.iter_mut().zip(bytes).for_each(|(random, byte)| *random = *byte);
    let sum = crc32fast::hash(&random).to_be_bytes();
    let key = format!("orgd_{}", HEXLOWER.encode(&[&random[..], &sum].concat()));
    let mut uuid = [0; 16];
    uuid.iter_mut().zip(bytes).for_each(|(uuid, byte)| *uuid = *byte);
    let token = uuid::Builder::from_random_bytes(uuid).into_uuid().to_string();
    for scheme in ["Bearer ", "bEARER  ", "ApiKey ", "APIKEY   ", ""] {
        let secret = presented(&format!("{scheme}{key}")).expect("an API key in any spelling");
        assert_eq!((secret.expose(), secret.kind()), (key.as_str(), CredentialKind::ApiKey));
        let is_bearer = scheme.eq_ignore_ascii_case("Bearer ") || scheme == "bEARER  ";
        match presented(&format!("{scheme}{token}")) {
            Ok(secret) => assert!(is_bearer && secret.expose() == token, "{scheme}{token}"),
            Err(error) => assert!(!is_bearer, "{scheme}{token}: {error}"),
        }
    }
    let at = 5 + usize::from(random[0]) % (key.len() - 5);
    let mut letters: Vec<char> = key.chars().collect();
    letters[at] = if letters[at] == '0' { '1' } else { '0' };
    presented(&letters.iter().collect::<String>()).expect_err("the checksum tells");
    letters.remove(at);
    presented(&letters.iter().collect::<String>()).expect_err("a letter is missing");
}

fn presented(line: &str) -> Result<Secret, Error> {
    let mut headers = HeaderMap::new();
    headers.append(AUTHORIZATION, HeaderValue::from_str(line).expect("a header's value"));
    presented_secret(&headers)
}
