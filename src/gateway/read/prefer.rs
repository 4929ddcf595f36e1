//! The preferences of a request (RFC 7240).

use axum::http::{HeaderMap, HeaderName, HeaderValue};

const PREFER: HeaderName = HeaderName::from_static("prefer");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// What a request prefers, of what we know. The first of two that contradict each other counts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Preferences {
    /// Refuse members of a body that are not updated, rather than ignore them.
    pub(crate) strict: bool,
    pub(crate) representation: bool,
}

impl Preferences {
    pub(crate) fn read(headers: &HeaderMap) -> Self {
        let mut handling = None;
        let mut answer = None;
        let lines = headers.get_all(PREFER).iter().filter_map(|line| line.to_str().ok());
        for preference in lines.flat_map(|line| line.split(',')) {
            let token = preference.split(';').next().unwrap_or_default();
            let (name, value) = token.split_once('=').unwrap_or((token, ""));
            let value = value.trim().trim_matches('"').to_ascii_lowercase();
            match name.trim().to_ascii_lowercase().as_str() {
                "handling" => handling = handling.or(Some(value)),
                "return" => answer = answer.or(Some(value)),
                _ => {}
            }
        }
        Self {
            strict: handling.as_deref() == Some("strict"),
            representation: answer.as_deref() == Some("representation"),
        }
    }

    pub(crate) fn applied(self) -> Option<(HeaderName, HeaderValue)> {
        let applied = match (self.strict, self.representation) {
            (false, false) => return None,
            (true, false) => "handling=strict",
            (false, true) => "return=representation",
            (true, true) => "handling=strict, return=representation",
        };
        Some((PREFERENCE_APPLIED, HeaderValue::from_static(applied)))
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, HeaderValue};

    use super::{PREFER, Preferences};

    const NONE: &[&str] = &[];

    #[test]
    fn the_first_of_each_known_preference_counts_however_it_is_spelled() {
        for (lines, strict, representation, applied) in [
            (NONE, false, false, None),
            (&["return=minimal"], false, false, None),
            (&["return=representation"], false, true, Some("return=representation")),
            (&["handling=strict"], true, false, Some("handling=strict")),
            (
                &["handling=strict, return=representation"],
                true,
                true,
                Some("handling=strict, return=representation"),
            ),
            (
                &["return=representation", "handling=strict"],
                true,
                true,
                Some("handling=strict, return=representation"),
            ),
            (&["Return = \"Representation\" ; x=1"], false, true, Some("return=representation")),
            (&["return=minimal, return=representation"], false, false, None),
            (&["handling=lenient", "handling=strict"], false, false, None),
            (&["wait=5, return=representation,"], false, true, Some("return=representation")),
            (&["returns=representation, strict, handling"], false, false, None),
            (&["", ",,;="], false, false, None),
            (&["return=repr\u{e4}sentation"], false, false, None),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(PREFER, HeaderValue::from_bytes(line.as_bytes()).unwrap());
            }
            let read = Preferences::read(&headers);
            assert_eq!((read.strict, read.representation), (strict, representation), "{lines:?}");
            let named = read.applied().map(|(_, value)| value.to_str().unwrap().to_owned());
            assert_eq!(named.as_deref(), applied, "{lines:?}");
        }
    }
}
