//! Rate limits: who is counted, what the answer says, and who is not counted.

use std::sync::Arc;

use futures_util::future::join_all;
use http::uri::PathAndQuery;
use orgd::proto::v1::{GetOrganizationRequest, Role, WhoAmIRequest};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Duration, Instant, sleep},
};
use tonic::{Code, Status, client::Grpc};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_types::StatusExt;

use crate::harness::{
    ADMINISTRATOR, Answer, Database, OWN, SUPPORT, Service, USER, assert_documented_headers,
    authorized, on_both_databases_with, orgd,
};

/// So many requests at once that some are over any limit of these tests.
const MANY: usize = 60;

async fn get_many(service: &Service, token: &str) -> Vec<Answer> {
    let get = || {
        let request = service.request("GET", "/v1/organizations/90");
        request.bearer(token).send()
    };
    join_all((0..MANY).map(|_| get())).await
}

fn with_status(answers: &[Answer], status: u16) -> Vec<&Answer> {
    answers.iter().filter(|answer| answer.status() == status).collect()
}

fn assert_refused(answer: &Answer, scope: &str) {
    assert_eq!(answer.reason(), "RATE_LIMITED");
    assert_eq!(answer.header("retry-after"), Some("1"));
    let limit = answer.header("ratelimit").unwrap();
    assert!(limit.starts_with(&format!("\"{scope}\";r=0;t=")), "{limit}");
    assert_documented_headers(answer);
}

/// What those of so many calls at once are told that are over the limit.
async fn grpc_refusal(service: &Service, token: &str) -> Status {
    let client = service.grpc();
    let get = || async {
        let message = GetOrganizationRequest { id: OWN, ..GetOrganizationRequest::default() };
        client.clone().get(authorized(token, message)).await
    };
    let answers = join_all((0..MANY).map(|_| get())).await;
    let refusal = answers.into_iter().find_map(Result::err).expect("some are over the limit");
    assert_eq!(refusal.code(), Code::ResourceExhausted);
    refusal
}

#[tokio::test]
async fn a_principal_over_its_limit_is_refused_and_no_other_is() {
    let settings = [("ORGD_RATE_LIMIT_USER", "3"), ("ORGD_RATE_LIMIT_SUPPORT", "3")];
    on_both_databases_with(&settings, async |service| {
        let answers = get_many(&service, USER).await;
        let (taken, refused) = (with_status(&answers, 200), with_status(&answers, 429));
        assert!(taken.len() >= 6, "{} were taken", taken.len());
        assert!(refused.len() >= 3, "{} were refused", refused.len());
        assert_eq!(taken.len() + refused.len(), MANY);
        for answer in taken {
            assert_eq!(answer.header("ratelimit-policy"), Some("\"principal\";q=6;w=2"));
        }
        for answer in refused {
            assert_refused(answer, "principal");
            assert!(answer.text().contains("(3 calls a second, 6 at once)"), "{}", answer.text());
        }

        let refusal = grpc_refusal(&service, USER).await;
        let details = refusal.get_error_details();
        assert_eq!(details.error_info().unwrap().reason, "RATE_LIMITED");
        assert!(details.retry_info().unwrap().retry_delay.is_some());
        let limit = refusal.metadata().get("ratelimit").unwrap().to_str().unwrap();
        assert!(limit.starts_with("\"principal\";r=0;t="), "{limit}");

        let other = service.put(OWN, SUPPORT, "{}").send().await;
        assert_eq!(other.header("ratelimit"), Some("\"principal\";r=5;t=1"));
        let administrators = get_many(&service, ADMINISTRATOR).await;
        assert_eq!(with_status(&administrators, 200).len(), MANY, "they have no limit");
        assert_eq!(administrators[0].header("ratelimit"), None);
        let metrics = service.get_ops("/metrics").await;
        let none = "orgd_rate_limit_refusals_total{scope=\"principal\"} 0";
        assert!(metrics.text().contains("orgd_rate_limit_refusals_total{scope=\"principal\"} "));
        assert!(!metrics.text().contains(none));

        sleep(Duration::from_millis(1100)).await;
        let message = GetOrganizationRequest { id: OWN, ..GetOrganizationRequest::default() };
        let answer = service.grpc().get(authorized(USER, message)).await.unwrap();
        assert_eq!(answer.metadata().get("ratelimit-policy").unwrap(), "\"principal\";q=6;w=2");
    })
    .await;
}

#[tokio::test]
async fn administrators_have_a_limit_where_that_is_set() {
    on_both_databases_with(&[("ORGD_RATE_LIMIT_ADMINISTRATOR", "3")], async |service| {
        assert!(!with_status(&get_many(&service, ADMINISTRATOR).await, 429).is_empty());
    })
    .await;
}

