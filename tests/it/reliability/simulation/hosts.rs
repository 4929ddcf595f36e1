//! The simulated hosts: a service with both APIs, and a gateway in front of it, as the composition
//! root wires them. The accept loop, its limits and its end are the ones of production.

use std::{
    convert::Infallible,
    io,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex, mpsc},
    task::{Context, Poll},
    time::Duration,
};

use axum::Router;
use bytes::Bytes;
use clap::Parser;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use orgd::{
    app::watch::Watches,
    auth::Authenticator,
    config::Limits,
    gateway::{self, Cors, RequestLimits, Transport},
    grpc::{CallLimits, OrganizationGrpc, PrincipalLimits},
    proto::v1::UpdateOrganizationRequest,
    server::{Flags, Peer, endpoint},
    store::Store,
};
use orgd_listener::{Budget, Listener, ListenerContext, Networks, Protocol, Stages, accept_loop};
use prost::Message;
use tokio::{runtime::Handle, time::sleep};
use tokio_util::task::TaskTracker;
use tonic::{Status, body::Body, server::NamedService, service::Routes};
use tower::{Service, ServiceExt};
use turmoil::net::{TcpListener, TcpStream};

use super::dice::Dice;

pub(super) const SERVICE: &str = "service";
pub(super) const GATEWAY: &str = "gateway";
pub(super) const REST_PORT: u16 = 8080;
const GRPC_PORT: u16 = 50051;
/// The longest time between a call's arrival and the database, and again to its answer.
const DATABASE_TIME_MS: u64 = 100;
/// Before a message of gRPC: whether it is compressed, and its length.
const FRAME_HEAD: usize = 5;

#[derive(Parser)]
struct Settings {
    #[command(flatten)]
    limits: Limits,
}

/// Limits that a simulation of a minute meets.
pub(super) fn limits() -> Limits {
    let words = "orgd --header-read-timeout 2s --idle-timeout 6s --stall-timeout 4s \
        --connection-age-max 5s --connection-age-grace 3s --request-deadline 2s --connections-max 64";
    Settings::parse_from(words.split_whitespace()).limits
}

/// A simulated listener, for the accept loop of production.
struct Simulated(TcpListener);

impl Simulated {
    async fn bind(port: u16) -> io::Result<Self> {
        TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await.map(Self)
    }
}

impl Listener for Simulated {
    type Stream = TcpStream;

    async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        self.0.accept().await
    }
}

/// What a simulated process shares with the test: its connections and its end.
#[derive(Clone, Default)]
pub(super) struct Process(Arc<Mutex<(TaskTracker, Stages)>>);

impl Process {
    /// The connections and the end of a process that starts, in place of those of one that crashed.
    fn restart(&self) -> (TaskTracker, Stages) {
        let new = (TaskTracker::new(), Stages::default());
        *self.0.lock().unwrap() = new.clone();
        new
    }

    pub(super) fn connections(&self) -> usize {
        self.0.lock().unwrap().0.len()
    }

    /// Takes no new connections and requests any more.
    pub(super) fn stop(&self) {
        let process = self.0.lock().unwrap();
        process.1.leave.cancel();
        process.1.stop.cancel();
    }
}

/// The database, which is real: its threads run in real time, so the simulation stands still for it.
#[derive(Clone)]
pub(super) struct Database {
    pub(super) store: Store,
    pub(super) runtime: Handle,
    /// The number of an update that is answered and never stored, which the checks must find.
    pub(super) lie: Option<i64>,
}

/// The generated server, whose work on the database takes no simulated time; but before and after it
/// passes some, in which the process may crash and the caller go away.
#[derive(Clone)]
struct SlowServer {
    database: Database,
    organization: OrganizationGrpc,
    dice: Dice,
}

impl NamedService for SlowServer {
    const NAME: &'static str = OrganizationGrpc::NAME;
}

impl Service<Request<Body>> for SlowServer {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move { Ok(this.answer(request).await) })
    }
}

