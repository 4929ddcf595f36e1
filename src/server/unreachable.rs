//! Why a service gave no answer of its own, in a sentence that names its address and what to set.

use std::{
    error::Error,
    io::{self, ErrorKind},
    iter,
};

use http::{Uri, uri::Authority};
use tokio_rustls::rustls;
use tonic::{Status, TimeoutExpired};

use crate::certificate::Fault;

const NO_ANSWER: &str = "no answer in time";

/// The flags that name a service and its CA, with their variables, as an error says what to set.
#[derive(Clone, Copy, Debug)]
pub struct Flags {
    pub uri: &'static str,
    pub ca: &'static str,
}

/// For a call that failed without a refusal of the service, whose own words would be better.
#[must_use]
pub fn unreachable(uri: &Uri, flags: Flags, status: &Status) -> String {
    let authority = uri.authority().map_or("", Authority::as_str);
    let cause = Cause { authority, is_tls: uri.scheme_str() == Some("https"), flags };
    // Whatever has no source came over the connection: it is an answer.
    let sentence = status.source().map_or_else(|| cause.of_stranger(), |error| cause.of(error));
    format!("{}://{authority}: {sentence}", uri.scheme_str().unwrap_or_default())
}

/// For a service that gave no answer while somebody waited.
pub(super) fn silent(uri: &Uri) -> String {
    let authority = uri.authority().map_or("", Authority::as_str);
    format!("{}://{authority}: {NO_ANSWER}", uri.scheme_str().unwrap_or_default())
}

/// Whether TLS is at fault: certificates and settings, which no new try mends.
#[must_use]
pub fn is_of_tls(status: &Status) -> bool {
    status.source().is_some_and(|error| chain(error).any(|error| tls_error(error).is_some()))
}

fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    iter::successors(Some(error), |&error: &&'a (dyn Error + 'static)| error.source())
}

fn tls_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    error.downcast_ref::<io::Error>()?.get_ref()?.downcast_ref()
}

/// Why there is no connection to an address, where that is known; `flag` names it.
#[must_use]
pub fn not_connected(error: &io::Error, flag: &str) -> Option<String> {
    let sentence = match error.kind() {
        ErrorKind::ConnectionRefused => "connection refused; start the service there, or",
        ErrorKind::TimedOut => "nobody takes the connection in time;",
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => "no way to this address;",
        _ => return None,
    };
    Some(format!("{sentence} set {flag}"))
}

struct Cause<'a> {
    authority: &'a str,
    is_tls: bool,
    flags: Flags,
}

impl Cause<'_> {
    fn of(&self, error: &(dyn Error + 'static)) -> String {
        chain(error).find_map(|error| self.of_one(error)).unwrap_or_else(|| self.of_end())
    }

    fn of_one(&self, error: &(dyn Error + 'static)) -> Option<String> {
        let uri = self.flags.uri;
        if error.is::<TimeoutExpired>() {
            return Some(NO_ANSWER.to_owned());
        }
        // The resolver's error has no type of its own.
        if error.to_string() == "dns error" {
            return Some(format!("no address is known for this host name; set {uri}"));
        }
        if let Some(error) = tls_error(error) {
            return Some(self.of_tls(error));
        }
        not_connected(error.downcast_ref()?, uri)
    }

    fn of_tls(&self, error: &rustls::Error) -> String {
        let Flags { uri, ca } = self.flags;
        let rustls::Error::InvalidCertificate(error) = error else {
            return format!(
                "it does not speak TLS as a service does; for plain text set {uri} to http://{}",
                self.authority
            );
        };
        match Fault::of(error) {
            Fault::Untrusted => {
                format!("its certificate is not signed by a CA that is trusted; set {ca}")
            }
            Fault::OtherName => format!("its certificate is for another host name; set {uri}"),
            Fault::Expired => "its certificate has expired".to_owned(),
            Fault::NotYetValid => {
                "its certificate is not valid yet; compare its clock with this one's".to_owned()
            }
            Fault::OfCa => format!(
                "its certificate is a CA's own, which no client takes from a service; give the \
                 service one that the CA has signed, and set {ca} to the CA's"
            ),
            Fault::Other(said) => {
                format!("its certificate cannot be accepted ({said}); give the service another")
            }
        }
    }

    /// The connection was made and ended.
    fn of_end(&self) -> String {
        let (other, what) = if self.is_tls { ("http", "plain text") } else { ("https", "TLS") };
        let Self { authority, flags: Flags { uri, .. }, .. } = self;
        format!(
            "it ended the connection without an answer; if it speaks {what}, set {uri} to {other}://{authority}"
        )
    }

    fn of_stranger(&self) -> String {
        format!("what answers there is no gRPC listener of orgd; set {}", self.flags.uri)
    }
}
