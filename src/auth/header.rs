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

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const TOKEN: &str = "0b8d3c5e-7f21-4a69-9c04-5d1e2f3a4b5c";
    const KEY: &str = "orgd_000102030405060708090a0b0c0d0e0f101112133bddffa4";

    /// The secret that lines present, or the reason why they present none.
    fn presented(lines: &[&[u8]]) -> std::result::Result<String, &'static str> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(AUTHORIZATION, HeaderValue::from_bytes(line).unwrap());
        }
        match presented_secret(&headers) {
            Ok(secret) => Ok(secret.expose().to_owned()),
            Err(Error::CredentialMissing) => Err(reason::CREDENTIAL_MISSING),
            Err(Error::CredentialInvalid) => Err(reason::CREDENTIAL_INVALID),
            Err(Error::Invalid(broken)) => Err(broken[0].reason),
            Err(other) => panic!("{other}"),
        }
    }

    /// In the lines of these tables `T` is a token and `K` is a key.
    fn line(pattern: &str) -> String {
        let word = |word: &str| match word {
            "T" => TOKEN.to_owned(),
            "K" => KEY.to_owned(),
            "T-UPPER" => TOKEN.to_uppercase(),
            "K-UPPER" => KEY.replace("0a0b0c", "0A0B0C"),
            "K-PREFIX-UPPER" => KEY.replace("orgd_", "ORGD_"),
            "K-MISTYPED" => KEY.replace("0a0b0c", "0a0b0d"),
            "K-CUT" => KEY.split_at(KEY.len() - 1).0.to_owned(),
            "K-LONGER" => format!("{KEY}0"),
            other => other.to_owned(),
        };
        pattern.split(' ').map(word).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_secret_is_presented_by_a_scheme_in_any_case_and_spaces() {
        for (pattern, expected) in [
            ("Bearer T", TOKEN),
            ("bearer T", TOKEN),
            ("BEARER T", TOKEN),
            ("bEaReR    T", TOKEN),
            ("Bearer K", KEY),
            ("ApiKey K", KEY),
            ("apikey K", KEY),
            ("APIKEY  K", KEY),
            ("K", KEY),
        ] {
            let line = line(pattern);
            assert_eq!(presented(&[line.as_bytes()]).as_deref(), Ok(expected), "{pattern}");
        }
    }

    #[test]
    fn a_word_that_is_no_scheme_is_a_key_and_another_scheme_presents_nothing() {
        use reason::{CREDENTIAL_INVALID as INVALID, CREDENTIAL_MISSING as MISSING};
        for (pattern, expected) in [
            ("", MISSING),
            (" ", MISSING),
            ("Bearer", MISSING),
            ("bearer ", MISSING),
            ("Bearer    ", MISSING),
            ("APIKEY", MISSING),
            ("ApiKey ", MISSING),
            ("Basic T", MISSING),
            ("Basic K", MISSING),
            ("Basic ", MISSING),
            ("Bearer: T", MISSING),
            ("Bearers T", MISSING),
            ("Api-Key K", MISSING),
            ("K T", MISSING),
            (" Bearer T", MISSING),
            (" K", MISSING),
            // Letters that other foldings of case would take for those of a scheme.
            ("Api\u{212a}ey K", MISSING),
            ("B\u{e9}arer T", MISSING),
            ("Basic", INVALID),
            // A token alone is a word, and no key.
            ("T", INVALID),
            ("ApiKey T", INVALID),
            ("Bearer Bearer", INVALID),
            ("Bearer Bearer T", INVALID),
            ("Bearer T T", INVALID),
            ("Bearer T ", INVALID),
            ("K ", MISSING),
            ("Bearer T,Bearer T", INVALID),
            ("Bearer\tT", INVALID),
            ("Bearer \tT", INVALID),
            ("Bearer\u{a0}T", INVALID),
            ("Bearer \u{e9}", INVALID),
            ("\u{e9}", INVALID),
            ("Bearer T-UPPER", INVALID),
            ("ApiKey K-UPPER", INVALID),
            ("ApiKey K-PREFIX-UPPER", INVALID),
            ("ApiKey K-MISTYPED", INVALID),
            ("K-MISTYPED", INVALID),
            ("ApiKey K-CUT", INVALID),
            ("ApiKey K-LONGER", INVALID),
        ] {
            let line = line(pattern);
            assert_eq!(presented(&[line.as_bytes()]), Err(expected), "{pattern:?}");
        }
    }

    #[test]
    fn there_is_one_line_and_what_is_not_utf_8_is_no_secret() {
        use reason::{
            CREDENTIAL_INVALID as INVALID, CREDENTIAL_MISSING as MISSING,
            HEADER_REPEATED as REPEATED,
        };
        let (bearer, key) = (line("Bearer T"), line("K"));
        let (bearer, key) = (bearer.as_bytes(), key.as_bytes());
        let long = [b"Bearer ", &b"0".repeat(100_000)[..]].concat();
        let ended_oddly = [bearer, b"\xff"].concat();
        let begun_oddly = [b"\xff", key].concat();
        for (lines, expected) in [
            (&[][..], MISSING),
            (&[bearer, bearer], REPEATED),
            (&[bearer, key], REPEATED),
            (&[b"", bearer], REPEATED),
            (&[bearer, b""], REPEATED),
            (&[b"", b""], REPEATED),
            (&[b"Basic eDp5", bearer], REPEATED),
            (&[bearer, bearer, bearer], REPEATED),
            (&[&ended_oddly], INVALID),
            (&[&begun_oddly], INVALID),
            (&[b"Bearer \xff"], INVALID),
            (&[b"\xff"], INVALID),
            (&[b"\xff \xff"], MISSING),
            (&[&long], INVALID),
        ] {
            let shown: Vec<_> = lines.iter().map(|line| String::from_utf8_lossy(line)).collect();
            assert_eq!(presented(lines), Err(expected), "{shown:?}");
        }
    }
}