impl SlowServer {
    async fn answer(self, request: Request<Body>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let Ok(body) = body.collect().await else {
            return Status::cancelled("the caller went away").into_http();
        };
        sleep(self.dice.time_ms(DATABASE_TIME_MS)).await;
        let body = self.lie(body.to_bytes());
        let request = Request::from_parts(head, Body::new(Full::new(body)));
        let (sender, receiver) = mpsc::channel();
        self.database.runtime.spawn(async move {
            let Ok(response) = self.organization.oneshot(request).await;
            let (head, body) = response.into_parts();
            let _ = sender.send((head, body.collect().await));
        });
        let (head, body) = receiver.recv().expect("the database's task answers");
        sleep(self.dice.time_ms(DATABASE_TIME_MS)).await;
        Response::from_parts(head, Body::new(body.expect("an answer in memory")))
    }
}

impl SlowServer {
    /// The update that is not to be stored asks for its answer alone.
    fn lie(&self, frame: Bytes) -> Bytes {
        let Some(round) = self.database.lie else { return frame };
        let (head, message) = frame.split_at(FRAME_HEAD);
        let mut update = UpdateOrganizationRequest::decode(message).unwrap();
        let name = update.organization.as_ref().and_then(|organization| organization.name.as_ref());
        update.validate_only = name.is_some_and(|name| name.ends_with(&format!("update {round}")));
        let message = update.encode_to_vec();
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        [&head[..1], &length, &message].concat().into()
    }
}

/// `orgd serve`: both APIs.
pub(super) async fn serve(database: Database, process: Process, dice: Dice) -> turmoil::Result {
    let limits = limits();
    let (connections, stages) = process.restart();
    let authenticator = Authenticator::new(database.store.clone(), Duration::from_secs(5));
    let call_limits = CallLimits {
        deadline: limits.request_deadline.0,
        message_bytes_max: 65_536,
        sources: None,
        principals: PrincipalLimits::default(),
        watches: Watches::new(
            database.store.clone(),
            10,
            Duration::from_secs(2),
            stages.stop.clone(),
        ),
    };
    let organization = OrganizationGrpc::new(database.store.clone(), authenticator, call_limits);
    let standing = SlowServer { database, organization, dice };
    let rest = rest(gateway::transport(standing.clone()));
    let grpc = Routes::new(standing).prepare().into_axum_router();
    let budget = Budget::new(limits.held_bytes_max);
    let context = |name, protocol, router| ListenerContext {
        name,
        protocol,
        tls: None,
        router,
        limits: limits.of_listener(),
        budget: budget.clone(),
        proxies: Networks::default(),
        has_proxy_protocol: false,
        stages: stages.clone(),
    };
    let (grpc_context, rest_context) =
        (context("grpc", Protocol::Http2, grpc), context("http", Protocol::Any, rest));
    tokio::try_join!(
        accept_loop(Simulated::bind(GRPC_PORT).await?, grpc_context, connections.clone()),
        accept_loop(Simulated::bind(REST_PORT).await?, rest_context, connections.clone()),
    )?;
    connections.close();
    connections.wait().await;
    Ok(())
}

/// `orgd gateway`: the REST API, and a channel to the service.
pub(super) async fn serve_gateway(process: Process) -> turmoil::Result {
    let (connections, stages) = process.restart();
    let uri = format!("http://{SERVICE}:{GRPC_PORT}").parse()?;
    let connector = tower::service_fn(|_: http::Uri| async {
        Ok::<_, io::Error>(TokioIo::new(TcpStream::connect((SERVICE, GRPC_PORT)).await?))
    });
    let flags = Flags { uri: "", ca: "" };
    let endpoint = endpoint(Peer { uri: &uri, ca: None, flags })?;
    let transport = gateway::transport(endpoint.connect_with_connector_lazy(connector));
    let router = rest(transport);
    let context = ListenerContext {
        name: "http",
        protocol: Protocol::Any,
        tls: None,
        router,
        limits: limits().of_listener(),
        budget: Budget::new(limits().held_bytes_max),
        proxies: Networks::default(),
        has_proxy_protocol: false,
        stages,
    };
    accept_loop(Simulated::bind(REST_PORT).await?, context, connections.clone()).await?;
    connections.close();
    connections.wait().await;
    Ok(())
}

fn rest(transport: Transport) -> Router {
    let limits = RequestLimits {
        deadline: limits().request_deadline.0,
        body_bytes_max: 65_536,
        sources: None,
        heartbeat: Duration::from_secs(2),
    };
    gateway::router(gateway::remote(transport), limits, Cors::default())
}
