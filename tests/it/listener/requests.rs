//! The limits of one request: its deadline, its size, and what is checked before its body is there.

use std::{net::SocketAddr, time::Duration};

use orgd::proto::v1::{Organization, UpdateOrganizationRequest};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};
use tonic::Code;

use crate::harness::{
    OWN, PATIENCE, Service, USER, assert_documented_headers, authorized, on_both_databases,
    on_both_databases_with,
};

/// With these no request times out while its body is awaited.
const ENDLESS: [(&str, &str); 2] = [("ORGD_REQUEST_DEADLINE", "1h"), ("ORGD_STALL_TIMEOUT", "1h")];

/// Sends some bytes, then one more every 200 ms; answers once the server closes.
async fn closed_after(addr: SocketAddr, first: &[u8], drip: Option<&[u8]>) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(first).await.unwrap();
    let (mut read, mut write) = stream.into_split();
    let dripping = async {
        while let Some(byte) = drip {
            sleep(Duration::from_millis(200)).await;
            if write.write_all(byte).await.is_err() {
                break;
            }
        }
        std::future::pending::<()>().await;
    };
    let mut answer = Vec::new();
    tokio::select! {
        () = dripping => {}
        // A reset is an end as well.
        _ = timeout(PATIENCE, read.read_to_end(&mut answer)) => {}
    }
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn a_body_that_does_not_come_ends_with_the_deadline() {
    on_both_databases(async |service| {
        let head = format!(
            "PUT /v1/organizations/90 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {USER}\r\n\
             Content-Length: 2000\r\n\r\n"
        );
        let answer = closed_after(service.http_addr(), head.as_bytes(), Some(b" ")).await;
        assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
        assert!(answer.contains("DEADLINE_EXCEEDED"), "{answer}");
    })
    .await;
}

#[tokio::test]
async fn a_request_ends_with_its_deadline() {
    // Longer than what would be the default: no machine is too early.
    let deadline = Duration::from_secs(6);
    let settings = [("ORGD_REQUEST_DEADLINE", "6s"), ("ORGD_STALL_TIMEOUT", "1h")];
    let service = Service::over_sqlite(&settings).await;
    let begin = Instant::now();
    let mut stream = TcpStream::connect(service.http_addr()).await.unwrap();
    let head = format!(
        "PUT /v1/organizations/90 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {USER}\r\n\
         Content-Length: 20\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    timeout(PATIENCE, stream.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(&answer, b"HTTP/1.1 504");
    assert!(begin.elapsed() >= deadline, "{:?}", begin.elapsed());
}

#[tokio::test]
async fn authentication_does_not_wait_for_the_body() {
    on_both_databases_with(&ENDLESS, async |service| {
        let head = "PUT /v1/organizations/90 HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n";
        let mut stream = TcpStream::connect(service.http_addr()).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        timeout(PATIENCE, stream.read_exact(&mut answer)).await.unwrap().unwrap();
        assert_eq!(&answer, b"HTTP/1.1 401");
    })
    .await;
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_at_once_where_it_is_declared() {
    on_both_databases_with(&ENDLESS, async |service| {
        let head = format!(
            "PUT /v1/organizations/90 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {USER}\r\n\
             Content-Length: 3000000000\r\n\r\n"
        );
        let mut stream = TcpStream::connect(service.http_addr()).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        timeout(PATIENCE, stream.read_exact(&mut answer)).await.unwrap().unwrap();
        assert_eq!(&answer, b"HTTP/1.1 413");

        let answer = oversized(&service).await;
        assert_eq!((answer.status(), answer.reason().as_str()), (413, "BODY_TOO_LARGE"));
        assert_documented_headers(&answer);
    })
    .await;
}

#[tokio::test]
async fn sizes_over_the_limits_are_refused() {
    let service =
        Service::over_sqlite(&[("ORGD_BODY_BYTES_MAX", "1024"), ("ORGD_HEADER_BYTES_MAX", "8192")])
            .await;
    let long = "x".repeat(3000);
    let name = format!(r#"{{"name": "{long}"}}"#);
    let too_large = service.put(OWN, USER, &name).send().await;
    assert_eq!((too_large.status(), too_large.reason().as_str()), (413, "BODY_TOO_LARGE"));
    let organization = Organization { id: OWN, name: Some(long), ..Organization::default() };
    let message = UpdateOrganizationRequest {
        organization: Some(organization),
        ..UpdateOrganizationRequest::default()
    };
    let refused = service.grpc().update(authorized(USER, message)).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    let with_headers = service.put(OWN, USER, "{}").header("x-long", &"x".repeat(9000));
    assert_eq!(with_headers.send().await.status(), 431);
    service.assert_serves().await;
}

#[tokio::test]
async fn a_problem_stays_small_whatever_its_request_was() {
    on_both_databases(async |service| {
        for path in ["/a".repeat(3_000), format!("/{}", "\u{e4}".repeat(2_000))] {
            let head = format!("PUT {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            let answer = closed_after(service.http_addr(), head.as_bytes(), None).await;
            let body = answer.split("\r\n\r\n").nth(1).unwrap();
            assert!(answer.starts_with("HTTP/1.1 404") && body.len() < 4096, "{answer}");
        }
        let keys: String =
            (0..500).map(|key| format!("\"{}{key}\":1,", "\u{1f600}".repeat(40))).collect();
        let strict = service.put(OWN, USER, &format!("{{{keys}\"z\":1}}"));
        let refused = strict.header("prefer", "handling=strict").send().await;
        assert_eq!(refused.reason(), "BODY_TOO_LARGE");
        let keys: String =
            (0..300).map(|key| format!("\"{}{key}\":1,", "\u{1f600}".repeat(40))).collect();
        let strict = service.put(OWN, USER, &format!("{{{keys}\"z\":1}}"));
        let refused = strict.header("prefer", "handling=strict").send().await;
        assert_eq!(refused.reason(), "INVALID_INPUT");
        assert!(refused.text().len() <= 4096 && !refused.pointers().is_empty());
    })
    .await;
}

/// A body of unknown length that is too long.
async fn oversized(service: &Service) -> crate::harness::Answer {
    let chunks = (0..80).map(|_| Ok::<_, std::io::Error>(bytes::Bytes::from(vec![b' '; 1024])));
    let body = axum::body::Body::from_stream(futures_util::stream::iter(chunks));
    service.put(OWN, USER, "").body(body).send().await
}
