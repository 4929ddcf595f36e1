//! Promise 5: of many who change the same version, one wins; losing to another transaction does not
//! surface.

use std::sync::Arc;

use futures_util::future::join_all;
use sea_orm::ConnectionTrait;

use crate::harness::{ADMINISTRATOR, Answer, Database, OWN, Service};

const CALLERS: usize = 16;
const ROUNDS: i64 = 200;

/// The databases of a test, seeded, each with the name of how it isolates transactions.
async fn databases() -> [(&'static str, Arc<Database>); 3] {
    let serializable = Database::postgres().await;
    let database = serializable.connect().await;
    let name = serializable.url().rsplit('/').next().unwrap();
    let isolate =
        format!("ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'");
    database.execute_unprepared(&isolate).await.unwrap();
    database.close().await.unwrap();
    let all = [
        ("SQLite", Database::sqlite()),
        ("PostgreSQL, read committed", Database::postgres().await),
        ("PostgreSQL, serializable", serializable),
    ];
    for (_, database) in &all {
        database.seed().await;
    }
    all.map(|(isolation, database)| (isolation, Arc::new(database)))
}

/// Two services on one database.
async fn two_services(database: &Arc<Database>) -> [Service; 2] {
    [Service::start_beside(database.clone()).await, Service::start_beside(database.clone()).await]
}

/// Transactions of PostgreSQL's that were rolled back so far.
async fn rollbacks(database: &Database) -> i64 {
    let connection = database.connect().await;
    let name = "SELECT xact_rollback FROM pg_stat_database WHERE datname = current_database()";
    let row = connection
        .query_one_raw(sea_orm::Statement::from_string(connection.get_database_backend(), name));
    let rollbacks = row.await.unwrap().unwrap().try_get_by_index(0).unwrap();
    connection.close().await.unwrap();
    rollbacks
}

#[tokio::test]
async fn of_sixteen_with_the_same_etag_one_wins() {
    for (isolation, database) in databases().await {
        let services = two_services(&database).await;
        for round in 0..ROUNDS {
            let etag = format!(r#""{}""#, round + 1);
            let put = |caller: usize| {
                let body = format!(r#"{{"name": "Caller {caller} of round {round}"}}"#);
                let service = &services[caller % services.len()];
                service.put(OWN, ADMINISTRATOR, &body).header("if-match", &etag).send()
            };
            let answers = join_all((0..CALLERS).map(put)).await;
            let (winners, losers): (Vec<_>, Vec<_>) =
                answers.iter().partition(|answer| answer.status() == 200);
            let told = |answer: &&Answer| (answer.status(), answer.reason());
            let losers: Vec<_> = losers.iter().map(told).collect();
            assert_eq!(winners.len(), 1, "{isolation}, round {round}: {losers:?}");
            let stale = (412, "ETAG_MISMATCH".to_owned());
            assert!(losers.iter().all(|told| *told == stale), "{isolation}: {losers:?}");
            assert_eq!(winners[0].json(), serde_json::json!({ "id": OWN }), "{isolation}");
        }
        assert_eq!(database.organization(OWN).await.etag.version(), ROUNDS + 1, "{isolation}");
        let changes = database.changes(OWN).await.len();
        assert_eq!(changes, usize::try_from(ROUNDS).unwrap() + 1, "{isolation}");
    }
}

#[tokio::test]
async fn transactions_that_lose_to_others_do_not_surface() {
    const ORGANIZATIONS: i64 = 8;
    for (isolation, database) in databases().await {
        database.add_organizations(1000, 1000 + ORGANIZATIONS - 1).await;
        let services = two_services(&database).await;
        let before = if database.is_sqlite() { 0 } else { rollbacks(&database).await };
        let services = &services;
        let change = |caller: usize| async move {
            for round in 0..25 {
                let id = 1000 + i64::try_from((caller + round) % 8).unwrap();
                let body = format!(r#"{{"name": "Caller {caller}, round {round}"}}"#);
                let service = &services[caller % services.len()];
                let answer = service.put(id, ADMINISTRATOR, &body).send().await;
                assert_eq!(answer.status(), 200, "{isolation}: {}", answer.text());
            }
        };
        join_all((0..CALLERS).map(change)).await;
        let mut versions = 0;
        for id in 1000..1000 + ORGANIZATIONS {
            versions += database.organization(id).await.etag.version() - 1;
        }
        assert_eq!(versions, 400, "{isolation}: each update once");
        if isolation.ends_with("serializable") {
            // Statistics come a moment later.
            let lost = async {
                while rollbacks(&database).await == before {
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            };
            let lost = tokio::time::timeout(std::time::Duration::from_secs(20), lost).await;
            lost.expect("some transactions did lose");
        }
    }
}
