//! How the values of settings are read.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroUsize,
    path::Path,
    str::FromStr,
    time::Duration,
};

use anyhow::Context;
use clap::builder::{RangedU64ValueParser, TypedValueParser};
use http::{
    Uri,
    uri::{Authority, PathAndQuery},
};
use secrecy::SecretString;

/// An address to listen on. Names are not looked up, as they may lead elsewhere tomorrow.
pub(super) fn listen_addr(text: &str) -> Result<SocketAddr, String> {
    let (host, port) = text.rsplit_once(':').unwrap_or_default();
    let addr = match host {
        "" => port.parse().ok().map(|port| (Ipv4Addr::UNSPECIFIED, port).into()),
        "localhost" => port.parse().ok().map(|port| (Ipv4Addr::LOCALHOST, port).into()),
        _ => text.parse().ok(),
    };
    addr.ok_or_else(|| {
        "must be IP:PORT such as 127.0.0.1:8080 or [::1]:8080, localhost:8080 for this machine alone, \
         or :8080 for every IPv4 address"
            .to_owned()
    })
}

/// The secret in a file, without the white space around it, which may be all that there is.
pub fn secret_in_file(flag: &str, path: &Path) -> anyhow::Result<SecretString> {
    let text = fs::read_to_string(path);
    let text = text.with_context(|| format!("cannot read {flag} {}", path.display()))?;
    Ok(text.trim().into())
}

/// A URL with other parts is refused: they would have no effect, and some are made for passwords.
pub(super) fn upstream(text: &str) -> Result<Uri, String> {
    let is_plain = |uri: &Uri| {
        let is_whole = |authority: &Authority| !authority.as_str().contains('@');
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.authority().is_some_and(is_whole)
            && matches!(uri.path_and_query().map(PathAndQuery::as_str), None | Some("/"))
    };
    let uri = text.parse().ok().filter(|uri| is_plain(uri) && !text.contains('#'));
    uri.ok_or_else(|| {
        "must be http://HOST:PORT or https://HOST:PORT, without user, password, path or query"
            .to_owned()
    })
}

pub(super) fn receiver(text: &str) -> Result<String, String> {
    if !text.is_empty() && upstream(text)?.scheme_str() == Some("https") {
        return Err("traces are sent in plain text: name the http://HOST:PORT of a collector \
                    nearby, which can send them on over TLS"
            .to_owned());
    }
    Ok(text.to_owned())
}

/// Whether a text may be a URL, whose parts may be secrets.
pub(super) fn may_be_url(text: &str) -> bool {
    text.contains('@') || text.contains("://")
}

/// A token without the white space around it, as a file has it.
#[expect(clippy::unnecessary_wraps, reason = "the signature is clap's")]
pub(super) fn token(text: &str) -> Result<SecretString, std::convert::Infallible> {
    Ok(text.trim().into())
}

#[expect(clippy::unnecessary_wraps, reason = "the signature is clap's")]
pub(super) fn secret(text: &str) -> Result<SecretString, std::convert::Infallible> {
    Ok(text.into())
}

/// A time that is nowhere rounded to none, which would be no limit, and that no clock is too short for.
#[derive(Clone, Copy, Debug)]
pub struct TimeSpan(pub Duration);

impl FromStr for TimeSpan {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // The error itself repeats parts of the text, which may be in the wrong place.
        let time = humantime::parse_duration(text);
        let time = time.map_err(|_| "must be a time such as 500ms, 5s or 1m 30s")?;
        if time < Duration::from_millis(1) {
            return Err("must be 1ms at least".to_owned());
        }
        if time > Duration::from_hours(24) {
            return Err("must be a day at most".to_owned());
        }
        Ok(Self(time))
    }
}

/// The same, or none.
pub(super) fn time_span_or_none(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) => Ok(Duration::ZERO),
        _ => text.parse().map(|TimeSpan(time)| time),
    }
}

/// A number from 1 on, not more than what can be counted or kept.
pub(super) fn number(max: u64) -> impl TypedValueParser<Value = NonZeroUsize> {
    RangedU64ValueParser::<usize>::new().range(1..=max).try_map(NonZeroUsize::try_from)
}

pub(super) fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "must be a number from 0 to 1".to_owned())
}
