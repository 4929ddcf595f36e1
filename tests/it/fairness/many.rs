//! Ten abusers at once, each with a different abuse, and with an organization and an address of its own. The figures are
//! printed; other callers must be answered, if more slowly.

use std::{net::Ipv4Addr, time::Duration};

use orgd::proto::v1::WatchRequest;
use tokio::time::sleep;

use super::{
    abuser::{Abuse, Abuser},
    bystanders::Bystanders,
    memory::Memory,
    stage::{ENTRIES, LONG, Stage, lengthen_logs, user_of},
    swarm::{Ask, Swarm},
    trial::{HONEST, compare},
};
use crate::harness::Database;

const ABUSERS: u8 = 10;
const FIRST: i64 = 1000;
const FOR: Duration = Duration::from_secs(10);

/// What one of them does.
fn abuser(stage: &Stage, number: u8) -> Abuser {
    let organization = FIRST + i64::from(number);
    let token = &user_of(stage.service.database(), organization);
    let (rest, grpc) = (stage.service.http_addr(), stage.service.grpc_addr());
    let watch = WatchRequest { organization_ids: vec![organization], ..WatchRequest::default() };
    let page = Ask::page("GET", organization, token);
    let (to, connections, streams, ask, reads, seconds) = match number % 5 {
        0 => (rest, 5, 100, Ask::put(organization, token), true, 0),
        1 => (rest, 2, 100, Ask::page("HEAD", organization, token), true, 0),
        2 => (rest, 20, 8, page, false, 1),
        3 => (grpc, 2, 100, Ask::grpc("Watch", token, &watch), true, 1),
        _ => (rest, 2, 100, Ask::events(organization, token), true, 1),
    };
    let (from, rest) = (Ipv4Addr::new(127, 0, 1, number + 1), Duration::from_secs(seconds));
    Abuser::Swarm(Swarm { to, from, connections, streams, ask, reads, rest })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_are_answered_beside_ten_abusers() {
    let mut stage = Stage::over(Database::sqlite(), &[]).await;
    let last = FIRST + i64::from(ABUSERS) - 1;
    stage.service.database().add_organizations(FIRST, last).await;
    lengthen_logs(stage.service.database(), [FIRST, last], ENTRIES, LONG).await;
    let abusers = (0..ABUSERS).map(|number| abuser(&stage, number)).collect();
    let bystanders = Bystanders::of(&stage);
    let (alone, ()) = bystanders.beside(sleep(Duration::from_secs(2))).await;
    let mut memory = Memory::start(&stage);
    let abuse = Abuse::start(abusers);
    let (beside, ()) = memory.beside(&stage, bystanders.beside(sleep(FOR))).await;
    let answered = abuse.stop().await;
    memory.settle(&stage).await;
    eprintln!("ten abusers at once\n  abusers: {answered}\n  memory: {memory}");
    compare(&alone, &beside);
    let is_unavailable = |what: &&String| {
        let is_honest = HONEST.iter().any(|kind| what.starts_with(kind));
        is_honest && (what.contains(" 503") || what.contains("Unavailable"))
    };
    let unavailable: Vec<_> = beside.failures.keys().filter(is_unavailable).collect();
    assert!(unavailable.is_empty(), "{unavailable:?}");
    assert!(beside.count("REST PUT") > 0 && beside.count("gRPC Get") > 0);
    assert!(stage.service.is_running());
    stage.service.until_ready().await;
}
