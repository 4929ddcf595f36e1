//! Slow clients of every kind: each is closed or gets GOAWAY, while an honest one is served.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use tempfile::TempDir;

use crate::harness::{
    ADMINISTRATOR, Database, END_HEADERS, END_STREAM, PREFACE, Service, block, frame, kind,
    offender::{Growth, Next, Offender, Probe, attack},
};

/// The promise says 10 s. A test that shares its processors is late by what it waits for them; a service
/// without one of these limits closes no connection before 120 s.
const CLOSED_WITHIN: Duration = Duration::from_secs(30);
const GROWTH_MEGABYTES_MAX: f64 = 20.0;
const HONEST_P99_MAX: Duration = Duration::from_secs(5);

/// How many do the same at once.
const CLIENTS: usize = 8;
/// How often a client sends a byte that sends one now and then.
const DRIP: Duration = Duration::from_millis(300);

#[derive(Clone, Copy, Debug)]
enum Listener {
    Grpc,
    Rest,
    Operations,
}

use Listener::{Grpc, Operations, Rest};

/// A slow client: its API, what it sends first, what it then sends now and then, and whether it takes
/// answers.
type Slow = (&'static str, Listener, Vec<u8>, Option<Next>, bool);

/// The same byte, or bytes, again and again.
#[expect(clippy::unnecessary_wraps, reason = "as the tables have it")]
fn drip(bytes: &[u8]) -> Option<Next> {
    let bytes = bytes.to_vec();
    Some(Arc::new(move |_| bytes.clone()))
}

/// The head of a good PUT, but for the blank line.
fn head() -> Vec<u8> {
    let head = "PUT /v1/organizations/90?validateOnly=true HTTP/1.1\r\nHost: x\r\n";
    format!("{head}Authorization: Bearer {ADMINISTRATOR}\r\n").into_bytes()
}

/// HEADERS of a request to an API.
fn headers(listener: Listener, method: &str, path: &str, flags: u8, stream: u32) -> Vec<u8> {
    let media_type = if matches!(listener, Grpc) { "application/grpc" } else { "application/json" };
    let authorization = format!("Bearer {ADMINISTRATOR}");
    let block = block(&[
        (":method", method),
        (":scheme", "http"),
        (":path", path),
        (":authority", "x"),
        ("content-type", media_type),
        ("te", "trailers"),
        ("authorization", &authorization),
    ]);
    frame(kind::HEADERS, flags, stream, &block)
}

fn over_http1() -> Vec<Slow> {
    let with = |rest: &[u8]| [&head(), rest].concat();
    let used = b"OPTIONS / HTTP/1.1\r\nHost: x\r\n\r\n";
    let page = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n";
    let chunked = with(b"Transfer-Encoding: chunked\r\n\r\n");
    vec![
        ("says nothing", Rest, vec![], None, true),
        ("says nothing", Operations, vec![], None, true),
        ("a first line by the byte", Rest, vec![], drip(b"A"), true),
        ("headers by the byte", Rest, head(), drip(b"a"), true),
        ("headers by the line", Rest, head(), drip(b"A: b\r\n"), true),
        ("a second request by the byte", Rest, used.to_vec(), drip(b"A"), true),
        ("a body by the byte", Rest, with(b"Content-Length: 900\r\n\r\n"), drip(b" "), true),
        ("a body by the chunk", Rest, chunked.clone(), drip(b"1\r\n \r\n"), true),
        ("the size of a chunk by the byte", Rest, chunked, drip(b"0"), true),
        ("answers that are not read", Rest, page.repeat(3000), None, false),
    ]
}

fn over_http2(listener: Listener) -> Vec<Slow> {
    let (method, path) = match listener {
        Grpc => ("POST", "/organization.v1.OrganizationService/Update"),
        Rest | Operations => ("PUT", "/v1/organizations/90"),
    };
    let endless = match listener {
        Grpc => "/grpc.health.v1.Health/Watch",
        Rest | Operations => "/v1/organizations/90/changes",
    };
    let with_preface = |frames: &[Vec<u8>]| [PREFACE, &frames.concat()].concat();
    let open = headers(listener, method, path, END_HEADERS, 1);
    // Of gRPC, the start of a message of 900 bytes.
    let long = frame(kind::DATA, 0, 1, &[0, 0, 0, 3, 132]);
    let not_complete = |stream| headers(listener, method, path, 0, stream);
    let continued = |stream| frame(kind::CONTINUATION, 0, stream, &[]);
    // One that is answered at once, also without a message.
    let answered = headers(listener, "OPTIONS", "/", END_HEADERS | END_STREAM, 1);
    let no_window = frame(kind::SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
    let asked = match listener {
        Grpc => [
            headers(listener, "POST", endless, END_HEADERS, 1),
            frame(kind::DATA, END_STREAM, 1, &[0; 5]),
        ]
        .concat(),
        Rest | Operations => headers(listener, "GET", "/openapi.json", END_HEADERS | END_STREAM, 1),
    };
    vec![
        ("says nothing at all", listener, vec![], None, true),
        ("half a preface", listener, PREFACE[..10].to_vec(), None, true),
        ("a preface by the byte", listener, vec![], Some(by_the_byte(PREFACE)), true),
        ("a preface only", listener, PREFACE.to_vec(), None, true),
        (
            "a preface and pings",
            listener,
            PREFACE.to_vec(),
            drip(&frame(kind::PING, 0, 0, &[0; 8])),
            true,
        ),
        ("HEADERS without an end", listener, with_preface(&[not_complete(1)]), None, true),
        (
            "HEADERS without an end, later",
            listener,
            with_preface(&[answered.clone(), not_complete(3)]),
            None,
            true,
        ),
        (
            "CONTINUATION now and then",
            listener,
            with_preface(&[not_complete(1)]),
            drip(&continued(1)),
            true,
        ),
        (
            "CONTINUATION, later",
            listener,
            with_preface(&[answered, not_complete(3)]),
            drip(&continued(3)),
            true,
        ),
        (
            "DATA that does not come",
            listener,
            with_preface(std::slice::from_ref(&open)),
            None,
            true,
        ),
        (
            "DATA by the byte",
            listener,
            with_preface(&[open, long]),
            drip(&frame(kind::DATA, 0, 1, b"a")),
            true,
        ),
        (
            "an answer without a window",
            listener,
            with_preface(&[no_window.clone(), asked.clone()]),
            None,
            true,
        ),
        (
            "the same, and pings",
            listener,
            with_preface(&[no_window, asked.clone()]),
            drip(&frame(kind::PING, 0, 0, &[0; 8])),
            true,
        ),
        ("answers that are not read, nor pings", listener, with_preface(&[asked]), None, false),
    ]
}

/// A byte of a text after the other, and its last ones never.
fn by_the_byte(text: &'static [u8]) -> Next {
    Arc::new(move |turn| {
        let turn = usize::try_from(turn).unwrap();
        text.get(turn..=turn).filter(|_| turn < 20).unwrap_or_default().to_vec()
    })
}

/// All of them at once, several of each kind.
async fn all_are_closed(service: &Service, slow: Vec<Slow>) {
    let attacks = slow.iter().map(|(_, listener, first, next, reads)| {
        let offender = Offender {
            addr: match listener {
                Grpc => service.grpc_addr(),
                Rest => service.http_addr(),
                Operations => service.ops_addr(),
            },
            first: first.clone(),
            next: next.clone(),
            pause: DRIP,
            reads: *reads,
        };
        attack(vec![offender; CLIENTS], CLOSED_WITHIN)
    });
    let endings = join_all(attacks).await;
    let mut open = Vec::new();
    for ((name, listener, ..), endings) in slow.iter().zip(endings) {
        let slowest = endings.iter().map(|ending| ending.after.unwrap_or(Duration::MAX)).max();
        let goaway = endings.iter().find_map(|ending| ending.goaway);
        eprintln!("{listener:?}, {name}: ended after {slowest:.1?}, GOAWAY {goaway:?}");
        if slowest == Some(Duration::MAX) {
            open.push(format!("{listener:?}, {name}: {endings:?}"));
        }
    }
    assert!(open.is_empty(), "{open:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_clients_are_closed_within_ten_seconds() {
    let service = Service::over_sqlite(&[]).await;
    let slow = [over_http1(), over_http2(Grpc), over_http2(Rest)].concat();
    let clients = slow.len() * CLIENTS;
    let growth = Growth::start(&service).await;
    let mut probe = Probe::new(&service);
    probe.beside(all_are_closed(&service, slow)).await;
    let (megabytes, p99) = (growth.megabytes(&service), probe.p99());
    eprintln!("{clients} slow clients at once: memory +{megabytes:.1} MB, honest p99 {p99:.1?}");
    assert!(megabytes < GROWTH_MEGABYTES_MAX, "{megabytes} MB");
    assert!(p99 < HONEST_P99_MAX, "{p99:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_handshake_is_closed_within_ten_seconds() {
    let database = Database::sqlite();
    database.seed().await;
    let folder = TempDir::new().unwrap();
    let signed = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let paths = ["cert.pem", "key.pem"].map(|name| folder.path().join(name));
    std::fs::write(&paths[0], signed.cert.pem()).unwrap();
    std::fs::write(&paths[1], signed.signing_key.serialize_pem()).unwrap();
    let [cert, key] = paths.each_ref().map(|path| path.to_str().unwrap());
    let settings = [("ORGD_TLS_CERT", cert), ("ORGD_TLS_KEY", key)];
    let service = Service::start_with(Arc::new(database), &settings).await;
    // The start of a ClientHello.
    let hello = b"\x16\x03\x01\x02\x00\x01";
    let on = |listener| -> Vec<Slow> {
        vec![
            ("half a handshake", listener, hello.to_vec(), None, true),
            ("a handshake by the byte", listener, hello.to_vec(), drip(&[0]), true),
            ("no handshake", listener, vec![], None, true),
        ]
    };
    all_are_closed(&service, [on(Grpc), on(Rest)].concat()).await;
}
