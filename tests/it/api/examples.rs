//! The two worked examples of the documented API (docs/API.md), byte for byte, and its refusals.

use crate::harness::{
    DOCUMENTED_HEADERS, FOREIGN, OWN, Request, SUPPORT, UNKNOWN, USER, assert_documented_headers,
    assert_examples, on_both_databases,
};

#[tokio::test]
async fn the_two_worked_examples_answer_as_documented() {
    on_both_databases(async |service| assert_examples(&service).await).await;
}

#[tokio::test]
async fn header_names_are_spelled_as_documented() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    on_both_databases(async |service| {
        let mut stream = tokio::net::TcpStream::connect(service.http_addr()).await.unwrap();
        let request = "OPTIONS / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        // Two of the twelve differ in case, which HTTP says is the same name.
        for (name, value) in DOCUMENTED_HEADERS {
            let name = match name {
                "X-XSS-Protection" => "X-Xss-Protection",
                "Permissions-policy" => "Permissions-Policy",
                name => name,
            };
            assert!(answer.contains(&format!("\r\n{name}: {value}\r\n")), "{name} in {answer}");
        }
    })
    .await;
}

#[tokio::test]
async fn refusals_have_the_documented_text_and_all_headers() {
    on_both_databases(async |service| {
        let without_token = || service.put(OWN, "", "{}").without_header("authorization");
        let unknown_token = "0b7cf3d4-3c1f-4d0c-9d5c-7b1f7a0f9e55";
        let cases: [(&str, Request, u16, &str, &str); 12] = [
            ("not JSON", service.put(OWN, USER, "{"), 400, "Invalid input", "BODY_MALFORMED"),
            ("an array", service.put(OWN, USER, "[]"), 400, "Invalid input", "BODY_NOT_AN_OBJECT"),
            (
                "a number",
                service.put(OWN, USER, r#"{"name": 1}"#),
                400,
                "Invalid input",
                "INVALID_INPUT",
            ),
            (
                "blank",
                service.put(OWN, USER, r#"{"name": " "}"#),
                400,
                "Invalid input",
                "INVALID_INPUT",
            ),
            (
                "null",
                service.put(OWN, USER, r#"{"name": null}"#),
                400,
                "Invalid input",
                "INVALID_INPUT",
            ),
            (
                "no token",
                without_token(),
                401,
                "Invalid authentication token",
                "CREDENTIAL_MISSING",
            ),
            (
                "unknown token",
                service.put(OWN, unknown_token, "{}"),
                401,
                "Invalid authentication token",
                "CREDENTIAL_INVALID",
            ),
            (
                "foreign organization",
                service.put(FOREIGN, USER, "{}"),
                403,
                "Insufficient rights",
                "ORGANIZATION_FORBIDDEN",
            ),
            (
                "unknown organization",
                service.put(UNKNOWN, USER, "{}"),
                403,
                "Insufficient rights",
                "ORGANIZATION_FORBIDDEN",
            ),
            (
                "handshake as support",
                service.put(OWN, SUPPORT, r#"{"handshake": "x"}"#),
                403,
                "Insufficient rights",
                "FIELD_FORBIDDEN",
            ),
            (
                "unknown organization as support",
                service.put(UNKNOWN, SUPPORT, "{}"),
                404,
                "Not Found",
                "ORGANIZATION_NOT_FOUND",
            ),
            ("unknown route", service.request("GET", "/"), 404, "Not Found", "ROUTE_NOT_FOUND"),
        ];
        for (case, request, status, title, reason) in cases {
            let answer = request.send().await;
            assert_documented_headers(&answer);
            let problem = answer.json();
            assert_eq!(
                (answer.status(), problem["title"].as_str().unwrap(), answer.reason().as_str()),
                (status, title, reason),
                "{case}: {problem}"
            );
            assert_eq!(problem["status"], status);
            assert_eq!(problem["requestId"].as_str(), answer.header("x-request-id"));
            let challenge = (status == 401).then_some(match reason {
                "CREDENTIAL_MISSING" => "Bearer realm=\"organizations\"",
                _ => "Bearer realm=\"organizations\", error=\"invalid_token\"",
            });
            assert_eq!(answer.header("www-authenticate"), challenge, "{case}");
        }
        for id in [OWN, FOREIGN] {
            assert_eq!(service.database().organization(id).await.etag.version(), 1);
        }
    })
    .await;
}

#[tokio::test]
async fn a_foreign_and_an_unknown_organization_are_refused_with_the_same_bytes() {
    on_both_databases(async |service| {
        let mut texts = Vec::new();
        for id in [FOREIGN, UNKNOWN] {
            let request = service.put(id, USER, r#"{"name": ""}"#).header("x-request-id", "same");
            texts.push(request.send().await.text().replace(&id.to_string(), "ID"));
        }
        assert_eq!(texts[0], texts[1]);
    })
    .await;
}
