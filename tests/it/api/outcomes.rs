//! What a refusal says of the outcome: a request that may have changed something is told that its outcome is unknown,
//! and no other request is. An overload is reported as one, whatever was looked up.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use orgd::proto::v1::{
    CreateOrganizationRequest, GetOrganizationRequest, ListChangesRequest,
    ListOrganizationsRequest, Organization, UpdateOrganizationRequest, WatchRequest,
    organization_service_client::OrganizationServiceClient,
};
use tokio::{net::TcpStream, task::JoinSet, time::timeout};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::harness::{
    ADMINISTRATOR, Database, Fault, OWN, Proxy, Request, SUPPORT, Service, USER, authorized,
    on_both_databases, on_both_databases_with,
};

fn speaks_of_a_change(text: &str) -> bool {
    ["stored", "change was", "changed"].iter().any(|words| text.contains(words))
}

/// Requests of an administrator, and whether something may be stored by them.
fn rest(service: &Service) -> Vec<(Request, bool)> {
    let of = |method: &str, path: &str| {
        let request = service.request(method, path);
        request.bearer(ADMINISTRATOR)
    };
    let events = of("GET", "/v1/organizations/90/changes").header("accept", "text/event-stream");
    vec![
        (of("GET", "/v1/organizations/90"), false),
        (of("GET", "/v1/organizations"), false),
        (of("GET", "/v1/organizations/90/changes"), false),
        (events, false),
        (of("PUT", "/v1/organizations/90").body(r#"{"name": "Other"}"#), true),
        (of("POST", "/v1/organizations").body(r#"{"name": "New"}"#), true),
    ]
}

/// The same over gRPC; the refusals. `before` comes before each call.
async fn grpc(
    service: &Service,
    timeout: Option<&'static str>,
    before: impl AsyncFn(),
) -> Vec<(Status, bool)> {
    fn asked<T>(message: T, timeout: Option<&'static str>) -> tonic::Request<T> {
        let mut request = authorized(ADMINISTRATOR, message);
        if let Some(timeout) = timeout {
            request.metadata_mut().insert("grpc-timeout", timeout.parse().unwrap());
        }
        request
    }
    // Without a timer of its own, as a channel of tonic's has.
    let stream = TcpStream::connect(service.grpc_addr()).await.unwrap();
    let (sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let mut connections = JoinSet::new();
    connections.spawn(connection);
    let send = tower::service_fn(move |request: http::Request<tonic::body::Body>| {
        sender.clone().send_request(request)
    });
    let origin = format!("http://{}", service.grpc_addr()).parse().unwrap();
    let mut client = OrganizationServiceClient::with_origin(send, origin);
    let name = || Some("Other".to_owned());
    let get = GetOrganizationRequest { id: OWN, ..Default::default() };
    let list = ListOrganizationsRequest::default();
    let changes = ListChangesRequest { organization_id: OWN, ..Default::default() };
    let watch = WatchRequest { organization_ids: vec![OWN], ..Default::default() };
    let organization = Organization { id: OWN, name: name(), ..Organization::default() };
    let update =
        UpdateOrganizationRequest { organization: Some(organization), ..Default::default() };
    let organization = Organization { name: name(), ..Organization::default() };
    let create =
        CreateOrganizationRequest { organization: Some(organization), ..Default::default() };
    let mut refusals = Vec::new();
    before().await;
    refusals.push((client.get(asked(get, timeout)).await.unwrap_err(), false));
    before().await;
    refusals.push((client.list(asked(list, timeout)).await.unwrap_err(), false));
    before().await;
    refusals.push((client.list_changes(asked(changes, timeout)).await.unwrap_err(), false));
    before().await;
    refusals.push((client.watch(asked(watch, timeout)).await.map(|_| ()).unwrap_err(), false));
    before().await;
    refusals.push((client.update(asked(update, timeout)).await.unwrap_err(), true));
    before().await;
    refusals.push((client.create(asked(create, timeout)).await.unwrap_err(), true));
    refusals
}

/// Every request is refused for `reason`, and speaks of a change where there may be one.
async fn assert_told(requests: Vec<(Request, bool)>, status: u16, reason: &str) {
    for (request, is_change) in requests {
        let answer = request.send().await;
        assert_eq!((answer.status(), answer.reason().as_str()), (status, reason));
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        assert_eq!(speaks_of_a_change(&detail), is_change, "{status}: {detail}");
    }
}

fn assert_said(refusals: Vec<(Status, bool)>, code: Code) {
    for (refusal, is_change) in refusals {
        assert_eq!(refusal.code(), code, "{refusal}");
        assert_eq!(speaks_of_a_change(refusal.message()), is_change, "{refusal}");
    }
}

#[tokio::test]
async fn only_changes_report_an_unknown_outcome_when_the_service_is_lost() {
    on_both_databases(async |service| {
        let gateway = Service::start_gateway(&service).await;
        drop(service);
        assert_told(rest(&gateway), 503, "SERVICE_UNREACHABLE").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_changes_report_an_unknown_outcome_when_the_database_is_lost_or_silent() {
    let database = Database::postgres().await;
    database.seed().await;
    let proxy = Proxy::start(database.addr()).await;
    let settings = [("ORGD_AUTH_CACHE_TTL", "10m")];
    let service = Service::start_with(database.behind(&proxy).into(), &settings).await;
    let gateway = Service::start_gateway(&service).await;
    // Known, so that the credential is no hindrance.
    assert_eq!(service.put(OWN, ADMINISTRATOR, "{}").send().await.status(), 200);
    // What only asks is no change, and neither is one whose caller is not known yet.
    let none = || {
        let dry = service.request("PUT", "/v1/organizations/90?validateOnly=true").body("{}");
        let dry = dry.bearer(ADMINISTRATOR);
        vec![(dry, false), (service.put(OWN, SUPPORT, r#"{"name": "Other"}"#), false)]
    };
    // Each after a time in which all went well: what waits for long behind a silent database fails at once.
    let silent = async || {
        proxy.set(Fault::Pass);
        while service.put(OWN, ADMINISTRATOR, "{}").send().await.status() != 200 {}
        proxy.set(Fault::Hold);
    };
    for instance in [&service, &gateway] {
        for (request, is_change) in rest(instance) {
            silent().await;
            let late = vec![(request.header("grpc-timeout", "200m"), is_change)];
            assert_told(late, 504, "DEADLINE_EXCEEDED").await;
        }
    }
    assert_said(grpc(&service, Some("200m"), silent).await, Code::DeadlineExceeded);
    proxy.set(Fault::Refuse);
    assert_told(rest(&service), 503, "STORE_UNAVAILABLE").await;
    assert_told(rest(&gateway), 503, "STORE_UNAVAILABLE").await;
    assert_said(grpc(&service, None, async || {}).await, Code::Unavailable);
    assert_told(none(), 503, "STORE_UNAVAILABLE").await;
    proxy.set(Fault::Pass);
}

#[tokio::test]
async fn a_rate_limit_refusal_does_not_say_that_the_outcome_is_unknown() {
    for (setting, is_everyone) in
        [("ORGD_RATE_LIMIT_SOURCE", true), ("ORGD_RATE_LIMIT_USER", false)]
    {
        on_both_databases_with(&[(setting, "1")], async |service| {
            let token = if is_everyone { ADMINISTRATOR } else { USER };
            let requests = (0..40).map(|number| {
                let method = if number % 2 == 0 { "GET" } else { "PUT" };
                let request = service.request(method, "/v1/organizations/90").body("{}");
                request.bearer(token).send()
            });
            let answers = join_all(requests).await;
            let refused: Vec<_> = answers.iter().filter(|one| one.status() == 429).collect();
            assert!(refused.len() > 10, "{} were refused", refused.len());
            for answer in refused {
                let detail = answer.json()["detail"].as_str().unwrap().to_owned();
                assert!(!speaks_of_a_change(&detail), "{detail}");
            }
        })
        .await;
    }
}

/// More callers with credentials that are not remembered than may wait, among them honest ones of whom
/// several wait for one look.
#[tokio::test]
async fn an_overloaded_credential_lookup_is_reported_as_overload() {
    let database = Database::postgres().await;
    database.seed().await;
    let settings = [("ORGD_WRITE_QUEUE_MAX", "2")];
    let service = Service::start_with(Arc::new(database), &settings).await;
    let gateway = Service::start_gateway(&service).await;
    let holder = service.database().lock_table("credentials").await;
    // A caller with a place waits for the lock, as long as a statement may run, and is told so.
    let guessing = join_all((0..16).map(async |number| {
        // Those of the service and the gateway have the same share.
        let instance = [&service, &gateway][number % 2];
        loop {
            let guess = uuid::Uuid::new_v4().to_string();
            let status = instance.put(OWN, &guess, "{}").send().await.status();
            assert!([429, 503].contains(&status), "{status}");
        }
    }));
    let rest = join_all([&service, &service, &gateway].map(async |instance| {
        loop {
            let answer = instance.put(OWN, USER, "{}").send().await;
            match (answer.status(), answer.reason().as_str()) {
                (503, "STORE_UNAVAILABLE") => {}
                // By the source's own guesses, or by those of several.
                (429, "SHARE_EXHAUSTED" | "STORE_OVERLOADED") => {
                    return assert_eq!(answer.header("retry-after"), Some("1"));
                }
                other => panic!("{other:?}"),
            }
        }
    }));
    let grpc = join_all([SUPPORT, SUPPORT].map(async |token| {
        loop {
            let get = GetOrganizationRequest { id: OWN, ..Default::default() };
            let status = service.grpc().get(authorized(token, get)).await.unwrap_err();
            match status.code() {
                Code::Unavailable => {}
                Code::ResourceExhausted => {
                    return assert!(status.get_details_retry_info().is_some(), "{status}");
                }
                _ => panic!("{status}"),
            }
        }
    }));
    let honest = async { tokio::join!(rest, grpc) };
    tokio::select! {
        _ = guessing => unreachable!("guessing has no end"),
        told = timeout(Duration::from_secs(60), honest) => drop(told.expect("an overload")),
    }
    holder.rollback().await.unwrap();
    while service.put(OWN, USER, "{}").send().await.status() != 200 {}
    for line in service.log().lines() {
        assert!(!line.contains("\"ERROR\""), "{line}");
    }
}
