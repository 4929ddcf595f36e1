//! Connections of HTTP/1.1 that are kept alive: none is closed between two requests without `Connection: close`, and
//! a head behind a request has no more time than any other head.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::sleep;

use crate::harness::{OPTIONS, RawHttp1, Service, USER, on_both_databases, on_both_databases_with};

fn is_last(answer: &str) -> bool {
    answer.lines().any(|line| line.eq_ignore_ascii_case("connection: close"))
}

#[tokio::test]
async fn a_kept_connection_outlives_a_pause_of_more_than_thirty_seconds() {
    let service = Service::over_sqlite(&[]).await;
    let gateway = Service::start_gateway(&service).await;
    let listeners = [
        (service.http_addr(), "HTTP/1.1 204 "),
        (service.ops_addr(), "HTTP/1.1 "),
        (gateway.http_addr(), "HTTP/1.1 204 "),
    ];
    // An empty line behind a request does not start another one (RFC 9112 §2.2).
    let firsts = [OPTIONS.to_owned(), format!("{OPTIONS}\r\n")];
    let pauses =
        listeners.into_iter().flat_map(|listener| firsts.clone().map(|first| (listener, first)));
    join_all(pauses.map(async |((addr, expected), first)| {
        let mut kept = RawHttp1::connect(addr).await;
        assert!(kept.ask(&first).await.starts_with(expected));
        sleep(Duration::from_secs(32)).await;
        let answer = kept.ask(OPTIONS).await;
        assert!(answer.starts_with(expected), "{addr}, {first:?}: {answer:?}");
    }))
    .await;
}

#[tokio::test]
async fn no_connection_ends_between_two_requests_without_connection_close() {
    on_both_databases(async |service| {
        let gateway = Service::start_gateway(&service).await;
        let put = "PUT /v1/organizations/90 HTTP/1.1\r\nHost: x\r\n";
        let user = format!("{put}Authorization: Bearer {USER}\r\n");
        let small = "Content-Length: 2\r\n\r\n{}";
        let large = format!("Content-Length: 9000\r\n\r\n{{}}{}", " ".repeat(8998));
        let missing = "Content-Length: 2\r\n\r\n";
        let chunked = "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n";
        let type_of = "Content-Type: text/plain\r\n";
        // Whether the connection is used on, where it is known.
        let (kept, ended, either) = (Some(true), Some(false), None);
        #[rustfmt::skip]
        let cases = [
            ("200", format!("{user}{small}"), 200, kept),
            ("200 of chunks", format!("{user}{chunked}"), 200, kept),
            ("200 of a large body", format!("{user}{large}"), 200, kept),
            ("401", format!("{put}{small}"), 401, kept),
            ("401, the body missing", format!("{put}{missing}"), 401, ended),
            ("401 of a large body", format!("{put}{large}"), 401, either),
            ("401 of chunks", format!("{put}{chunked}"), 401, either),
            ("404", format!("POST / HTTP/1.1\r\nHost: x\r\n{small}"), 404, kept),
            ("404, the body missing", format!("POST / HTTP/1.1\r\nHost: x\r\n{missing}"), 404, ended),
            ("404 of a large body", format!("POST / HTTP/1.1\r\nHost: x\r\n{large}"), 404, either),
            ("405", format!("DELETE /v1/organizations/90 HTTP/1.1\r\nHost: x\r\n{small}"), 405, kept),
            ("405 of chunks", format!("DELETE /v1/organizations/90 HTTP/1.1\r\nHost: x\r\n{chunked}"), 405, either),
            ("413 as declared", format!("{user}Content-Length: 70000\r\n\r\n"), 413, ended),
            ("413 of chunks", format!("{user}Transfer-Encoding: chunked\r\n\r\n20000\r\n{}", " ".repeat(70_000)), 413, ended),
            ("415", format!("{user}{type_of}{small}"), 415, kept),
            ("415, the body missing", format!("{user}{type_of}{missing}"), 415, ended),
            ("400 of a header", format!("{user}Grpc-Timeout: x\r\n{small}"), 400, kept),
            ("400 of a header, the body missing", format!("{user}Grpc-Timeout: x\r\n{missing}"), 400, ended),
            ("400 without a host", format!("PUT / HTTP/1.1\r\n{small}"), 400, ended),
            ("HTTP/1.0", "GET / HTTP/1.0\r\n\r\n".to_owned(), 404, ended),
            ("the client's word", "OPTIONS / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".to_owned(), 204, ended),
        ];
        for addr in [service.http_addr(), gateway.http_addr()] {
            for (name, bytes, status, is_kept) in &cases {
                let mut connection = RawHttp1::connect(addr).await;
                let answer = connection.ask(bytes).await;
                assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")) || answer.starts_with(&format!("HTTP/1.0 {status} ")), "{name}: {answer}");
                // HTTP/1.0 has no other word for it than its version.
                let is_told = is_last(&answer) || answer.starts_with("HTTP/1.0 ");
                assert!(is_kept.is_none_or(|is_kept| is_kept != is_told), "{name}: {answer}");
                let next = connection.ask(OPTIONS).await;
                assert_eq!(next.is_empty(), is_told, "{name}: {answer}\n{next}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn an_old_connection_that_is_idle_is_told_before_it_ends() {
    let settings = [("ORGD_CONNECTION_AGE_MAX", "1s"), ("ORGD_CONNECTION_AGE_GRACE", "300ms")];
    on_both_databases_with(&settings, async |service| {
        let mut kept = RawHttp1::connect(service.http_addr()).await;
        assert!(!is_last(&kept.ask(OPTIONS).await));
        // Its age and many a grace.
        sleep(Duration::from_secs(3)).await;
        assert!(is_last(&kept.ask(OPTIONS).await));
        assert_eq!(kept.answer().await, "");
    })
    .await;
}

#[tokio::test]
async fn an_incomplete_head_behind_a_request_gets_no_extra_time() {
    on_both_databases_with(&[("ORGD_HEADER_READ_TIMEOUT", "1s")], async |service| {
        for half in
            ["O", "OPTIONS / HTTP/1.1\r\nHost: x\r\n", "OPTIONS / HTTP/1.1\r\nHost: x\r\nX: y\n"]
        {
            for pause in [0, 300] {
                let mut kept = RawHttp1::connect(service.http_addr()).await;
                kept.send(OPTIONS).await;
                sleep(Duration::from_millis(pause)).await;
                // In one packet with a request before it, and behind one.
                kept.send(&format!("{OPTIONS}{half}")).await;
                for _ in 0..2 {
                    assert!(kept.answer().await.starts_with("HTTP/1.1 204 "));
                }
                let end = kept.answer().await;
                assert!(end.is_empty() || end.starts_with("HTTP/1.1 400 "), "{half:?}: {end}");
            }
        }
    })
    .await;
}
