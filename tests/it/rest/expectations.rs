//! `Expect: 100-continue` (RFC 9110 §10.1.1): a body is asked for once its caller is known, and not at all
//! where the request is refused without it.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::sleep;

use orgd::domain::Field;

use crate::harness::{
    ADMINISTRATOR, RawHttp1, Service, USER, on_both_databases, on_both_databases_with,
};

const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";

#[tokio::test]
async fn a_refusal_comes_in_place_of_the_100() {
    on_both_databases(async |service| {
        let gateway = Service::start_gateway(&service).await;
        let bearer = |token: &str| format!("Authorization: Bearer {token}\r\n");
        let (good, unknown) =
            (bearer(ADMINISTRATOR), bearer("e486a154-3cbe-46b8-87a1-0d46a15c54c9"));
        let put = "PUT /v1/organizations/90";
        #[rustfmt::skip]
        let cases = [
            (put, String::new(), 401),
            (put, unknown.clone(), 401),
            (put, "Authorization: Basic eDp5\r\n".to_owned(), 401),
            (put, format!("{good}{good}"), 400),
            ("POST /v1/organizations", String::new(), 401),
            ("POST /v1/organizations", unknown, 401),
            ("POST /v1/organization", good.clone(), 404),
            ("DELETE /v1/organizations/90", good.clone(), 405),
            ("GET /v1/organizations/90", String::new(), 401),
            ("PUT /v1/organizations/090", good.clone(), 400),
            (put, format!("{good}Content-Type: text/plain\r\n"), 415),
            (put, format!("{good}Content-Encoding: gzip\r\n"), 415),
            (put, format!("{good}Grpc-Timeout: x\r\n"), 400),
            (put, format!("{good}Host: y\r\n"), 400),
        ];
        for addr in [service.http_addr(), gateway.http_addr()] {
            let asking = async |target: &str, lines: &str, length: &str| {
                let mut kept = RawHttp1::connect(addr).await;
                let head = format!(
                    "{target} HTTP/1.1\r\nHost: x\r\nExpect: 100-Continue\r\n{lines}{length}\r\n"
                );
                (kept.ask(&head).await, kept)
            };
            for (target, lines, status) in &cases {
                for length in ["Content-Length: 2\r\n", "Transfer-Encoding: chunked\r\n"] {
                    let (answer, mut kept) = asking(target, lines, length).await;
                    assert!(
                        answer.starts_with(&format!("HTTP/1.1 {status} ")),
                        "{target}, {lines}: {answer}"
                    );
                    // The body may come or not, so the start of the next request is not known.
                    assert!(
                        answer.contains("\r\nConnection: close\r\n"),
                        "{target}, {lines}: {answer}"
                    );
                    assert_eq!(kept.answer().await, "", "{target}, {lines}");
                }
            }
            let (answer, _) = asking(put, &good, "Content-Length: 70000\r\n").await;
            assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
        }
    })
    .await;
}

/// A principal's own limit is told after the body, as only the call that counts can tell it.
#[tokio::test]
async fn a_source_over_its_limit_is_told_in_place_of_the_100() {
    // As many as there may be are taken first, faster than they come back on any machine.
    on_both_databases_with(&[("ORGD_RATE_LIMIT_SOURCE", "1")], async |service| {
        let gateway = Service::start_gateway(&service).await;
        for addr in [service.http_addr(), gateway.http_addr()] {
            let head = "PUT /v1/organizations/90 HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n\
                Content-Length: 2\r\n\r\n";
            let ask = || async { RawHttp1::connect(addr).await.ask(head).await };
            let answers = join_all((0..20).map(|_| ask())).await;
            assert!(answers.iter().all(|answer| !answer.starts_with(CONTINUE)), "{answers:?}");
            let limited = answers.iter().filter(|answer| answer.starts_with("HTTP/1.1 429 "));
            assert!(limited.count() > 0, "{answers:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_good_caller_is_asked_for_the_body_and_answered() {
    on_both_databases(async |service| {
        let gateway = Service::start_gateway(&service).await;
        for addr in [service.http_addr(), gateway.http_addr()] {
            let head = format!(
                "PUT /v1/organizations/90 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {USER}\r\n"
            );
            let mut kept = RawHttp1::connect(addr).await;
            for round in 0..2 {
                let body = format!(r#"{{"name": "PendingUpdate for {round}"}}"#);
                let expecting =
                    format!("{head}Expect: 100-continue\r\nContent-Length: {}\r\n\r\n", body.len());
                assert_eq!(kept.ask(&expecting).await, CONTINUE);
                sleep(Duration::from_millis(100)).await;
                let answer = kept.ask(&body).await;
                assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
                assert!(!answer.contains("\r\nConnection: close\r\n"), "{answer}");
                let stored = service.database().organization(90).await;
                assert_eq!(
                    stored.value(Field::Name),
                    Some(format!("PendingUpdate for {round}").as_str())
                );
            }
            // Only a client that sends `Expect` waits for the 100.
            let answer = kept.ask(&format!("{head}Content-Length: 2\r\n\r\n{{}}")).await;
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        }
    })
    .await;
}
