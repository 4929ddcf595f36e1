//! Promise 16: a leader of PostgreSQL is killed, and another takes over.

use std::sync::Arc;

use super::{caller::Addresses, ledger::assert_kept, load::Load};
use crate::harness::{Database, Patroni, Service};

const FAILOVERS: usize = 5;
/// Updates that are acknowledged before each kill, and after it.
const UPDATES: usize = 300;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: make soak"]
async fn acknowledged_updates_survive_the_leader_of_postgresql() {
    let mut patroni = Patroni::start().await;
    let database = Arc::new(Database::postgres_at(&patroni.url, "failover").await);
    database.seed().await;
    let mut service = Service::start_beside(database.clone()).await;
    let load = Load::start(Addresses::of(&service));
    for _ in 0..FAILOVERS {
        load.acknowledges(UPDATES).await;
        let killed = patroni.kill_leader().await;
        let healed = load.acknowledges(UPDATES).await;
        eprintln!("node {killed} was killed; acknowledged again after {healed:?}");
        patroni.revive();
        patroni.until_whole().await;
    }
    load.acknowledges(UPDATES).await;
    let recorded = load.stop().await;
    let outcomes = assert_kept(&database, &recorded).await;
    assert!(service.is_running(), "the same process");
    assert!(!outcomes.keys().any(|label| label.contains("INTERNAL")), "{outcomes:?}");
}
