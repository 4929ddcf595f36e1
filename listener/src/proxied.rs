//! The head of a connection by which a proxy that passes bytes alone says for whom it connects: the PROXY
//! protocol, versions 1 and 2.
//!
//! Read here because what is needed of it is one address, and neither crate for it (`ppp`, `proxy-header`) had
//! a change for long when this was written; one of them takes `PROXY` without its blank.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use tokio::io::{AsyncRead, AsyncReadExt};

/// The first bytes of version 2; as long as it takes to tell the versions apart.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// The longest head of version 1, by its specification.
const LINE_BYTES_MAX: usize = 107;
/// The longest head of version 2 that is read, after its first 16 bytes. Addresses take 36; what a proxy adds to
/// them is rarely more than some hundred.
const BODY_BYTES_MAX: u16 = 4096;

/// Reads the head and no byte more. None: the proxy speaks for itself, as in a health check, or does not know
/// for whom.
pub(crate) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<IpAddr>> {
    let mut begin = [0; SIGNATURE.len()];
    stream.read_exact(&mut begin).await?;
    if begin == SIGNATURE { read_body(stream).await } else { read_line(stream, &begin).await }
}

/// The rest of version 2: what it is of, a length, and as many bytes.
async fn read_body(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<IpAddr>> {
    let (command, family) = (stream.read_u8().await?, stream.read_u8().await?);
    let length = stream.read_u16().await?;
    if length > BODY_BYTES_MAX {
        return Err(malformed());
    }
    let mut body = vec![0; usize::from(length)];
    stream.read_exact(&mut body).await?;
    match (command, family) {
        // TCP over IPv4, and over IPv6: the client's address, the proxy's, and two ports.
        (0x21, 0x11) if body.len() >= 12 => Ok(body.first_chunk::<4>().map(|ip| (*ip).into())),
        (0x21, 0x21) if body.len() >= 36 => Ok(body.first_chunk::<16>().map(|ip| (*ip).into())),
        // For itself; or of a kind that it does not tell, or of a socket of its own machine.
        (0x20, _) | (0x21, 0x00 | 0x31) => Ok(None),
        _ => Err(malformed()),
    }
}

/// The rest of version 1: a line. Byte by byte, as the next one may be of TLS.
async fn read_line(
    stream: &mut (impl AsyncRead + Unpin),
    begin: &[u8],
) -> io::Result<Option<IpAddr>> {
    if !begin.starts_with(b"PROXY ") {
        return Err(malformed());
    }
    let mut line = begin.to_vec();
    while !line.ends_with(b"\r\n") {
        if line.len() >= LINE_BYTES_MAX {
            return Err(malformed());
        }
        line.push(stream.read_u8().await?);
    }
    let line = str::from_utf8(&line).ok().and_then(|line| line.strip_suffix("\r\n"));
    let words: Vec<&str> = line.ok_or_else(malformed)?.split(' ').collect();
    match words.as_slice() {
        [_, "UNKNOWN", ..] => Ok(None),
        [_, family, client, proxy, ports @ ..]
            if ports.len() == 2
                && ports.iter().all(|port| is_port(port))
                && [client, proxy].iter().all(|address| is_of(family, address)) =>
        {
            Ok(client.parse().ok())
        }
        _ => Err(malformed()),
    }
}

fn is_of(family: &str, address: &str) -> bool {
    match family {
        "TCP4" => address.parse::<Ipv4Addr>().is_ok(),
        "TCP6" => address.parse::<Ipv6Addr>().is_ok(),
        _ => false,
    }
}

fn is_port(port: &str) -> bool {
    port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok()
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "no head of the PROXY protocol")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version_2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, body].concat()
    }

    #[tokio::test]
    async fn a_head_is_read_to_its_last_byte_and_no_further() {
        let line = |line: &str| line.as_bytes().to_vec();
        let (four, six) = ([[192, 0, 2, 1], [10, 0, 0, 1], [1, 2, 3, 4]].concat(), vec![0x20; 36]);
        let more = [&four[..], &[4; 4000]].concat();
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(91));
        for (head, expected) in [
            (line("PROXY TCP4 192.0.2.1 10.0.0.1 4711 443\r\n"), Some("192.0.2.1")),
            (line("PROXY TCP6 2001:db8::1 ::1 4711 443\r\n"), Some("2001:db8::1")),
            (line("PROXY UNKNOWN\r\n"), Some("-")),
            (line("PROXY UNKNOWN ffff::1 and more\r\n"), Some("-")),
            (line(&long), Some("-")),
            (version_2(0x21, 0x11, &four), Some("192.0.2.1")),
            (version_2(0x21, 0x11, &more), Some("192.0.2.1")),
            (version_2(0x21, 0x21, &six), Some("2020:2020:2020:2020:2020:2020:2020:2020")),
            (version_2(0x20, 0x11, &four), Some("-")),
            (version_2(0x20, 0x00, &[]), Some("-")),
            (version_2(0x21, 0x00, &[1, 2, 3]), Some("-")),
            (version_2(0x21, 0x31, &[0; 216]), Some("-")),
            (line(&long.replace('x', "xy")), None),
            (line("PROXYxTCP4 192.0.2.1 10.0.0.1 4711 443\r\n"), None),
            (line("proxy TCP4 192.0.2.1 10.0.0.1 4711 443\r\n"), None),
            (line("PROXY TCP4 2001:db8::1 ::1 4711 443\r\n"), None),
            (line("PROXY TCP6 192.0.2.1 10.0.0.1 4711 443\r\n"), None),
            (line("PROXY UDP4 192.0.2.1 10.0.0.1 4711 443\r\n"), None),
            (line("PROXY TCP4 192.0.2.1 10.0.0.1 +4711 443\r\n"), None),
            (line("PROXY TCP4 192.0.2.1 10.0.0.1 4711 65536\r\n"), None),
            (line("PROXY TCP4 192.0.2.1 10.0.0.1 4711\r\n"), None),
            (line("PROXY TCP4 192.0.2.1 10.0.0.1 4711 443 1\r\n"), None),
            (line("PROXY TCP4  192.0.2.1 10.0.0.1 4711 443\r\n"), None),
            (line("PROXY TCP4 192.0.2.1 10.0.0.1 4711 443\n"), None),
            (line("GET / HTTP/1.1\r\n\r\n"), None),
            (line("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), None),
            (version_2(0x21, 0x11, &four[..11]), None),
            (version_2(0x21, 0x21, &six[..35]), None),
            (version_2(0x21, 0x12, &four), None),
            (version_2(0x22, 0x11, &four), None),
            (version_2(0x11, 0x11, &four), None),
            (version_2(0x20, 0x00, &[0; 4097]), None),
        ] {
            let mut stream = &[&head[..], b"next"].concat()[..];
            let found = read(&mut stream).await.ok();
            let shown = found.map(|ip| ip.map_or("-".to_owned(), |ip| ip.to_string()));
            assert_eq!(shown.as_deref(), expected, "{}", head.escape_ascii());
            assert!(expected.is_none() || stream == b"next", "{}", head.escape_ascii());
            // Cut anywhere, it is an error.
            for length in 0..head.len() {
                assert!(read(&mut &head[..length]).await.is_err(), "{}", head.escape_ascii());
            }
        }
    }
}
