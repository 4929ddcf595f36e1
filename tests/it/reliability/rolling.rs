//! Promise 12: instances are replaced behind a proxy, and no request fails. That a slow body cannot
//! hold the drain past its deadline is in `processes::stopping`.

mod load;

use std::sync::Arc;

use tokio::time::{Duration, Instant, sleep};

use orgd::domain::Field;

use self::load::{Api, Done, Load};
use crate::harness::{
    Database, Service,
    proxies::{Haproxy, own_address, serve},
};

/// The first of the organizations that the clients update, one each.
const FIRST: i64 = 1000;

/// A proxy that tries nothing again hides nothing.
const NO_RETRIES: [(&str, &str); 2] = [("retries 3", "retries 0"), ("    option redispatch\n", "")];

async fn database(clients: i64) -> Database {
    let database = Database::postgres().await;
    database.seed().await;
    database.add_organizations(FIRST, FIRST + clients - 1).await;
    database
}

fn clients(each: i64) -> Vec<(i64, Api)> {
    let addresses = [Api::Http1, Api::Http2, Api::Grpc].into_iter().cycle();
    (FIRST..FIRST + 3 * each).zip(addresses).collect()
}

/// Every acknowledged update is a version, and no other is.
async fn assert_stored(database: &Database, done: &[Done]) {
    for client in done {
        let organization = database.organization(client.id).await;
        assert_eq!(organization.etag.version() - 1, i64::try_from(client.updates).unwrap());
        assert_eq!(organization.value(Field::Name), Some(client.last_name.as_str()));
    }
}

async fn replace_instances(restarts: usize, each: i64, pause: Duration) {
    let database = database(3 * each).await;
    let addresses = [own_address(), own_address()];
    let settings = [("ORGD_LAME_DUCK_TIME", "1500ms")];
    let mut instances = addresses.map(|address| Some(serve(&database, address, &settings)));
    let proxy = Haproxy::start(addresses, &NO_RETRIES);
    for number in 0..2 {
        proxy.until(number, true).await;
    }
    let load = Load::new(proxy.rest(), proxy.grpc(), pause);
    let clients = load.start(&clients(each));
    sleep(Duration::from_millis(200)).await;
    for restart in 0..restarts {
        let number = restart % 2;
        let instance = instances[number].take().unwrap();
        let begun = Instant::now();
        instance.signal("TERM");
        proxy.until(number, false).await;
        let out = begun.elapsed();
        instance.until_logged("stopped: every request was answered").await;
        assert!(instance.ended().await.success());
        let ended = begun.elapsed();
        instances[number] = Some(serve(&database, addresses[number], &settings));
        proxy.until(number, true).await;
        eprintln!("instance {number}: out {out:?}, ended {ended:?}, in {:?}", begun.elapsed());
    }
    let (done, failures) = load.stop(clients).await;
    let updates: u64 = done.iter().map(|client| client.updates).sum();
    eprintln!(
        "{restarts} restarts, {updates} updates and as many reads, {} failed",
        failures.len()
    );
    assert!(failures.is_empty(), "{failures:#?}\n{}", proxy.log());
    for client in &done {
        assert_eq!(client.connections, 1, "{:?}: the proxy kept its connection", client.api);
        assert!(client.updates > 10, "{:?}: {}", client.api, client.updates);
    }
    assert_stored(&database, &done).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_restarts_behind_a_proxy_fail_no_request() {
    replace_instances(10, 4, Duration::from_millis(10)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: make soak"]
async fn a_hundred_restarts_behind_a_proxy_fail_no_request() {
    replace_instances(100, 5, Duration::from_millis(1)).await;
}

/// Longer than any connection lives there, and many times.
const TIME: Duration = Duration::from_secs(5);
const SHORT_LIFE: (&str, &str) = ("ORGD_CONNECTION_AGE_MAX", "300ms");

/// Runs clients for a while, none of whose requests may fail.
async fn assert_nothing_fails(database: &Database, load: &Load, clients: &[(i64, Api)]) {
    let clients = load.start(clients);
    sleep(TIME).await;
    let (done, failures) = load.stop(clients).await;
    let updates: u64 = done.iter().map(|client| client.updates).sum();
    eprintln!("{updates} updates and as many reads, {} failed", failures.len());
    assert!(failures.is_empty(), "{failures:#?}");
    assert!(updates > 10, "{updates} updates");
    assert_stored(database, &done).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_grow_old_behind_a_proxy_fail_no_request() {
    let database = database(12).await;
    let addresses = [own_address(), own_address()];
    let _instances = addresses.map(|address| serve(&database, address, &[SHORT_LIFE]));
    let proxy = Haproxy::start(addresses, &NO_RETRIES);
    for number in 0..2 {
        proxy.until(number, true).await;
    }
    let load = Load::new(proxy.rest(), proxy.grpc(), Duration::from_millis(3));
    assert_nothing_fails(&database, &load, &clients(4)).await;
}

/// A proxy that speaks HTTP/2 to the service for clients of HTTP/1.1 sends on their `Host`, and no
/// `:authority` (RFC 9113 §8.3.1).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_behind_a_proxy_that_speaks_http2_to_the_service_fail_no_request() {
    let database = database(12).await;
    let addresses = [own_address(), own_address()];
    let _instances = addresses.map(|address| serve(&database, address, &[]));
    let over_http2 =
        ("    balance leastconn\n", "    balance leastconn\n    default-server proto h2\n");
    let proxy = Haproxy::start(addresses, &[NO_RETRIES[0], NO_RETRIES[1], over_http2]);
    for number in 0..2 {
        proxy.until(number, true).await;
    }
    let load = Load::new(proxy.rest(), proxy.grpc(), Duration::from_millis(3));
    assert_nothing_fails(&database, &load, &clients(4)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateways_connections_that_grow_old_fail_no_request() {
    let database = Arc::new(database(12).await);
    let service = Service::start_with(database.clone(), &[SHORT_LIFE]).await;
    let gateway = Service::start_gateway(&service).await;
    let load = Load::new(gateway.http_addr(), service.grpc_addr(), Duration::from_millis(3));
    let rest = |client: &(i64, Api)| client.1 != Api::Grpc;
    let clients: Vec<_> = clients(4).into_iter().filter(rest).collect();
    assert_nothing_fails(&database, &load, &clients).await;
}
