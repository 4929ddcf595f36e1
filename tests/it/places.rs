//! Who reads beside whom: one caller's reads stand in the way of no other's, nor of the probe.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep};

use crate::{
    harness::{ADMINISTRATOR, OWN, SUPPORT, USER, on_both_databases},
    pages::add_long_ones,
};

/// Longer than two failures of the probe take.
const WINDOW: Duration = Duration::from_secs(5);

/// Far more large reads than there are places, and each is asked for again at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_reads_all_the_time_holds_up_neither_others_nor_the_probe() {
    on_both_databases(async |service| {
        add_long_ones(service.database()).await;
        let get = |token: &str, path: &str| {
            service.request("GET", path).header("authorization", &format!("Bearer {token}")).send()
        };
        let log = format!("/v1/organizations/{OWN}/changes?pageSize=500");
        let reading = join_all((0..60).map(async |_| {
            loop {
                // 504 of one that had no place in its time.
                let status = get(USER, &log).await.status();
                assert!([200, 504].contains(&status), "{status}");
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
