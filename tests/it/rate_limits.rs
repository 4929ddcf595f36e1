//! Rate limits: who is counted, what the answer says, and who is not counted.

use futures_util::future::join_all;
use orgd::proto::v1::GetOrganizationRequest;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Duration, sleep},
};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::{
    examples::assert_documented_headers,
    harness::{
        ADMINISTRATOR, Answer, OWN, SUPPORT, Service, USER, authorized, on_both_databases_with,
    },
};

/// So many requests at once that some are over any limit of these tests.
const MANY: usize = 60;

async fn get_many(service: &Service, token: &str) -> Vec<Answer> {
    let bearer = format!("Bearer {token}");
    let get = || {
        let request = service.request("GET", "/v1/organizations/90");
        request.header("authorization", &bearer).send()
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
async fn a_principal_over_its_limit_waits_and_no_other_does() {
    on_both_databases_with(&[("ORGD_RATE_LIMIT_PRINCIPAL", "3")], async |service| {
        let answers = get_many(&service, USER).await;
        let (taken, refused) = (with_status(&answers, 200), with_status(&answers, 429));
        assert!(taken.len() >= 3, "{} were taken", taken.len());
        assert!(refused.len() >= 3, "{} were refused", refused.len());
        assert_eq!(taken.len() + refused.len(), MANY);
        for answer in taken {
            assert_eq!(answer.header("ratelimit-policy"), Some("\"principal\";q=3;w=1"));
        }
        for answer in refused {
            assert_refused(answer, "principal");
        }

        let refusal = grpc_refusal(&service, USER).await;
        let details = refusal.get_error_details();
        assert_eq!(details.error_info().unwrap().reason, "RATE_LIMITED");
        assert!(details.retry_info().unwrap().retry_delay.is_some());
        let limit = refusal.metadata().get("ratelimit").unwrap().to_str().unwrap();
        assert!(limit.starts_with("\"principal\";r=0;t="), "{limit}");

        let other = service.put(OWN, SUPPORT, "{}").send().await;
        assert_eq!(other.header("ratelimit"), Some("\"principal\";r=2;t=1"));
        let administrators = get_many(&service, ADMINISTRATOR).await;
        assert_eq!(with_status(&administrators, 200).len(), MANY, "they are exempt");
        assert_eq!(administrators[0].header("ratelimit"), None);
        let metrics = service.get_ops("/metrics").await;
        let none = "orgd_rate_limit_refusals_total{scope=\"principal\"} 0";
        assert!(metrics.text().contains("orgd_rate_limit_refusals_total{scope=\"principal\"} "));
        assert!(!metrics.text().contains(none));

        sleep(Duration::from_millis(1100)).await;
        let message = GetOrganizationRequest { id: OWN, ..GetOrganizationRequest::default() };
        let answer = service.grpc().get(authorized(USER, message)).await.unwrap();
        assert_eq!(answer.metadata().get("ratelimit-policy").unwrap(), "\"principal\";q=3;w=1");
    })
    .await;
}

#[tokio::test]
async fn administrators_have_the_limit_where_that_is_set() {
    let settings = [("ORGD_RATE_LIMIT_PRINCIPAL", "3"), ("ORGD_RATE_LIMIT_ADMINISTRATORS", "true")];
    on_both_databases_with(&settings, async |service| {
        assert!(!with_status(&get_many(&service, ADMINISTRATOR).await, 429).is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_request_counts_once_also_where_its_body_comes_late() {
    on_both_databases_with(&[("ORGD_RATE_LIMIT_PRINCIPAL", "3")], async |service| {
        // The caller is authenticated before the body is read.
        let mut stream = service.begin_put(USER, 2, "Connection: close\r\n").await;
        stream.write_all(b"{}").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.to_lowercase().contains("ratelimit: \"principal\";r=2;t=1\r\n"), "{answer}");
    })
    .await;
}

#[tokio::test]
async fn a_source_over_its_limit_waits_whoever_it_says_it_is() {
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
        // Operators are never kept from asking.
        assert_eq!(service.get_ops("/readyz").await.status(), 200);
    })
    .await;
}
