//! Metrics of which a test elsewhere says nothing: the process, and open watches.

use orgd::proto::v1::WatchRequest;
use tokio::time::{Duration, sleep, timeout};

use crate::harness::{
    Database, OWN, PATIENCE, Service, USER,
    watching::{self, Events},
};

/// A sample of `/metrics`, by its name with its labels.
async fn sample(service: &Service, name: &str) -> f64 {
    let metrics = service.get_ops("/metrics").await;
    let mut lines = metrics.text().lines().filter_map(|line| line.rsplit_once(' '));
    let found = lines.find(|(named, _)| *named == name);
    found.unwrap_or_else(|| panic!("{name} is not there")).1.parse().unwrap()
}

#[tokio::test]
async fn processor_time_has_fractions_of_a_second() {
    let service = Service::over_sqlite(&[]).await;
    let rising = async {
        let mut last = sample(&service, "process_cpu_seconds_total").await;
        loop {
            assert_eq!(service.put(OWN, USER, "{}").send().await.status(), 200);
            let next = sample(&service, "process_cpu_seconds_total").await;
            assert!(next >= last, "{next} after {last}");
            if next > last && next.fract() > 0.0 && next - last < 0.5 {
                return;
            }
            last = next;
        }
    };
    timeout(PATIENCE, rising).await.expect("it rises by less than a second");
}

#[tokio::test]
async fn open_watches_are_counted_in_a_service_and_in_a_gateway() {
    let database = Database::sqlite();
    database.seed().await;
    let service = Service::start(database).await;
    let gateway = Service::start_gateway(&service).await;
    let until = async |service: &Service, count: f64| {
        let waiting = async {
            while (sample(service, "orgd_watches").await - count).abs() > 0.1 {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("{count} watches are open"));
    };
    until(&service, 0.0).await;
    until(&gateway, 0.0).await;
    let direct = watching::watch(&service, USER, WatchRequest::default()).await.unwrap();
    until(&service, 1.0).await;
    let events = Events::open(&gateway, "").await;
    until(&service, 2.0).await;
    until(&gateway, 1.0).await;
    drop(direct);
    until(&service, 1.0).await;
    drop(events);
    until(&service, 0.0).await;
    until(&gateway, 0.0).await;
}
