//! Promise 18: a panic is one answer, and no answer tells of our insides.
//!
//! The panic is a real one: PostgreSQL stores dates that no calendar of ours has, and a row that has
//! one cannot be read. A panic behind the REST API alone is in `api::refusals`.

use std::{convert::Infallible, panic::AssertUnwindSafe, time::Duration};

use futures_util::FutureExt;
use orgd::proto::v1::{
    Change, GetOrganizationRequest, ListChangesRequest, WatchRequest,
    organization_service_client::OrganizationServiceClient,
};
use tonic::{Code, Status, body::Body};
use tonic_types::{ErrorDetails, StatusExt};

use crate::harness::{
    ADMINISTRATOR, Database, FOREIGN, OWN, Request, Service, USER, assert_documented_headers,
    authorized,
    disclosure::{Searched, insides_in},
    reason,
};

/// A service over PostgreSQL, after something was done to its database.
async fn service_after(statement: &str) -> Service {
    let database = Database::postgres().await;
    database.seed().await;
    let service = Service::start(database).await;
    service.database().execute(statement).await;
    service
}

fn get(service: &Service, path: &str) -> Request {
    service.request("GET", path).bearer(ADMINISTRATOR)
}

#[tokio::test]
async fn a_panic_in_a_handler_is_one_error_through_both_apis_and_the_process_lives() {
    let unreadable =
        format!("UPDATE organization_changes SET date = 'infinity' WHERE organization_id = {OWN}");
    let service = service_after(&unreadable).await;
    let gateway = Service::start_gateway(&service).await;
    let mut client = service.grpc();
    for round in 0..3 {
        for instance in [&service, &gateway] {
            let answer = get(instance, "/v1/organizations/90/changes").send().await;
            assert_documented_headers(&answer);
            assert_eq!((answer.status(), answer.reason().as_str()), (500, "INTERNAL"));
            assert_eq!(answer.json()["code"], "INTERNAL");
            assert_eq!(answer.json()["requestId"].as_str(), answer.header("x-request-id"));
        }
        let message = ListChangesRequest { organization_id: OWN, ..Default::default() };
        let refused = client.list_changes(authorized(USER, message)).await.unwrap_err();
        assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Internal, "INTERNAL"));
        assert!(refused.metadata().get("x-request-id").is_some());

        // On the same connection, and for everybody else.
        let message = GetOrganizationRequest { id: OWN, ..Default::default() };
        client.get(authorized(USER, message)).await.unwrap();
        let body = format!(r#"{{"name": "Round {round}"}}"#);
        assert_eq!(service.put(OWN, USER, &body).send().await.status(), 200);
        assert_eq!(service.get_ops("/readyz").await.status(), 200);
    }
    service.until_logged("panicked at").await;
}

/// What a watch sends first.
async fn first_of_watch(service: &Service) -> Result<Option<Change>, Status> {
    let message = WatchRequest { organization_ids: vec![OWN], from_versions: [(OWN, 0)].into() };
    service.grpc().watch(authorized(USER, message)).await?.into_inner().message().await
}

#[tokio::test]
async fn a_panic_in_a_stream_ends_it_with_one_error_through_both_apis() {
    let unreadable =
        format!("UPDATE organization_changes SET date = 'infinity' WHERE organization_id = {OWN}");
    let service = service_after(&unreadable).await;
    for _ in 0..3 {
        let end = first_of_watch(&service).await.unwrap_err();
        assert_eq!((end.code(), reason(&end).as_str()), (Code::Internal, "INTERNAL"), "{end:?}");

        let events = get(&service, "/v1/organizations/90/changes");
        let events = events.header("accept", "text/event-stream").header("last-event-id", "0");
        let answer = events.send().await;
        assert_eq!(answer.status(), 200, "it has begun");
        let (_, problem) = answer.text().split_once("event: error\ndata: ").unwrap();
        let problem: serde_json::Value = serde_json::from_str(problem.trim()).unwrap();
        assert_eq!((&problem["status"], &problem["reason"]), (&500.into(), &"INTERNAL".into()));
        assert_eq!(insides_in(&problem.to_string()), None);
    }
    assert_eq!(service.put(OWN, USER, "{}").send().await.status(), 200);
}

