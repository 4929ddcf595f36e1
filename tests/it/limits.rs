//! Each limit is crossed: what the client that does so gets, and that others are served meanwhile.
//! The slow clients of the accept loop are in `listeners`, a full queue of updates is in `batches`.

use std::{error::Error, sync::Arc, time::Duration};

use futures_util::future::join_all;
use orgd::proto::v1::{GetOrganizationRequest, Organization, UpdateOrganizationRequest};
use sea_orm::{ConnectionTrait, TransactionTrait};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};
use tonic::{Code, Status};

use crate::{
    deadlines::hold,
    harness::{
        ADMINISTRATOR, Database, OWN, PATIENT, RawHttp2, Service, USER, authorized, kind,
        patiently_on_both_databases,
    },
};

const PATIENCE: Duration = Duration::from_secs(30);
const OPTIONS: &[u8] = b"OPTIONS / HTTP/1.1\r\nHost: x\r\n\r\n";

async fn with(settings: &[(&str, &str)]) -> Service {
    let database = Database::sqlite();
    database.seed().await;
    Service::start_with(Arc::new(database), settings).await
}

/// A connection on which a request was answered.
async fn used(service: &Service) -> TcpStream {
    let mut stream = TcpStream::connect(service.http_addr()).await.unwrap();
    assert!(is_answered(&mut stream).await);
    stream
}

/// Whether a request on a connection is answered; false once the connection has ended.
async fn is_answered(stream: &mut TcpStream) -> bool {
    if stream.write_all(OPTIONS).await.is_err() {
        return false;
    }
    let mut answer = [0; 4096];
    let read = timeout(PATIENCE, stream.read(&mut answer)).await.expect("an answer, or an end");
    read.is_ok_and(|count| count > 0)
}

async fn until_closed(stream: &mut TcpStream) {
    let closing = async { while stream.read(&mut [0; 4096]).await.is_ok_and(|count| count > 0) {} };
    timeout(PATIENCE, closing).await.expect("the connection ends");
}

async fn is_served(service: &Service) {
    assert_eq!(service.put(OWN, USER, "{}").send().await.status(), 200);
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let service = with(&[("ORGD_IDLE_TIMEOUT", "1s")]).await;
    until_closed(&mut used(&service).await).await;
}

