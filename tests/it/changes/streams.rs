//! Watches that must last: across reconnects, restarts and quiet times, and behind proxies.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::Arc,
};

use orgd::proto::v1::{Change, organization_service_client::OrganizationServiceClient};
use sea_orm::ConnectionTrait;
use tokio::time::{Duration, Instant, sleep, timeout};
use tonic::{Code, transport::Endpoint};

use crate::harness::{
    ADMINISTRATOR, Database, OWN, Service, USER, authorized, on_both_databases,
    on_both_databases_with, orgd,
    proxies::{Haproxy, Nginx, own_address, serve},
    reason,
    watching::{Events, next, rename, request, watch},
};

const PATIENCE: Duration = Duration::from_secs(60);
/// Connections that end again and again.
const SHORT_LIFE: [(&str, &str); 2] =
    [("ORGD_CONNECTION_AGE_MAX", "700ms"), ("ORGD_CONNECTION_AGE_GRACE", "5s")];

#[tokio::test]
async fn a_watch_on_an_old_connection_ends_with_a_reason_and_resumes_without_a_loss() {
    on_both_databases_with(&SHORT_LIFE, async |service| {
        const CHANGES: i64 = 30;
        let writing = async {
            for round in 0..CHANGES {
                rename(&service, OWN, &format!("Round {round}")).await;
                sleep(Duration::from_millis(100)).await;
            }
        };
        let over_grpc = async {
            let (mut seen, mut ends) = (vec![1], 0);
            while seen.last() != Some(&(CHANGES + 1)) {
                let from = request(&[OWN], &[(OWN, *seen.last().unwrap())]);
                let mut stream = watch(&service, USER, from).await.unwrap();
                let end = loop {
                    match next(&mut stream).await {
                        Ok(change) => seen.push(change.version),
                        Err(end) => break end,
                    }
                    if seen.last() == Some(&(CHANGES + 1)) {
                        return (seen, ends);
                    }
                };
                assert_eq!(end.code(), Code::Unavailable, "{end:?}");
                assert_eq!(reason(&end), "CONNECTION_AGED", "{end:?}");
                ends += 1;
            }
            (seen, ends)
        };
        let over_rest = async {
            let (mut seen, mut ends) = (vec![1], 0);
            loop {
                let last = format!("Last-Event-ID: {}\r\n", seen.last().unwrap());
                let mut events = Events::open(&service, &last).await;
                while let Some(line) = events.line().await {
                    assert!(!line.starts_with("event: error"), "a clean end");
                    if let Some(version) = line.strip_prefix("id: ") {
                        seen.push(version.parse().unwrap());
                    }
                    if seen.last() == Some(&(CHANGES + 1)) {
                        return (seen, ends);
                    }
                }
                ends += 1;
            }
        };
        let both = async { tokio::join!(writing, over_grpc, over_rest) };
        let ((), (grpc, grpc_ends), (rest, rest_ends)) = timeout(PATIENCE, both).await.unwrap();
        let all: Vec<i64> = (1..=CHANGES + 1).collect();
        assert_eq!((grpc, rest), (all.clone(), all));
        eprintln!("{grpc_ends} streams ended over gRPC, {rest_ends} over REST");
        assert!(grpc_ends > 0, "no connection grew old");
    })
    .await;
}

