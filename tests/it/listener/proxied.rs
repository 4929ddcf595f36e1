//! Whom a trusted proxy asks for: by the header `Forwarded`, and by the PROXY protocol.

use std::net::{IpAddr, Ipv4Addr};

use orgd::proto::v1::{
    GetOrganizationRequest, organization_service_client::OrganizationServiceClient,
};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout},
};
use tonic::transport::Endpoint;

use crate::harness::{
    Database, OWN, PATIENCE, Request, Service, USER, authorized, connect_from, orgd_with,
    proxies::{Haproxy, own_address, serve},
    until_closed,
};

const TRUSTED: (&str, &str) = ("ORGD_TRUSTED_PROXIES", "127.0.0.1");
const PROXY_PROTOCOL: (&str, &str) = ("ORGD_PROXY_PROTOCOL", "true");
const LIMIT: (&str, &str) = ("ORGD_RATE_LIMIT_SOURCE", "5");
const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// The answer to a request on a connection that begins with a head; nothing where it is closed without one.
async fn get_after(service: &Service, head: &[u8], id: &str) -> String {
    let mut stream = TcpStream::connect(service.http_addr()).await.unwrap();
    let request = format!(
        "GET /v1/organizations/{OWN} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {USER}\r\n\
         X-Request-ID: {id}\r\nConnection: close\r\n\r\n"
    );
    let _ = stream.write_all(&[head, request.as_bytes()].concat()).await;
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("an end");
    String::from_utf8(answer).unwrap()
}

/// The client's address in the log line of a request.
async fn client_of(service: &Service, id: &str) -> IpAddr {
    service.until_logged(&format!("\"request_id\":\"{id}\"")).await;
    let log = service.log();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let of_request = |line: &Value| line["request_id"] == id && line["target"] == "orgd::request";
    let line = lines.into_iter().find(of_request).unwrap_or_else(|| panic!("{log}"));
    line["client"].as_str().unwrap().parse().unwrap()
}

