//! Processes that serve: several on one database, a gateway in front of one, their health, and a start that fails.

use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::harness::{
    ADMINISTRATOR, Database, OWN, PATIENCE, SERVE, Service, assert_examples, on_both_databases,
    orgd,
};

/// The first column of what a database is asked for.
async fn pids(observer: &sea_orm::DatabaseConnection, words: &str) -> Vec<i32> {
    use sea_orm::ConnectionTrait;

    let ask = format!("SELECT {words}");
    let ask = sea_orm::Statement::from_string(observer.get_database_backend(), ask);
    let rows = observer.query_all_raw(ask).await.unwrap();
    rows.iter().map(|row| row.try_get_by_index(0).unwrap()).collect()
}

#[tokio::test]
async fn connections_that_the_server_closed_are_replaced_without_an_error() {
    let database = Database::postgres().await;
    database.seed().await;
    let service = Service::start(database).await;
    let observer = service.database().connect().await;
    for round in 0..3 {
        let get = |path| service.request("GET", path).bearer(ADMINISTRATOR).send();
        let body = format!(r#"{{"name": "Round {round}"}}"#);
        assert_eq!(service.put(OWN, ADMINISTRATOR, &body).send().await.status(), 200);
        for path in ["/v1/organizations/90", "/v1/organizations", "/v1/organizations/90/changes"] {
            assert_eq!(get(path).await.status(), 200, "{path}");
        }
        let others = "FROM pg_stat_activity \
            WHERE datname = current_database() AND pid <> pg_backend_pid()";
        let closed = pids(&observer, &format!("pid, pg_terminate_backend(pid) {others}")).await;
        let left = async || pids(&observer, &format!("pid {others}")).await;
        while left().await.iter().any(|pid| closed.contains(pid)) {}
        // Longer than a connection may have been quiet and yet be used without a sign of life.
        tokio::time::sleep(std::time::Duration::from_millis(150)).await;
    }
}

#[tokio::test]
async fn a_second_service_on_the_same_database_passes_the_examples() {
    on_both_databases(async |first| {
        let second = Service::start_beside(first.shared_database()).await;
        assert_examples(&second).await;
        let answer = first.put(OWN, ADMINISTRATOR, r#"{"name": "By the first"}"#).send().await;
        assert_eq!(answer.status(), 200);
        assert_eq!(second.database().name(OWN).await, "By the first");
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
        tokio::time::timeout(PATIENCE, not_ready).await.unwrap();
        assert_eq!(gateway.get_ops("/livez").await.status(), 200);
    })
    .await;
}

#[tokio::test]
async fn a_quiet_stream_keeps_its_connection() {
    on_both_databases(async |service| {
        let channel = service.channel();
        let request = HealthCheckRequest { service: String::new() };
        let mut watch =
            HealthClient::new(channel.clone()).watch(request.clone()).await.unwrap().into_inner();
        // A state may come at any time; an error or an end is the connection's.
        let watching = async { while watch.message().await.unwrap().is_some() {} };
        // Longer than a client that does not move may stall.
        let quiet = std::time::Duration::from_secs(13);
        tokio::time::timeout(quiet, watching).await.expect_err("the stream goes on");
        HealthClient::new(channel).check(request).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn health_and_readiness_follow_the_database() {
    on_both_databases(async |service| {
        let status = async |name: &str| {
            let request = HealthCheckRequest { service: name.to_owned() };
            HealthClient::new(service.channel()).check(request).await.unwrap().get_ref().status()
        };
        let rename = async |from: &str, to: &str| {
            service.database().execute(&format!("ALTER TABLE {from} RENAME TO {to}")).await;
        };
        let becomes = async |ready: u16, serving: ServingStatus| {
            let becoming = async {
                while service.get_ops("/readyz").await.status() != ready
                    || status("").await != serving
                {
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
            };
            tokio::time::timeout(PATIENCE, becoming).await.expect("readiness follows");
        };
        becomes(200, ServingStatus::Serving).await;
        let named = status("organization.v1.OrganizationService").await;
        assert_eq!(named, ServingStatus::Serving);
        rename("organizations", "away").await;
        becomes(503, ServingStatus::NotServing).await;
        assert_eq!(service.get_ops("/livez").await.status(), 200);
        rename("away", "organizations").await;
        becomes(200, ServingStatus::Serving).await;
    })
    .await;
}

#[tokio::test]
async fn a_process_that_cannot_start_says_why_and_fails() {
    on_both_databases(async |service| {
        let taken = service.http_addr();
        let serve =
            format!("serve --grpc-addr 127.0.0.1:0 --ops-addr 127.0.0.1:0 --http-addr {taken}");
        let refused = orgd(service.database().url(), &serve);
        assert_eq!(refused.code, 1);
        assert!(refused.stderr.contains(&format!("cannot listen on {taken} (--http-addr)")));
    })
    .await;
    for upstream in ["127.0.0.1:50051", "ftp://127.0.0.1:50051", "/x", "http:///x"] {
        let refused = orgd("", &format!("gateway --upstream {upstream}"));
        assert!(refused.stderr.contains("must be http://HOST:PORT"), "{}", refused.stderr);
    }
    for (url, sentence) in [
        ("sqlite:///nowhere/orgd.db", "cannot connect to the database"),
        ("sqlite::memory:", "name a file"),
        ("postgres://someone:hunter2@127.0.0.1:1/none", "cannot connect to the database"),
        ("mysql://someone:hunter2@127.0.0.1/none", "neither sqlite"),
        ("postgres://someone:hunter2@127.0.0.1:port/none", "percent-encode"),
    ] {
        let refused = orgd(url, &SERVE.join(" "));
        assert_eq!(refused.code, 1, "{url}");
        assert!(refused.stderr.contains(sentence), "{url}: {}", refused.stderr);
        assert!(!refused.stderr.contains("hunter2"), "{}", refused.stderr);
    }
}
