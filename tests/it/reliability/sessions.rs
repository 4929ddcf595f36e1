//! Promise 4: connections to PostgreSQL that lead to what cannot write, or that outlive what they were
//! made for, are replaced; and the service is ready only while it can do its work.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use orgd::proto::v1::{ListOrganizationsRequest, organization_service_client};
use sea_orm::{ConnectionTrait, DatabaseConnection};
use tokio::time::{sleep, timeout};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::harness::{
    ADMINISTRATOR, Cluster, Database, FOREIGN, Fault, OWN, PATIENCE, Proxy, Service, authorized,
    orgd,
};

async fn execute(connection: &DatabaseConnection, statement: &str) {
    connection.execute_unprepared(statement).await.unwrap();
}

/// Waits until `/readyz` and gRPC health say so.
async fn until_ready(service: &Service, is_ready: bool) {
    let becoming = async {
        loop {
            let name = "organization.v1.OrganizationService".to_owned();
            let request = HealthCheckRequest { service: name };
            let health = HealthClient::new(service.channel()).check(request).await;
            let is_serving = health.unwrap().get_ref().status == 1;
            let is_200 = service.get_ops("/readyz").await.status() == 200;
            if (is_serving, is_200) == (is_ready, is_ready) {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, becoming).await.unwrap_or_else(|_| panic!("it becomes {is_ready}"));
}

async fn put(service: &Service, id: i64, name: &str) -> u16 {
    let body = format!(r#"{{"name": "{name}"}}"#);
    service.put(id, ADMINISTRATOR, &body).send().await.status()
}

async fn post(service: &Service) -> u16 {
    let post = service.request("POST", "/v1/organizations");
    let post = post.bearer(ADMINISTRATOR);
    let post = post.header("content-type", "application/json");
    post.body(r#"{"name": "New"}"#.to_owned()).send().await.status()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_takes_no_writes_for_a_while_is_not_used_and_then_used_again() {
    let database = Database::postgres().await;
    database.seed().await;
    let service = Service::start(database).await;
    let database = service.shared_database();
    let (server, name) = database.url().rsplit_once('/').unwrap();
    let observer = sea_orm::Database::connect(format!("{server}/postgres")).await.unwrap();
    let terminate =
        format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'");
    for round in 0..2 {
        assert_eq!(put(&service, OWN, &format!("Before {round}")).await, 200);
        let alter = format!("ALTER DATABASE {name} SET default_transaction_read_only =");
        execute(&observer, &format!("{alter} on")).await;
        execute(&observer, &terminate).await;
        // Without a call: the service notices by itself.
        until_ready(&service, false).await;
        assert_eq!(put(&service, OWN, "Refused").await, 503);
        assert_eq!(post(&service).await, 503);
        let refused = orgd(database.url(), "credential issue --role support");
        assert_eq!(refused.code, 1);
        assert!(refused.stderr.contains("the server takes no writes"), "{}", refused.stderr);
        assert!(service.log().contains("the server takes no writes"), "{}", service.log());

        execute(&observer, &format!("{alter} off")).await;
        until_ready(&service, true).await;
        for call in 0..20 {
            assert_eq!(put(&service, OWN, &format!("After {round} {call}")).await, 200);
            assert_eq!(post(&service).await, 201);
        }
    }
    assert!(service.log().contains("the database can be used again"));
}

/// Sessions that were made while all was well, and are not any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_refuses_writes_or_lost_its_prepared_statements_is_replaced() {
    let database = Database::postgres().await;
    database.seed().await;
    let proxy = Proxy::start(database.addr()).await;
    let service = Service::start(database.behind(&proxy)).await;
    // 0A000 means this only with a text that says so, and comes from a real server in `store::upgrades`.
    for code in ["25006", "26000", "42P05"] {
        let statements = ["UPDATE organizations", "INSERT INTO organizations AS", "SELECT"];
        for (number, words) in statements.into_iter().enumerate() {
            assert_eq!(put(&service, OWN, &format!("Before {code} {number}")).await, 200);
            assert_eq!(post(&service).await, 201);
            proxy.set_for(words, Fault::Answer(1, code));
            let status = put(&service, OWN, &format!("{code} {number}")).await;
            assert_eq!(status, 200, "{code} {words}");
            assert_eq!(post(&service).await, 201, "{code} {words}");
            let met = timeout(PATIENCE, async {
                while proxy.fault() != Fault::Pass {
                    sleep(Duration::from_millis(20)).await;
                }
            });
            met.await.expect("the fault is met");
        }
    }
    until_ready(&service, true).await;
}

/// The names that a list has, and that each organization has by itself.
async fn assert_list_agrees(service: &Service) {
    let mut client: organization_service_client::OrganizationServiceClient<_> = service.grpc();
    let list = client.list(authorized(ADMINISTRATOR, ListOrganizationsRequest::default()));
    for listed in list.await.unwrap().into_inner().organizations {
        let get = orgd::proto::v1::GetOrganizationRequest { id: listed.id, ..Default::default() };
        let got = client.get(authorized(ADMINISTRATOR, get)).await.unwrap().into_inner();
        assert_eq!((listed.etag, listed.name), (got.etag, got.name));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_switch_to_a_standby_leaves_no_trace() {
    let primary = Cluster::start(&["max_connections=100"]);
    let database = Database::postgres_at(&primary.url, "switched").await;
    database.seed().await;
    let standby = Cluster::standby(&primary);
    let addr = |cluster: &Cluster| cluster.url.split('@').nth(1).unwrap().parse().unwrap();
    let proxy = Proxy::start(addr(&primary)).await;
    let service = Service::start_beside(Arc::new(database.behind(&proxy))).await;
    assert_eq!(put(&service, OWN, "Before").await, 200);

    proxy.lead_to(addr(&standby));
    let begin = Instant::now();
    let mut refused = 0;
    while begin.elapsed() < Duration::from_secs(3) {
        // All of what makes connections.
        let list = service.request("GET", "/v1/organizations");
        let list = list.bearer(ADMINISTRATOR).send();
        let (own, foreign, created, list) = tokio::join!(
            put(&service, OWN, "During"),
            put(&service, FOREIGN, "During"),
            post(&service),
            list
        );
        // The rest found connections to the primary.
        for status in [own, foreign, created, list.status()] {
            assert!([200, 201, 503].contains(&status), "{status}");
            refused += u32::from(status == 503);
        }
    }
    assert!(refused > 0, "the address led to a standby");
    until_ready(&service, false).await;
    proxy.lead_to(addr(&primary));
    until_ready(&service, true).await;
    for number in 0..60 {
        assert_eq!(put(&service, OWN, &format!("After {number}")).await, 200);
        assert_list_agrees(&service).await;
    }
    assert_eq!(post(&service).await, 201);
}
