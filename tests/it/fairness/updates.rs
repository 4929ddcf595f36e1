//! One user's updates of its own organization, so many at once that they would fill any queue.

use std::time::Duration;

use super::{
    abuser::{ABUSER, Abuser},
    stage::{NO_RATE_LIMITS, Stage, databases},
    swarm::{Ask, Swarm},
    trial::Trial,
};
use crate::harness::{Database, OWN, SUPPORT, USER};

/// Streams of a connection: as many as it may have, and a quarter by a binary that is not optimized. That one
/// would have no processor left to share.
const STREAMS: usize = if cfg!(debug_assertions) { 25 } else { 100 };
/// So that these are more than one caller's share there as well.
const PLACES: (&str, &str) =
    ("ORGD_WRITE_QUEUE_MAX", if cfg!(debug_assertions) { "256" } else { "1024" });

/// Updates at once on so many connections.
fn updates(stage: &Stage, connections: u32, token: &str) -> Vec<Abuser> {
    vec![Abuser::Swarm(Swarm {
        to: stage.front().http_addr(),
        from: ABUSER,
        connections,
        streams: STREAMS,
        ask: Ask::put(OWN, token),
        reads: true,
        rest: Duration::ZERO,
    })]
}

async fn are_fair(database: Database, settings: &[(&str, &str)], token: &str, who: &str) {
    let stage = Stage::over(database, &[settings, &[PLACES]].concat()).await;
    let trial = Trial::new(&stage, &format!("{} updates at once by {who}", 13 * STREAMS));
    trial.assert_fair(|| updates(&stage, 13, token)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn updates_of_one_user_do_not_fill_the_queue_for_others() {
    for database in databases().await {
        are_fair(database, &[], USER, "a user").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn updates_of_one_user_without_a_rate_limit_do_not_fill_the_queue() {
    let database = Database::postgres().await;
    are_fair(database, &NO_RATE_LIMITS, USER, "a user without a limit").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: make soak"]
async fn updates_of_any_role_do_not_fill_the_queue_for_others() {
    are_fair(Database::sqlite(), &NO_RATE_LIMITS, USER, "a user without a limit").await;
    for database in databases().await {
        are_fair(database, &[], SUPPORT, "support").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn updates_of_one_user_do_not_block_the_gateway_for_others() {
    let stage = Stage::with_gateway(Database::sqlite(), &[]).await;
    let what = format!("{} updates at once through the gateway", 10 * STREAMS);
    let trial = Trial::new(&stage, &what);
    trial.assert_fair(|| updates(&stage, 10, USER)).await;
}
