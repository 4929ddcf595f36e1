//! One user's updates of its own organization, so many at once that they would fill any queue.

use std::time::Duration;

use super::{
    abuser::{ABUSER, Abuser},
    stage::{NO_RATE_LIMITS, Stage, databases},
    swarm::{Ask, Swarm},
    trial::Trial,
};
use crate::harness::{Database, OWN, SUPPORT, USER};

/// Updates at once on so many connections of a hundred streams.
fn updates(stage: &Stage, connections: u32, token: &str) -> Vec<Abuser> {
    vec![Abuser::Swarm(Swarm {
        to: stage.front().http_addr(),
        from: ABUSER,
        connections,
        streams: 100,
        ask: Ask::put(OWN, token),
        reads: true,
        rest: Duration::ZERO,
    })]
}

async fn are_fair(database: Database, settings: &[(&str, &str)], token: &str, who: &str) {
    let stage = Stage::over(database, settings).await;
    let trial = Trial::new(&stage, &format!("1,300 updates at once by {who}"));
    trial.assert_fair(|| updates(&stage, 13, token)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_users_updates_leave_others_their_places_in_the_queue() {
    for database in databases().await {
        are_fair(database, &[], USER, "a user").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_users_updates_leave_others_their_places_without_a_rate_limit() {
    let database = Database::postgres().await;
    are_fair(database, &NO_RATE_LIMITS, USER, "a user without a limit").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: make soak"]
async fn anyones_updates_leave_others_their_places_in_the_queue() {
    are_fair(Database::sqlite(), &NO_RATE_LIMITS, USER, "a user without a limit").await;
    for database in databases().await {
        are_fair(database, &[], SUPPORT, "support").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_users_updates_leave_others_the_gateway() {
    let stage = Stage::with_gateway(Database::sqlite(), &[]).await;
    let trial = Trial::new(&stage, "1,000 updates at once through the gateway");
    trial.assert_fair(|| updates(&stage, 10, USER)).await;
}
