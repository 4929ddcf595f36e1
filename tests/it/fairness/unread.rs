//! Answers that are asked for and never read. What is not read stays in the service's memory.

use std::time::Duration;

use orgd::proto::v1::{ListChangesRequest, WatchRequest};

use super::{
    abuser::{ABUSER, Abuser},
    stage::{ENTRIES, LONGEST, NO_RATE_LIMITS, Stage, lengthen_logs},
    swarm::{Ask, Swarm},
    trial::Trial,
};
use crate::harness::{Database, OWN, SUPPORT, USER};

/// How long it goes on: longer than a client may leave an answer untaken.
const BEFORE: Duration = Duration::from_secs(4);
const BESIDE: Duration = Duration::from_secs(8);

#[derive(Clone, Copy, Debug)]
enum Api {
    Grpc,
    Rest,
}

/// How many connections there are, of how many streams each.
type Shape = (u32, usize);

/// Long pages on so many connections with so many streams each, of which nothing is read.
fn pages(stage: &Stage, api: Api, (connections, streams): Shape, token: &str) -> Vec<Abuser> {
    let (to, ask) = match api {
        Api::Rest => (stage.front().http_addr(), Ask::page("GET", OWN, token)),
        Api::Grpc => {
            let message = ListChangesRequest {
                organization_id: OWN,
                page_size: 500,
                ..ListChangesRequest::default()
            };
            (stage.service.grpc_addr(), Ask::grpc("ListChanges", token, &message))
        }
    };
    let rest = Duration::from_secs(1);
    let swarm = Swarm { to, from: ABUSER, connections, streams, ask, reads: false, rest };
    vec![Abuser::Swarm(swarm)]
}

const FEW_EACH: Shape = (40, 8);
const MANY_EACH: Shape = (10, 100);

async fn stage(is_gateway: bool, settings: &[(&str, &str)]) -> Stage {
    let database = Database::sqlite();
    let stage = if is_gateway {
        Stage::with_gateway(database, settings).await
    } else {
        Stage::over(database, settings).await
    };
    lengthen_logs(stage.service.database(), [OWN, OWN], ENTRIES, LONGEST).await;
    stage
}

async fn are_fair(stage: &Stage, api: Api, shape: Shape, token: &str) {
    let (connections, streams) = shape;
    let who = if token == USER { "a user" } else { "support" };
    let where_to = if stage.gateway.is_some() { " through the gateway" } else { "" };
    let what =
        format!("{api:?}{where_to}: pages of {who} unread, {connections} × {streams} at once");
    let trial = Trial::new(stage, &what).lasting(BEFORE, BESIDE);
    trial.assert_fair(|| pages(stage, api, shape, token)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_are_not_read_are_bounded_in_bytes() {
    let stage = stage(false, &[]).await;
    are_fair(&stage, Api::Rest, FEW_EACH, USER).await;
    are_fair(&stage, Api::Grpc, MANY_EACH, USER).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_are_not_read_through_the_gateway_are_bounded_in_bytes() {
    let stage = stage(true, &[]).await;
    are_fair(&stage, Api::Rest, FEW_EACH, USER).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: make soak"]
async fn answers_that_are_not_read_are_bounded_in_bytes_in_each_shape() {
    for is_gateway in [false, true] {
        let stage = stage(is_gateway, &NO_RATE_LIMITS).await;
        let apis = if is_gateway { &[Api::Rest][..] } else { &[Api::Rest, Api::Grpc] };
        for api in apis {
            for shape in [FEW_EACH, MANY_EACH] {
                are_fair(&stage, *api, shape, USER).await;
                are_fair(&stage, *api, shape, SUPPORT).await;
            }
        }
    }
}

/// The organizations whose logs a watch goes through, and how many more versions each has.
const WATCHED: [i64; 2] = [1000, 1099];
const VERSIONS: i64 = 100;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_that_are_not_read_are_bounded_in_bytes() {
    let stage = Stage::over(Database::sqlite(), &[]).await;
    let [first, last] = WATCHED;
    stage.service.database().add_organizations(first, last).await;
    lengthen_logs(stage.service.database(), WATCHED, VERSIONS, LONGEST).await;
    let message = WatchRequest {
        organization_ids: (first..=last).collect(),
        from_versions: (first..=last).map(|id| (id, 0)).collect(),
    };
    let watches = || {
        vec![Abuser::Swarm(Swarm {
            to: stage.service.grpc_addr(),
            from: ABUSER,
            connections: 2,
            streams: 60,
            ask: Ask::grpc("Watch", SUPPORT, &message),
            reads: false,
            rest: Duration::from_secs(1),
        })]
    };
    let what = "120 watches of 100 organizations from the begin, unread";
    Trial::new(&stage, what).lasting(BEFORE, BESIDE).assert_fair(watches).await;
}
