//! Shares of source addresses and of callers: connections, requests under way, and answers that are not
//! taken. A client over its share is closed or refused; others are served.

use std::{net::Ipv4Addr, time::Duration};

use orgd::proto::v1::GetOrganizationRequest;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};
use tonic_types::StatusExt;

use crate::harness::{
    ADMINISTRATOR, OWN, PATIENCE, RawHttp2, Request, Service, USER, authorized, connect_from,
    is_answered, kind, until_closed, watching::rename,
};

const HOME: Ipv4Addr = Ipv4Addr::LOCALHOST;
const OTHER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

async fn connect(service: &Service, from: Ipv4Addr) -> TcpStream {
    connect_from(from, service.http_addr()).await.unwrap()
}

/// A connection on which a request was answered.
async fn used(service: &Service, from: Ipv4Addr) -> TcpStream {
    let mut stream = connect(service, from).await;
    assert!(is_answered(&mut stream).await);
    stream
}

/// A GET of the own organization, by way of a proxy where `forwarded` is not empty.
fn get(service: &Service, forwarded: &str) -> Request {
    let request = service.request("GET", &format!("/v1/organizations/{OWN}"));
    let request = request.bearer(USER);
    if forwarded.is_empty() { request } else { request.header("x-forwarded-for", forwarded) }
}

async fn closed(service: &Service, reason: &str) -> u32 {
    let metrics = service.get_ops("/metrics").await;
    let name = format!("orgd_connections_closed_total{{listener=\"http\",reason=\"{reason}\"}} ");
    let value = metrics.text().lines().find_map(|line| line.strip_prefix(&name));
    value.unwrap().parse().unwrap()
}

/// No client of it has to try again.
#[tokio::test]
async fn a_burst_of_connections_waits_until_each_is_accepted() {
    let kernels = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
    let count = kernels.trim().parse::<usize>().unwrap().min(2000);
    let service = Service::over_sqlite(&[]).await;
    // Nothing is accepted meanwhile.
    service.signal("STOP");
    let mut streams = Vec::new();
    for number in 0..count {
        let connected = timeout(PATIENCE, connect(&service, HOME)).await;
        streams.push(connected.unwrap_or_else(|_| panic!("{number} of {count} are connected")));
    }
    service.signal("CONT");
    assert!(is_answered(streams.last_mut().unwrap()).await);
}

#[tokio::test]
async fn an_address_over_its_share_loses_the_connection_that_is_idle_for_longest() {
    let service =
        Service::over_sqlite(&[("ORGD_CONNECTIONS_MAX", "8"), ("ORGD_REQUEST_DEADLINE", "20s")])
            .await;
    let mut busy = service.begin_put(USER, 2, "").await;
    let mut silent = connect(&service, HOME).await;
    let mut first = used(&service, HOME).await;
    let mut second = used(&service, HOME).await;
    // A half of what there may be. From now on the oldest goes, and one with a request never.
    let mut third = used(&service, HOME).await;
    until_closed(&mut silent).await;
    assert!(is_answered(&mut first).await);
    let mut fourth = used(&service, HOME).await;
    until_closed(&mut second).await;
    for kept in [&mut first, &mut third, &mut fourth] {
        assert!(is_answered(kept).await);
    }
    busy.write_all(b"{}").await.unwrap();
    let mut answer = [0; 12];
    busy.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    assert_eq!(closed(&service, "idle").await, 2);
    assert_eq!(closed(&service, "refused").await, 0);
}

#[tokio::test]
async fn an_address_without_an_idle_connection_gets_no_more_and_others_do() {
    let service =
        Service::over_sqlite(&[("ORGD_CONNECTIONS_MAX", "8"), ("ORGD_REQUEST_DEADLINE", "20s")])
            .await;
    let mut busy = Vec::new();
    for _ in 0..4 {
        busy.push(service.begin_put(USER, 2, "").await);
    }
    let mut more = connect(&service, HOME).await;
    until_closed(&mut more).await;
    assert!(closed(&service, "refused").await >= 1);
    let mut other = used(&service, OTHER).await;
    assert!(is_answered(&mut other).await);
    busy.pop();
    // The place is free once the connection has ended.
    let served = async { while !is_answered(&mut connect(&service, HOME).await).await {} };
    timeout(PATIENCE, served).await.unwrap();
}

