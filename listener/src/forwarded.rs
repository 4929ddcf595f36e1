//! Where a request comes from. Behind a trusted proxy, this is the last address of X-Forwarded-For, or of
//! Forwarded, that is no trusted proxy's.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use http::{
    HeaderMap, HeaderName,
    header::{FORWARDED, HeaderValue},
};
use ipnet::IpNet;

use crate::rfc7239;

/// The addresses through which a request came to a proxy, the nearest one last.
pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Where a request comes from: an extension of every request that a listener takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source(pub IpAddr);

impl Source {
    /// The source that an address counts for. IPv6 is cut to 64 bits, as one subscriber has at least such a
    /// network.
    pub(crate) fn of(address: IpAddr) -> Self {
        let IpAddr::V6(long) = address else { return Self(address) };
        let network = Ipv6Addr::from_bits(long.to_bits() & (u128::MAX << 64));
        Self(long.to_ipv4_mapped().map_or_else(|| network.into(), IpAddr::from))
    }
}

/// Networks, none by default.
#[derive(Clone, Debug, Default)]
pub struct Networks(Arc<[IpNet]>);

impl Networks {
    /// Reads networks with commas between them, each an address with or without a length.
    pub fn parse(text: &str) -> Result<Self, String> {
        let network =
            |text: &str| text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        let parts = text.split(',').map(str::trim).filter(|_| !text.is_empty());
        let networks = parts.map(network).collect::<Result<_, _>>();
        networks.map(Self).map_err(|_| "must be networks such as 10.0.0.0/8, or addresses".into())
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether an address is in one of them.
    #[must_use]
    pub fn contain(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }
}

/// The source of a request that has come from a proxy. Addresses before the one that the first trusted proxy
/// added come from the client, and are ignored.
///
/// A proxy adds to one of the two headers, and lets the other through as the client sent it. Which of them that is
/// cannot be told here, so where both are there and name different sources, neither is believed.
pub(crate) fn source(proxy: IpAddr, headers: &HeaderMap, trusted: &Networks) -> Source {
    let lines = |name: &HeaderName| headers.get_all(name).iter().rev();
    let by_x_forwarded_for = || {
        let entries = |line: &'_ HeaderValue| -> Vec<Option<IpAddr>> {
            line.as_bytes().rsplit(|byte| *byte == b',').map(address).collect()
        };
        first_untrusted(lines(&X_FORWARDED_FOR).flat_map(entries), trusted)
    };
    let by_forwarded = || {
        let entries = |line: &'_ HeaderValue| {
            let clients = rfc7239::clients(line.as_bytes()).unwrap_or(vec![None]);
            clients.into_iter().rev()
        };
        first_untrusted(lines(&FORWARDED).flat_map(entries), trusted)
    };
    let found = match (headers.contains_key(X_FORWARDED_FOR), headers.contains_key(FORWARDED)) {
        (_, false) => by_x_forwarded_for(),
        (false, true) => by_forwarded(),
        (true, true) => by_x_forwarded_for().filter(|found| by_forwarded() == Some(*found)),
    };
    found.unwrap_or(Source::of(proxy))
}

/// The first source that is no trusted proxy's, where whatever comes before it is.
fn first_untrusted(
    mut entries: impl Iterator<Item = Option<IpAddr>>,
    trusted: &Networks,
) -> Option<Source> {
    let is_other = |entry: &Option<IpAddr>| !entry.is_some_and(|ip| trusted.contain(ip));
    entries.find(is_other).flatten().map(Source::of)
}

