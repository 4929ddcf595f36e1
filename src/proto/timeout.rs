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
