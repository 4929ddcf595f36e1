//! HEAD: it has every check and every header of GET, makes no body, and opens no watch.

use std::collections::BTreeMap;

use crate::harness::{
    Answer, SUPPORT, Service, USER, assert_documented_headers, on_both_databases_with,
    watching::Events,
};

const LIST: &str = "/v1/organizations";
const CHANGES: &str = "/v1/organizations/90/changes";
const WATCH: &str = "/v1/organizations/90/events";
const EVENTS: &str = "text/event-stream";
const JSON: &str = "application/json";

async fn ask(service: &Service, method: &str, path: &str, token: &str, accept: &str) -> Answer {
    let request = service.request(method, path).header("accept", accept);
    let answer = request.bearer(token).send().await;
    assert_documented_headers(&answer);
    answer
}

/// What must be the same for GET, but for what each answer has of its own.
fn lines(answer: &Answer) -> BTreeMap<String, String> {
    let own = ["content-length", "date", "x-request-id", "transfer-encoding", "ratelimit"];
    let lines = answer.header_lines().into_iter();
    lines.filter(|(name, _)| !own.contains(&name.as_str())).collect()
}

#[tokio::test]
async fn head_of_a_list_has_the_headers_of_get_without_a_content_length() {
    on_both_databases_with(&[], async |service| {
        let gateway = Service::start_gateway(&service).await;
        for instance in [&service, &gateway] {
            for path in [LIST, CHANGES, "/v1/organizations?pageSize=2&writableFields=true"] {
                let get = ask(instance, "GET", path, USER, JSON).await;
                let head = ask(instance, "HEAD", path, USER, JSON).await;
                assert_eq!((get.status(), head.status(), head.text()), (200, 200, ""), "{path}");
                assert_eq!(lines(&head), lines(&get), "{path}");
                assert_eq!(head.header("content-length"), None, "{path}");
            }
            // One organization is made anyway, for its etag.
            let get = ask(instance, "GET", "/v1/organizations/90", USER, JSON).await;
            let head = ask(instance, "HEAD", "/v1/organizations/90", USER, JSON).await;
            assert_eq!(lines(&head), lines(&get));
            assert_eq!(head.header("content-length"), get.header("content-length"));
        }
    })
    .await;
}

#[tokio::test]
async fn head_is_refused_where_get_is() {
    on_both_databases_with(&[], async |service| {
        let gateway = Service::start_gateway(&service).await;
        let unknown = "0b7cf3d4-3c1f-4d0c-9d5c-7b1f7a0f9e55";
        for instance in [&service, &gateway] {
            for (path, token, accept, status) in [
                (LIST, unknown, JSON, 401),
                ("/v1/organizations?pageSize=0", USER, JSON, 400),
                ("/v1/organizations?pageToken=x", USER, JSON, 400),
                (CHANGES, unknown, JSON, 401),
                (CHANGES, unknown, EVENTS, 401),
                (WATCH, unknown, JSON, 401),
                ("/v1/organizations/94/events", USER, JSON, 403),
                ("/v1/organizations/77/events", SUPPORT, JSON, 404),
                ("/v1/organizations/94/changes", USER, JSON, 403),
                ("/v1/organizations/94/changes", USER, EVENTS, 403),
                ("/v1/organizations/77/changes", SUPPORT, JSON, 404),
                ("/v1/organizations/77/changes", SUPPORT, EVENTS, 404),
                ("/v1/organizations/090/changes", USER, EVENTS, 400),
            ] {
                let get = ask(instance, "GET", path, token, accept).await;
                let head = ask(instance, "HEAD", path, token, accept).await;
                assert_eq!((get.status(), head.status()), (status, status), "{path}, {accept}");
                assert_eq!((lines(&head), head.text()), (lines(&get), ""), "{path}, {accept}");
                // The body of a refusal is made, and repeats the path and the request's id.
                assert_eq!(head.header("content-length"), get.header("content-length"), "{path}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn head_of_an_event_stream_opens_no_watch() {
    on_both_databases_with(&[("ORGD_WATCHES_MAX", "1")], async |service| {
        let settings = [("ORGD_WATCHES_MAX", "1")];
        let gateway = Service::start_gateway_with(&service, "http", &settings).await;
        let events = Events::open(&service, "").await;
        for instance in [&service, &gateway] {
            for _ in 0..3 {
                for (path, accept) in [(CHANGES, EVENTS), (WATCH, JSON)] {
                    let head = ask(instance, "HEAD", path, USER, accept).await;
                    assert_eq!((head.status(), head.text()), (200, ""));
                    assert_eq!(head.header("content-length"), None);
                    let told: BTreeMap<_, _> = lines(&head);
                    for name in ["content-type", "cache-control", "x-accel-buffering"] {
                        let line = format!("{name}: {}\n", told[name]).to_ascii_lowercase();
                        assert!(events.head.contains(&line), "{line} in {}", events.head);
                    }
                }
            }
        }
    })
    .await;
}
