//! Writers that go on whatever happens to the service, and remember what they sent and heard.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::watch, task::JoinSet};

use super::caller::{Addresses, Api, Caller, Outcome, Write};
use crate::harness::{FOREIGN, OWN};

/// Organizations, so few that writers meet.
pub const ORGANIZATIONS: [i64; 2] = [OWN, FOREIGN];
const WRITERS: usize = 8;
/// What any fault takes to heal at the longest, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long a writer rests that was not answered.
const REST: Duration = Duration::from_millis(20);

/// A write, and what its writer knows of it.
#[derive(Clone, Debug)]
pub struct Recorded {
    pub write: Write,
    pub outcome: Outcome,
}

pub struct Load {
    addresses: watch::Sender<Option<Addresses>>,
    acknowledged: Arc<watch::Sender<usize>>,
    writers: JoinSet<Vec<Recorded>>,
}

impl Load {
    pub fn start(addresses: Addresses) -> Self {
        let mut load = Self {
            addresses: watch::Sender::new(Some(addresses)),
            acknowledged: Arc::new(watch::Sender::new(0)),
            writers: JoinSet::new(),
        };
        for writer in 0..WRITERS {
            let write = write(writer, load.addresses.subscribe(), load.acknowledged.clone());
            load.writers.spawn(write);
        }
        load
    }

    /// The service is elsewhere from now on.
    pub fn moves_to(&self, addresses: Addresses) {
        self.addresses.send_replace(Some(addresses));
    }

    /// Waits until so many more writes have been acknowledged; how long the first of them took.
    pub async fn acknowledges(&self, more: usize) -> Duration {
        let started = Instant::now();
        let mut acknowledged = self.acknowledged.subscribe();
        let before = *acknowledged.borrow();
        let wait = async {
            acknowledged.wait_for(|now| *now > before).await.unwrap();
            let first = started.elapsed();
            acknowledged.wait_for(|now| *now >= before + more).await.unwrap();
            first
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("writes are acknowledged again")
    }

    /// Ends the writers after what they do now, and answers what they remember.
    pub async fn stop(self) -> Vec<Recorded> {
        self.addresses.send_replace(None);
        self.writers.join_all().await.concat()
    }
}

async fn write(
    writer: usize,
    addresses: watch::Receiver<Option<Addresses>>,
    acknowledged: Arc<watch::Sender<usize>>,
) -> Vec<Recorded> {
    let mut caller = Caller::default();
    let mut recorded = Vec::new();
    let mut versions: BTreeMap<i64, i64> = BTreeMap::new();
    for turn in 0.. {
        let Some(addresses) = *addresses.borrow() else { break };
        let organization = ORGANIZATIONS[turn % ORGANIZATIONS.len()];
        let api = if (writer + turn / 2).is_multiple_of(2) { Api::Rest } else { Api::Grpc };
        let id = format!("w{writer}-{turn}");
        // Every value is sent once: where it came from can be told.
        let value = |field: &str| Some(format!("{field} {id}"));
        let mut write = match turn % 5 {
            0 | 1 => Write { name: value("name"), ..Write::default() },
            2 | 3 => Write {
                name: value("name"),
                subscription_id: value("subscription"),
                handshake: value("handshake"),
                ..Write::default()
            },
            _ => Write { handshake: value("handshake"), ..Write::default() },
        };
        if turn % 3 == 0 {
            write.version = versions.get(&organization).copied();
        }
        (write.id, write.organization) = (id, organization);
        let outcome = caller.update(addresses, api, &write).await;
        match &outcome {
            Outcome::Done(version, _) => {
                versions.insert(organization, *version);
                acknowledged.send_modify(|acknowledged| *acknowledged += 1);
            }
            Outcome::Mismatch(version) => {
                versions.insert(organization, *version);
            }
            Outcome::Refused(_) | Outcome::Unknown(_) => tokio::time::sleep(REST).await,
        }
        recorded.push(Recorded { write, outcome });
    }
    recorded
}
