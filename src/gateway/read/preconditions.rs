//! The preconditions of a request (RFC 9110 §13.1), and the etag that they become over gRPC.

use axum::http::{
    HeaderMap, HeaderName,
    header::{IF_MATCH, IF_NONE_MATCH},
};

/// A tag that no organization has: a precondition on it fails, after every other check.
const NEVER: &str = "\"0\"";
/// What else never matches, and is refused in its own words.
const WEAK: &str = "W/\"0\"";
const MALFORMED: &str = "malformed";

/// Bytes of a tag that is sent on at most; none of ours is longer.
const TAG_BYTES_MAX: usize = 64;

#[derive(Debug, PartialEq, Eq)]
enum Tags {
    Any,
    /// The listed ones; what is not a tag matches nothing.
    Listed {
        tags: Vec<Tag>,
        is_whole: bool,
    },
}

#[derive(Debug, PartialEq, Eq)]
struct Tag {
    weak: bool,
    /// With its quotes.
    opaque: String,
}

#[derive(Debug)]
pub(crate) struct Preconditions {
    if_match: Option<Tags>,
    if_none_match: Option<Tags>,
}

impl Preconditions {
    pub(crate) fn read(headers: &HeaderMap) -> Self {
        Self { if_match: tags(headers, IF_MATCH), if_none_match: tags(headers, IF_NONE_MATCH) }
    }

    pub(crate) fn are_some(&self) -> bool {
        self.if_match.is_some() || self.if_none_match.is_some()
    }

    /// Tags of which the organization must have one; after `!`, tags of which it must have none.
    pub(crate) fn etag(&self) -> String {
        // None of ours has a comma, which would part it.
        let is_possible = |tag: &&str| tag.len() <= TAG_BYTES_MAX && !tag.contains(',');
        match (&self.if_match, &self.if_none_match) {
            (_, Some(Tags::Any)) => NEVER.to_owned(),
            // An organization that does not exist is not found before any precondition.
            (None | Some(Tags::Any), None) => String::new(),
            (None | Some(Tags::Any), Some(Tags::Listed { tags, .. })) => {
                let tags = tags.iter().map(|tag| tag.opaque.as_str()).filter(is_possible);
                format!("!{}", tags.collect::<Vec<_>>().join(","))
            }
            // Compared strongly (RFC 9110 §13.1.1).
            (Some(Tags::Listed { tags, .. }), _) => {
                let tags = tags.iter().filter(|tag| !tag.weak).map(|tag| tag.opaque.as_str());
                let tags = tags.filter(|tag| !self.if_none_match_met(tag)).filter(is_possible);
                let tags: Vec<_> = tags.chain(self.flaw()).collect();
                if tags.is_empty() { NEVER.to_owned() } else { tags.join(",") }
            }
        }
    }

    /// What of If-Match can never match, where it has such: the service says so if nothing else matches.
    fn flaw(&self) -> Option<&'static str> {
        match &self.if_match {
            Some(Tags::Listed { is_whole: false, .. }) => Some(MALFORMED),
            Some(Tags::Listed { tags, .. }) if tags.iter().any(|tag| tag.weak) => Some(WEAK),
            _ => None,
        }
    }

    /// Whether the current etag is one that the client has, compared weakly (RFC 9110 §13.1.2).
    pub(crate) fn if_none_match_met(&self, current: &str) -> bool {
        match &self.if_none_match {
            None => false,
            Some(Tags::Any) => true,
            Some(Tags::Listed { tags, .. }) => tags.iter().any(|tag| tag.opaque == current),
        }
    }
}

fn tags(headers: &HeaderMap, name: HeaderName) -> Option<Tags> {
    let lines = headers.get_all(name).iter();
    let texts: Vec<_> = lines.map(|line| String::from_utf8_lossy(line.as_bytes())).collect();
    let text = texts.join(",");
    let tags = || if text.trim() == "*" { Tags::Any } else { listed(&text) };
    (!texts.is_empty()).then(tags)
}

