//! The accept loop: what a slow, silent or greedy client gets, and what an honest one keeps.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use crate::{
    examples::assert_documented_headers,
    harness::{OWN, Service, USER, on_both_databases, on_both_databases_with},
};

/// More than any limit that these tests cross, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(30);

/// With these nobody who waits for a body is answered before it comes.
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
async fn slow_clients_are_closed() {
    on_both_databases(async |service| {
        let (grpc, http, ops) = (service.grpc_addr(), service.http_addr(), service.ops_addr());
        let head = b"PUT /v1/organizations/90 HTTP/1.1\r\nHost: x\r\n";
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
        let started = Instant::now();
        tokio::join!(
            closed_after(grpc, b"", None),
            closed_after(http, b"", None),
            closed_after(ops, b"", None),
            closed_after(http, b"P", Some(b"U")),
            closed_after(http, head, Some(b"A")),
            closed_after(http, head, Some(b"A: b\r\n")),
            closed_after(grpc, b"PRI * HT", None),
            closed_after(grpc, preface, None),
            closed_after(http, preface, None),
        );
        // Not a figure of speed: all of them had been given up long before the limit of idleness.
        assert!(started.elapsed() < PATIENCE, "{:?}", started.elapsed());
    })
    .await;
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
async fn a_kept_alive_connection_outlives_the_header_timeout() {
    on_both_databases(async |service| {
        let mut stream = TcpStream::connect(service.http_addr()).await.unwrap();
        for _ in 0..2 {
            stream.write_all(b"OPTIONS / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
            let mut answer = [0; 12];
            timeout(PATIENCE, stream.read_exact(&mut answer)).await.unwrap().unwrap();
            assert_eq!(&answer, b"HTTP/1.1 204");
            // The rest of the answer, and the idle time.
            let mut rest = [0; 4096];
            let _ = timeout(Duration::from_secs(1), stream.read(&mut rest)).await;
            sleep(Duration::from_secs(6)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn http2_limits_are_announced() {
    on_both_databases(async |service| {
        for addr in [service.grpc_addr(), service.http_addr()] {
            let mut stream = TcpStream::connect(addr).await.unwrap();
            stream
                .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
                .await
                .unwrap();
            let mut head = [0; 9];
            timeout(PATIENCE, stream.read_exact(&mut head)).await.unwrap().unwrap();
            assert_eq!(head[3], 4, "the first frame is SETTINGS");
            let mut settings = vec![0; usize::from(head[2])];
            timeout(PATIENCE, stream.read_exact(&mut settings)).await.unwrap().unwrap();
            let setting = |id: u16| {
                let found = settings.chunks(6).find(|entry| entry[..2] == id.to_be_bytes());
                found.map(|entry| u32::from_be_bytes(entry[2..].try_into().unwrap()))
            };
            assert_eq!(setting(3), Some(100), "SETTINGS_MAX_CONCURRENT_STREAMS");
            assert_eq!(setting(6), Some(16 * 1024), "SETTINGS_MAX_HEADER_LIST_SIZE");
        }
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