#[tokio::test]
async fn a_flood_of_connections_does_not_shut_others_out() {
    let service = Service::over_sqlite(&[("ORGD_CONNECTIONS_MAX", "64")]).await;
    let mut kept = used(&service, OTHER).await;
    let mut flood = Vec::new();
    for _ in 0..300 {
        flood.push(connect(&service, HOME).await);
        if flood.len() % 10 == 0 {
            used(&service, OTHER).await;
        }
    }
    assert!(is_answered(&mut kept).await, "others lose none");
    assert_eq!(service.get_ops("/readyz").await.status(), 200);
    let mut watching = RawHttp2::connect(service.grpc_addr()).await;
    assert!(watching.watch_health(1).await);
    assert!(watching.next_of(kind::DATA).await.is_some());
    until_closed(&mut flood[0]).await;
    assert!(closed(&service, "idle").await + closed(&service, "refused").await >= 236);
}

#[tokio::test]
async fn an_idle_http2_connection_gets_goaway_before_it_is_closed_for_another() {
    let service = Service::over_sqlite(&[("ORGD_CONNECTIONS_MAX", "4")]).await;
    let mut first = RawHttp2::connect(service.grpc_addr()).await;
    assert!(first.call(1, "/grpc.health.v1.Health/Check", Some(&[])).await);
    assert!(first.next_of(kind::DATA).await.is_some());
    let mut others = Vec::new();
    for _ in 0..2 {
        let mut other = RawHttp2::connect(service.grpc_addr()).await;
        assert!(other.watch_health(1).await);
        assert!(other.next_of(kind::DATA).await.is_some());
        others.push(other);
    }
    let goodbye = first.next_of(kind::GOAWAY).await.expect("GOAWAY comes before the end");
    assert_eq!(goodbye.error_code(), 0);
    while first.next().await.is_some() {}
}

#[tokio::test]
async fn a_trusted_proxy_has_no_share_of_its_own() {
    let settings = [("ORGD_CONNECTIONS_MAX", "4"), ("ORGD_TRUSTED_PROXIES", "127.0.0.1")];
    let service = Service::over_sqlite(&settings).await;
    let mut all = Vec::new();
    for _ in 0..4 {
        all.push(used(&service, HOME).await);
    }
    for kept in &mut all {
        assert!(is_answered(kept).await);
    }
    used(&service, HOME).await;
    until_closed(&mut all[0]).await;
    assert!(is_answered(&mut all[1]).await);
}

/// How many of so many requests at once are over the limit of their sources.
async fn refused(service: &Service, forwarded: impl Fn(usize) -> String) -> usize {
    let all = (0..20).map(|number| get(service, &forwarded(number)).send());
    let answers = futures_util::future::join_all(all).await;
    for answer in &answers {
        assert!(matches!(answer.status(), 200 | 429), "{}", answer.text());
    }
    answers.iter().filter(|answer| answer.reason() == "RATE_LIMITED").count()
}

#[tokio::test]
async fn the_source_limit_counts_the_address_that_a_trusted_proxy_forwards() {
    let limit = ("ORGD_RATE_LIMIT_SOURCE", "5");
    let service =
        Service::over_sqlite(&[limit, ("ORGD_TRUSTED_PROXIES", "127.0.0.0/8, fd00::1")]).await;
    assert!(refused(&service, |_| "198.51.100.1".to_owned()).await > 0);
    assert_eq!(refused(&service, |number| format!("192.0.2.{number}")).await, 0);
    assert!(refused(&service, |number| format!("192.0.3.{number}, 192.0.2.99")).await > 0);
    let network = |number| format!("[2001:db8:0:1:{number}::1]:4711, 127.0.0.9");
    assert!(refused(&service, network).await > 0, "an IPv6 network of 64 bits is one");
    assert_eq!(refused(&service, |number| format!("2001:db8:1:{number}::1")).await, 0);
    // Over gRPC the same.
    let mut outcomes = Vec::new();
    let mut client = service.grpc();
    for number in 0..20 {
        let message = GetOrganizationRequest { id: OWN, ..GetOrganizationRequest::default() };
        let mut request = authorized(USER, message);
        let source = format!("203.0.113.{number}");
        request.metadata_mut().insert("x-forwarded-for", source.parse().unwrap());
        outcomes.push(client.get(request).await.is_ok());
    }
    assert!(outcomes.iter().all(|is_good| *is_good), "{outcomes:?}");

    let service = Service::over_sqlite(&[limit, ("ORGD_TRUSTED_PROXIES", "127.0.0.2")]).await;
    let ignored = refused(&service, |number| format!("192.0.2.{number}")).await;
    assert!(ignored > 0, "whoever is not trusted counts for its own address");
}