#[tokio::test]
async fn an_old_connection_takes_no_new_requests_and_ends_after_its_grace() {
    // The grace is more than any of the requests takes.
    let settings = [("ORGD_CONNECTION_AGE_MAX", "1s"), ("ORGD_CONNECTION_AGE_GRACE", "4s")];
    let service = with(&settings).await;
    let mut kept = used(&service).await;
    let mut watching = RawHttp2::connect(service.grpc_addr()).await;
    assert!(watching.watch_health(1).await);
    let busy = async {
        while is_answered(&mut kept).await {
            sleep(Duration::from_millis(50)).await;
        }
    };
    let old = async {
        let goodbye = watching.next_of(kind::GOAWAY).await.expect("GOAWAY comes before the end");
        assert_eq!(goodbye.error_code(), 0);
        // The stream has no end of its own.
        while watching.next().await.is_some() {}
    };
    timeout(PATIENCE, async { tokio::join!(busy, old) }).await.unwrap();
    // A client of gRPC connects anew, and nothing that it sends is lost. What it has not sent, because
    // it heard of the connection's end just then, it may send again: tonic's does not do so by itself.
    let mut client = service.grpc();
    for _ in 0..30 {
        let message = GetOrganizationRequest { id: OWN, ..GetOrganizationRequest::default() };
        while let Err(status) = client.get(authorized(USER, message)).await {
            assert!(is_unsent(&status), "{status:?}");
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// Whether a call failed within the client, before anything of it was sent.
fn is_unsent(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.downcast_ref().is_some_and(hyper::Error::is_canceled) {
            return true;
        }
        cause = error.source();
    }
    false
}

#[tokio::test]
async fn a_client_of_http2_that_does_not_answer_pings_is_closed() {
    let service = with(&[("ORGD_STALL_TIMEOUT", "1s")]).await;
    let mut watching = RawHttp2::connect(service.grpc_addr()).await;
    assert!(watching.watch_health(1).await);
    watching.next_of(kind::PING).await.expect("a ping comes before the end");
    while watching.next().await.is_some() {}
}

#[tokio::test]
async fn a_stream_over_the_limit_is_refused() {
    let service = with(&[("ORGD_STREAMS_MAX", "3")]).await;
    let mut client = RawHttp2::connect(service.grpc_addr()).await;
    for stream in [1, 3, 5, 7] {
        assert!(client.watch_health(stream).await);
    }
    let refused = client.next_of(kind::RST_STREAM).await.expect("a refusal");
    assert_eq!((refused.stream, refused.error_code()), (7, 7), "REFUSED_STREAM, of the fourth");
}

#[tokio::test]
async fn a_client_that_makes_the_service_reset_streams_is_closed() {
    let service = with(&[]).await;
    let mut client = RawHttp2::connect(service.grpc_addr()).await;
    let until_goodbye = async {
        for first in (1..).step_by(100) {
            for stream in (first..first + 20).step_by(2) {
                // A window that grows too large is an error of the stream (CVE-2025-8671).
                client.call(stream, "/x/y", None).await;
                client.send(kind::WINDOW_UPDATE, 0, stream, &i32::MAX.to_be_bytes()).await;
            }
            // A client that lets few be answered is closed sooner.
            for stream in (first + 20..first + 100).step_by(2) {
                client.call(stream, "/grpc.health.v1.Health/Check", Some(&[])).await;
            }
            let mut unanswered = 40;
            while unanswered > 0 {
                let frame = client.next().await?;
                if frame.kind == kind::GOAWAY {
                    return Some(frame);
                }
                // The message of an answer.
                unanswered -= u32::from(frame.kind == kind::DATA);
            }
        }
        None
    };
    let goodbye = until_goodbye.await.expect("GOAWAY comes before the end");
    assert_eq!(goodbye.error_code(), 11, "ENHANCE_YOUR_CALM");
    is_served(&service).await;
}

#[tokio::test]
async fn a_flood_of_pings_or_settings_is_closed() {
    let service = with(&[]).await;
    for (kind, payload) in [(kind::PING, &[0; 8][..]), (kind::SETTINGS, &[])] {
        let mut client = RawHttp2::connect(service.grpc_addr()).await;
        // Not a client that says nothing: one with a request under way.
        assert!(client.watch_health(1).await);
        let flood = async {
            let mut sent: u64 = 0;
            loop {
                for _ in 0..100 {
                    if !client.send(kind, 0, 0, payload).await {
                        return sent;
                    }
                    sent += 1;
                }
                // Takes the answers, as a client that has not stalled does.
                while let Ok(frame) = timeout(Duration::from_millis(1), client.next()).await {
                    if frame.is_none() {
                        return sent;
                    }
                }
            }
        };
        let sent = timeout(PATIENCE, flood).await.expect("the flood is ended");
        assert!(sent > 10_000, "{sent} frames are no flood yet");
        is_served(&service).await;
    }
}

#[tokio::test]
async fn sizes_over_the_limits_are_refused() {
    let service = with(&[("ORGD_BODY_BYTES_MAX", "1024"), ("ORGD_HEADER_BYTES_MAX", "8192")]).await;
    let long = "x".repeat(3000);
    let name = format!(r#"{{"name": "{long}"}}"#);
    let too_large = service.put(OWN, USER, &name).send().await;
    assert_eq!((too_large.status(), too_large.reason().as_str()), (413, "BODY_TOO_LARGE"));
    let organization = Organization { id: OWN, name: Some(long), ..Organization::default() };
    let message = UpdateOrganizationRequest {
        organization: Some(organization),
        ..UpdateOrganizationRequest::default()
    };
    let refused = service.grpc().update(authorized(USER, message)).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    let with_headers = service.put(OWN, USER, "{}").header("x-long", &"x".repeat(9000));
    assert_eq!(with_headers.send().await.status(), 431);
    is_served(&service).await;
}

#[tokio::test]
async fn a_request_ends_with_its_deadline() {
    // Longer than what would be the default: no machine is too early.
    let deadline = Duration::from_secs(6);
    let settings = [("ORGD_REQUEST_DEADLINE", "6s"), ("ORGD_STALL_TIMEOUT", "1h")];
    let service = with(&settings).await;
    let begin = Instant::now();
    let mut stream = TcpStream::connect(service.http_addr()).await.unwrap();
    let head = format!(
        "PUT /v1/organizations/90 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {USER}\r\n\
         Content-Length: 20\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    timeout(PATIENCE, stream.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(&answer, b"HTTP/1.1 504");
    assert!(begin.elapsed() >= deadline, "{:?}", begin.elapsed());
}

/// What a locked row or a busy database file comes to, by the limit that is shorter.
#[tokio::test]
async fn a_statement_waits_no_longer_than_it_may() {
    for (short, postgres, sqlite) in [
        ("ORGD_DATABASE_LOCK_TIMEOUT", "lock timeout", Some("database is locked")),
        // SQLite has no such limit.
        ("ORGD_DATABASE_STATEMENT_TIMEOUT", "statement timeout", None),
    ] {
        patiently_on_both_databases(&[(short, "500ms")], async |service| {
            let words = if service.database().is_sqlite() { sqlite } else { Some(postgres) };
            let Some(words) = words else { return };
            let held = hold(service.database()).await;
            let answer = service.put(OWN, ADMINISTRATOR, r#"{"name": "Late"}"#).send().await;
            assert_eq!((answer.status(), answer.reason().as_str()), (503, "STORE_UNAVAILABLE"));
            service.until_logged(words).await;
            held.rollback().await.unwrap();
            is_served(&service).await;
            assert_ne!(service.database().name(OWN).await, "Late");
        })
        .await;
    }
}

/// Administrators have one connection of the pool, however many lists they ask for.
#[tokio::test]
async fn reads_beyond_the_pool_wait_for_a_connection() {
    let database = Database::postgres().await;
    database.seed().await;
    let service = Service::start_with(
        Arc::new(database),
        &[&PATIENT[..], &[("ORGD_DATABASE_CONNECTIONS", "8")]].concat(),
    )
    .await;
    let holder = service.database().connect().await;
    let locked = holder.begin().await.unwrap();
    locked.execute_unprepared("LOCK TABLE organization_changes").await.unwrap();
    // In the other's transaction the view would stay as it was first seen.
    let observer = service.database().connect().await;
    let changes = |token: &str| {
        let request = service.request("GET", "/v1/organizations/90/changes");
        request.header("authorization", &format!("Bearer {token}")).send()
    };
    let of_administrator = join_all((0..10).map(|_| changes(ADMINISTRATOR)));
    let of_user = join_all((0..10).map(|_| changes(USER)));
    let looking = async {
        let count = async |condition: &str| {
            let count = format!(
                "SELECT count(*) AS count FROM pg_stat_activity WHERE {condition} AND datname = \
                 current_database() AND pid <> pg_backend_pid()"
            );
            let row = observer.query_one_raw(statement(&count)).await.unwrap().unwrap();
            row.try_get::<i64>("", "count").unwrap()
        };
        let waiting = async {
            while count("wait_event_type = 'Lock'").await < 2 {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, waiting).await.expect("one of each waits for the lock");
        let counts = (count("wait_event_type = 'Lock'").await, count("true").await);
        locked.rollback().await.unwrap();
        counts
    };
    let (mut answers, others, counts) = tokio::join!(of_administrator, of_user, looking);
    assert!(
        counts.0 <= 2 && counts.1 <= 8 + 1,
        "{counts:?} connections wait for the lock, and are there"
    );
    answers.extend(others);
    // A statement that met the lock may have been too slow.
    let done = answers.iter().filter(|answer| answer.status() == 200).count();
    assert!(done >= 16, "{done} of 20");
    assert_eq!(changes(USER).await.status(), 200);
}

fn statement(text: &str) -> sea_orm::Statement {
    sea_orm::Statement::from_string(sea_orm::DbBackend::Postgres, text)
}
