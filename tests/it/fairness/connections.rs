//! One address without a credential opens all connections of a listener; and one user opens all streams of a gateway's
//! connections to the service.

use std::time::Duration;

use super::{
    abuser::{ABUSER, Abuser, Idle},
    stage::Stage,
    swarm::{Ask, Swarm},
    trial::{Caller, Trial},
};
use crate::harness::{Database, OWN, USER};

/// More than a listener has.
const CONNECTIONS: u32 = 4_500;
/// How often each is used, which is sooner than any limit of what is idle.
const EVERY: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_of_one_address_do_not_shut_others_out() {
    let stage = Stage::over(Database::sqlite(), &[]).await;
    let idle = || {
        let to = stage.front().http_addr();
        vec![Abuser::Idle(Idle { to, connections: CONNECTIONS, every: EVERY })]
    };
    let trial = Trial::new(&stage, "4,500 idle connections of one address").by(Caller::Nobody);
    trial.lasting(Duration::from_secs(8), Duration::from_secs(8)).assert_fair(idle).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn event_streams_of_one_user_do_not_block_the_gateway_for_others() {
    let stage = Stage::with_gateway(Database::sqlite(), &[]).await;
    for (connections, streams, all) in [(2, 60, 120), (4, 100, 400)] {
        let events = || {
            vec![Abuser::Swarm(Swarm {
                to: stage.front().http_addr(),
                from: ABUSER,
                connections,
                streams,
                ask: Ask::events(OWN, USER),
                reads: true,
                rest: Duration::from_secs(1),
            })]
        };
        let what = format!("{all} streams of events through the gateway");
        Trial::new(&stage, &what).assert_fair(events).await;
    }
}
