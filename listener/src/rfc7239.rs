//! The header `Forwarded` (RFC 7239), as strictly as it is specified: from a line in which anything is wrong
//! nothing is believed.

use std::net::IpAddr;

/// A line is no `Forwarded`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// For whom each element of a line asks, in its order; none where it does not tell an address.
pub(crate) fn clients(line: &[u8]) -> Result<Vec<Option<IpAddr>>, Malformed> {
    let line = str::from_utf8(line).map_err(|_| Malformed)?;
    let elements = split(line, ',').ok_or(Malformed)?;
    // A list may have elements without anything in them (RFC 9110 §5.6.1.2).
    let elements = elements.into_iter().map(trimmed).filter(|element| !element.is_empty());
    elements.map(client).collect()
}

/// The client of one element.
fn client(element: &str) -> Result<Option<IpAddr>, Malformed> {
    let (mut names, mut client) = (Vec::new(), None);
    for pair in split(element, ';').ok_or(Malformed)? {
        let (name, value) = trimmed(pair).split_once('=').ok_or(Malformed)?;
        let (name, value) = (name.to_ascii_lowercase(), unquoted(value).ok_or(Malformed)?);
        if !is_token(&name) || names.contains(&name) {
            return Err(Malformed);
        }
        if name == "for" {
            client = node(&value)?;
        }
        names.push(name);
    }
    Ok(client)
}

/// The address of a node, which may be `unknown` or a name that somebody made up.
fn node(text: &str) -> Result<Option<IpAddr>, Malformed> {
    let is_known = |name: &str| !name.eq_ignore_ascii_case("unknown") && !is_made_up(name);
    let (address, port) = if let Some(rest) = text.strip_prefix('[') {
        let (address, port) = rest.split_once(']').ok_or(Malformed)?;
        (Some(IpAddr::V6(address.parse().map_err(|_| Malformed)?)), port)
    } else {
        let end = text.find(':').unwrap_or(text.len());
        let (name, port) = text.split_at_checked(end).ok_or(Malformed)?;
        let address = is_known(name).then(|| name.parse().map(IpAddr::V4));
        (address.transpose().map_err(|_| Malformed)?, port)
    };
    let is_whole = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
    if is_whole { Ok(address) } else { Err(Malformed) }
}

fn is_port(port: &str) -> bool {
    let is_number = (1..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit());
    is_number || is_made_up(port)
}

/// `_` and at least one letter, digit, `.`, `_` or `-`.
fn is_made_up(name: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    name.strip_prefix('_').is_some_and(|rest| !rest.is_empty() && rest.bytes().all(is_inner))
}

/// The parts between separators that are in no quotes. None where a quote has no end.
fn split(text: &str, separator: char) -> Option<Vec<&str>> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    let parts = text.split(|letter| {
        let was_escaped = std::mem::take(&mut is_escaped);
        match letter {
            '"' if !was_escaped => is_quoted = !is_quoted,
            '\\' if is_quoted => is_escaped = !was_escaped,
            _ => return letter == separator && !is_quoted,
        }
        false
    });
    let parts: Vec<_> = parts.collect();
    (!is_quoted).then_some(parts)
}

/// A value: a token, or what a quoted string says.
fn unquoted(value: &str) -> Option<String> {
    let Some(quoted) = value.strip_prefix('"') else {
        return is_token(value).then(|| value.to_owned());
    };
    let mut letters = quoted.strip_suffix('"')?.chars();
    let mut text = String::new();
    while let Some(letter) = letters.next() {
        match letter {
            '"' => return None,
            '\\' => text.push(letters.next()?),
            _ => text.push(letter),
        }
    }
    Some(text)
}

fn is_token(text: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_inner)
}

fn trimmed(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_whole_or_not_at_all() {
        for (line, expected) in [
            ("for=192.0.2.43", Some("192.0.2.43")),
            ("For=192.0.2.43, FOR=198.51.100.17", Some("192.0.2.43 198.51.100.17")),
            ("for=192.0.2.60;proto=http;by=203.0.113.43", Some("192.0.2.60")),
            ("proto=http ; for=192.0.2.60", Some("192.0.2.60")),
            ("for=\"192.0.2.43:47011\"", Some("192.0.2.43")),
            ("for=\"[2001:db8:cafe::17]:4711\"", Some("2001:db8:cafe::17")),
            ("for=\"[2001:db8:cafe::17]\"", Some("2001:db8:cafe::17")),
            ("for=\"[2001:db8:cafe::17]:_port\"", Some("2001:db8:cafe::17")),
            ("for=\"1\\92.0.2.43\"", Some("192.0.2.43")),
            ("for=unknown", Some("-")),
            ("for=Unknown;by=_gazonk", Some("-")),
            ("for=_hidden, for=_SEVKISEK, for=\"_a.b-c:_d\"", Some("- - -")),
            ("proto=https", Some("-")),
            ("host=\"a, b;\\\"for=9.9.9.9\";for=192.0.2.1", Some("192.0.2.1")),
            ("for=192.0.2.1,, for=192.0.2.2 ,", Some("192.0.2.1 192.0.2.2")),
            ("", Some("")),
            // Not quoted, although they have what a token has not.
            ("for=192.0.2.43:47011", None),
            ("for=[2001:db8::1]", None),
            // An address of IPv6 has brackets, and one of IPv4 none.
            ("for=\"2001:db8::1\"", None),
            ("for=\"[192.0.2.1]\"", None),
            ("for=\"[2001:db8::1\"", None),
            ("for=\"[2001:db8::1]4711\"", None),
            ("for=\"192.0.2.1:\"", None),
            ("for=\"192.0.2.1:123456\"", None),
            ("for=\"192.0.2.1:+1\"", None),
            ("for=\"192.0.2.1", None),
            ("for=\"192.0.2.1\"x", None),
            ("for=\"192.0.2.1\\\"", None),
            ("for=192.0.2.1;for=192.0.2.2", None),
            ("for = 192.0.2.1", None),
            ("for=", None),
            ("for", None),
            ("for=192.0.2.1;", None),
            ("=192.0.2.1", None),
            ("for=_", None),
            ("for=hidden", None),
            ("for=192.0.2.256", None),
            ("for=192.0.2.1, for=\u{e4}", None),
        ] {
            let shown = |client: Option<IpAddr>| client.map_or("-".to_owned(), |ip| ip.to_string());
            let found = clients(line.as_bytes()).ok();
            let found = found.map(|all| all.into_iter().map(shown).collect::<Vec<_>>().join(" "));
            assert_eq!(found.as_deref(), expected, "{line}");
        }
        assert_eq!(clients(b"for=\xff"), Err(Malformed));
    }
}