#[tokio::test]
async fn users_have_a_default_limit_above_what_honest_callers_need() {
    on_both_databases_with(&[], async |service| {
        let read = async |token: &str| {
            let message = GetOrganizationRequest { id: OWN, ..GetOrganizationRequest::default() };
            let answer = service.grpc().get(authorized(token, message)).await.unwrap();
            answer
                .metadata()
                .get("ratelimit-policy")
                .map(|policy| policy.to_str().unwrap().to_owned())
        };
        assert_eq!(read(USER).await.as_deref(), Some("\"principal\";q=400;w=2"));
        for token in [SUPPORT, ADMINISTRATOR] {
            assert_eq!(read(token).await, None);
        }
    })
    .await;
}

#[tokio::test]
async fn refusals_for_a_callers_own_load_are_delayed() {
    let settings = [("ORGD_RATE_LIMIT_USER", "1")];
    on_both_databases_with(&settings, async |service| {
        let begin = Instant::now();
        let answers = get_many(&service, USER).await;
        assert!(!with_status(&answers, 429).is_empty());
        // The least that it may take, however fast the machine is.
        assert!(begin.elapsed() >= Duration::from_secs(1), "refusals rest");
        // Whoever has less time is told in it.
        let short = service.request("GET", "/v1/organizations/90").header("grpc-timeout", "400m");
        let short = short.bearer(USER).send().await;
        assert!([200, 429].contains(&short.status()), "{}", short.text());
    })
    .await;
}

/// Stands in a request for its caller's secret.
const CALLER: &str = "caller's secret";

/// A PUT or GET as bytes: what comes before its body, and the body.
fn raw(method: &str, path: &str, header: &str, body: &str) -> (String, String) {
    // Whose it is is filled in later.
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{header}\
         Authorization: Bearer {CALLER}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    (head, body.to_owned())
}

/// Sends a request, and its body late where it is to be; its status, and what it says of the limit.
async fn send_raw(
    service: &Service,
    (head, body): &(String, String),
    is_late: bool,
) -> (u16, String) {
    let mut stream = TcpStream::connect(service.http_addr()).await.unwrap();
    if is_late {
        stream.write_all(head.as_bytes()).await.unwrap();
        // The caller is authenticated before the body is read.
        sleep(Duration::from_millis(100)).await;
        stream.write_all(body.as_bytes()).await.unwrap();
    } else {
        stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let limit = answer.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("ratelimit").then(|| value.to_owned())
    });
    (status, limit.unwrap_or_default())
}

#[tokio::test]
async fn every_rest_request_counts_once_against_the_rate_limit() {
    let database = Database::sqlite();
    database.seed().await;
    let url = database.url().to_owned();
    let settings = [("ORGD_RATE_LIMIT_USER", "3")];
    let service = Service::start_with(Arc::new(database), &settings).await;
    let gateway = Service::start_gateway(&service).await;
    let own = "/v1/organizations/90";
    let put = |header: &str, body: &str| raw("PUT", own, header, body);
    let too_large = format!("{{\"name\": \"{}\"}}", "x".repeat(70_000));
    let shapes = [
        ("an update", put("", "{}"), false, 200),
        ("a late body", put("", "{}"), true, 200),
        ("a refused body", put("", "[]"), false, 400),
        ("a late body that is refused", put("", "[]"), true, 400),
        ("a body that is too large", put("", &too_large), false, 413),
        ("a path without an id", raw("PUT", "/v1/organizations/x", "", "{}"), false, 400),
        ("a list of etags", put("If-Match: \"1\", \"9\"\r\n", "{}"), false, 200),
        ("etags that it has not", put("If-Match: \"8\", \"9\"\r\n", "{}"), false, 412),
        ("etags to avoid", put("If-None-Match: \"8\", \"9\"\r\n", "{}"), false, 200),
        ("etags to avoid that it has", put("If-None-Match: \"1\"\r\n", "{}"), false, 412),
        ("a read", raw("GET", own, "", ""), false, 200),
        ("who one is", raw("GET", "/v1/whoami", "", ""), false, 200),
        (
            "a read that is refused",
            raw("GET", &format!("{own}?writableFields=x"), "", ""),
            false,
            400,
        ),
    ];
    let mut checks = Vec::new();
    for (command, service) in [("serve", &service), ("gateway", &gateway)] {
        for (number, (what, (head, body), is_late, expected)) in shapes.iter().enumerate() {
            // Each has a principal of its own, who has all calls.
            let issue = "credential issue --role user --organization 90 --json --subject";
            let issued = orgd(&url, &format!("{issue} {command}-{number}")).json();
            let head = head.replace(CALLER, issued["secret"].as_str().unwrap());
            let (what, request) = (format!("{what} through {command}"), (head, body.clone()));
            checks.push(costs_one_call(service, what, request, *is_late, *expected));
        }
    }
    join_all(checks).await;
}

/// Sends a request again and again, of which its principal has three a second and six at once.
async fn costs_one_call(
    service: &Service,
    what: String,
    request: (String, String),
    is_late: bool,
    expected: u16,
) {
    let (status, limit) = send_raw(service, &request, is_late).await;
    assert_eq!((status, limit.as_str()), (expected, "\"principal\";r=5;t=1"), "{what}");
    for number in 1..6 {
        let (status, limit) = send_raw(service, &request, is_late).await;
        assert_eq!(status, expected, "{what}, number {number}: {limit}");
    }
    let more = (0..MANY / 2).map(|_| send_raw(service, &request, is_late));
    let refused = join_all(more).await.into_iter().filter(|(status, _)| *status == 429);
    assert!(refused.count() > 0, "{what} costs something");
}

