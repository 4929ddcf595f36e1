//! One caller asks for the longest pages of its log, as often as it can.

use std::time::Duration;

use super::{
    abuser::{ABUSER, Abuser},
    stage::{ENTRIES, LONG, NO_RATE_LIMITS, Stage, databases, lengthen_logs},
    swarm::{Ask, Swarm},
    trial::Trial,
};
use crate::harness::{Database, OWN, SUPPORT, USER};

/// Five hundred pages at once.
fn pages(stage: &Stage, method: &str, token: &str) -> Vec<Abuser> {
    vec![Abuser::Swarm(Swarm {
        to: stage.front().http_addr(),
        from: ABUSER,
        connections: 5,
        streams: 100,
        ask: Ask::page(method, OWN, token),
        reads: true,
        rest: Duration::ZERO,
    })]
}

async fn are_fair(
    database: Database,
    settings: &[(&str, &str)],
    methods: &[&str],
    token: &str,
    who: &str,
) {
    let stage = Stage::over(database, settings).await;
    lengthen_logs(stage.service.database(), [OWN, OWN], ENTRIES, LONG).await;
    for method in methods {
        let trial = Trial::new(&stage, &format!("500 pages at once by {method}, {who}"));
        trial.assert_fair(|| pages(&stage, method, token)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_pages_of_one_user_do_not_delay_other_reads() {
    for database in databases().await {
        are_fair(database, &[], &["HEAD"], USER, "a user").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_pages_of_one_user_without_a_rate_limit_do_not_delay_other_reads() {
    let database = Database::sqlite();
    are_fair(database, &NO_RATE_LIMITS, &["GET"], USER, "a user without a limit").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: make soak"]
async fn long_pages_of_any_role_do_not_delay_other_reads() {
    let postgres = Database::postgres().await;
    are_fair(postgres, &NO_RATE_LIMITS, &["HEAD", "GET"], USER, "a user without a limit").await;
    for database in databases().await {
        are_fair(database, &[], &["HEAD", "GET"], SUPPORT, "support").await;
    }
}