/// So little that a source has four requests under way.
const LITTLE: [(&str, &str); 2] =
    [("ORGD_HELD_BYTES_MAX", "131072"), ("ORGD_REQUEST_DEADLINE", "20s")];

#[tokio::test]
async fn requests_over_a_share_are_refused_behind_a_proxy() {
    let settings = [&LITTLE[..], &[("ORGD_TRUSTED_PROXIES", "127.0.0.1")]].concat();
    let service = Service::over_sqlite(&settings).await;
    let (own, other) = ("198.51.100.1", "198.51.100.2");
    let mut under_way = Vec::new();
    for _ in 0..4 {
        let header = format!("X-Forwarded-For: {own}\r\n");
        under_way.push(service.begin_put(USER, 2, &header).await);
    }
    let refusal = get(&service, own).send().await;
    assert_eq!((refusal.status(), refusal.reason().as_str()), (429, "SHARE_EXHAUSTED"));
    assert_eq!(refusal.header("retry-after"), Some("1"));
    assert_eq!(get(&service, other).send().await.status(), 200);
    let call = |forwarded: &'static str| {
        let message = GetOrganizationRequest { id: OWN, ..GetOrganizationRequest::default() };
        let mut request = authorized(USER, message);
        request.metadata_mut().insert("x-forwarded-for", forwarded.parse().unwrap());
        let mut client = service.grpc();
        async move { client.get(request).await }
    };
    let status = call(own).await.unwrap_err();
    let details = status.get_error_details();
    assert_eq!(details.error_info().unwrap().reason, "SHARE_EXHAUSTED", "{status:?}");
    assert!(details.retry_info().unwrap().retry_delay.is_some());
    assert!(call(other).await.is_ok());
    drop(under_way);
    let served = async { while get(&service, own).send().await.status() != 200 {} };
    timeout(PATIENCE, served).await.expect("what is given back can be had again");
}

#[tokio::test]
async fn a_connection_over_its_sources_share_is_closed() {
    let service = Service::over_sqlite(&LITTLE).await;
    let mut under_way = Vec::new();
    for _ in 0..4 {
        under_way.push(service.begin_put(USER, 2, "").await);
    }
    // With or without a word before.
    let told = get(&service, "").try_send().await.map(|answer| answer.reason());
    assert!(told.as_ref().is_ok_and(|reason| reason == "SHARE_EXHAUSTED") || told.is_err());
    let counted = async { while closed(&service, "holding").await != 1 {} };
    timeout(PATIENCE, counted).await.expect("it is closed");
    let mut other = used(&service, OTHER).await;
    assert!(is_answered(&mut other).await);
    for begun in &mut under_way {
        begun.write_all(b"{}").await.unwrap();
        let mut answer = [0; 12];
        begun.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
    }
    let served = async {
        let is_served =
            async || get(&service, "").try_send().await.is_ok_and(|answer| answer.status() == 200);
        while !is_served().await {}
    };
    timeout(PATIENCE, served).await.expect("what is given back can be had again");
}

const NO_WINDOW: &[u8] = &[0, 4, 0, 0, 0, 0];

/// An answer of 400 KB.
const PAGE: &str = "/docs/swagger-ui-bundle.js";

/// A large answer, by a caller, on a connection.
async fn ask_for_page(client: &mut RawHttp2, stream: u32, bearer: &str) -> bool {
    let fields = [
        (":method", "GET"),
        (":scheme", "http"),
        (":path", PAGE),
        (":authority", "x"),
        ("authorization", bearer),
    ];
    client.ask(stream, &fields).await
}

async fn page_status(service: &Service, token: &str) -> (u16, String) {
    let request = service.request("GET", PAGE);
    let answer = request.bearer(token).send().await;
    (answer.status(), answer.reason())
}