#[tokio::test]
async fn a_watch_ends_when_its_credential_is_changed() {
    on_both_databases(async |service| {
        let url = service.database().url();
        let connection = service.database().connect().await;
        for (number, (change, end)) in [
            ("UPDATE credentials SET role = 'administrator'", "CREDENTIAL_CHANGED"),
            ("UPDATE credentials SET role = 'user', organization_id = 94", "CREDENTIAL_CHANGED"),
            ("UPDATE credentials SET expires_at = '2999-01-01T00:00:00Z'", "CREDENTIAL_CHANGED"),
            ("UPDATE credentials SET expires_at = '2001-01-01T00:00:00Z'", "CREDENTIAL_INVALID"),
            ("DELETE FROM credentials", "CREDENTIAL_INVALID"),
        ]
        .into_iter()
        .enumerate()
        {
            let words =
                format!("credential issue --role support --json --subject watcher-{number}");
            let issued = orgd(url, &words).json();
            let secret = issued["secret"].as_str().unwrap();
            let mut stream = watch(&service, secret, request(&[OWN], &[(OWN, 0)])).await.unwrap();
            assert_eq!(next(&mut stream).await.unwrap().version, 1);
            let sql = format!("{change} WHERE subject = 'watcher-{number}'");
            connection.execute_unprepared(&sql).await.unwrap();
            let status = next(&mut stream).await.unwrap_err();
            assert_eq!(reason(&status), end, "{change}");
            let code = if end == "CREDENTIAL_CHANGED" { "Unavailable" } else { "Unauthenticated" };
            assert_eq!(format!("{:?}", status.code()), code, "{change}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_quiet_watch_sends_heartbeats_alone() {
    on_both_databases_with(&[("ORGD_STALL_TIMEOUT", "2s")], async |service| {
        let mut stream = watch(&service, USER, request(&[], &[])).await.unwrap();
        for _ in 0..3 {
            let sign = timeout(PATIENCE, stream.message()).await.unwrap().unwrap().unwrap();
            assert_eq!(sign, Change { heartbeat: true, ..Change::default() });
        }
        rename(&service, OWN, "News").await;
        let change = next(&mut stream).await.unwrap();
        assert_eq!((change.version, change.heartbeat), (2, false));
    })
    .await;
}

/// `orgd organization changes --follow` of the own organization.
struct Follower {
    child: Child,
    versions: std::sync::mpsc::Receiver<i64>,
}

impl Follower {
    fn start(server: &str, token: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_orgd"))
            .args(["organization", "changes", "90", "--follow", "--json"])
            .env("ORGD_SERVER", server)
            .env("ORGD_TOKEN", token)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (sender, versions) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let change: serde_json::Value = serde_json::from_str(&line).unwrap();
                let _ = sender.send(change["version"].as_i64().unwrap());
            }
        });
        Self { child, versions }
    }

    /// The versions up to this one.
    async fn until(&self, version: i64) -> Vec<i64> {
        let begin = Instant::now();
        let mut seen = Vec::new();
        while seen.last() != Some(&version) {
            match self.versions.try_recv() {
                Ok(next) => seen.push(next),
                Err(_) => sleep(Duration::from_millis(20)).await,
            }
            assert!(begin.elapsed() < PATIENCE, "{seen:?}");
        }
        seen
    }

    async fn exit_code(&mut self) -> Option<i32> {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(begin.elapsed() < PATIENCE, "it goes on");
            sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn the_command_follows_across_reconnects_and_restarts_and_stops_at_a_refusal() {
    for database in Database::of_each_kind().await {
        eprintln!("over {}", database.kind());
        database.seed().await;
        let database = Arc::new(database);
        let address = own_address();
        let mut service = serve(&database, address, &SHORT_LIFE).over(database.clone());
        service.until_ready().await;
        let issue = "credential issue --role support --json --subject follower";
        let issued = orgd(database.url(), issue).json();
        let (id, secret) = (&issued["id"], issued["secret"].as_str().unwrap());
        let mut follower = Follower::start(&format!("http://{address}:50051"), secret);
        assert_eq!(follower.until(1).await, [1]);
        let mut version = 1;
        for round in 0..3 {
            for change in 0..10 {
                rename(&service, OWN, &format!("Round {round}, change {change}")).await;
                sleep(Duration::from_millis(100)).await;
            }
            service.signal("TERM");
            assert!(service.ended().await.success());
            service = serve(&database, address, &SHORT_LIFE).over(database.clone());
            service.until_ready().await;
            let seen = follower.until(version + 10).await;
            assert_eq!(seen, (version + 1..=version + 10).collect::<Vec<_>>());
            version += 10;
        }
        let id = id.as_str().unwrap();
        assert_eq!(orgd(database.url(), &format!("credential revoke {id}")).code, 0);
        assert_eq!(follower.exit_code().await, Some(4));
    }
}

/// Timeouts of the proxies in these tests, and a setting that makes signs of life twice as frequent as
/// needed.
const PROXY_TIMEOUT: Duration = Duration::from_secs(8);
const FREQUENT: (&str, &str) = ("ORGD_STALL_TIMEOUT", "4s");

/// Follows by way of a proxy: events come when they are made, and a quiet stream outlives the timeout.
async fn assert_streams_last(service: &Service, rest: std::net::SocketAddr, grpc: &str) {
    let mut events = Events::open_at(rest, "Last-Event-ID: 1\r\n").await;
    assert!(events.head.contains("200 ok"), "{}", events.head);
    let channel = Endpoint::from_shared(grpc.to_owned()).unwrap().connect_lazy();
    let mut client = OrganizationServiceClient::new(channel);
    let message = authorized(ADMINISTRATOR, request(&[OWN], &[(OWN, 1)]));
    let mut stream = client.watch(message).await.unwrap().into_inner();
    let mut version = service.database().organization(OWN).await.etag.version();
    for quiet in [Duration::ZERO, PROXY_TIMEOUT * 3 / 2] {
        // Read all the while, as a client does.
        let reading = async {
            let change = next(&mut stream).await;
            (change.map(|change| change.version), events.until("id: ").await)
        };
        let writing = async {
            sleep(quiet).await;
            rename(service, OWN, &format!("After {quiet:?}")).await;
        };
        version += 1;
        let begin = Instant::now();
        let ((over_grpc, over_rest), ()) = tokio::join!(reading, writing);
        assert_eq!(over_grpc.unwrap(), version);
        assert_eq!(over_rest, format!("id: {version}"));
        // Within the time in which a stream without news would have been cut.
        assert!(begin.elapsed() < quiet + PROXY_TIMEOUT * 2, "{:?}", begin.elapsed());
    }
}

#[tokio::test]
async fn streams_outlive_the_timeouts_of_haproxy() {
    let database = Arc::new(Database::postgres().await);
    database.seed().await;
    let address = own_address();
    let service = serve(&database, address, &[FREQUENT]).over(database.clone());
    service.until_ready().await;
    let short = format!("{}s", PROXY_TIMEOUT.as_secs());
    let changes = [("130s", short.as_str())];
    let proxy = Haproxy::start([address, address], &changes);
    proxy.until(0, true).await;
    assert_streams_last(&service, proxy.rest(), &format!("http://{}", proxy.grpc())).await;
}

#[tokio::test]
async fn events_come_at_once_and_streams_outlive_the_timeouts_of_nginx() {
    let database = Arc::new(Database::postgres().await);
    database.seed().await;
    let service = Service::start_with(database, &[FREQUENT]).await;
    let proxy = Nginx::start(&service, PROXY_TIMEOUT).await;
    assert_streams_last(&service, proxy.rest(), &format!("http://{}", proxy.grpc())).await;
}
