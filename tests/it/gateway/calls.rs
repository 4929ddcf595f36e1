//! What a gateway does with a call whose connection fails: it retries the call where the service certainly did not see
//! it or where a retry does no harm; else it reports that the outcome is unknown.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use orgd::{
    gateway::{self, Transport},
    proto::v1::Organization,
};
use prost::Message;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{Duration, sleep},
};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tower::ServiceExt;

use crate::harness::{
    ADMINISTRATOR, ANY_PORT, OWN, PREFACE, Request, Service, frame, gateway_before, kind,
    on_both_databases, proxies::own_address,
};

/// Connections that fail, one after the other: the gateway's own probe may meet one of them.
const FAILING: usize = 3;
const CLIENT_PREFACE_BYTES: usize = 24;
const REFUSED_STREAM: [u8; 4] = 7_u32.to_be_bytes();

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    /// For a moment the port is closed.
    Closed,
    /// The stream is refused, and the connection ends.
    RefusedStream,
    /// GOAWAY that says that no stream was looked at.
    GoAway,
    /// The connection is reset once a call is there.
    Reset,
    /// The service does its work; its answer never comes.
    LostAnswer,
}

/// What the gateway takes for its service.
struct Upstream {
    addr: SocketAddr,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

struct Shared {
    service: SocketAddr,
    /// What the next connections meet, and how many of them.
    fault: Mutex<(Fault, usize)>,
    /// Ends what is open.
    cut: Mutex<CancellationToken>,
}

impl Upstream {
    async fn start(service: SocketAddr) -> Self {
        // Of its own, so that the port is still free after a moment.
        let addr: (Ipv4Addr, u16) = (own_address(), 50051);
        let listener = TcpListener::bind(addr).await.unwrap();
        let shared = Arc::new(Shared {
            service,
            fault: Mutex::new((Fault::None, 0)),
            cut: Mutex::default(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, shared.clone()));
        Self { addr: addr.into(), shared, _tasks: tasks }
    }

    /// Ends the open connections, and spoils those that come next. The gateway has a moment to hear of it:
    /// the outcome of what it sends before that is unknown.
    async fn fail(&self, fault: Fault) {
        *self.shared.fault.lock().unwrap() = (fault, FAILING);
        std::mem::take(&mut *self.shared.cut.lock().unwrap()).cancel();
        sleep(Duration::from_millis(50)).await;
    }
}

impl Shared {
    fn next_fault(&self) -> Fault {
        let mut fault = self.fault.lock().unwrap();
        if fault.1 == 0 {
            return Fault::None;
        }
        fault.1 -= 1;
        fault.0
    }
}

async fn accept(mut listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let cut = shared.cut.lock().unwrap().clone();
        tokio::select! {
            accepted = listener.accept() => {
                let (shared, client) = (shared.clone(), accepted.unwrap().0);
                connections.spawn(cut.run_until_cancelled_owned(async move {
                    // A connection that breaks off is what the test wants.
                    let _ = serve(client, &shared).await;
                }));
            }
            () = cut.cancelled() => {
                let is_closed = shared.fault.lock().unwrap().0 == Fault::Closed;
                if is_closed {
                    shared.fault.lock().unwrap().1 = 0;
                    let addr = listener.local_addr().unwrap();
                    drop(listener);
                    sleep(Duration::from_millis(200)).await;
                    listener = TcpListener::bind(addr).await.unwrap();
                }
            }
        }
    }
}

async fn serve(mut client: TcpStream, shared: &Shared) -> std::io::Result<()> {
    match shared.next_fault() {
        fault @ (Fault::RefusedStream | Fault::GoAway | Fault::Reset) => {
            let mut preface = [0; CLIENT_PREFACE_BYTES];
            client.read_exact(&mut preface).await?;
            client.write_all(&PREFACE[CLIENT_PREFACE_BYTES..]).await?;
            let stream = loop {
                let (kind, stream, _) = read_frame(&mut client).await?;
                if kind == kind::HEADERS {
                    break stream;
                }
            };
            if fault == Fault::Reset {
                return client.set_zero_linger();
            }
            let mut last = 0;
            if fault == Fault::RefusedStream {
                last = stream;
                client.write_all(&frame(kind::RST_STREAM, 0, stream, &REFUSED_STREAM)).await?;
            }
            let goaway = [last.to_be_bytes(), [0; 4]].concat();
            client.write_all(&frame(kind::GOAWAY, 0, 0, &goaway)).await?;
            // Until the gateway has heard of it and ends.
            while read_frame(&mut client).await.is_ok() {}
            Ok(())
        }
        Fault::LostAnswer => {
            let service = TcpStream::connect(shared.service).await?;
            let (mut from_client, mut to_client) = client.split();
            let (mut from_service, mut to_service) = service.into_split();
            let sending = async { tokio::io::copy(&mut from_client, &mut to_service).await };
            let answering = async {
                loop {
                    let (kind, _, bytes) = read_frame(&mut from_service).await?;
                    if kind == kind::HEADERS {
                        return Ok(());
                    }
                    to_client.write_all(&bytes).await?;
                }
            };
            tokio::select! {
                sent = sending => sent.map(drop),
                answered = answering => answered,
            }
        }
        Fault::None | Fault::Closed => {
            let mut service = TcpStream::connect(shared.service).await?;
            copy_bidirectional(&mut client, &mut service).await.map(drop)
        }
    }
}

/// The kind, the stream and the bytes of the next frame.
async fn read_frame(
    stream: &mut (impl AsyncReadExt + Unpin),
) -> std::io::Result<(u8, u32, Vec<u8>)> {
    let mut bytes = vec![0; 9];
    stream.read_exact(&mut bytes).await?;
    let length = u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]);
    let id = u32::from_be_bytes(bytes[5..].try_into().unwrap());
    let kind = bytes[3];
    bytes.resize(9 + usize::try_from(length).unwrap(), 0);
    stream.read_exact(&mut bytes[9..]).await?;
    Ok((kind, id, bytes))
}

