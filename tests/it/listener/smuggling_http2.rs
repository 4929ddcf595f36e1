//! The cases of `smuggling` over HTTP/2, where there is no head to end early: fields that must not be,
//! or that end a head once they are HTTP/1.

use std::{net::SocketAddr, time::Duration};

use futures_util::future::join_all;

use crate::harness::{ADMINISTRATOR, END_HEADERS, END_STREAM, RawHttp2, block, kind};

const BODY: &[u8] = br#"{"name": "Over HTTP/2"}"#;

type Field = (&'static str, &'static str);

/// The pseudo-header fields of a good request.
const GOOD: [Field; 4] = [
    (":method", "PUT"),
    (":scheme", "http"),
    (":path", "/v1/organizations/90"),
    (":authority", "x"),
];

/// Fields that come behind the good ones.
const MORE: [(&str, &[Field]); 22] = [
    ("connection", &[("connection", "close")]),
    ("keep-alive", &[("keep-alive", "timeout=5")]),
    ("proxy-connection", &[("proxy-connection", "keep-alive")]),
    ("transfer-encoding", &[("transfer-encoding", "chunked")]),
    ("upgrade", &[("upgrade", "h2c")]),
    ("te", &[("te", "chunked")]),
    ("CRLF in a value", &[("x-a", "a\r\nTransfer-Encoding: chunked")]),
    ("LF in a value", &[("x-a", "a\nb")]),
    ("CR in a value", &[("x-a", "a\rb")]),
    ("NUL in a value", &[("x-a", "a\0b")]),
    ("CRLF in a name", &[("x-a\r\nx-b", "a")]),
    ("colon in a name", &[("x-a: b", "a")]),
    ("blank in a name", &[("x a", "a")]),
    ("upper case in a name", &[("Content-Length", "5")]),
    ("an empty name", &[("", "a")]),
    ("a second :path", &[(":path", "/v1/organizations/94")]),
    ("a second :method", &[(":method", "GET")]),
    ("a pseudo-header behind another", &[("x-a", "a"), (":authority", "y")]),
    ("an unknown pseudo-header", &[(":x", "a")]),
    ("a length too small", &[("content-length", "5")]),
    ("a length too large", &[("content-length", "500")]),
    ("two lengths", &[("content-length", "23"), ("content-length", "5")]),
];

/// Pseudo-header fields in place of the good ones.
const OTHER: [(&str, &[Field]); 9] = [
    ("no :path", &[GOOD[0], GOOD[1], GOOD[3]]),
    ("no :method", &[GOOD[1], GOOD[2], GOOD[3]]),
    ("an empty :path", &[GOOD[0], GOOD[1], (":path", ""), GOOD[3]]),
    (
        "CRLF in :path",
        &[GOOD[0], GOOD[1], (":path", "/v1/organizations/90 HTTP/1.1\r\nX: y"), GOOD[3]],
    ),
    ("blank in :path", &[GOOD[0], GOOD[1], (":path", "/v1/organizations/90 x"), GOOD[3]]),
    ("CRLF in :method", &[(":method", "PUT / HTTP/1.1\r\nX: y"), GOOD[1], GOOD[2], GOOD[3]]),
    ("CRLF in :authority", &[GOOD[0], GOOD[1], GOOD[2], (":authority", "x\r\nX: y")]),
    ("user in :authority", &[GOOD[0], GOOD[1], GOOD[2], (":authority", "x y")]),
    ("Host that is another", &[GOOD[0], GOOD[1], GOOD[2], GOOD[3], ("host", "y")]),
];

/// What became of a request: its status, the reset of its stream, GOAWAY, or the end.
async fn outcome(addr: SocketAddr, fields: &[Field]) -> String {
    let authorization = format!("Bearer {ADMINISTRATOR}");
    let authorization = ("authorization", authorization.as_str());
    let mut client = RawHttp2::connect(addr).await;
    let block = block(&[fields, &[authorization]].concat());
    client.send(kind::HEADERS, END_HEADERS, 1, &block).await;
    client.send(kind::DATA, END_STREAM, 1, BODY).await;
    let reading = async {
        while let Some(frame) = client.next().await {
            match frame.kind {
                kind::RST_STREAM => return format!("reset {}", frame.error_code()),
                kind::GOAWAY => return format!("GOAWAY {}", frame.error_code()),
                // The status is the first field, of the static table or indexed by its name.
                kind::HEADERS => return status(&frame.payload),
                _ => {}
            }
        }
        "closed".to_owned()
    };
    let patience = Duration::from_secs(30);
    tokio::time::timeout(patience, reading).await.unwrap_or_else(|_| "nothing".to_owned())
}

/// The `:status` at the start of a header block (RFC 7541, appendix A: 8 to 14).
fn status(block: &[u8]) -> String {
    let of_table = ["200", "204", "206", "304", "400", "404", "500"];
    match block {
        [index @ 0x88..=0x8e, ..] => of_table[usize::from(index - 0x88)].to_owned(),
        [0x48, 3, digits @ ..] => String::from_utf8_lossy(&digits[..3]).into_owned(),
        // Huffman's code of three digits: the first has the class. 4 begins with 011010.
        [0x48, 0x82 | 0x83, first, ..] if first >> 2 == 0b01_1010 => "4xx".to_owned(),
        _ => format!("{:02x?}", &block[..4]),
    }
}

pub async fn over_http2(addr: SocketAddr) {
    let more = MORE.map(|(name, more)| (name, [&GOOD[..], more].concat()));
    let other = OTHER.map(|(name, other)| (name, other.to_vec()));
    let outcomes = more.into_iter().chain(other).map(async |(name, fields)| {
        let outcome = outcome(addr, &fields).await;
        eprintln!("over HTTP/2, {name}: {outcome}");
        let is_refused =
            ["reset", "GOAWAY", "closed", "4"].iter().any(|begin| outcome.starts_with(begin));
        (!is_refused).then(|| format!("{name}: {outcome}"))
    });
    let wrong: Vec<_> = join_all(outcomes).await.into_iter().flatten().collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}
