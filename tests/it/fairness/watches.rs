//! One user opens all watches that it can; and watches of so many organizations that the lookups of others could wait
//! behind them.

use std::time::Duration;

use futures_util::future::join_all;
use orgd::proto::v1::{
    Change, WatchRequest, organization_service_client::OrganizationServiceClient,
};
use tokio::time::{sleep, timeout};
use tonic::{Status, Streaming, transport::Channel};

use super::{
    abuser::{ABUSER, Abuser},
    bystanders::{HONEST, OTHERS, grpc_from},
    stage::{Stage, databases},
    swarm::{Ask, Swarm},
    trial::Trial,
};
use crate::harness::{
    ADMINISTRATOR, Database, FOREIGN, OWN, SUPPORT, USER, authorized, disclosure::Searched, reason,
    watching::rename,
};

const WATCHED: [i64; 2] = [1000, 1099];
/// How many watches of all of them support has.
const WATCHES: usize = 40;
/// How soon a change must be told, which a watch that has been held up does not.
const SOON: Duration = Duration::from_secs(10);

/// Opens watches again and again, and holds those that it gets.
fn watches(stage: &Stage) -> Vec<Abuser> {
    let message = WatchRequest { organization_ids: vec![OWN], ..WatchRequest::default() };
    let addresses = [
        (stage.service.grpc_addr(), Ask::grpc("Watch", USER, &message), 9),
        (stage.service.http_addr(), Ask::events(OWN, USER), 2),
    ];
    let swarm = |(to, ask, connections)| {
        let rest = Duration::from_secs(1);
        Abuser::Swarm(Swarm { to, from: ABUSER, connections, streams: 100, ask, reads: true, rest })
    };
    addresses.map(swarm).into()
}

type Client = OrganizationServiceClient<Searched<Channel>>;

/// A watch, which must begin.
async fn start_watch(
    mut client: Client,
    token: &str,
    organization_ids: Vec<i64>,
) -> Result<Streaming<Change>, String> {
    let message = WatchRequest { organization_ids, ..WatchRequest::default() };
    let begun = timeout(SOON, client.watch(authorized(token, message))).await;
    let begun = begun.map_err(|_| "does not begin".to_owned())?;
    Ok(begun.map_err(|status| told(&status))?.into_inner())
}

fn told(status: &Status) -> String {
    format!("{:?} {}", status.code(), reason(status))
}

/// Waits for a change of an organization.
async fn until_told(stream: &mut Streaming<Change>, id: i64) -> Result<(), String> {
    let telling = async {
        while let Some(change) = stream.message().await.map_err(|status| told(&status))? {
            if change.organization_id == id && !change.heartbeat {
                return Ok(());
            }
        }
        Err("ended".to_owned())
    };
    timeout(SOON, telling).await.unwrap_or_else(|_| Err("tells nothing".to_owned()))
}

/// Whoever watches beside: forty watches of a hundred organizations, and one each of the honest user
/// and of an administrator. What of them does not begin, stay, and tell.
async fn watch_beside(stage: &Stage) -> Vec<String> {
    let support = grpc_from(OTHERS, &stage.service);
    let all: Vec<i64> = (WATCHED[0]..=WATCHED[1]).collect();
    let mut asked = vec![
        ("the honest user's", grpc_from(HONEST, &stage.service), &*stage.honest, vec![FOREIGN]),
        ("the administrator's", support.clone(), ADMINISTRATOR, vec![WATCHED[0]]),
    ];
    asked.extend(vec![("support's", support, SUPPORT, all); WATCHES]);
    let (mut faults, mut begun) = (Vec::new(), Vec::new());
    // All at once, so that they also look at the same time.
    let asking = asked.into_iter().map(async |(who, client, token, ids)| {
        let id = ids[0];
        match start_watch(client, token, ids).await {
            Ok(stream) => Ok((who, id, stream)),
            Err(fault) => Err(format!("{who} watch: {fault}")),
        }
    });
    for answer in join_all(asking).await {
        match answer {
            Ok(watch) => begun.push(watch),
            Err(fault) => faults.push(fault),
        }
    }
    for round in 0..3 {
        rename(&stage.service, WATCHED[0], &format!("Round {round}")).await;
        let telling = begun.iter_mut().map(async |(who, id, stream)| {
            // Of the honest user's organization there is news all the time.
            until_told(stream, *id).await.map_err(|fault| format!("{who} watch: {fault}"))
        });
        faults.extend(join_all(telling).await.into_iter().filter_map(Result::err));
        sleep(Duration::from_secs(1)).await;
    }
    faults.sort_unstable();
    let mut counted: Vec<(String, usize)> = Vec::new();
    for fault in faults {
        match counted.last_mut().filter(|(last, _)| *last == fault) {
            Some((_, count)) => *count += 1,
            None => counted.push((fault, 1)),
        }
    }
    counted.into_iter().map(|(fault, count)| format!("{fault} × {count}")).collect()
}

/// A stage with the organizations that support watches.
async fn stage(database: Database) -> Stage {
    let stage = Stage::over(database, &[]).await;
    stage.service.database().add_organizations(WATCHED[0], WATCHED[1]).await;
    stage
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_of_many_organizations_do_not_delay_other_reads() {
    for database in databases().await {
        let stage = stage(database).await;
        let trial = Trial::new(&stage, "40 watches of 100 organizations");
        trial.assert_fair_beside(Vec::new, async || watch_beside(&stage).await).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_of_one_user_do_not_use_up_those_of_others() {
    for database in databases().await {
        let stage = stage(database).await;
        let trial = Trial::new(&stage, "1,100 watches by one user, and 40 of 100 organizations");
        trial.assert_fair_beside(|| watches(&stage), async || watch_beside(&stage).await).await;
    }
}
