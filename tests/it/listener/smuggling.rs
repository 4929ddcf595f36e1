//! Requests that a proxy in front may read differently from the service: each is refused or read in one way, and what
//! it hides never becomes a request.

use std::net::SocketAddr;

use futures_util::future::join_all;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::smuggling_http2::over_http2;
use crate::harness::{ADMINISTRATOR, OWN, PATIENCE, Service, on_both_databases};

/// The answers to a case, and whether its connection is used on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// 400, and no more.
    Refused,
    /// Read as RFC 9112 says, once, and no more.
    Once,
    /// Read as RFC 9112 says; what comes behind it is refused.
    OnceThenRefused,
}

/// A request that would change the organization, were it one.
fn smuggled(name: &str) -> String {
    let body = format!(r#"{{"name": "{name}"}}"#);
    format!(
        "PUT /v1/organizations/{OWN} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ADMINISTRATOR}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Cases over HTTP/1: the lines of the head after the first three, the body, and what is expected. `{}`
/// stands for the smuggled request.
const CASES: [(&str, &str, &str, Read); 39] = {
    use Read::{Once, OnceThenRefused, Refused};
    [
        ("CL TE", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n{}", Once),
        ("TE CL", "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "0\r\n\r\n{}", Once),
        ("TE CL of 0", "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n", "0\r\n\r\n{}", Once),
        ("two CLs", "Content-Length: 0\r\nContent-Length: 500\r\n", "{}", Refused),
        ("a list of CLs", "Content-Length: 0, 500\r\n", "{}", Refused),
        ("a list of one CL", "Content-Length: 0, 0\r\n", "{}", Refused),
        ("CL below zero", "Content-Length: -1\r\n", "{}", Refused),
        ("CL with a sign", "Content-Length: +0\r\n", "{}", Refused),
        ("CL in hexadecimal", "Content-Length: 0x0\r\n", "{}", Refused),
        ("CL too large", "Content-Length: 99999999999999999999\r\n", "{}", Refused),
        ("CL empty", "Content-Length: \r\n", "{}", Refused),
        (
            "TE twice",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "0\r\n\r\n{}",
            Refused,
        ),
        ("TE not last", "Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n{}", Refused),
        ("TE behind another", "Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n{}", Refused),
        ("TE unknown", "Transfer-Encoding: xchunked\r\n", "0\r\n\r\n{}", Refused),
        ("TE identity, CL", "Transfer-Encoding: identity\r\nContent-Length: 0\r\n", "{}", Refused),
        ("TE quoted", "Transfer-Encoding: \"chunked\"\r\n", "0\r\n\r\n{}", Refused),
        ("TE with vertical tab", "Transfer-Encoding: \x0bchunked\r\n", "0\r\n\r\n{}", Refused),
        ("blank before the colon", "Transfer-Encoding : chunked\r\n", "0\r\n\r\n{}", Refused),
        ("tab before the colon", "Transfer-Encoding\t: chunked\r\n", "0\r\n\r\n{}", Refused),
        ("folded", "X-A: a\r\n Content-Length: 500\r\n", "{}", Refused),
        ("folded TE", "Transfer-Encoding:\r\n chunked\r\n", "0\r\n\r\n{}", Refused),
        ("NUL in a value", "X-A: a\0b\r\n", "{}", Refused),
        ("NUL in a name", "X\0A: a\r\n", "{}", Refused),
        ("bare CR", "X-A: a\rTransfer-Encoding: chunked\r\n", "0\r\n\r\n{}", Refused),
        ("bare LF", "X-A: a\nX-B: b\r\n", "{}", Refused),
        ("bare LFs, and a head's end", "X-A: a\n\n{}X-B: b\r\n", "", Refused),
        ("a line without a colon", "Transfer-Encoding chunked\r\n", "0\r\n\r\n{}", Refused),
        ("Host twice", "Host: y\r\nContent-Length: 500\r\n", "{}", Refused),
        ("chunk too large", "Transfer-Encoding: chunked\r\n", "fffffffffffffffff\r\n{}", Refused),
        ("chunk below zero", "Transfer-Encoding: chunked\r\n", "-1\r\n{}", Refused),
        ("chunk with 0x", "Transfer-Encoding: chunked\r\n", "0x2\r\n{}\r\n0\r\n\r\n", Refused),
        ("chunk without its end", "Transfer-Encoding: chunked\r\n", "1\r\n {}0\r\n\r\n", Refused),
        (
            "behind the last chunk",
            "Transfer-Encoding: chunked\r\n",
            "0\r\n\r\nX\r\n{}",
            OnceThenRefused,
        ),
        // A head that begins in the middle of what is read.
        (
            "bare LF in the next head",
            "",
            "GET / HTTP/1.1\r\nHost: x\r\nX-A: a\nX-B: b\r\n\r\n{}",
            OnceThenRefused,
        ),
        ("bare LF before the next head", "Content-Length: 3\r\n", "\n\n\n\n{}", OnceThenRefused),
        (
            "bare LF that hides a length, behind a body",
            "Content-Length: 2\r\n",
            "[]GET / HTTP/1.1\r\nHost: x\r\nX-A: a\nContent-Length: 500\r\n\r\n{}",
            OnceThenRefused,
        ),
        (
            "bare LF behind chunks",
            "Transfer-Encoding: chunked\r\n",
            "2\r\n\n\n\r\n0\r\n\r\nGET / HTTP/1.1\nHost: x\r\n\r\n{}",
            OnceThenRefused,
        ),
        (
            "bare LF in a trailer",
            "Transfer-Encoding: chunked\r\n",
            "0\r\nX-A: a\nX-B: b\r\n\r\n{}",
            Refused,
        ),
    ]
};

/// The same with another first line, and other lines after it.
const HEADS: [(&str, &str, Read); 8] = {
    use Read::{Once, Refused};
    [
        (
            "no Host",
            "PUT /v1/organizations/90?validateOnly=true HTTP/1.1\r\nContent-Length: 0\r\n",
            Refused,
        ),
        (
            "absolute form",
            "PUT http://y/v1/organizations/90 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n",
            Once,
        ),
        (
            "blank in the target",
            "PUT /v1/organizations/90 HTTP/1.1 HTTP/1.1\r\nHost: x\r\n",
            Refused,
        ),
        ("HTTP/0.9", "GET /v1/organizations/90\r\n", Refused),
        (
            "HTTP/1.0 with TE",
            "PUT /v1/organizations/90 HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n",
            Refused,
        ),
        ("HTTP/1.2", "PUT /v1/organizations/90 HTTP/1.2\r\nHost: x\r\n", Refused),
        ("HTTP/2.0", "PUT /v1/organizations/90 HTTP/2.0\r\nHost: x\r\n", Refused),
        (
            "CONNECT",
            "CONNECT /v1/organizations/90 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n",
            Once,
        ),
    ]
};

/// Sends bytes; the answers' statuses, and all of them as text, once the server closes.
async fn statuses(addr: SocketAddr, name: &str, bytes: &str) -> (Vec<u16>, String) {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    let mut answers = Vec::new();
    // A reset is an end as well.
    let reading = timeout(PATIENCE, stream.read_to_end(&mut answers)).await;
    assert!(reading.is_ok(), "{name}: the connection stays open");
    let text = String::from_utf8_lossy(&answers).into_owned();
    // No body of an answer has this text.
    let status = |line: &str| line.get(..3)?.parse().ok();
    (text.split("HTTP/1.1 ").filter_map(status).collect(), text)
}

async fn over_http1(addr: SocketAddr) {
    let head = format!(
        "PUT /v1/organizations/{OWN}?validateOnly=true HTTP/1.1\r\nHost: x\r\n\
         Authorization: Bearer {ADMINISTRATOR}\r\n"
    );
    let cases =
        CASES.map(|(name, lines, body, read)| (name, format!("{head}{lines}\r\n{body}"), read));
    let heads = HEADS.map(|(name, lines, read)| (name, format!("{lines}\r\n{{}}"), read));
    let results = cases.into_iter().chain(heads).map(async |(name, bytes, read)| {
        // The smuggled request tells by its name what let it in.
        let bytes = bytes.replace("{}", &smuggled(name));
        let (statuses, text) = statuses(addr, name, &bytes).await;
        let is_refusal = |status: &u16| matches!(status, 400..=499 | 501 | 505);
        let is_good = match (read, statuses.as_slice()) {
            // Closed without an answer is a refusal too.
            (Read::Refused, []) | (Read::Once, [_]) => true,
            (Read::Refused, [only]) => is_refusal(only),
            (Read::OnceThenRefused, [_, last]) => is_refusal(last),
            _ => false,
        };
        let headers = text.matches("X-Content-Type-Options").count();
        eprintln!("{name}: {statuses:?}, {headers} with our headers");
        (!is_good).then(|| format!("{name}: {statuses:?}, not {read:?}"))
    });
    let wrong: Vec<_> = join_all(results).await.into_iter().flatten().collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The name and the version of the organization.
async fn stored(service: &Service) -> (String, i64) {
    let organization = service.database().organization(OWN).await;
    (service.database().name(OWN).await, organization.etag.version())
}

async fn nothing_is_smuggled(through: &Service, service: &Service) {
    let before = stored(service).await;
    over_http1(through.http_addr()).await;
    assert_eq!(stored(service).await, before);
    over_http2(through.http_addr()).await;
    assert_eq!(stored(service).await, before);
    // A case whose smuggled request is sent alone does change it.
    let (statuses, _) = statuses(
        through.http_addr(),
        "alone",
        &smuggled("alone").replace("Host: x", "Host: x\r\nConnection: close"),
    )
    .await;
    assert_eq!(statuses, [200]);
    assert_eq!(stored(service).await.0, "alone");
}

#[tokio::test]
async fn no_request_is_smuggled_through_the_rest_api() {
    on_both_databases(async |service| nothing_is_smuggled(&service, &service).await).await;
}

#[tokio::test]
async fn no_request_is_smuggled_through_a_gateway() {
    on_both_databases(async |service| {
        let gateway = Service::start_gateway(&service).await;
        nothing_is_smuggled(&gateway, &service).await;
    })
    .await;
}