/// The tags of a list. A comma inside quotes belongs to its tag.
fn listed(mut text: &str) -> Tags {
    let mut tags = Vec::new();
    loop {
        text = text.trim_start_matches([' ', '\t', ',']);
        if text.is_empty() {
            let is_whole = !tags.is_empty();
            return Tags::Listed { tags, is_whole };
        }
        let (weak, rest) = text.strip_prefix("W/").map_or((false, text), |rest| (true, rest));
        let Some((opaque, after)) = rest.strip_prefix('"').and_then(|rest| rest.split_once('"'))
        else {
            // Not a tag: it matches nothing, and neither does what may hide behind it.
            return Tags::Listed { tags, is_whole: false };
        };
        tags.push(Tag { weak, opaque: format!("\"{opaque}\"") });
        text = after;
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{
        HeaderMap, HeaderValue,
        header::{IF_MATCH, IF_NONE_MATCH},
    };

    use super::Preconditions;

    const NONE: &[&str] = &[];

    fn read(if_match: &[&str], if_none_match: &[&str]) -> Preconditions {
        let mut headers = HeaderMap::new();
        for (name, lines) in [(IF_MATCH, if_match), (IF_NONE_MATCH, if_none_match)] {
            for line in lines {
                headers.append(&name, HeaderValue::from_bytes(line.as_bytes()).unwrap());
            }
        }
        Preconditions::read(&headers)
    }

    #[test]
    fn preconditions_become_the_etag_of_an_update() {
        let long = format!("\"{}\"", "3".repeat(63));
        for (if_match, if_none_match, etag) in [
            (NONE, NONE, ""),
            (&["*"], &[], ""),
            (&[" * "], &[], ""),
            (&["\"3\""], &[], "\"3\""),
            (&["\"3\", \"5\""], &[], "\"3\",\"5\""),
            (&["\"3\"", "\"5\""], &[], "\"3\",\"5\""),
            (&[",, \"3\" ,\t,"], &[], "\"3\""),
            // A weak tag, and what is no tag, match nothing; the service is to say so.
            (&["W/\"3\""], &[], "W/\"0\""),
            (&["W/\"3\", \"5\""], &[], "\"5\",W/\"0\""),
            (&["3"], &[], "malformed"),
            (&["\"3\", 5, \"7\""], &[], "\"3\",malformed"),
            (&["\"3"], &[], "malformed"),
            (&[""], &[], "malformed"),
            (&["*, \"3\""], &[], "malformed"),
            (&["w/\"3\""], &[], "malformed"),
            // What none of ours is like is not sent on.
            (&["\"3,5\""], &[], "\"0\""),
            (&[&long], &[], "\"0\""),
            (&["\"3\"", &long], &[], "\"3\""),
            (&[], &["*"], "\"0\""),
            (&["\"3\""], &["*"], "\"0\""),
            (&[], &["\"3\""], "!\"3\""),
            (&["*"], &["W/\"3\", \"5\""], "!\"3\",\"5\""),
            (&[], &["3"], "!"),
            // Both must hold.
            (&["\"3\", \"5\""], &["\"3\""], "\"5\""),
            (&["\"3\""], &["\"3\""], "\"0\""),
        ] {
            let read = read(if_match, if_none_match);
            assert_eq!(read.etag(), etag, "{if_match:?}, {if_none_match:?}");
            let are_some = !(if_match.is_empty() && if_none_match.is_empty());
            assert_eq!(read.are_some(), are_some, "{if_match:?}, {if_none_match:?}");
        }
    }

    #[test]
    fn if_none_match_compares_weakly_and_if_match_has_no_say_in_it() {
        for (line, is_met) in [
            ("*", true),
            ("\"3\"", true),
            ("W/\"3\"", true),
            ("\"1\", \"3\"", true),
            ("\"1\"", false),
            ("3", false),
            ("3, \"3\"", false),
            ("\"3\", 3", true),
            ("\"1,\"3\"", false),
            ("", false),
        ] {
            assert_eq!(read(&["\"9\""], &[line]).if_none_match_met("\"3\""), is_met, "{line}");
        }
        assert!(!read(&["\"3\""], &[]).if_none_match_met("\"3\""));
    }
}
