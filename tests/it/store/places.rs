//! One caller's requests do not delay those of others, nor the probe; what is over its share is refused.

use std::{fmt::Debug, time::Duration};

use futures_util::{StreamExt, future::join_all, stream::FuturesUnordered};
use orgd::proto::v1::{Organization, UpdateOrganizationRequest};
use tokio::time::{Instant, sleep, timeout};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::{
    api::pages::add_long_ones,
    harness::{
        ADMINISTRATOR, HeldWrites, OWN, PATIENCE, SUPPORT, Spoiled, USER, authorized, hold_updates,
        on_both_databases, unspoiled_on_both_databases,
    },
    store::batches::{FIRST, rename},
};

/// Longer than two failures of the probe take.
const WINDOW: Duration = Duration::from_secs(5);

/// Far more large reads than there are places, and each is asked for again at once.
#[tokio::test(flavor = "multi_thread")]
async fn constant_reads_of_one_caller_delay_neither_others_nor_the_probe() {
    on_both_databases(async |service| {
        add_long_ones(service.database()).await;
        let get = |token: &str, path: &str| service.request("GET", path).bearer(token).send();
        let log = format!("/v1/organizations/{OWN}/changes?pageSize=500");
        let reading = join_all((0..60).map(async |_| {
            loop {
                // One that waited too long for a place, or for the places of all its pieces.
                let status = get(USER, &log).await.status();
                assert!([200, 429, 504].contains(&status), "{status}");
            }
        }));
        let beside = async {
            let end = Instant::now() + WINDOW;
            while Instant::now() < end {
                for token in [ADMINISTRATOR, SUPPORT] {
                    assert_eq!(get(token, "/v1/organizations").await.status(), 200);
                }
                assert_eq!(service.get_ops("/readyz").await.status(), 200);
                let metrics = service.get_ops("/metrics").await;
                assert!(metrics.text().contains("orgd_migrations{state=\"applied\"}"));
                sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::select! {
            _ = reading => unreachable!("it has no end"),
            () = beside => {}
        }
    })
    .await;
}

/// How many updates of one caller may wait where all callers' are 40 at most.
const SHARE: i64 = 20;

/// Waits until a caller's whole share waits, and nothing else.
async fn until_full<T: Debug>(
    held: &mut HeldWrites<'_>,
    updates: &mut FuturesUnordered<impl Future<Output = T>>,
) -> Result<(), Spoiled> {
    if held.has_waiting_primers() {
        // One is over the share, whichever comes last. With its refusal the queue has forgotten the primers.
        updates.next().await;
        held.forget_primers();
    }
    tokio::select! {
        answer = updates.next() => {
            held.check()?;
            panic!("answered: {answer:?}");
        }
        full = held.until_waiting(20) => full,
    }
}

#[tokio::test]
async fn a_full_share_of_one_caller_does_not_refuse_others() {
    unspoiled_on_both_databases(&[("ORGD_WRITE_QUEUE_MAX", "40")], async |service| {
        service.database().add_organizations(FIRST, FIRST + 20).await;
        let mut held = hold_updates(&service).await;
        let count = SHARE + i64::from(held.has_waiting_primers());
        let updates = (FIRST..FIRST + count).map(|id| rename(&service, id, "Waits").send());
        let mut updates: FuturesUnordered<_> = updates.collect();
        until_full(&mut held, &mut updates).await?;
        let other = async {
            let refused = rename(&service, FIRST, "Refused").header("grpc-timeout", "300m");
            let refused = refused.send().await;
            held.check()?;
            if refused.reason() == "DEADLINE_EXCEEDED" {
                return Err(Spoiled);
            }
            let told = (refused.status(), refused.reason());
            assert_eq!(told, (429, "SHARE_EXHAUSTED".to_owned()));
            Ok(service.put(OWN, USER, r#"{"name": "Mine"}"#).send().await)
        };
        let both = async { tokio::join!(updates.collect::<Vec<_>>(), other) };
        let (waiting, other) = held.batch(21, both).await?;
        let other = other?;
        assert_eq!(waiting.len(), 20);
        for answer in waiting.iter().chain([&other]) {
            assert_eq!(answer.status(), 200, "{}", answer.text());
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn updates_over_a_callers_share_are_refused_and_the_queue_empties() {
    unspoiled_on_both_databases(&[("ORGD_WRITE_QUEUE_MAX", "40")], async |service| {
        // Nothing is done, so everything waits.
        let mut held = hold_updates(&service).await;
        let client = service.grpc();
        let update = |id: i64, time: Option<Duration>| {
            let organization =
                Organization { id, name: Some("Waits".to_owned()), ..Organization::default() };
            let update = UpdateOrganizationRequest {
                organization: Some(organization),
                ..UpdateOrganizationRequest::default()
            };
            let mut client = client.clone();
            let mut update = authorized(SUPPORT, update);
            if let Some(time) = time {
                update.set_timeout(time);
            }
            async move { client.update(update).await.unwrap_err() }
        };
        // Several of them on one organization.
        let count = SHARE + i64::from(held.has_waiting_primers());
        let waiting = (0..count).map(|number| update(FIRST + number % 15, None));
        let mut waiting: FuturesUnordered<_> = waiting.collect();
        until_full(&mut held, &mut waiting).await?;
        let refusing = async {
            let late = rename(&service, OWN, "Late").header("grpc-timeout", "300m").send();
            // A refusal rests for half of its time, so a caller whose time was over has seen nothing.
            let time = Some(Duration::from_millis(300));
            let more = join_all((0..30).map(|number| update(FIRST + number, time)));
            let (statuses, refused) = tokio::join!(more, late);
            held.check()?;
            let late = [Code::Cancelled, Code::DeadlineExceeded];
            let is_late = |status: &Status| late.contains(&status.code());
            if statuses.iter().any(is_late) || refused.reason() == "DEADLINE_EXCEEDED" {
                return Err(Spoiled);
            }
            for status in statuses {
                assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
                let details = status.get_error_details();
                assert_eq!(details.error_info().unwrap().reason, "SHARE_EXHAUSTED");
                assert!(details.retry_info().unwrap().retry_delay.is_some());
            }
            assert_eq!((refused.status(), refused.reason().as_str()), (429, "SHARE_EXHAUSTED"));
            assert_eq!(refused.header("retry-after"), Some("1"));
            assert_eq!(refused.json()["code"], "RESOURCE_EXHAUSTED");
            held.until_waiting(20).await
        };
        // Without an answer those who wait give up with the end of this, and so there is room again,
        // once the service has heard of it.
        tokio::select! {
            answer = waiting.next() => {
                held.check()?;
                panic!("answered: {answer:?}");
            }
            all = refusing => all?,
        }
        drop(waiting);
        let again = || rename(&service, OWN, "Waits").header("grpc-timeout", "100m").send();
        let emptying = async {
            while held.waiting().await == 20 {
                again().await;
            }
        };
        timeout(PATIENCE, emptying).await.expect("the queue empties");
        let waited = again().await.reason();
        held.check()?;
        assert_eq!(waited, "DEADLINE_EXCEEDED");
        Ok(())
    })
    .await;
}

/// Behind many updates of one organization, those of another caller are done in turn.
#[tokio::test]
async fn an_update_does_not_wait_behind_all_updates_of_another_caller() {
    unspoiled_on_both_databases(&[], async |service| {
        let held = hold_updates(&service).await;
        let names = (0..30).map(|number| format!("Name {number}"));
        let waiting = names.map(async |name| {
            let body = format!(r#"{{"name": "{name}"}}"#);
            service.put(OWN, USER, &body).send().await.status()
        });
        let other = async {
            held.until_waiting(30).await?;
            let put = service.put(OWN, ADMINISTRATOR, r#"{"handshake": "h"}"#);
            Ok(put.send().await.status())
        };
        let both = async { tokio::join!(join_all(waiting), other) };
        let (waiting, other) = held.batch(31, both).await?;
        let other = other?;
        assert!(waiting.iter().chain([&other]).all(|status| *status == 200), "{waiting:?} {other}");
        let changes = service.database().changes(OWN).await;
        let turn = changes.iter().position(|change| change.subject == "test-administrator");
        // Behind the creation, the one under way, and one.
        assert!(turn.is_some_and(|turn| turn <= 3), "{turn:?}");
        Ok(())
    })
    .await;
}