/// Sends a request to the gateway; its status, and how many versions it made.
async fn outcome(gateway: &Service, number: usize, method: &str, key: &str) -> (u16, i64) {
    let version = async || gateway.database().organization(OWN).await.etag.version();
    let before = version().await;
    let mut request = gateway.request(method, &format!("/v1/organizations/{OWN}"));
    request = request.bearer(ADMINISTRATOR);
    if method == "PUT" {
        request = request.body(format!(r#"{{"name": "Number {number}"}}"#));
    }
    if !key.is_empty() {
        request = request.header("idempotency-key", key);
    }
    let answer = request.send().await;
    if answer.status() == 503 {
        assert_eq!(answer.reason(), "SERVICE_UNREACHABLE");
        assert!(answer.text().contains("not known"), "{}", answer.text());
    }
    (answer.status(), version().await - before)
}

#[tokio::test]
async fn calls_are_retried_where_that_is_safe_and_else_reported_as_unknown() {
    on_both_databases(async |service| {
        let upstream = Upstream::start(service.grpc_addr()).await;
        let url = format!("http://{}", upstream.addr);
        let words = ["gateway", "--upstream", &url, "--http-addr", ANY_PORT];
        let gateway = Service::spawn(&[&words[..], &["--ops-addr", ANY_PORT]].concat(), &[]);
        let gateway = gateway.over(service.shared_database());
        gateway.until_ready().await;
        // With the outcome of a PUT without a key.
        for (number, (fault, expected)) in [
            (Fault::Closed, (200, 1)),
            (Fault::RefusedStream, (200, 1)),
            (Fault::GoAway, (200, 1)),
            (Fault::Reset, (503, 0)),
            (Fault::LostAnswer, (503, 1)),
        ]
        .into_iter()
        .enumerate()
        {
            upstream.fail(fault).await;
            assert_eq!(outcome(&gateway, number, "GET", "").await, (200, 0), "{fault:?}");
            upstream.fail(fault).await;
            assert_eq!(outcome(&gateway, number, "PUT", "").await, expected, "{fault:?}");
            upstream.fail(fault).await;
            let key = format!("0b7cf3d4-3c1f-4d0c-9d5c-7b1f7a0f9e5{number}");
            let keyed = outcome(&gateway, number + 10, "PUT", &key).await;
            assert_eq!(keyed, (200, 1), "{fault:?}, with a key");
        }
    })
    .await;
}

fn channel(service: &Service) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{}", service.grpc_addr())).unwrap();
    endpoint.connect_lazy()
}

/// The way to a service that does not know `WhoAmI`, as an earlier version.
fn earlier_version(service: &Service) -> Transport {
    let channel = channel(service);
    gateway::transport(tower::service_fn(move |mut request: http::Request<tonic::body::Body>| {
        if request.uri().path().ends_with("/WhoAmI") {
            let path = "/organization.v1.OrganizationService/OfALaterVersion";
            *request.uri_mut() = http::Uri::from_static(path);
        }
        channel.clone().oneshot(request)
    }))
}

#[tokio::test]
async fn an_update_is_answered_with_the_id_alone_unless_the_resource_is_asked_for() {
    on_both_databases(async |service| {
        let (channel, messages) = (channel(&service), Arc::new(Mutex::new(Vec::new())));
        let seen = messages.clone();
        let transport = gateway::transport(tower::service_fn(move |request| {
            let (channel, seen) = (channel.clone(), seen.clone());
            async move {
                let response = channel.oneshot(request).await?;
                let (head, body) = response.into_parts();
                let collected = body.collect().await.unwrap();
                let trailers = collected.trailers().cloned();
                let bytes = collected.to_bytes();
                seen.lock().unwrap().push(bytes.clone());
                let body = Full::new(bytes).with_trailers(async move { trailers.map(Ok) });
                Ok::<_, tonic::transport::Error>(http::Response::from_parts(head, body))
            }
        }));
        gateway_before(transport, async |addr| {
            for (prefer, answer) in [
                ("return=minimal", "{\"id\": 90}"),
                ("return=representation", "\"name\":\"Organization 90\""),
            ] {
                let request = Request::new(addr, "PUT", "/v1/organizations/90").body("{}");
                let request = request.bearer(ADMINISTRATOR);
                let put = request.header("prefer", prefer).send().await;
                assert_eq!(put.status(), 200, "{}", put.text());
                assert!(put.text().contains(answer), "{}", put.text());
            }
        })
        .await;
        let messages = messages.lock().unwrap();
        let decoded = |bytes: &Bytes| Organization::decode(bytes.slice(5..)).unwrap();
        let [minimal, whole] = messages.as_slice() else { panic!("{messages:?}") };
        assert_eq!(decoded(minimal), Organization { id: OWN, ..Organization::default() });
        assert_eq!(decoded(whole).name.as_deref(), Some("Organization 90"));
    })
    .await;
}

#[tokio::test]
async fn a_gateway_works_before_a_service_of_an_earlier_version() {
    on_both_databases(async |service| {
        gateway_before(earlier_version(&service), async |addr| {
            let unknown = "0b7cf3d4-3c1f-4d0c-9d5c-7b1f7a0f9e55";
            for (token, body, expected) in [
                (ADMINISTRATOR, "{}", "HTTP/1.1 200"),
                (ADMINISTRATOR, "[]", "HTTP/1.1 400"),
                (unknown, "{}", "HTTP/1.1 401"),
            ] {
                let mut stream = TcpStream::connect(addr).await.unwrap();
                let head = format!(
                    "PUT /v1/organizations/90 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
                     Authorization: Bearer {token}\r\nContent-Length: 2\r\n\r\n"
                );
                stream.write_all(head.as_bytes()).await.unwrap();
                // The caller is authenticated before the body is read.
                sleep(Duration::from_millis(100)).await;
                stream.write_all(body.as_bytes()).await.unwrap();
                let mut answer = String::new();
                stream.read_to_string(&mut answer).await.unwrap();
                assert!(answer.starts_with(expected), "{token} {body}: {answer}");
            }
        })
        .await;
    })
    .await;
}
