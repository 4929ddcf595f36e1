//! Watches, over gRPC and as server-sent events: what they send, and how they end.

use std::time::Duration;

use orgd::proto::v1::ListChangesRequest;
use tokio::time::timeout;
use tonic::Code;

use crate::harness::{
    ADMINISTRATOR, FOREIGN, OWN, PATIENCE, SUPPORT, Service, UNKNOWN, USER, authorized,
    ending_soon, on_both_databases, on_both_databases_with, orgd, reason,
    watching::{Events, next, rename, request, watch},
};

#[tokio::test]
async fn changes_of_every_instance_come_in_order_and_once() {
    on_both_databases(async |service| {
        let other = Service::start_beside(service.shared_database()).await;
        let mut all = watch(&service, ADMINISTRATOR, request(&[OWN], &[(OWN, 0)])).await.unwrap();
        let mut fresh = watch(&service, SUPPORT, request(&[OWN, FOREIGN], &[])).await.unwrap();
        assert_eq!(next(&mut all).await.unwrap().version, 1);
        for round in 0..5 {
            let by = if round % 2 == 0 { &other } else { &service };
            rename(by, OWN, &format!("Round {round}")).await;
        }
        let mut versions = Vec::new();
        for _ in 0..5 {
            versions.push(next(&mut all).await.unwrap().version);
        }
        assert_eq!(versions, [2, 3, 4, 5, 6]);
        rename(&other, FOREIGN, "Other").await;
        let mut followed = Vec::new();
        for _ in 0..6 {
            let change = next(&mut fresh).await.unwrap();
            followed.push((change.organization_id, change.version));
        }
        let expected = (2..=6).map(|version| (OWN, version)).chain([(FOREIGN, 2)]);
        assert_eq!(followed, expected.collect::<Vec<_>>());

        let mut resumed = watch(&other, ADMINISTRATOR, request(&[OWN], &[(OWN, 4)])).await.unwrap();
        assert_eq!(next(&mut resumed).await.unwrap().version, 5);
    })
    .await;
}

