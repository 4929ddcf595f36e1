//! The grammar of `grpc-timeout`, which REST callers may send as `Grpc-Timeout` too.

use std::time::Duration;

use http::{HeaderMap, HeaderName};

pub const HEADER: HeaderName = HeaderName::from_static("grpc-timeout");

/// What a timeout must be, in words for its sender.
pub const RULE: &str = "must be 1 to 8 digits and one of H, M, S, m, u, n, and not zero.";

/// A timeout that is not 1 to 8 digits and a unit, or is zero, or came twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// The time that a caller gives a call, as gRPC over HTTP/2 writes it; none where it says nothing.
pub fn of(headers: &HeaderMap) -> Result<Option<Duration>, Malformed> {
    let mut lines = headers.get_all(HEADER).iter();
    match (lines.next(), lines.next()) {
        (None, _) => Ok(None),
        (Some(line), None) => parse(line.as_bytes()).map(Some).ok_or(Malformed),
        _ => Err(Malformed),
    }
}

/// The time that a call may take: what its caller gives it, and the longest where that is less.
pub fn within(headers: &HeaderMap, longest: Duration) -> Result<Duration, Malformed> {
    Ok(of(headers)?.map_or(longest, |asked| asked.min(longest)))
}

/// What a caller is told whose `call` was too late; with `is_change`, a change was under way.
#[must_use]
pub fn passed(call: &str, is_change: bool) -> String {
    if is_change {
        "The deadline has passed; whether a change was stored is not known. \
            Read the organization before you try again."
            .to_owned()
    } else {
        format!("The deadline has passed. Try again, or give the {call} more time.")
    }
}

fn parse(line: &[u8]) -> Option<Duration> {
    let (unit, digits) = line.split_last()?;
    if !(1..=8).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    let timeout = match unit {
        b'H' => Duration::from_secs(value * 3600),
        b'M' => Duration::from_secs(value * 60),
        b'S' => Duration::from_secs(value),
        b'm' => Duration::from_millis(value),
        b'u' => Duration::from_micros(value),
        b'n' => Duration::from_nanos(value),
        _ => return None,
    };
    (!timeout.is_zero()).then_some(timeout)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(HEADER, HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        headers
    }

    #[test]
    fn a_timeout_is_one_to_eight_digits_and_a_unit() {
        for (line, expected) in [
            ("1H", Some(Duration::from_secs(3600))),
            ("1M", Some(Duration::from_secs(60))),
            ("1S", Some(Duration::from_secs(1))),
            ("1m", Some(Duration::from_millis(1))),
            ("1u", Some(Duration::from_micros(1))),
            ("1n", Some(Duration::from_nanos(1))),
            // The largest of each; none is too large for a duration.
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3600))),
            ("99999999M", Some(Duration::from_secs(99_999_999 * 60))),
            ("99999999S", Some(Duration::from_secs(99_999_999))),
            ("99999999m", Some(Duration::from_millis(99_999_999))),
            ("99999999u", Some(Duration::from_micros(99_999_999))),
            ("99999999n", Some(Duration::from_nanos(99_999_999))),
            // Zeros before a number are digits of it.
            ("00000001S", Some(Duration::from_secs(1))),
            ("000000001S", None),
            ("100000000n", None),
            ("99999999999999999999H", None),
            ("0H", None),
            ("0n", None),
            ("00000000S", None),
            ("+1S", None),
            ("-1S", None),
            ("1", None),
            ("12345678", None),
            ("S", None),
            ("", None),
            ("1h", None),
            ("1s", None),
            ("1N", None),
            ("1ms", None),
            ("1SS", None),
            ("1S1m", None),
            ("1S,1S", None),
            (" 1S", None),
            ("1S ", None),
            ("1 S", None),
            ("1.5S", None),
            ("1e3S", None),
            ("1_0S", None),
            ("0x1S", None),
            // Digits, a unit and spaces of other scripts.
            ("\u{661}S", None),
            ("\u{ff11}S", None),
            ("1\u{b5}", None),
            ("1\u{ff33}", None),
            ("\u{a0}1S", None),
        ] {
            let expected = expected.map(Some).ok_or(Malformed);
            assert_eq!(of(&headers(&[line])), expected, "{line:?}");
        }
    }

    #[test]
    fn a_call_has_the_shorter_of_what_it_asks_for_and_the_longest() {
        let longest = Duration::from_secs(5);
        for (lines, expected) in [
            (&[][..], Ok(longest)),
            (&["4999m"], Ok(Duration::from_millis(4999))),
            (&["5S"], Ok(longest)),
            (&["5001m"], Ok(longest)),
            (&["99999999H"], Ok(longest)),
            (&["1n"], Ok(Duration::from_nanos(1))),
            // Not as if it had not been there: its caller meant something.
            (&["0S"], Err(Malformed)),
            (&[""], Err(Malformed)),
            // Twice, though it says the same.
            (&["1S", "1S"], Err(Malformed)),
            (&["1S", ""], Err(Malformed)),
            (&["1S", "1S", "1S"], Err(Malformed)),
        ] {
            assert_eq!(within(&headers(lines), longest), expected, "{lines:?}");
        }
        assert_eq!(of(&HeaderMap::new()), Ok(None));
    }
}
