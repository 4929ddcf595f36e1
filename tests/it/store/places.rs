//! One caller's requests do not delay those of others, nor the probe.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep};

use crate::{
    api::pages::add_long_ones,
    harness::{ADMINISTRATOR, OWN, SUPPORT, USER, on_both_databases, patiently_on_both_databases},
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

#[tokio::test]
async fn a_full_share_of_one_caller_does_not_refuse_others() {
    let settings = [("ORGD_WRITE_BATCH_HOLD", "21"), ("ORGD_WRITE_QUEUE_MAX", "40")];
    patiently_on_both_databases(&settings, async |service| {
        service.database().add_organizations(FIRST, FIRST + 20).await;
        let waiting = (FIRST..FIRST + 20).map(|id| rename(&service, id, "Waits").send());
        let other = async {
            service.until_waiting(20).await;
            let refused = rename(&service, FIRST + 20, "Refused").send().await;
            let told = (refused.status(), refused.reason());
            assert_eq!(told, (429, "SHARE_EXHAUSTED".to_owned()));
            // With this one so many wait that the worker starts.
            service.put(OWN, USER, r#"{"name": "Mine"}"#).send().await
        };
        let (waiting, other) = tokio::join!(join_all(waiting), other);
        for answer in waiting.iter().chain([&other]) {
            assert_eq!(answer.status(), 200, "{}", answer.text());
        }
    })
    .await;
}

/// Behind many updates of one organization, those of another caller are done in turn.
#[tokio::test]
async fn an_update_does_not_wait_behind_all_updates_of_another_caller() {
    patiently_on_both_databases(&[("ORGD_WRITE_BATCH_HOLD", "31")], async |service| {
        let names = (0..30).map(|number| format!("Name {number}"));
        let waiting = names.map(async |name| {
            let body = format!(r#"{{"name": "{name}"}}"#);
            service.put(OWN, USER, &body).send().await.status()
        });
        let other = async {
            service.until_waiting(30).await;
            let put = service.put(OWN, ADMINISTRATOR, r#"{"handshake": "h"}"#);
            put.send().await.status()
        };
        let (waiting, other) = tokio::join!(join_all(waiting), other);
        assert!(waiting.iter().chain([&other]).all(|status| *status == 200), "{waiting:?} {other}");
        let changes = service.database().changes(OWN).await;
        let turn = changes.iter().position(|change| change.subject == "test-administrator");
        // Behind the creation, the one under way, and one.
        assert!(turn.is_some_and(|turn| turn <= 3), "{turn:?}");
    })
    .await;
}