#[tokio::test]
async fn a_panic_in_a_worker_fails_one_call_alone() {
    let unreadable =
        format!("UPDATE organizations SET date_created = 'infinity' WHERE id = {FOREIGN}");
    let service = service_after(&unreadable).await;
    for round in 0..3 {
        let put = service.put(FOREIGN, ADMINISTRATOR, r#"{"subscriptionId": "pro"}"#);
        for request in [get(&service, "/v1/organizations/94"), put] {
            let answer = request.send().await;
            assert_documented_headers(&answer);
            assert_eq!((answer.status(), answer.reason().as_str()), (500, "INTERNAL"));
        }
        // The same workers go on.
        let body = format!(r#"{{"name": "Round {round}"}}"#);
        assert_eq!(service.put(OWN, USER, &body).send().await.status(), 200);
        assert_eq!(get(&service, "/v1/organizations/90").send().await.status(), 200);
    }
    service.until_logged("panicked at").await;
    // Nor is the probe hurt by what a row has.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(service.get_ops("/readyz").await.status(), 200);
}

/// What libraries, databases and Rust itself say, and so would a service that passed it on.
const LEAKS: [&str; 22] = [
    "Query Error: error returned from database: relation \"organizations\" does not exist",
    "Execution Error: error returned from database: (code: 787) FOREIGN KEY constraint failed",
    "database is locked",
    "no such table: credentials",
    "could not serialize access due to concurrent update",
    "SELECT id FROM organizations WHERE id = ANY ($1)",
    "organization_changes",
    "pool timed out while waiting for an open connection",
    "called `Option::unwrap()` on a `None` value",
    "thread 'tokio-rt-worker' panicked at src/store/mod.rs:10:5:",
    "index out of bounds, see worker.rs:7",
    "cannot open /usr/share/zoneinfo",
    "unable to open /var/lib/orgd/orgd.db",
    "tcp connect error: Connection refused (os error 111)",
    "h2 protocol error: error reading a body from connection",
    "transport error",
    "error decoding response body",
    "failed to decode Protobuf message: invalid wire type: Varint",
    "Failed to deserialize the JSON body into the target type",
    "expected value at line 1 column 1",
    "invalid type: map, expected a string",
    "RecordNotFound(\"Failed to find inserted item\"), Some(7)",
];

#[tokio::test]
async fn the_search_for_internal_text_in_refusals_finds_it() {
    for leak in LEAKS {
        assert!(insides_in(leak).is_some(), "{leak}");
    }
    // Through both ways on which the tests get their answers.
    let found = async |asking: &mut (dyn Future<Output = ()> + Unpin)| {
        let panic = AssertUnwindSafe(asking).catch_unwind().await.unwrap_err();
        let text = panic.downcast_ref::<String>().unwrap();
        assert!(text.starts_with("a refusal has the internal text"), "{text}");
    };
    let leak = LEAKS[0];
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let router =
        axum::Router::new().fallback(async move || (http::StatusCode::INTERNAL_SERVER_ERROR, leak));
    let mut asking = Box::pin(async { drop(Request::new(addr, "GET", "/").send().await) });
    tokio::select! {
        ended = axum::serve(listener, router) => panic!("{ended:?}"),
        () = found(&mut asking) => {}
    }

    let details = ErrorDetails::with_error_info("INTERNAL", leak, []);
    for status in
        [Status::internal(leak), Status::with_error_details(Code::Internal, "It failed.", details)]
    {
        for as_trailers in [false, true] {
            let answer = refusal(&status, as_trailers);
            let answering = tower::service_fn(move |_: http::Request<Body>| {
                std::future::ready(Ok::<_, Infallible>(answer()))
            });
            let mut client = OrganizationServiceClient::new(Searched(answering));
            let mut asking = Box::pin(async {
                drop(client.get(GetOrganizationRequest::default()).await);
            });
            found(&mut asking).await;
        }
    }
}

/// An answer with this status: instead of a message, or after none.
fn refusal(status: &Status, as_trailers: bool) -> impl Fn() -> http::Response<Body> + use<> {
    let status = status.clone();
    move || {
        let mut answer = status.clone().into_http::<Body>();
        if as_trailers {
            let trailers = std::mem::take(answer.headers_mut());
            let frames =
                futures_util::stream::iter([Ok::<_, Status>(
                    http_body::Frame::<bytes::Bytes>::trailers(trailers),
                )]);
            *answer.body_mut() = Body::new(http_body_util::StreamBody::new(frames));
        }
        answer
    }
}
