//! Every kind of refusal, whole: status, all headers and body of REST, the status of gRPC; and
//! docs/ERRORS.md held to them.

use std::collections::{BTreeMap, BTreeSet};

use expect_test::expect_file;
use orgd::gateway::{self};
use serde_json::Value;

use crate::harness::{
    ADMINISTRATOR, Answer, Database, FOREIGN, OWN, Request, SUPPORT, Service, UNCOUNTED, UNKNOWN,
    USER, assert_documented_headers, gateway_before, on_both_databases, on_both_databases_with,
    python,
};

const KEY: &str = "0d8c5d1e-0d0b-4c9e-8f6e-2f5a9c1b7e44";

fn rest_refusals(service: &Service) -> Vec<(&'static str, Request)> {
    let put = |token: &str, body: &str| service.put(OWN, token, body);
    let anonymous = || put("", "{}").without_header("authorization");
    let at = |path: &str| service.request("PUT", path).bearer(USER).body("{}");
    let post = |token: &str, body: &str| {
        let request = service.request("POST", "/v1/organizations").body(body.to_owned());
        request.bearer(token)
    };
    let keyed = |body: &str| put(SUPPORT, body).header("idempotency-key", KEY);
    let chunks = (0..80).map(|_| Ok::<_, std::io::Error>(bytes::Bytes::from(vec![b' '; 1024])));
    let endless = axum::body::Body::from_stream(futures_util::stream::iter(chunks));
    vec![
        ("CREDENTIAL_MISSING", anonymous()),
        ("CREDENTIAL_INVALID", anonymous().header("authorization", "Bearer x")),
        ("ORGANIZATION_FORBIDDEN", service.put(FOREIGN, USER, "{}")),
        ("FIELD_FORBIDDEN", put(USER, r#"{"subscriptionId":"x","handshake":"y"}"#)),
        ("CREATION_FORBIDDEN", post(SUPPORT, r#"{"name":"N"}"#)),
        ("INVALID_INPUT", put(USER, r#"{"name":"\u0000"}"#)),
        ("INVALID_INPUT", put(USER, r#"{"id":1,"name":2,"subscriptionId":{}}"#)),
        ("ORGANIZATION_NOT_FOUND", service.put(UNKNOWN, SUPPORT, "{}")),
        ("ETAG_MISMATCH", put(USER, r#"{"name":"N"}"#).header("if-match", "\"7\"")),
        ("ETAG_WEAK", put(USER, r#"{"name":"N"}"#).header("if-match", "W/\"1\"")),
        ("ETAG_MALFORMED", put(USER, r#"{"name":"N"}"#).header("if-match", "1")),
        ("ETAG_EXCLUDED", put(USER, r#"{"name":"N"}"#).header("if-none-match", "*")),
        ("", keyed(r#"{"name":"Keyed"}"#)),
        ("IDEMPOTENCY_KEY_REUSED", keyed(r#"{"name":"Other"}"#)),
        ("DEADLINE_MALFORMED", put(USER, "{}").header("grpc-timeout", "soon")),
        ("ROUTE_NOT_FOUND", at("/v1/organization/90")),
        ("METHOD_NOT_ALLOWED", service.request("DELETE", "/v1/organizations/90")),
        ("ID_MALFORMED", at("/v1/organizations/0090")),
        ("MEDIA_TYPE_UNSUPPORTED", put(USER, "{}").header("content-type", "text/plain")),
        ("MEDIA_TYPE_UNSUPPORTED", put(USER, "{}").header("content-encoding", "br")),
        ("CONTENT_RANGE_UNSUPPORTED", put(USER, "{}").header("content-range", "bytes 0-1/2")),
        ("BODY_TOO_LARGE", put(USER, "").body(endless)),
        ("BODY_NOT_AN_OBJECT", put(USER, "[]")),
        ("BODY_MALFORMED", put(USER, "{\n  name: 1}")),
        ("KEY_REPEATED", put(USER, r#"{"a":1,"a":2}"#)),
        ("HEADER_REPEATED", keyed("{}").header("idempotency-key", KEY)),
        ("HOST_MISSING", put(USER, "{}").without_header("host")),
        (
            "TRANSFER_CODING_UNSUPPORTED",
            put(USER, "{}").header("transfer-encoding", "gzip, chunked"),
        ),
        ("PARAMETER_INVALID", at("/v1/organizations/90?validateOnly=1")),
        (
            "EVENT_ID_MALFORMED",
            service
                .request("GET", "/v1/organizations/90/events")
                .bearer(USER)
                .header("last-event-id", "x"),
        ),
    ]
}

#[tokio::test]
async fn refusals_match_their_snapshots() {
    on_both_databases_with(&[UNCOUNTED], async |service| {
        let mut recorded = String::new();
        for (reason, request) in rest_refusals(&service) {
            let answer = request.header("x-request-id", "snapshot").send().await;
            assert_eq!(answer.reason(), reason, "{}", answer.text());
            if !reason.is_empty() {
                recorded += &format!("=== {reason}\n{}\n\n", whole(&answer));
            }
        }
        expect_file!["../snapshots/refusals-rest.txt"].assert_eq(&recorded);

        let mut recorded = String::new();
        for (reason, token, message) in GRPC_REFUSALS {
            let answer = python("Update", service.grpc_addr(), token, message);
            if !reason.is_empty() {
                assert_eq!(answer["reason"], *reason, "{answer}");
                recorded += &format!("=== {reason}\n{answer:#}\n\n");
            }
        }
        expect_file!["../snapshots/refusals-grpc.txt"].assert_eq(&recorded);
    })
    .await;
}

/// The refusals of a service in trouble: a row that is held, a gateway without its service, a table
/// that is gone.
#[tokio::test]
async fn refusals_during_faults_match_their_snapshots() {
    on_both_databases_with(&[("ORGD_REQUEST_DEADLINE", "60s"), UNCOUNTED], async |service| {
        let mut recorded = String::new();
        let mut record = |reason: &str, answer: &Answer| {
            assert_eq!(answer.reason(), reason, "{}", answer.text());
            let (code, status) = &documented()[reason];
            assert_eq!(&answer.status().to_string(), status, "{reason}");
            assert!(code == "-" || answer.json()["code"] == *code, "{reason}");
            recorded += &format!("=== {reason}\n{}\n\n", whole(answer));
        };
        let put =
            |to: &Service| to.put(OWN, USER, r#"{"name":"N"}"#).header("x-request-id", "snapshot");
        let holder = service.database().hold().await;
        let late = put(&service).header("grpc-timeout", "300m").send().await;
        record("DEADLINE_EXCEEDED", &late);
        record("STORE_UNAVAILABLE", &put(&service).send().await);
        holder.rollback().await.unwrap();

        let other = Service::start_beside(service.shared_database()).await;
        let gateway = Service::start_gateway(&other).await;
        drop(other);
        record("SERVICE_UNREACHABLE", &put(&gateway).send().await);

        let connection = service.database().connect().await;
        let gone = "DROP TABLE organization_changes";
        sea_orm::ConnectionTrait::execute_unprepared(&connection, gone).await.unwrap();
        // Another name: were the first one stored late, it would be no change, and no failure.
        let other = service.put(OWN, USER, r#"{"name":"Other"}"#);
        record("INTERNAL", &other.header("x-request-id", "snapshot").send().await);
        expect_file!["../snapshots/refusals-trouble.txt"].assert_eq(&recorded);
    })
    .await;
}

/// The examples of the OpenAPI document are the bodies of the snapshots, one for each reason.
#[test]
fn the_examples_of_the_document_are_what_a_service_answered() {
    let snapshots = [
        include_str!("../snapshots/refusals-rest.txt"),
        include_str!("../snapshots/refusals-trouble.txt"),
        include_str!("../snapshots/refusals-limits.txt"),
        include_str!("../snapshots/refusals-streams.txt"),
    ];
    let mut examples = BTreeMap::new();
    for answer in snapshots.iter().flat_map(|text| text.split("=== ").skip(1)) {
        let (_, body) = answer.split_once("\n\n").unwrap();
        let body: Value = serde_json::from_str(body).unwrap();
        examples.entry(body["reason"].as_str().unwrap().to_owned()).or_insert(body);
    }
    let examples: Vec<_> = examples.into_values().collect();
    let text = serde_json::to_string_pretty(&examples).unwrap() + "\n";
    expect_file!["../../../src/gateway/openapi/refusals.json"].assert_eq(&text);
}

#[rustfmt::skip]
const GRPC_REFUSALS: &[(&str, &str, &str)] = &[
    ("CREDENTIAL_MISSING", "", "{}"),
    ("CREDENTIAL_INVALID", "x", "{}"),
    ("ORGANIZATION_FORBIDDEN", USER, r#"{"organization": {"id": "94"}}"#),
    ("FIELD_FORBIDDEN", USER, r#"{"organization": {"id": "90"}, "updateMask": "*"}"#),
    ("INVALID_INPUT", USER, "{}"),
    ("INVALID_INPUT", USER, r#"{"organization": {"id": "90"}, "updateMask": "nope,name.x"}"#),
    ("INVALID_INPUT", ADMINISTRATOR, r#"{"organization": {"id": "90", "subscriptionId": " "}, "updateMask": "*"}"#),
    ("ORGANIZATION_NOT_FOUND", SUPPORT, r#"{"organization": {"id": "77"}}"#),
    ("ETAG_MISMATCH", SUPPORT, r#"{"organization": {"id": "94", "etag": "\"7\""}}"#),
    ("ETAG_WEAK", SUPPORT, r#"{"organization": {"id": "94", "etag": "W/\"1\""}}"#),
    ("ETAG_MALFORMED", SUPPORT, r#"{"organization": {"id": "94", "etag": "1"}}"#),
    ("", SUPPORT, r#"{"organization": {"id": "94", "name": "Keyed"}, "requestId": "1d8c5d1e-0d0b-4c9e-8f6e-2f5a9c1b7e44"}"#),
    ("IDEMPOTENCY_KEY_REUSED", SUPPORT, r#"{"organization": {"id": "94", "name": "Other"}, "requestId": "1d8c5d1e-0d0b-4c9e-8f6e-2f5a9c1b7e44"}"#),
    ("INVALID_INPUT", SUPPORT, r#"{"organization": {"id": "94"}, "requestId": "x"}"#),
];

/// An answer as text, without what differs from run to run.
pub(super) fn whole(answer: &Answer) -> String {
    let mut lines: Vec<String> = answer
        .header_lines()
        .into_iter()
        .filter(|(name, _)| name != "date")
        .map(|(name, value)| format!("{name}: {value}"))
        .collect();
    lines.sort();
    let body: Value = answer.json();
    format!("{}\n{}\n\n{body:#}", answer.status(), lines.join("\n"))
}

/// The table of docs/ERRORS.md: for each reason its gRPC code and its HTTP status.
fn documented() -> BTreeMap<String, (String, String)> {
    let page = include_str!("../../../docs/ERRORS.md");
    let refusals = page.split("## Reasons of single fields").next().unwrap();
    let rows = refusals.lines().filter(|line| line.starts_with("| `"));
    let row = |line: &str| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        (cells[1].trim_matches('`').to_owned(), (cells[2].to_owned(), cells[3].to_owned()))
    };
    rows.map(row).collect()
}

#[tokio::test]
async fn the_page_of_errors_has_every_reason_with_its_codes() {
    let documented = documented();
    on_both_databases(async |service| {
        for (reason, request) in rest_refusals(&service) {
            let answer = request.send().await;
            if !reason.is_empty() {
                let (code, status) = &documented[reason];
                assert_eq!(&answer.status().to_string(), status, "{reason}");
                let said = answer.json()["code"].as_str().unwrap().to_owned();
                assert!(code == "-" || *code == said, "{reason}: {said}");
            }
        }
        for (reason, token, message) in GRPC_REFUSALS {
            let answer = python("Update", service.grpc_addr(), token, message);
            if !reason.is_empty() {
                assert_eq!(answer["code"], documented[*reason].0, "{reason}");
            }
        }
    })
    .await;
}

#[test]
fn the_page_of_errors_and_the_code_have_the_same_reasons() {
    let page = include_str!("../../../docs/ERRORS.md");
    let quoted = |text: &str, mark: char| -> BTreeSet<String> {
        let is_reason = |word: &&str| word.contains(['_']) || *word == "INTERNAL";
        let upper = |word: &&str| {
            !word.is_empty() && word.chars().all(|one| one.is_ascii_uppercase() || one == '_')
        };
        let words = text.split(mark).filter(upper).filter(is_reason);
        words.map(str::to_owned).collect()
    };
    let problem = include_str!("../../../src/gateway/write/problem.rs");
    let domain = include_str!("../../../domain/src/error.rs");
    let field_error = include_str!("../../../src/gateway/write/field_error.rs");
    let mut in_code = quoted(problem, '"');
    in_code.extend(quoted(field_error, '"'));
    in_code.extend(quoted(domain, '"'));
    assert_eq!(in_code, quoted(page, '`'));
}

#[tokio::test]
async fn a_panic_behind_the_rest_api_is_one_answer_with_all_headers() {
    let panicking = tower::service_fn(async |_: http::Request<tonic::body::Body>| {
        assert!(std::hint::black_box(false), "on purpose: internal text");
        Ok::<_, std::convert::Infallible>(http::Response::new(tonic::body::Body::empty()))
    });
    gateway_before(gateway::transport(panicking), async |addr| {
        for _ in 0..2 {
            let request = Request::new(addr, "PUT", "/v1/organizations/90").body("{}");
            let answer = request.send().await;
            assert_documented_headers(&answer);
            assert_eq!((answer.status(), answer.reason().as_str()), (500, "INTERNAL"));
            assert!(!answer.text().contains("on purpose"));
        }
    })
    .await;
}

#[tokio::test]
async fn a_database_that_is_gone_is_unavailable_and_no_internal_text_comes_out() {
    for database in Database::of_each_kind().await {
        database.seed().await;
        let service = Service::start(database).await;
        let connection = service.database().connect().await;
        sea_orm::ConnectionTrait::execute_unprepared(&connection, "DROP TABLE credentials")
            .await
            .unwrap();
        let answer = service.put(OWN, USER, r#"{"name":"N"}"#).send().await;
        assert_eq!((answer.status(), answer.reason().as_str()), (500, "INTERNAL"));
        for internal in ["credentials", "SELECT", "relation", "table", "sqlx", "no such"] {
            assert!(!answer.text().contains(internal), "{}", answer.text());
        }
        service.until_logged("credentials").await;
    }
}