#[tokio::test]
async fn a_watch_shows_what_a_list_shows() {
    on_both_databases(async |service| {
        // More than one look takes.
        let updates = 150;
        for round in 0..updates {
            rename(&service, OWN, &format!("Round {round}")).await;
        }
        let body = r#"{"handshake": "secret", "subscriptionId": null}"#;
        assert_eq!(service.put(OWN, ADMINISTRATOR, body).send().await.status(), 200);
        for token in [USER, SUPPORT, ADMINISTRATOR] {
            let list = ListChangesRequest {
                organization_id: OWN,
                page_size: 500,
                ..ListChangesRequest::default()
            };
            let listed = service.grpc().list_changes(authorized(token, list)).await.unwrap();
            let listed = listed.into_inner().changes;
            assert_eq!(listed.len(), updates + 2);
            let mut stream = watch(&service, token, request(&[OWN], &[(OWN, 0)])).await.unwrap();
            for change in listed {
                assert_eq!(next(&mut stream).await.unwrap(), change);
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_watch_is_refused_as_a_list_is() {
    on_both_databases(async |service| {
        let many: Vec<i64> = (1..=101).collect();
        for (token, message, code) in [
            (USER, request(&[FOREIGN], &[]), Code::PermissionDenied),
            (USER, request(&[OWN, UNKNOWN], &[]), Code::PermissionDenied),
            (SUPPORT, request(&[UNKNOWN], &[]), Code::NotFound),
            (SUPPORT, request(&[], &[]), Code::InvalidArgument),
            (SUPPORT, request(&[0], &[]), Code::InvalidArgument),
            (SUPPORT, request(&many, &[]), Code::InvalidArgument),
            (SUPPORT, request(&[OWN], &[(FOREIGN, 0)]), Code::InvalidArgument),
            (SUPPORT, request(&[OWN], &[(OWN, -1)]), Code::InvalidArgument),
        ] {
            let text = format!("{message:?}");
            let refused = watch(&service, token, message).await.err();
            assert_eq!(refused.map(|status| status.code()), Some(code), "{text}");
        }
        // A user need not name its own organization; no name is needed twice.
        watch(&service, USER, request(&[], &[])).await.unwrap();
        let mut twice = watch(&service, USER, request(&[OWN, OWN], &[(OWN, 0)])).await.unwrap();
        assert_eq!(next(&mut twice).await.unwrap().version, 1);
        rename(&service, OWN, "Once").await;
        assert_eq!(next(&mut twice).await.unwrap().version, 2);
    })
    .await;
}

#[tokio::test]
async fn a_watch_ends_with_its_credential() {
    on_both_databases(async |service| {
        let url = service.database().url();
        let begin = async |secret: &str| watch(&service, secret, request(&[OWN], &[])).await;
        let issued = orgd(url, "credential issue --role support --json --subject a").json();
        let (id, secret) = (issued["id"].as_str().unwrap(), issued["secret"].as_str().unwrap());
        let revoked = begin(secret).await.unwrap();
        assert_eq!(orgd(url, &format!("credential revoke {id}")).code, 0);
        let (_, _, expiring) = ending_soon(url, "--role support --subject b", begin).await;
        for (how, mut stream) in [("revoked", revoked), ("over", expiring.unwrap())] {
            let end = next(&mut stream).await.unwrap_err();
            assert_eq!(end.code(), Code::Unauthenticated, "{how}");
            assert_eq!(reason(&end), "CREDENTIAL_INVALID", "{how}");
        }
    })
    .await;
}

#[tokio::test]
async fn watches_end_when_the_service_stops_and_do_not_delay_it() {
    on_both_databases(async |service| {
        let mut stream = watch(&service, USER, request(&[], &[])).await.unwrap();
        let mut events = Events::open(&service, "").await;
        events.until(": following").await;
        service.signal("TERM");
        let end = next(&mut stream).await.unwrap_err();
        assert_eq!((end.code(), reason(&end).as_str()), (Code::Unavailable, "SERVICE_STOPPING"));
        events.until_end().await;
        service.until_logged("every request was answered").await;
        assert!(service.ended().await.success());
    })
    .await;
}

#[tokio::test]
async fn watches_of_one_principal_are_limited_and_others_keep_theirs() {
    // A tenth of what others leave: three for the first, two for the second.
    on_both_databases_with(&[("ORGD_WATCHES_MAX", "30")], async |service| {
        let open = async || watch(&service, USER, request(&[], &[])).await;
        let (first, _second) = (open().await.unwrap(), open().await.unwrap());
        let _events = Events::open(&service, "").await;
        // The third is one once its answer has begun.
        let refused = async {
            loop {
                match open().await {
                    Err(status) => return status,
                    Ok(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        };
        let refused = timeout(PATIENCE, refused).await.unwrap();
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert_eq!(reason(&refused), "WATCHES_EXHAUSTED");
        let administrators = async || watch(&service, ADMINISTRATOR, request(&[OWN], &[])).await;
        let others = (administrators().await.unwrap(), administrators().await.unwrap());
        assert_eq!(reason(&administrators().await.unwrap_err()), "WATCHES_EXHAUSTED");
        drop((first, others));
        let taken = async { while open().await.is_err() {} };
        timeout(PATIENCE, taken).await.expect("the place is free again");
    })
    .await;
}

#[tokio::test]
async fn changes_are_server_sent_events_over_rest() {
    on_both_databases_with(&[("ORGD_STALL_TIMEOUT", "2s")], async |service| {
        let gateway =
            Service::start_gateway_with(&service, "http", &[("ORGD_STALL_TIMEOUT", "2s")]).await;
        for instance in [&service, &gateway] {
            let mut events = Events::open(instance, "Last-Event-ID: 0\r\n").await;
            assert!(events.head.starts_with("http/1.1 200 ok\n"), "{}", events.head);
            for line in ["content-type: text/event-stream\n", "referrer-policy: no-referrer\n"] {
                assert!(events.head.contains(line), "{line} in {}", events.head);
            }
            events.until(": following").await;
            assert_eq!(events.until("id: ").await, "id: 1");
            // Signs of life keep a stream without news from being taken for a stalled client.
            for _ in 0..4 {
                events.until(":").await;
            }
            let name = format!("Through {}", instance.http_addr().port());
            rename(&service, OWN, &name).await;
            let data = events.until("data: ").await;
            let mut data = data;
            while !data.contains(&name) {
                data = events.until("data: ").await;
            }
            let change: serde_json::Value =
                serde_json::from_str(data.trim_start_matches("data: ")).unwrap();
            assert_eq!(change["organizationId"], OWN);
            assert_eq!(change["fields"][0]["newValue"], name.as_str());
        }
        let path = format!("/v1/organizations/{OWN}/changes");
        let refusal = async |id: &str, token: &str| {
            let request = service.request("GET", &path).header("accept", "text/event-stream");
            let request = request.header("last-event-id", id);
            let answer = request.bearer(token).send().await;
            (answer.status(), answer.reason())
        };
        for id in ["x", "-1", "1.5", ""] {
            assert_eq!(refusal(id, USER).await, (400, "EVENT_ID_MALFORMED".to_owned()), "{id}");
        }
        for id in ["x", "-1", "1.5", "", "1&lastEventId=1"] {
            let path = format!("/v1/organizations/{OWN}/events?lastEventId={id}");
            let answer = service.request("GET", &path).bearer(USER).send().await;
            assert_eq!(
                (answer.status(), answer.reason().as_str()),
                (400, "PARAMETER_INVALID"),
                "{id}"
            );
        }
        let unknown = "0b7cf3d4-3c1f-4d0c-9d5c-7b1f7a0f9e55";
        assert_eq!(refusal("x", unknown).await, (401, "CREDENTIAL_INVALID".to_owned()));

        let mut events = Events::open(&gateway, "").await;
        gateway.signal("TERM");
        events.until_end().await;
        assert!(gateway.ended().await.success());
    })
    .await;
}

#[tokio::test]
async fn a_stream_that_fails_says_so_as_a_problem() {
    let service = Service::over_sqlite(&[("ORGD_LAME_DUCK_TIME", "0s")]).await;
    let gateway = Service::start_gateway(&service).await;
    let mut events = Events::open(&gateway, "Connection: close\r\n").await;
    events.until(": following").await;
    service.signal("TERM");
    assert_eq!(events.until("event: ").await, "event: error");
    let data = events.until("data: ").await;
    let problem: serde_json::Value =
        serde_json::from_str(data.trim_start_matches("data: ")).unwrap();
    assert_eq!(problem["reason"], "SERVICE_STOPPING");
    assert_eq!(problem["status"], 503);
    events.until_end().await;
}

#[tokio::test]
async fn events_begin_where_the_header_or_else_the_parameter_says() {
    on_both_databases(async |service| {
        rename(&service, OWN, "Second").await;
        for (query, header, first) in [
            ("?lastEventId=0", "", "id: 1"),
            ("?lastEventId=1", "", "id: 2"),
            // As a browser does that comes back.
            ("?lastEventId=0", "Last-Event-ID: 1\r\n", "id: 2"),
        ] {
            let mut events = Events::open_with(service.http_addr(), query, header).await;
            assert_eq!(events.until("id: ").await, first, "{query} {header}");
        }
    })
    .await;
}