fn version_2(client: [u8; 4]) -> Vec<u8> {
    let ports = [0, 80, 0, 80];
    [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c", &client[..], &[127, 0, 0, 1], &ports].concat()
}

fn get(service: &Service) -> Request {
    service.request("GET", &format!("/v1/organizations/{OWN}")).bearer(USER)
}

/// How many of so many requests at once are over the limit of their sources.
async fn refused(requests: impl IntoIterator<Item = Request>) -> usize {
    let answers = futures_util::future::join_all(requests.into_iter().map(Request::send)).await;
    answers.iter().filter(|answer| answer.reason() == "RATE_LIMITED").count()
}

#[tokio::test]
async fn the_source_is_the_address_that_a_trusted_proxy_names_in_forwarded() {
    let service = Service::over_sqlite(&[LIMIT, TRUSTED]).await;
    let forwarded = |text: String| get(&service).header("forwarded", &text);
    let own = |number| forwarded(format!("for=192.0.2.{number};proto=https"));
    assert_eq!(refused((0..20).map(own)).await, 0);
    let same = |number| forwarded(format!("for=192.0.3.{number}, for=\"192.0.4.1:{number}\""));
    assert!(refused((0..20).map(same)).await > 0, "what the client says before does not count");
    let network = |number| forwarded(format!("for=\"[2001:db8:0:1:{number}::1]\""));
    assert!(refused((0..20).map(network)).await > 0, "an IPv6 network of 64 bits is one");
    // Neither is believed where the two differ: one of them is the client's own.
    let both =
        |number| forwarded(format!("for=192.0.5.{number}")).header("x-forwarded-for", "192.0.6.1");
    assert!(refused((0..20).map(both)).await > 0);
    let equal = |number| {
        let address = format!("192.0.7.{number}");
        forwarded(format!("for={address}")).header("x-forwarded-for", &address)
    };
    assert_eq!(refused((0..20).map(equal)).await, 0);
    for (id, text, client) in [
        ("known", "for=198.51.100.7", "198.51.100.7"),
        ("unknown", "for=198.51.100.7, for=unknown", "127.0.0.1"),
        ("hidden", "for=_hidden", "127.0.0.1"),
        ("broken", "for=\"198.51.100.7", "127.0.0.1"),
    ] {
        forwarded(text.to_owned()).header("x-request-id", id).send().await;
        assert_eq!(client_of(&service, id).await.to_string(), client, "{text}");
    }
    // Of whoever is no trusted proxy it means nothing.
    let stranger = |number| own(number).calling_from(STRANGER);
    assert!(refused((30..50).map(stranger)).await > 0);
}

#[tokio::test]
async fn a_connection_is_its_clients_by_the_proxy_protocol() {
    let service = Service::over_sqlite(&[LIMIT, TRUSTED, PROXY_PROTOCOL]).await;
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
    for (id, head, client) in [
        ("one", &b"PROXY TCP4 192.0.2.1 127.0.0.1 4711 80\r\n"[..], "192.0.2.1"),
        ("one6", b"PROXY TCP6 2001:db8:1:2:3::4 ::1 4711 80\r\n", "2001:db8:1:2::"),
        ("two", &version_2([192, 0, 2, 2]), "192.0.2.2"),
        ("local", local, "127.0.0.1"),
        ("unknown", b"PROXY UNKNOWN\r\n", "127.0.0.1"),
    ] {
        let answer = get_after(&service, head, id).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{id}: {answer}");
        assert_eq!(client_of(&service, id).await.to_string(), client);
    }
    // Its rate is its own, and no header names another: the client is no trusted proxy.
    let refused = async |client: fn(u8) -> [u8; 4]| {
        let heads: Vec<_> = (0..20).map(|number| version_2(client(number))).collect();
        let answers = heads.iter().map(|head| get_after(&service, head, "rate"));
        let answers = futures_util::future::join_all(answers).await;
        answers.iter().filter(|answer| answer.starts_with("HTTP/1.1 429")).count()
    };
    assert!(refused(|_| [198, 51, 100, 1]).await > 0);
    assert_eq!(refused(|number| [203, 0, 113, number]).await, 0);

    // Whoever comes without it, or from elsewhere, is closed without an answer.
    for head in [&b""[..], b"PROXY TCP4 192.0.2.1 127.0.0.1 4711\r\n", &[b'x'; 300]] {
        assert_eq!(get_after(&service, head, "closed").await, "", "{}", head.escape_ascii());
    }
    let mut stranger = connect_from(STRANGER, service.http_addr()).await.unwrap();
    let _ = stranger.write_all(b"PROXY TCP4 192.0.2.1 127.0.0.1 4711 80\r\n").await;
    until_closed(&mut stranger).await;
    assert_eq!(service.get_ops("/readyz").await.status(), 200, "operators have no proxy");
}

#[tokio::test]
async fn the_head_of_the_proxy_protocol_has_the_time_of_a_handshake_and_a_share_of_places() {
    let settings = [
        TRUSTED,
        PROXY_PROTOCOL,
        ("ORGD_HEADER_READ_TIMEOUT", "1s"),
        ("ORGD_CONNECTIONS_MAX", "8"),
    ];
    let service = Service::over_sqlite(&settings).await;
    let begun = Instant::now();
    let mut slow = TcpStream::connect(service.http_addr()).await.unwrap();
    slow.write_all(b"PROXY TCP4 ").await.unwrap();
    until_closed(&mut slow).await;
    assert!(begun.elapsed().as_millis() >= 900);
    // A client has half of the places; its own connection that is idle for longest goes.
    let mut streams = Vec::new();
    for _ in 0..5 {
        let mut stream = TcpStream::connect(service.http_addr()).await.unwrap();
        let head = version_2([192, 0, 2, 1]);
        stream
            .write_all(&[&head[..], b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n"].concat())
            .await
            .unwrap();
        assert!(timeout(PATIENCE, stream.read(&mut [0; 4096])).await.unwrap().unwrap() > 0);
        streams.push(stream);
    }
    until_closed(&mut streams[0]).await;
}

#[tokio::test]
async fn without_the_setting_the_proxy_protocol_means_nothing() {
    let service = Service::over_sqlite(&[TRUSTED]).await;
    let answer =
        get_after(&service, b"PROXY TCP4 192.0.2.1 127.0.0.1 4711 80\r\n", "nothing").await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer}");
    // And with it alone nobody could connect.
    let words = "serve --grpc-addr 127.0.0.1:0 --http-addr 127.0.0.1:0 --ops-addr 127.0.0.1:0";
    let url = ("ORGD_DATABASE_URL", service.database().url());
    let refused = orgd_with(&[url, PROXY_PROTOCOL], words);
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("--trusted-proxies"), "{}", refused.stderr);
}

#[tokio::test]
async fn haproxy_says_for_whom_it_connects() {
    let database = Database::sqlite();
    database.seed().await;
    let address = own_address();
    let service = serve(&database, address, &[TRUSTED, PROXY_PROTOCOL]);
    let changes = [
        ("    option forwardfor\n", ""),
        ("default-server check", "default-server send-proxy-v2 check"),
    ];
    let proxy = Haproxy::start([address, address], &changes);
    for number in 0..2 {
        proxy.until(number, true).await;
    }
    for last in [2, 3] {
        let (from, id) = (Ipv4Addr::new(127, 0, 0, last), format!("haproxy-{last}"));
        let request = Request::new(proxy.rest(), "GET", &format!("/v1/organizations/{OWN}"));
        let request = request.bearer(USER).header("x-request-id", &id).calling_from(from);
        assert_eq!(request.send().await.status(), 200, "{}", proxy.log());
        assert_eq!(client_of(&service, &id).await, IpAddr::from(from));
    }
    let endpoint = Endpoint::from_shared(format!("http://{}", proxy.grpc())).unwrap();
    let mut client = OrganizationServiceClient::new(endpoint.connect().await.unwrap());
    let message = GetOrganizationRequest { id: OWN, ..GetOrganizationRequest::default() };
    client.get(authorized(USER, message)).await.unwrap();
}