/// An address, with or without a port, and that of IPv6 in brackets or not.
fn address(entry: &[u8]) -> Option<IpAddr> {
    let entry = str::from_utf8(entry).ok()?.trim_matches([' ', '\t']);
    let bare = entry.strip_prefix('[').and_then(|entry| entry.strip_suffix(']'));
    let with_port = || entry.parse().ok().map(|address: SocketAddr| address.ip());
    bare.unwrap_or(entry).parse().ok().or_else(with_port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_address_that_is_no_proxy_counts() {
        let trusted = Networks::parse("10.0.0.0/8, fd00::/16,192.0.2.7").unwrap_or_default();
        let proxy = "10.0.0.1";
        for (lines, expected) in [
            (&[][..], proxy),
            (&["198.51.100.1"], "198.51.100.1"),
            (&["198.51.100.1:4711"], "198.51.100.1"),
            (&["203.0.113.9, 198.51.100.1"], "198.51.100.1"),
            (&["203.0.113.9", "198.51.100.1"], "198.51.100.1"),
            (&["203.0.113.9,198.51.100.1 ,10.1.2.3"], "198.51.100.1"),
            (&["198.51.100.1", "192.0.2.7,\t10.1.2.3:80", "[fd00::1]:443"], "198.51.100.1"),
            (&["203.0.113.9, 192.0.2.8"], "192.0.2.8"),
            (&["2001:db8:1:2:3::4"], "2001:db8:1:2::"),
            (&["[2001:db8:1:2:3::4]"], "2001:db8:1:2::"),
            (&["[2001:db8:1:2:3::4]:4711"], "2001:db8:1:2::"),
            (&["::ffff:198.51.100.1"], "198.51.100.1"),
            (&["198.51.100.1, ::ffff:10.1.2.3"], "198.51.100.1"),
            (&["10.1.2.3"], proxy),
            (&["198.51.100.1, unknown"], proxy),
            (&["198.51.100.1, _secret, 10.1.2.3"], proxy),
            (&["198.51.100.1,"], proxy),
            (&[""], proxy),
            (&["198.51.100.1.2"], proxy),
            (&["[198.51.100.1"], proxy),
            (&["\u{e4}"], proxy),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(X_FORWARDED_FOR, HeaderValue::from_bytes(line.as_bytes()).unwrap());
            }
            let Source(found) = source(proxy.parse().unwrap(), &headers, &trusted);
            assert_eq!(found.to_string(), expected, "{lines:?}");
        }
    }

    #[test]
    fn forwarded_counts_as_well_and_two_that_differ_do_not() {
        let trusted = Networks::parse("10.0.0.0/8, fd00::/16").unwrap_or_default();
        let proxy = "10.0.0.1";
        for (forwarded, x_forwarded_for, expected) in [
            (&["for=198.51.100.1"][..], None, "198.51.100.1"),
            (
                &["for=203.0.113.9, for=198.51.100.1;proto=https, for=\"10.1.2.3:80\""],
                None,
                "198.51.100.1",
            ),
            (
                &["for=203.0.113.9", "for=198.51.100.1", "for=\"[fd00::1]:443\""],
                None,
                "198.51.100.1",
            ),
            (&["for=\"[2001:db8:1:2:3::4]\""], None, "2001:db8:1:2::"),
            (&["for=\"[::ffff:198.51.100.1]\""], None, "198.51.100.1"),
            (&["for=198.51.100.1, for=unknown"], None, proxy),
            (&["for=198.51.100.1, for=_hidden"], None, proxy),
            (&["for=198.51.100.1, proto=https"], None, proxy),
            (&["for=198.51.100.1, for=\""], None, proxy),
            (&["for=\"", "for=198.51.100.1"], None, "198.51.100.1"),
            (&["for=10.1.2.3"], None, proxy),
            (&["for=198.51.100.1"], Some("198.51.100.1"), "198.51.100.1"),
            (&["for=203.0.113.9, for=198.51.100.1"], Some("198.51.100.1:80"), "198.51.100.1"),
            (&["for=203.0.113.9"], Some("198.51.100.1"), proxy),
            (&["for=unknown"], Some("198.51.100.1"), proxy),
            (&["for=198.51.100.1"], Some("unknown"), proxy),
            (&["nonsense"], Some("198.51.100.1"), proxy),
        ] {
            let mut headers = HeaderMap::new();
            for line in forwarded {
                headers.append(FORWARDED, HeaderValue::from_bytes(line.as_bytes()).unwrap());
            }
            if let Some(line) = x_forwarded_for {
                headers.append(X_FORWARDED_FOR, HeaderValue::from_static(line));
            }
            let Source(found) = source(proxy.parse().unwrap(), &headers, &trusted);
            assert_eq!(found.to_string(), expected, "{forwarded:?} {x_forwarded_for:?}");
        }
    }

    #[test]
    fn networks_are_read_or_refused() {
        for (text, inside, outside) in [
            ("", None, Some("10.0.0.1")),
            ("10.0.0.0/8", Some("10.255.0.1"), Some("11.0.0.1")),
            ("10.0.0.0/8", Some("::ffff:10.255.0.1"), None),
            ("127.0.0.1", Some("127.0.0.1"), Some("127.0.0.2")),
            ("127.0.0.1,fd00::/8", Some("fd12::1"), Some("fe80::1")),
        ] {
            let networks = Networks::parse(text).unwrap();
            let contain = |address: Option<&str>| {
                address.map(|address| networks.contain(address.parse().unwrap()))
            };
            assert_ne!(contain(inside), Some(false), "{text}");
            assert_ne!(contain(outside), Some(true), "{text}");
        }
        for text in [",", "10.0.0.0/8,", "10.0.0.0/33", "example.org", "10.0.0.1:80", "*"] {
            assert!(Networks::parse(text).is_err(), "{text}");
        }
    }
}