#[tokio::test]
async fn who_am_i_over_grpc_does_not_count_against_the_rate_limit() {
    on_both_databases_with(&[("ORGD_RATE_LIMIT_USER", "3")], async |service| {
        let ask = || async {
            let mut client = service.grpc();
            client.who_am_i(authorized(USER, WhoAmIRequest {})).await
        };
        for answer in join_all((0..MANY).map(|_| ask())).await {
            let caller = answer.unwrap().into_inner();
            assert_eq!((caller.subject.as_str(), caller.organization_id), ("test-user", Some(OWN)));
            assert_eq!((caller.role(), caller.expire_time), (Role::User, None));
            assert_eq!(caller.writable_fields, ["name"]);
            let secret = orgd::auth::Secret::parse(USER).unwrap();
            assert_eq!(caller.credential_id, secret.digest().id());
        }
        // But where the caller asks to be counted, as a gateway does.
        let counted = || async {
            let mut request = authorized(USER, WhoAmIRequest {});
            request.metadata_mut().insert("orgd-counted", "1".parse().unwrap());
            service.grpc().who_am_i(request).await
        };
        let answers = join_all((0..MANY).map(|_| counted())).await;
        let limited = answers.iter().filter_map(|answer| answer.as_ref().err());
        assert!(limited.count() >= 3, "{answers:?}");
        let unknown = service.grpc().who_am_i(authorized("x", WhoAmIRequest {})).await;
        assert_eq!(unknown.unwrap_err().code(), Code::Unauthenticated);
    })
    .await;
}

#[tokio::test]
async fn a_source_is_counted_for_every_service_of_the_listener() {
    const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    on_both_databases_with(&[("ORGD_RATE_LIMIT_SOURCE", "3")], async |service| {
        let watch = async || {
            let message = HealthCheckRequest::default();
            HealthClient::new(service.channel()).watch(message).await.map(drop)
        };
        let check = async || {
            let message = HealthCheckRequest::default();
            HealthClient::new(service.channel()).check(message).await.map(drop)
        };
        let who = async || {
            let request = authorized(USER, WhoAmIRequest {});
            service.grpc().who_am_i(request).await.map(drop)
        };
        let unknown = async |path: &'static str| {
            let mut client = Grpc::new(service.channel());
            client.ready().await.unwrap();
            let codec =
                tonic_prost::ProstCodec::<HealthCheckRequest, HealthCheckRequest>::default();
            let request = tonic::Request::new(HealthCheckRequest::default());
            client.unary(request, PathAndQuery::from_static(path), codec).await.map(drop)
        };
        for (what, ends) in [
            ("a watch of the health", join_all((0..MANY).map(|_| watch())).await),
            ("a check of the health", join_all((0..MANY).map(|_| check())).await),
            ("reflection", join_all((0..MANY).map(|_| unknown(REFLECTION))).await),
            ("no service", join_all((0..MANY).map(|_| unknown("/no.Service/Call"))).await),
            ("who one is", join_all((0..MANY).map(|_| who())).await),
        ] {
            let refused = ends.iter().filter_map(|end| end.as_ref().err()).filter(|status| {
                let details = status.get_error_details();
                details.error_info().is_some_and(|info| info.reason == "RATE_LIMITED")
            });
            assert!(refused.count() > 3, "{what}: {ends:?}");
        }
        // A watch counts once, when it starts.
        sleep(Duration::from_millis(1100)).await;
        let mut client = HealthClient::new(service.channel());
        let watch = client.watch(HealthCheckRequest::default()).await.unwrap();
        let status = watch.into_inner().message().await.unwrap().unwrap();
        assert_eq!(status.status(), ServingStatus::Serving);
    })
    .await;
}

#[tokio::test]
async fn a_source_over_its_limit_is_refused_whatever_credential_it_sends() {
    on_both_databases_with(&[("ORGD_RATE_LIMIT_SOURCE", "3")], async |service| {
        let answers = get_many(&service, "no-credential-at-all").await;
        let (unknown, refused) = (with_status(&answers, 401), with_status(&answers, 429));
        assert_eq!(unknown.len() + refused.len(), MANY);
        assert!(unknown.len() >= 3 && refused.len() >= 3, "{} of {MANY}", refused.len());
        for answer in refused {
            assert_refused(answer, "source");
        }

        let refusal = grpc_refusal(&service, ADMINISTRATOR).await;
        assert_eq!(refusal.get_error_details().error_info().unwrap().reason, "RATE_LIMITED");
        // The operations listener has no rate limit.
        assert_eq!(service.get_ops("/readyz").await.status(), 200);
    })
    .await;
}
