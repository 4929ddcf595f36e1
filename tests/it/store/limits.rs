//! Limits of the database: how long a statement waits, and how many connections reads have.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use sea_orm::ConnectionTrait;
use tokio::time::{sleep, timeout};

use crate::harness::{
    ADMINISTRATOR, Database, OWN, PATIENCE, PATIENT, Service, USER, patiently_on_both_databases,
};
/// What a locked row or a busy database file comes to, by the limit that is shorter.
#[tokio::test]
async fn a_statement_waits_no_longer_than_it_may() {
    for (short, postgres, sqlite) in [
        ("ORGD_DATABASE_LOCK_TIMEOUT", "lock timeout", Some("database is locked")),
        // SQLite has no such limit.
        ("ORGD_DATABASE_STATEMENT_TIMEOUT", "statement timeout", None),
    ] {
        patiently_on_both_databases(&[(short, "500ms")], async |service| {
            let words = if service.database().is_sqlite() { sqlite } else { Some(postgres) };
            let Some(words) = words else { return };
            let held = service.database().hold().await;
            let answer = service.put(OWN, ADMINISTRATOR, r#"{"name": "Late"}"#).send().await;
            assert_eq!((answer.status(), answer.reason().as_str()), (503, "STORE_UNAVAILABLE"));
            service.until_logged(words).await;
            held.rollback().await.unwrap();
            service.assert_serves().await;
            assert_ne!(service.database().name(OWN).await, "Late");
        })
        .await;
    }
}

/// Administrators have one connection of the pool, however many lists they ask for.
#[tokio::test]
async fn reads_beyond_the_pool_wait_for_a_connection() {
    let database = Database::postgres().await;
    database.seed().await;
    let service = Service::start_with(
        Arc::new(database),
        &[&PATIENT[..], &[("ORGD_DATABASE_CONNECTIONS", "9")]].concat(),
    )
    .await;
    let locked = service.database().lock_table("organization_changes").await;
    // In the other's transaction the view would stay as it was first seen.
    let observer = service.database().connect().await;
    let changes = |token: &str| {
        let request = service.request("GET", "/v1/organizations/90/changes");
        request.bearer(token).send()
    };
    let of_administrator = join_all((0..10).map(|_| changes(ADMINISTRATOR)));
    let of_user = join_all((0..10).map(|_| changes(USER)));
    let looking = async {
        let count = async |condition: &str| {
            let count = format!(
                "SELECT count(*) AS count FROM pg_stat_activity WHERE {condition} AND datname = \
                 current_database() AND pid <> pg_backend_pid()"
            );
            let row = observer.query_one_raw(statement(&count)).await.unwrap().unwrap();
            row.try_get::<i64>("", "count").unwrap()
        };
        let waiting = async {
            while count("wait_event_type = 'Lock'").await < 2 {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, waiting).await.expect("one of each waits for the lock");
        let counts = (count("wait_event_type = 'Lock'").await, count("true").await);
        locked.rollback().await.unwrap();
        counts
    };
    let (mut answers, others, counts) = tokio::join!(of_administrator, of_user, looking);
    assert!(
        counts.0 <= 2 && counts.1 <= 8 + 1,
        "{counts:?} connections wait for the lock, and are there"
    );
    answers.extend(others);
    // A statement that met the lock may have been too slow.
    let done = answers.iter().filter(|answer| answer.status() == 200).count();
    assert!(done >= 16, "{done} of 20");
    assert_eq!(changes(USER).await.status(), 200);
}

fn statement(text: &str) -> sea_orm::Statement {
    sea_orm::Statement::from_string(sea_orm::DbBackend::Postgres, text)
}
