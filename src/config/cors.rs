//! The settings of what browsers let pages of other origins do.

use clap::Args;
use http::{
    HeaderName, HeaderValue, Uri,
    uri::{Authority, Scheme},
};

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Pages of other origins")]
pub struct CorsArgs {
    /// Origins whose pages may use the REST API, comma-separated, as browsers write them, such as `https://app.example.com,http://localhost:3000`; without it, pages of every origin may
    #[arg(
        long,
        env = "ORGD_CORS_ORIGINS",
        default_value = "",
        value_name = "ORIGINS",
        value_parser = origins
    )]
    pub cors_origins: Origins,
    /// Request headers that pages of other origins may send beside `authorization` and `content-type`, comma-separated, such as `prefer,if-match,idempotency-key`
    #[arg(
        long,
        env = "ORGD_CORS_HEADERS",
        default_value = "",
        value_name = "NAMES",
        value_parser = header_names
    )]
    pub cors_headers: HeaderNames,
    /// Headers of answers that pages of other origins may read beside `authorization` and `content-type`, comma-separated, such as `etag,retry-after,x-request-id`
    #[arg(
        long,
        env = "ORGD_CORS_EXPOSED_HEADERS",
        default_value = "",
        value_name = "NAMES",
        value_parser = header_names
    )]
    pub cors_exposed_headers: HeaderNames,
}

#[derive(Clone, Debug)]
pub struct Origins(pub Vec<HeaderValue>);

#[derive(Clone, Debug)]
pub struct HeaderNames(pub Vec<HeaderName>);

fn listed<T>(text: &str, one: impl Fn(&str) -> Option<T>) -> Option<Vec<T>> {
    text.split(',').map(str::trim).filter(|_| !text.is_empty()).map(one).collect()
}

fn origins(text: &str) -> Result<Origins, String> {
    listed(text, origin).map(Origins).ok_or_else(|| {
        "must be origins as browsers write them, such as https://app.example.com, in lower case, without path \
         and without the scheme's own port"
            .to_owned()
    })
}

/// An origin is compared to the letter, so one that no browser sends would let nobody in (RFC 6454 §6.2).
fn origin(text: &str) -> Option<HeaderValue> {
    let uri: Uri = text.parse().ok()?;
    let (scheme, authority) = (uri.scheme()?, uri.authority()?);
    let own_port = if *scheme == Scheme::HTTPS { Some(443) } else { Some(80) };
    let is_whole = |authority: &Authority| !authority.as_str().contains('@');
    let as_written = format!("{scheme}://{authority}").to_ascii_lowercase();
    let is_as_written = as_written == text && authority.port_u16() != own_port;
    (is_as_written && is_whole(authority)).then(|| text.parse().ok())?
}

fn header_names(text: &str) -> Result<HeaderNames, String> {
    let names = listed(text, |name| name.parse().ok()).map(HeaderNames);
    names.ok_or_else(|| {
        "must be names of headers, comma-separated, such as if-match,prefer".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::{header_names, origins};

    #[test]
    fn origins_are_what_browsers_send() {
        for (text, count) in [
            ("", Some(0)),
            ("https://app.example.com", Some(1)),
            ("https://app.example.com, http://localhost:3000", Some(2)),
            ("http://[::1]:3000", Some(1)),
            ("https://app.example.com/", None),
            ("https://app.example.com/app", None),
            ("https://App.example.com", None),
            ("https://app.example.com:443", None),
            ("http://app.example.com:80", None),
            ("https://user@app.example.com", None),
            ("app.example.com", None),
            ("*", None),
            ("null", None),
            ("https://app.example.com,", None),
        ] {
            assert_eq!(origins(text).ok().map(|origins| origins.0.len()), count, "{text}");
        }
    }

    #[test]
    fn header_names_are_tokens() {
        for (text, count) in [
            ("", Some(0)),
            ("Prefer", Some(1)),
            ("prefer, if-match", Some(2)),
            ("prefer,", None),
            ("if match", None),
            ("prefer: x", None),
        ] {
            assert_eq!(header_names(text).ok().map(|names| names.0.len()), count, "{text}");
        }
    }
}