#[tokio::test]
async fn a_caller_that_reads_no_answers_is_refused_until_it_does() {
    let settings = [("ORGD_HELD_BYTES_MAX", "8388608"), ("ORGD_STALL_TIMEOUT", "1h")];
    let service = Service::over_sqlite(&settings).await;
    let bearer = format!("Bearer {USER}");
    let mut unread = Vec::new();
    let filling = async {
        while page_status(&service, USER).await.0 == 200 {
            let mut client = RawHttp2::connect(service.http_addr()).await;
            client.send(kind::SETTINGS, 0, 0, NO_WINDOW).await;
            assert!(ask_for_page(&mut client, 1, &bearer).await);
            assert!(client.next_of(kind::HEADERS).await.is_some());
            unread.push(client);
        }
    };
    timeout(PATIENCE, filling).await.expect("there is an end to it");
    eprintln!("{} answers are not taken", unread.len());
    assert_eq!(page_status(&service, USER).await, (429, "SHARE_EXHAUSTED".to_owned()));
    assert_eq!(page_status(&service, ADMINISTRATOR).await.0, 200, "others have their own share");
    let held = async || {
        let metrics = service.get_ops("/metrics").await;
        let value = metrics.text().lines().find_map(|line| line.strip_prefix("orgd_held_bytes "));
        value.unwrap().parse::<f64>().unwrap()
    };
    let counted = async { while held().await < 3_000_000.0 {} };
    timeout(PATIENCE, counted).await.expect("the metric tells of it");
    drop(unread);
    let served = async {
        while page_status(&service, USER).await.0 != 200 || held().await > 1_000_000.0 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, served).await.expect("what is given back can be had again");
}

#[tokio::test]
async fn one_connection_uses_at_most_an_eighth_of_the_bytes() {
    let settings = [("ORGD_HELD_BYTES_MAX", "1048576"), ("ORGD_STALL_TIMEOUT", "1h")];
    let service = Service::over_sqlite(&settings).await;
    let mut client = RawHttp2::connect(service.http_addr()).await;
    client.send(kind::SETTINGS, 0, 0, NO_WINDOW).await;
    for stream in (1..40).step_by(2) {
        ask_for_page(&mut client, stream, "Bearer nobody").await;
    }
    while client.next().await.is_some() {}
    assert_eq!(closed(&service, "holding").await, 1);
    assert_eq!(page_status(&service, USER).await.0, 200);
}

#[tokio::test]
async fn a_stalled_stream_is_reset_and_others_on_its_connection_go_on() {
    let service = Service::over_sqlite(&[("ORGD_STALL_TIMEOUT", "2s")]).await;
    let bearer = format!("Bearer {USER}");
    let mut client = RawHttp2::connect(service.http_addr()).await;
    client.send(kind::SETTINGS, 0, 0, NO_WINDOW).await;
    assert!(ask_for_page(&mut client, 1, &bearer).await);
    let path = format!("/v1/organizations/{OWN}/changes");
    let events = [
        (":method", "GET"),
        (":scheme", "http"),
        (":path", path.as_str()),
        (":authority", "x"),
        ("accept", "text/event-stream"),
        ("authorization", bearer.as_str()),
    ];
    assert!(client.ask(3, &events).await);
    let window = |bytes: u32| bytes.to_be_bytes();
    assert!(client.send(kind::WINDOW_UPDATE, 0, 3, &window(1_000_000)).await);
    let mut reset = None;
    while reset.is_none() {
        let frame = client.next().await.expect("the connection goes on");
        match frame.kind {
            kind::PING => assert!(client.send(kind::PING, 1, 0, &frame.payload).await),
            kind::RST_STREAM => reset = Some((frame.stream, frame.error_code())),
            _ => {}
        }
    }
    assert_eq!(reset, Some((1, 8)), "CANCEL, of the stream that is not taken");
    rename(&service, OWN, "Behind a stall").await;
    let mut text = String::new();
    while !text.contains("Behind a stall") {
        let frame = client.next().await.expect("the connection goes on");
        match frame.kind {
            kind::PING => assert!(client.send(kind::PING, 1, 0, &frame.payload).await),
            kind::DATA => text += std::str::from_utf8(&frame.payload).unwrap(),
            other => assert_ne!(other, kind::RST_STREAM, "of {}", frame.stream),
        }
    }
}
