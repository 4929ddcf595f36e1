//! Refusals of what is too much or too often, bodies that do not end, and how streams of events end: whole, as examples
//! of the OpenAPI document.

use expect_test::expect_file;
use futures_util::{StreamExt, stream::FuturesUnordered};
use serde_json::Value;
use tokio::time::timeout;

use super::refusals::whole;
use crate::harness::{
    ADMINISTRATOR, Answer, OWN, PATIENCE, PATIENT, RawHttp1, SUPPORT, Service, UNCOUNTED, USER,
    orgd, watching::Events,
};

const FIRST: i64 = 1001;

/// Asks until it is refused so.
async fn refused(service: &Service, reason: &str, path: &str) -> Answer {
    let asking = async {
        loop {
            let request = service.request("GET", path).bearer(USER);
            let answer = request.header("x-request-id", "snapshot").send().await;
            if answer.reason() == reason {
                return answer;
            }
        }
    };
    timeout(PATIENCE, asking).await.unwrap_or_else(|_| panic!("no {reason}"))
}

/// The first answer of callers that update an organization each, of a database that is held: all others wait.
async fn refused_update(queue_max: &str, callers: &[&str]) -> Answer {
    let own = [("ORGD_WRITE_QUEUE_MAX", queue_max), ("ORGD_AUTH_CACHE_TTL", "60s")];
    let settings = [&PATIENT[..], &own].concat();
    let service = Service::over_sqlite(&settings).await;
    let words = "credential issue --role support --json --subject other";
    let issued = orgd(service.database().url(), words).json();
    let other = issued["secret"].as_str().unwrap();
    service.database().add_organizations(FIRST, FIRST + 3).await;
    // Looked up one after the other, as lookups wait in a queue as long.
    for token in [SUPPORT, ADMINISTRATOR, other] {
        let known = service.request("GET", "/v1/whoami").bearer(token).send().await;
        assert_eq!(known.status(), 200);
    }
    let holder = service.database().hold().await;
    let update = |(id, token): (i64, &&str)| {
        let token = if token.is_empty() { other } else { token };
        let update = service.put(id, token, r#"{"name": "N"}"#);
        update.header("x-request-id", "snapshot").send()
    };
    let mut answers: FuturesUnordered<_> = (FIRST..).zip(callers).map(update).collect();
    let answer = timeout(PATIENCE, answers.next()).await.unwrap().unwrap();
    drop(answers);
    holder.rollback().await.unwrap();
    answer
}

async fn incomplete(service: &Service) -> String {
    let mut client = RawHttp1::connect(service.http_addr()).await;
    let head = format!(
        "PUT /v1/organizations/{OWN} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {USER}\r\n\
         X-Request-Id: snapshot\r\nTransfer-Encoding: chunked\r\n\r\nno length\r\n"
    );
    client.ask(&head).await
}

/// The problem by which a stream of events ends.
async fn end(events: &mut Events) -> Value {
    events.until("event: error").await;
    let data = events.until("data: ").await;
    serde_json::from_str(data.trim_start_matches("data: ")).unwrap()
}

const NAMED: &str = "X-Request-Id: snapshot\r\n";

#[tokio::test]
async fn refusals_of_limits_match_their_snapshots() {
    let mut recorded = String::new();
    let mut record = |reason: &str, answer: &Answer| {
        assert_eq!(answer.reason(), reason, "{}", answer.text());
        // Which of several it is differs from run to run.
        let instance = answer.json()["instance"].as_str().unwrap().to_owned();
        let path = instance.replace(|letter: char| letter.is_ascii_digit(), "");
        let path = path.replace("/v/organizations/", &format!("/v1/organizations/{OWN}"));
        let answer = whole(answer).replace(&instance, &path);
        recorded += &format!("=== {reason}\n{answer}\n\n");
    };
    let limited = Service::over_sqlite(&[("ORGD_RATE_LIMIT_USER", "5")]).await;
    let path = format!("/v1/organizations/{OWN}");
    record("RATE_LIMITED", &refused(&limited, "RATE_LIMITED", &path).await);
    let watched = Service::over_sqlite(&[("ORGD_WATCHES_MAX", "10"), UNCOUNTED]).await;
    let mut events = Events::open(&watched, "").await;
    events.until(": following").await;
    let path = format!("{path}/events");
    record("WATCHES_EXHAUSTED", &refused(&watched, "WATCHES_EXHAUSTED", &path).await);
    record("SHARE_EXHAUSTED", &refused_update("2", &[SUPPORT; 4]).await);
    record("STORE_OVERLOADED", &refused_update("1", &[SUPPORT, ADMINISTRATOR, ""]).await);

    let answer = incomplete(&watched).await;
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let body: Value = serde_json::from_str(body).unwrap();
    recorded += &format!("=== BODY_INCOMPLETE\nthe body alone\n\n{body:#}\n\n");
    expect_file!["../snapshots/refusals-limits.txt"].assert_eq(&recorded);
}

/// A gateway hands on why the service ended a stream.
#[tokio::test]
async fn ends_of_streams_match_their_snapshots() {
    let mut recorded = String::new();
    let mut record = |reason: &str, problem: &Value| {
        assert_eq!(problem["reason"], reason);
        recorded += &format!("=== {reason}\nevent: error\n\n{problem:#}\n\n");
    };
    let age = [("ORGD_CONNECTION_AGE_MAX", "700ms"), ("ORGD_CONNECTION_AGE_GRACE", "5s")];
    let aging = Service::over_sqlite(&age).await;
    let gateway = Service::start_gateway(&aging).await;
    let mut events = Events::open(&gateway, NAMED).await;
    record("CONNECTION_AGED", &end(&mut events).await);

    let service = Service::over_sqlite(&[]).await;
    let gateway = Service::start_gateway(&service).await;
    let mut events = Events::open(&gateway, NAMED).await;
    events.until(": following").await;
    let changed = "UPDATE credentials SET expires_at = '2999-01-01T00:00:00Z'";
    service.database().execute(changed).await;
    record("CREDENTIAL_CHANGED", &end(&mut events).await);

    let mut events = Events::open(&gateway, NAMED).await;
    events.until(": following").await;
    service.signal("TERM");
    record("SERVICE_STOPPING", &end(&mut events).await);
    expect_file!["../snapshots/refusals-streams.txt"].assert_eq(&recorded);
}
