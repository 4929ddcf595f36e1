//! Promises 1 and 2: what was acknowledged survives kill -9, of the service and of the database.

use std::{sync::Arc, time::Duration};

use sea_orm::{ConnectionTrait, Statement};

use super::{
    caller::{Addresses, Api, Caller, Outcome, Write},
    ledger::{Stored, assert_kept, stored, violations},
    load::{Load, ORGANIZATIONS, Recorded},
};
use crate::harness::{Cluster, Database, OWN, Service};

/// Updates that are acknowledged before each kill, so that it comes in the midst of them.
const UPDATES_BETWEEN: usize = 60;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_updates_survive_kill_9_of_the_service_over_sqlite() {
    kill_the_service(Database::sqlite(), 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_updates_survive_kill_9_of_the_service_over_postgresql() {
    kill_the_service(Database::postgres().await, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: make soak"]
async fn acknowledged_updates_survive_25_times_kill_9_of_the_service() {
    kill_the_service(Database::sqlite(), 25).await;
    kill_the_service(Database::postgres().await, 25).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_updates_survive_kill_9_of_postgresql() {
    kill_postgresql(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: make soak"]
async fn acknowledged_updates_survive_25_times_kill_9_of_postgresql() {
    kill_postgresql(25).await;
}

async fn kill_the_service(database: Database, kills: u32) {
    database.seed().await;
    let database = Arc::new(database);
    let mut service = Service::start_beside(database.clone()).await;
    let load = Load::start(Addresses::of(&service));
    for _ in 0..kills {
        load.acknowledges(UPDATES_BETWEEN).await;
        // With the value its process gets SIGKILL.
        drop(service);
        service = Service::start_beside(database.clone()).await;
        load.moves_to(Addresses::of(&service));
    }
    load.acknowledges(UPDATES_BETWEEN).await;
    let recorded = load.stop().await;
    let outcomes = assert_kept(&database, &recorded).await;
    assert!(outcomes.keys().any(|label| label.ends_with("broken")), "the kills were in the midst");
    if database.is_sqlite() {
        assert_eq!(integrity(&database).await, "ok");
    }
}

async fn kill_postgresql(kills: u32) {
    let mut cluster = Cluster::start(&[]);
    let database = Arc::new(Database::postgres_at(&cluster.url, "crashes").await);
    database.seed().await;
    let mut service = Service::start_beside(database.clone()).await;
    let load = Load::start(Addresses::of(&service));
    let mut slowest = Duration::ZERO;
    for _ in 0..kills {
        load.acknowledges(UPDATES_BETWEEN).await;
        cluster.crash();
        cluster.restart();
        slowest = slowest.max(load.acknowledges(UPDATES_BETWEEN).await);
    }
    let recorded = load.stop().await;
    eprintln!("first acknowledgement after at most {slowest:?} from PostgreSQL's start");
    let outcomes = assert_kept(&database, &recorded).await;
    assert!(service.is_running(), "the same process");
    let is_told = outcomes.keys().any(|label| label.ends_with("STORE_UNAVAILABLE"));
    assert!(is_told, "the kills were in the midst: {outcomes:?}");
    assert!(!outcomes.keys().any(|label| label.contains("INTERNAL")), "{outcomes:?}");
}

/// What SQLite finds wrong with its file, or `ok`.
pub async fn integrity(database: &Database) -> String {
    let connection = database.connect().await;
    let check = Statement::from_string(
        connection.get_database_backend(),
        "SELECT integrity_check AS found FROM pragma_integrity_check",
    );
    let found = connection.query_one_raw(check).await.unwrap().unwrap();
    found.try_get("", "found").unwrap()
}

/// What may go wrong with what is stored, or was told.
type Change = fn(&mut Stored, &mut Vec<Recorded>);

/// The check of these tests is checked: each way in which stored data can be wrong is found.
#[tokio::test]
async fn the_check_finds_lost_half_and_foreign_updates() {
    let service = Service::over_sqlite(&[]).await;
    let mut caller = Caller::default();
    let mut recorded = Vec::new();
    for (turn, api) in [Api::Rest, Api::Grpc, Api::Rest].into_iter().enumerate() {
        let value = Some(format!("value {turn}"));
        let write = Write {
            id: format!("w-{turn}"),
            organization: OWN,
            name: value.clone(),
            subscription_id: value.clone(),
            handshake: value,
            version: None,
        };
        let outcome = caller.update(Addresses::of(&service), api, &write).await;
        assert!(matches!(outcome, Outcome::Done(..)), "{outcome:?}");
        recorded.push(Recorded { write, outcome });
    }
    let good = stored(service.database(), ORGANIZATIONS).await;
    assert_eq!(violations(&good, &recorded), Vec::<String>::new());

    let changes: [(&str, Change); 8] = [
        ("lost: ", |stored, _| {
            stored.entries.pop();
        }),
        ("follows version 2", |stored, _| {
            stored.entries.remove(2);
        }),
        ("but the last entry is", |stored, _| stored.row.version -= 1),
        ("but the last entry is", |stored, _| stored.row.handshake = None),
        ("is Entry", |stored, _| stored.entries[2].subscription_id = Some("free".to_owned())),
        ("w-9 was not sent", |stored, _| stored.entries[2].request_id = "w-9".to_owned()),
        ("its writer was told Mismatch(1)", |_, recorded| {
            recorded[1].outcome = Outcome::Mismatch(1);
        }),
        ("was for version Some(1)", |_, recorded| recorded[1].write.version = Some(1)),
    ];
    for (expected, change) in changes {
        let (mut bad, mut recorded) = (good.clone(), recorded.clone());
        change(&mut bad[0], &mut recorded);
        let found = violations(&bad, &recorded);
        assert!(found.iter().any(|found| found.contains(expected)), "{expected}: {found:?}");
    }
}
