//! The serving processes: several on one database, a gateway in front, and how they stop.

use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::{
    examples::assert_examples,
    harness::{ADMINISTRATOR, OWN, Service, on_both_databases},
};

#[tokio::test]
async fn a_second_service_on_the_same_database_passes_the_examples() {
    on_both_databases(async |first| {
        let second = Service::start_beside(first.shared_database()).await;
        assert_examples(&second).await;
        let answer = first.put(OWN, ADMINISTRATOR, r#"{"name": "By the first"}"#).send().await;
        assert_eq!(answer.status(), 200);
        assert_eq!(second.database().organization(OWN).await.name, "By the first");
    })
    .await;
}

#[tokio::test]
async fn a_gateway_alone_in_front_of_a_service_passes_the_examples() {
    on_both_databases(async |service| {
        let gateway = Service::start_gateway(&service).await;
        assert_examples(&gateway).await;

        drop(service);
        let answer = gateway.put(OWN, ADMINISTRATOR, "{}").send().await;
        assert_eq!((answer.status(), answer.reason().as_str()), (503, "SERVICE_UNREACHABLE"));
        assert_eq!(answer.header("retry-after"), Some("1"));
        let not_ready = async {
            while gateway.get_ops("/readyz").await.status() != 503 {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(30), not_ready).await.unwrap();
        assert_eq!(gateway.get_ops("/livez").await.status(), 200);
    })
    .await;
}

#[tokio::test]
async fn a_stopping_service_ends_with_success_and_says_so() {
    on_both_databases(async |service| {
        for signal in ["TERM", "INT"] {
            let service = Service::start_beside(service.shared_database()).await;
            service.signal(signal);
            assert!(service.ended().await.success(), "{signal}");
        }
    })
    .await;
}

#[tokio::test]
async fn health_and_readiness_follow_the_database() {
    use sea_orm::ConnectionTrait;

    on_both_databases(async |service| {
        let status = async |name: &str| {
            let request = HealthCheckRequest { service: name.to_owned() };
            HealthClient::new(service.channel()).check(request).await.unwrap().get_ref().status()
        };
        for name in ["", "organization.v1.OrganizationService"] {
            assert_eq!(status(name).await, ServingStatus::Serving);
        }
        let connection = service.database().connect().await;
        let rename = async |from: &str, to: &str| {
            let statement = format!("ALTER TABLE {from} RENAME TO {to}");
            connection.execute_unprepared(&statement).await.unwrap();
        };
        let becomes = async |ready: u16, serving: ServingStatus| {
            let becoming = async {
                while service.get_ops("/readyz").await.status() != ready
                    || status("").await != serving
                {
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
            };
            let limit = std::time::Duration::from_secs(30);
            tokio::time::timeout(limit, becoming).await.expect("readiness follows");
        };
        rename("organizations", "away").await;
        becomes(503, ServingStatus::NotServing).await;
        assert_eq!(service.get_ops("/livez").await.status(), 200);
        rename("away", "organizations").await;
        becomes(200, ServingStatus::Serving).await;
    })
    .await;
}

#[tokio::test]
async fn a_process_that_cannot_begin_says_why_and_fails() {
    use crate::harness::orgd;

    on_both_databases(async |service| {
        let taken = service.http_addr();
        let serve =
            format!("serve --grpc-addr 127.0.0.1:0 --ops-addr 127.0.0.1:0 --http-addr {taken}");
        let refused = orgd(service.database().url(), &serve);
        assert_eq!(refused.code, 1);
        assert!(refused.stderr.contains(&format!("cannot listen on {taken} (--http-addr)")));
    })
    .await;
    for (url, sentence) in [
        ("sqlite:///nowhere/orgd.db", "cannot connect to the database"),
        ("sqlite::memory:", "name a file"),
        ("postgres://someone:hunter2@127.0.0.1:1/none", "cannot connect to the database"),
        ("mysql://someone:hunter2@127.0.0.1/none", "neither sqlite"),
        ("postgres://someone:hunter2@127.0.0.1:port/none", "neither sqlite"),
    ] {
        let refused = orgd(
            url,
            "serve --grpc-addr 127.0.0.1:0 --ops-addr 127.0.0.1:0 --http-addr 127.0.0.1:0",
        );
        assert_eq!(refused.code, 1, "{url}");
        assert!(refused.stderr.contains(sentence), "{url}: {}", refused.stderr);
        assert!(!refused.stderr.contains("hunter2"), "{}", refused.stderr);
    }
}
