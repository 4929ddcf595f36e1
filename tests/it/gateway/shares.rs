//! Each caller's share of a gateway: of its streams, its calls, and its connections to the service.

use std::net::SocketAddr;

use futures_util::{StreamExt, future::join_all, stream::FuturesUnordered};
use sea_orm::ConnectionTrait;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Duration, sleep, timeout},
};

use crate::harness::{
    ADMINISTRATOR, Answer, Database, END_HEADERS, END_STREAM, OWN, PATIENT, RawHttp2, SUPPORT,
    Service, USER, block, connect_from, kind, on_both_databases, watching::Events,
};

const PATIENCE: Duration = Duration::from_secs(60);
/// One caller's part of the thousand streams, and of the four hundred calls.
const STREAMS: usize = 100;
const CALLS: usize = 200;

fn get(gateway: &Service, token: &str) -> impl Future<Output = Answer> + use<> {
    let request = gateway.request("GET", &format!("/v1/organizations/{OWN}"));
    request.bearer(token).send()
}

/// A stream of events that is asked for, and its answer's first line.
async fn follow(gateway: SocketAddr, token: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(gateway).await.unwrap();
    let request = format!(
        "GET /v1/organizations/{OWN}/changes HTTP/1.1\r\nHost: x\r\n\
         Authorization: Bearer {token}\r\nAccept: text/event-stream\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = vec![0; 4096];
    let length = timeout(PATIENCE, stream.read(&mut answer)).await.unwrap().unwrap();
    let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
    (stream, answer)
}

/// So many streams at once; those that were begun, and how many were refused.
async fn follow_many(gateway: SocketAddr, count: usize) -> (Vec<TcpStream>, usize) {
    let answers = join_all((0..count).map(|_| follow(gateway, USER))).await;
    let mut begun = Vec::new();
    for (stream, answer) in answers {
        if answer.starts_with("HTTP/1.1 200 ") {
            begun.push(stream);
        } else {
            assert!(answer.starts_with("HTTP/1.1 429 "), "{answer}");
            assert!(answer.contains("WATCHES_EXHAUSTED"), "{answer}");
            assert!(answer.contains("Retry-After: 1\r\n"), "{answer}");
        }
    }
    let refused = count - begun.len();
    (begun, refused)
}

#[tokio::test]
async fn streams_of_one_caller_leave_room_for_those_of_others() {
    on_both_databases(async |service| {
        let gateway = Service::start_gateway(&service).await;
        let addr = gateway.http_addr();
        let (begun, refused) = follow_many(addr, 300).await;
        assert_eq!((begun.len(), refused), (STREAMS, 200));
        // Calls, another's streams, and the probe, which has failed twice by then if it fails.
        let (_support, answer) = follow(addr, SUPPORT).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        for _ in 0..5 {
            for token in [USER, SUPPORT, ADMINISTRATOR] {
                assert_eq!(get(&gateway, token).await.status(), 200);
            }
            assert_eq!(gateway.get_ops("/readyz").await.status(), 200);
            sleep(Duration::from_millis(500)).await;
        }
        // What clients leave is theirs again.
        drop(begun);
        let again = async {
            let mut begun = Vec::new();
            // A tenth of what the other leaves.
            while begun.len() < STREAMS - 1 {
                begun.extend(follow_many(addr, STREAMS - 1 - begun.len()).await.0);
            }
        };
        timeout(PATIENCE, again).await.expect("the places are free again");
    })
    .await;
}

/// A gateway in front of a service over SQLite, which is patient with a database that is held.
async fn patient() -> (Service, Service) {
    let service = Service::over_sqlite(&PATIENT).await;
    let gateway = Service::start_gateway_with(&service, "http", &PATIENT).await;
    (service, gateway)
}

#[tokio::test]
async fn slow_calls_of_one_caller_do_not_block_others_and_free_their_places() {
    let (service, gateway) = patient().await;
    let holder = service.database().hold().await;
    let put =
        |number: usize| gateway.put(OWN, USER, &format!(r#"{{"name":"Slow {number}"}}"#)).send();
    let mut slow: FuturesUnordered<_> = (0..2 * CALLS).map(put).collect();
    let others = async {
        let under_way = async {
            while service.waiting_in("updates").await < CALLS / 2 {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, under_way).await.expect("calls are under way");
        for _ in 0..5 {
            for token in [SUPPORT, ADMINISTRATOR] {
                assert_eq!(get(&gateway, token).await.status(), 200);
            }
            assert_eq!(gateway.get_ops("/readyz").await.status(), 200);
            sleep(Duration::from_millis(500)).await;
        }
    };
    // Half of the calls is the caller's share; the database does none of them before the others are refused.
    let refused = slow.by_ref().take(CALLS).collect::<Vec<_>>();
    let (refused, ()) = tokio::join!(refused, others);
    for answer in refused {
        assert_eq!((answer.status(), answer.reason().as_str()), (429, "SHARE_EXHAUSTED"));
        assert_eq!(answer.header("retry-after"), Some("1"));
    }
    holder.rollback().await.unwrap();
    while let Some(answer) = slow.next().await {
        assert_eq!(answer.status(), 200, "{}", answer.text());
    }

    // The same of clients that leave.
    let holder = service.database().hold().await;
    let leaving = timeout(Duration::from_secs(2), join_all((0..CALLS).map(put))).await;
    assert!(leaving.is_err(), "none is answered");
    let again = async { while get(&gateway, USER).await.status() != 200 {} };
    timeout(PATIENCE, again).await.expect("the caller has its share again");
    holder.rollback().await.unwrap();
}

#[tokio::test]
async fn made_up_tokens_do_not_use_the_shares_of_known_callers() {
    on_both_databases(async |service| {
        let gateway = Service::start_gateway(&service).await;
        let addr = gateway.http_addr();
        assert_eq!(get(&gateway, USER).await.status(), 200);
        let made_up = join_all((0..300).map(async |number| {
            let mut stream = connect_from([127, 0, 0, 2].into(), addr).await.unwrap();
            let request = format!(
                "GET /v1/organizations/{OWN}/changes HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \
                 0b7cf3d4-3c1f-4d0c-9d5c-7b1f7a0f{number:04}\r\nAccept: text/event-stream\r\n\
                 Connection: close\r\n\r\n"
            );
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
            answer
        }));
        let known = async {
            for _ in 0..50 {
                assert_eq!(get(&gateway, USER).await.status(), 200);
            }
            let (_stream, answer) = follow(addr, USER).await;
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        };
        let (answers, ()) = tokio::join!(made_up, known);
        for answer in answers {
            let status = answer.split(' ').nth(1).unwrap();
            assert!(["401", "429"].contains(&status), "{answer}");
        }
    })
    .await;
}

/// A log so long that buffers cannot take it: the client must read.
async fn write_long_log(database: &Database, versions: i64) {
    let connection = database.connect().await;
    let name = "🙂".repeat(240);
    let (series, text) = if database.is_sqlite() {
        ("WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < ", "text")
    } else {
        ("WITH n(i) AS (SELECT * FROM generate_series(2, ", "text")
    };
    let write = format!(
        "{series}{versions})) INSERT INTO organization_changes (organization_id, version, date, \
         subject, role, request_id, name, subscription_id, handshake_version) \
         SELECT {OWN}, i, (SELECT date_created FROM organizations WHERE id = {OWN}), 's', \
         'administrator', 'r', '{name}' || CAST(i AS {text}), 'free', 0 FROM n"
    );
    let write = if database.is_sqlite() { write.replacen("))", ")", 1) } else { write };
    connection.execute_unprepared(&write).await.unwrap();
    let grown = format!("UPDATE organizations SET version = {versions} WHERE id = {OWN}");
    connection.execute_unprepared(&grown).await.unwrap();
}

#[tokio::test]
async fn unread_streams_do_not_block_others_on_their_connection() {
    const UNREAD: u32 = 20;
    const VERSIONS: i64 = 4000;
    let (service, gateway) = patient().await;
    write_long_log(service.database(), VERSIONS).await;
    let mut client = RawHttp2::connect(gateway.http_addr()).await;
    // SETTINGS_INITIAL_WINDOW_SIZE: not a byte of a body.
    assert!(client.send(kind::SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]).await);
    let bearer = format!("Bearer {USER}");
    let path = format!("/v1/organizations/{OWN}/changes");
    let request = block(&[
        (":method", "GET"),
        (":scheme", "http"),
        (":path", &path),
        (":authority", "x"),
        ("authorization", &bearer),
        ("accept", "text/event-stream"),
        ("last-event-id", "0"),
    ]);
    for number in 0..UNREAD {
        let stream = 2 * number + 1;
        assert!(client.send(kind::HEADERS, END_HEADERS | END_STREAM, stream, &request).await);
    }
    for _ in 0..UNREAD {
        client.next_of(kind::HEADERS).await.expect("the stream begins");
    }
    // What may come without being read does.
    sleep(Duration::from_secs(2)).await;
    let mut events = Events::open(&gateway, "Last-Event-ID: 0\r\n").await;
    let last = format!("id: {VERSIONS}");
    let reading = async { while events.line().await.expect("the stream goes on") != last {} };
    timeout(PATIENCE, reading).await.expect("a stream that is read goes on");
    assert_eq!(get(&gateway, USER).await.status(), 200);
}
