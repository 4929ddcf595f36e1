//! Which host a request is for: the Host header, `:authority`, and what becomes of two that differ.

use std::net::SocketAddr;

use crate::harness::{
    ADMINISTRATOR, END_HEADERS, END_STREAM, RawHttp1, RawHttp2, Service, block, kind,
    on_both_databases,
};

/// `:authority`, or the authority of a target in absolute form; the Host lines; and the status over HTTP/2
/// and over HTTP/1.1.
const CASES: &[(Option<&str>, &[&str], u16, u16)] = &[
    (Some("x"), &[], 200, 400),
    (None, &["x"], 200, 200),
    (None, &["x:8080"], 200, 200),
    (None, &["[::1]:8080"], 200, 200),
    (None, &[], 400, 400),
    (Some("x"), &["x"], 200, 200),
    (Some("x"), &["X"], 200, 200),
    (Some("X.example:80"), &["x.EXAMPLE"], 200, 200),
    (Some("x"), &["x:80"], 200, 200),
    (Some("[FE80::1]:80"), &["[fe80::1]"], 200, 200),
    (Some("x"), &["y"], 400, 400),
    (Some("x"), &["x:443"], 400, 400),
    (Some("x:8080"), &["x"], 400, 400),
    (Some("[::1]"), &["[::2]"], 400, 400),
    (Some("x"), &["x."], 400, 400),
    (Some("x"), &["u@x"], 400, 400),
    (Some("x"), &[""], 400, 400),
    (Some("x"), &["x", "x"], 400, 400),
    (Some("x"), &["x", "y"], 400, 400),
    (None, &["x", "x"], 400, 400),
    (None, &["x", "y"], 400, 400),
    (None, &["x y"], 400, 400),
    (None, &["x, y"], 400, 400),
    (None, &["x/y"], 400, 400),
    (None, &["u@x"], 400, 400),
    (None, &["::1"], 400, 400),
    (None, &["x:80a"], 400, 400),
    // A proxy of HTTP/1.1 may say that there is none; in HTTP/2 nothing says so.
    (None, &[""], 400, 200),
];

async fn over_http2(addr: SocketAddr, authority: Option<&str>, hosts: &[&str]) -> u16 {
    let authorization = format!("Bearer {ADMINISTRATOR}");
    let mut fields =
        vec![(":method", "GET"), (":scheme", "http"), (":path", "/v1/organizations/90")];
    fields.extend(authority.map(|authority| (":authority", authority)));
    fields.extend(hosts.iter().map(|host| ("host", *host)));
    fields.push(("authorization", &authorization));
    let mut client = RawHttp2::connect(addr).await;
    client.send(kind::HEADERS, END_HEADERS | END_STREAM, 1, &block(&fields)).await;
    while let Some(frame) = client.next().await {
        // The status is the first field, of the static table (RFC 7541, appendix A).
        match (frame.kind, frame.payload.first()) {
            (kind::HEADERS, Some(0x88)) => return 200,
            (kind::HEADERS, Some(0x8c)) => return 400,
            (kind::HEADERS | kind::RST_STREAM | kind::GOAWAY, _) => panic!("{frame:?}"),
            _ => {}
        }
    }
    panic!("the connection ended");
}

async fn over_http1(addr: SocketAddr, authority: Option<&str>, hosts: &[&str]) -> u16 {
    let origin = authority.map(|authority| format!("http://{authority}")).unwrap_or_default();
    let lines: String = hosts.iter().map(|host| format!("Host: {host}\r\n")).collect();
    let request = format!(
        "GET {origin}/v1/organizations/90 HTTP/1.1\r\n{lines}Authorization: Bearer \
         {ADMINISTRATOR}\r\n\r\n"
    );
    let answer = RawHttp1::connect(addr).await.ask(&request).await;
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("an answer")
}

#[tokio::test]
async fn a_request_names_one_host_in_any_spelling() {
    on_both_databases(async |service| {
        let gateway = Service::start_gateway(&service).await;
        for addr in [service.http_addr(), gateway.http_addr()] {
            for (authority, hosts, http2, http1) in CASES {
                let statuses = (
                    over_http2(addr, *authority, hosts).await,
                    over_http1(addr, *authority, hosts).await,
                );
                assert_eq!(statuses, (*http2, *http1), "{authority:?} and {hosts:?}");
            }
        }
    })
    .await;
}
