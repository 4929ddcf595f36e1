//! Clients that keep their connections, update and read back one organization each, and record every
//! answer that is not the one expected.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::body::Body;
use http_body_util::BodyExt;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use orgd::proto::v1::{
    GetOrganizationRequest, Organization, UpdateOrganizationRequest,
    organization_service_client::OrganizationServiceClient,
};
use serde_json::Value;
use tokio::{
    net::TcpStream,
    task::JoinSet,
    time::{Duration, Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

use crate::harness::{ADMINISTRATOR, authorized};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Api {
    /// REST over HTTP/1.1.
    Http1,
    /// REST over HTTP/2.
    Http2,
    Grpc,
}

/// What all clients of a load have in common.
#[derive(Clone)]
pub(super) struct Load {
    pub(super) rest: SocketAddr,
    pub(super) grpc: SocketAddr,
    /// Between a client's requests.
    pub(super) pause: Duration,
    begun: Instant,
    failures: Arc<Mutex<Vec<String>>>,
    stop: CancellationToken,
}

/// What one client did.
pub(super) struct Done {
    pub(super) id: i64,
    pub(super) api: Api,
    /// Updates that were acknowledged.
    pub(super) updates: u64,
    pub(super) connections: usize,
    pub(super) last_name: String,
}

impl Load {
    pub(super) fn new(rest: SocketAddr, grpc: SocketAddr, pause: Duration) -> Self {
        let (failures, stop) = (Arc::default(), CancellationToken::new());
        Self { rest, grpc, pause, begun: Instant::now(), failures, stop }
    }

    /// Starts a client for each organization.
    pub(super) fn start(&self, clients: &[(i64, Api)]) -> JoinSet<Done> {
        let mut tasks = JoinSet::new();
        for (id, api) in clients.iter().copied() {
            tasks.spawn(self.clone().run(id, api));
        }
        tasks
    }

    /// Ends the clients after their requests, and answers what each did and what failed.
    pub(super) async fn stop(&self, clients: JoinSet<Done>) -> (Vec<Done>, Vec<String>) {
        self.stop.cancel();
        let done = clients.join_all().await;
        (done, self.failures.lock().unwrap().clone())
    }

    async fn run(self, id: i64, api: Api) -> Done {
        let mut client = Client::new(&self, api);
        let mut done = Done { id, api, updates: 0, connections: 0, last_name: String::new() };
        let mut round = 0_u64;
        while !self.stop.is_cancelled() {
            round += 1;
            let name = format!("{api:?} {round}");
            match client.update(id, &name).await {
                Ok(()) => {
                    done.updates += 1;
                    done.last_name = name;
                }
                Err(text) => self.failed(api, "update", &text),
            }
            match client.name(id).await {
                Ok(name) if name == done.last_name => {}
                Ok(name) => {
                    self.failed(api, "get", &format!("{name} in place of {}", done.last_name));
                }
                Err(text) => self.failed(api, "get", &text),
            }
            sleep(self.pause).await;
        }
        done.connections = client.connections();
        done
    }

    fn failed(&self, api: Api, what: &str, text: &str) {
        let after = self.begun.elapsed();
        self.failures.lock().unwrap().push(format!("{after:?} {api:?} {what}: {text}"));
    }
}

enum Client {
    Rest(Rest),
    Grpc(Box<OrganizationServiceClient<Channel>>),
}

impl Client {
    fn new(load: &Load, api: Api) -> Self {
        if api == Api::Grpc {
            let channel = Endpoint::from_shared(format!("http://{}", load.grpc)).unwrap();
            return Self::Grpc(OrganizationServiceClient::new(channel.connect_lazy()).into());
        }
        let (addr, is_http2) = (load.rest, api == Api::Http2);
        Self::Rest(Rest { addr, is_http2, sender: None, connections: 0 })
    }

    /// The channel does not tell how often it connected.
    fn connections(&self) -> usize {
        match self {
            Self::Rest(rest) => rest.connections,
            Self::Grpc(_) => 1,
        }
    }

    async fn update(&mut self, id: i64, name: &str) -> Result<(), String> {
        match self {
            Self::Rest(rest) => {
                rest.send("PUT", id, serde_json::json!({"name": name}).to_string()).await.map(drop)
            }
            Self::Grpc(grpc) => {
                let name = Some(name.to_owned());
                let organization = Some(Organization { id, name, ..Default::default() });
                let request = UpdateOrganizationRequest { organization, ..Default::default() };
                let answer = grpc.update(authorized(ADMINISTRATOR, request)).await;
                answer.map(drop).map_err(|status| format!("{status:?}"))
            }
        }
    }

    async fn name(&mut self, id: i64) -> Result<String, String> {
        match self {
            Self::Rest(rest) => {
                let value = rest.send("GET", id, String::new()).await?;
                Ok(value["name"].as_str().unwrap_or_default().to_owned())
            }
            Self::Grpc(grpc) => {
                let request = GetOrganizationRequest { id, ..Default::default() };
                let answer = grpc.get(authorized(ADMINISTRATOR, request)).await;
                let answer = answer.map_err(|status| format!("{status:?}"))?;
                Ok(answer.into_inner().name.unwrap_or_default())
            }
        }
    }
}

/// A REST client that sends nothing twice. It connects anew only where the last connection has ended
/// before the next request: that is no failure, and is counted.
struct Rest {
    addr: SocketAddr,
    is_http2: bool,
    sender: Option<Sender>,
    connections: usize,
}

enum Sender {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

impl Rest {
    async fn send(&mut self, method: &str, id: i64, body: String) -> Result<Value, String> {
        let is_open = match &mut self.sender {
            Some(Sender::Http1(sender)) => sender.ready().await.is_ok(),
            Some(Sender::Http2(sender)) => sender.ready().await.is_ok(),
            None => false,
        };
        if !is_open {
            self.sender = Some(self.connect().await.map_err(|error| error.to_string())?);
            self.connections += 1;
        }
        let path = format!("/v1/organizations/{id}");
        let uri = format!("http://{}{path}", self.addr);
        let request = http::Request::builder()
            .method(method)
            .uri(if self.is_http2 { uri } else { path })
            .header("host", self.addr.to_string())
            .header("authorization", format!("Bearer {ADMINISTRATOR}"))
            .header("content-type", "application/json")
            .body(Body::from(body))
            .unwrap();
        let answer = match self.sender.as_mut().unwrap() {
            Sender::Http1(sender) => sender.send_request(request).await,
            Sender::Http2(sender) => sender.send_request(request).await,
        };
        let (head, body) = answer.map_err(|error| format!("{error:?}"))?.into_parts();
        let body = body.collect().await.map_err(|error| format!("{error:?}"))?.to_bytes();
        if head.status != 200 {
            return Err(format!("{} {}", head.status, String::from_utf8_lossy(&body)));
        }
        serde_json::from_slice(&body).map_err(|error| error.to_string())
    }

    async fn connect(&self) -> Result<Sender, Box<dyn std::error::Error + Send + Sync>> {
        let stream = TcpStream::connect(self.addr).await?;
        stream.set_nodelay(true)?;
        let io = TokioIo::new(stream);
        if self.is_http2 {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
            drive(async { drop(connection.await) });
            return Ok(Sender::Http2(sender));
        }
        let (sender, connection) = http1::handshake(io).await?;
        drive(async { drop(connection.await) });
        Ok(Sender::Http1(sender))
    }
}

#[expect(clippy::disallowed_methods, reason = "ends with its client's sender")]
fn drive(connection: impl Future<Output = ()> + Send + 'static) {
    drop(tokio::spawn(connection));
}
