//! A process of the real binary that serves.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, ExitStatus, Stdio},
    sync::{
        Arc, Mutex,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

use orgd::proto::v1::organization_service_client::OrganizationServiceClient;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tonic::{
    metadata::MetadataValue,
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt;

use super::{Database, OWN, Request, USER, command, disclosure::Searched};

/// How long a process may take to listen, on a machine that does much else.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// The default of the other commands, for a demo whose log is read.
pub const LOGGED: (&str, &str) = ("ORGD_LOG", "warn,orgd=info");

/// A process of `orgd serve`, `orgd gateway` or `orgd demo`, killed with the value.
pub struct Service {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    addresses: Value,
    database: Option<Arc<Database>>,
}

impl Service {
    /// `orgd serve` over a database.
    pub async fn start(database: Database) -> Self {
        Self::start_beside(Arc::new(database)).await
    }

    /// `orgd serve` over a database that others use too.
    pub async fn start_beside(database: Arc<Database>) -> Self {
        Self::start_with(database, &[]).await
    }

    /// The same with settings.
    pub async fn start_with(database: Arc<Database>, settings: &[(&str, &str)]) -> Self {
        Self::start_under(&[], database, settings).await
    }

    /// `orgd serve` with settings, over a SQLite database of its own that is seeded.
    pub async fn over_sqlite(settings: &[(&str, &str)]) -> Self {
        let database = Database::sqlite();
        database.seed().await;
        Self::start_with(Arc::new(database), settings).await
    }

    /// The same by way of a command that becomes `orgd` in the end.
    pub async fn start_under(
        wrapper: &[&str],
        database: Arc<Database>,
        settings: &[(&str, &str)],
    ) -> Self {
        let mut service = Self::spawn_under(
            wrapper,
            &SERVE,
            &[settings, &[("ORGD_DATABASE_URL", database.url())]].concat(),
        );
        service.database = Some(database);
        service.until_ready().await;
        service
    }

    /// `orgd gateway` in front of another process.
    pub async fn start_gateway(upstream: &Self) -> Self {
        Self::start_gateway_with(upstream, "http", &[]).await
    }

    /// The same with settings, over `http` or `https`.
    pub async fn start_gateway_with(
        upstream: &Self,
        scheme: &str,
        settings: &[(&str, &str)],
    ) -> Self {
        let url = format!("{scheme}://{}", upstream.grpc_addr());
        let mut service = Self::spawn(
            &["gateway", "--upstream", &url, "--http-addr", ANY_PORT, "--ops-addr", ANY_PORT],
            settings,
        );
        service.database = upstream.database.clone();
        service.until_ready().await;
        service
    }

    /// Any serving command, once it listens.
    pub fn spawn(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        Self::spawn_under(&[], arguments, environment)
    }

    fn spawn_under(wrapper: &[&str], arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        Self::try_spawn_under(wrapper, arguments, environment)
            .unwrap_or_else(|log| panic!("orgd {arguments:?} does not listen: {log}"))
    }

    /// A serving command once it listens, or what it said where it did not.
    pub fn try_spawn(arguments: &[&str], environment: &[(&str, &str)]) -> Result<Self, String> {
        Self::try_spawn_under(&[], arguments, environment)
    }

    fn try_spawn_under(
        wrapper: &[&str],
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<Self, String> {
        let mut child = command::binary_under(wrapper)
            .args(arguments)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (sender, listening) = mpsc::channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let lines = log.clone();
        // Ends with the process, whose end closes the pipe.
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let event: Value = serde_json::from_str(&line).unwrap_or_default();
                lines.lock().unwrap().push(line);
                if event["message"] == "listening" {
                    let _ = sender.send(event);
                }
            }
        });
        let addresses = listening.recv_timeout(START_TIMEOUT).map_err(|reason| {
            let _ = child.kill();
            let _ = child.wait();
            // Its standard error ends with a process that ends by itself.
            let fault = if reason == RecvTimeoutError::Timeout { "it hangs: " } else { "" };
            fault.to_owned() + &log.lock().unwrap().join("\n")
        })?;
        Ok(Self { child, log, addresses, database: None })
    }

    /// The same, with the database that is behind it.
    pub fn over(mut self, database: Arc<Database>) -> Self {
        self.database = Some(database);
        self
    }

    pub async fn until_ready(&self) {
        let ready = async {
            while self.get_ops("/readyz").await.status() != 200 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(START_TIMEOUT, ready).await.expect("ready");
    }

    fn addr(&self, listener: &str) -> SocketAddr {
        self.addresses[listener].as_str().unwrap().parse().unwrap()
    }

    pub fn http_addr(&self) -> SocketAddr {
        self.addr("http")
    }

    pub fn grpc_addr(&self) -> SocketAddr {
        self.addr("grpc")
    }

    pub fn ops_addr(&self) -> SocketAddr {
        self.addr("ops")
    }

    pub fn database(&self) -> &Database {
        self.database.as_deref().expect("a database")
    }

    pub fn shared_database(&self) -> Arc<Database> {
        self.database.clone().expect("a database")
    }

    /// `PUT /v1/organizations/{id}` with a bearer token and a JSON body.
    pub fn put(&self, id: i64, token: &str, body: &str) -> Request {
        self.request("PUT", &format!("/v1/organizations/{id}"))
            .bearer(token)
            .header("content-type", "application/json")
            .body(body.to_owned())
    }

    /// The user's organization is updated.
    pub async fn assert_serves(&self) {
        let answer = self.put(OWN, USER, r#"{"name": "Served"}"#).send().await;
        assert_eq!(answer.status(), 200, "{}", answer.text());
    }

    /// Any REST request.
    pub fn request(&self, method: &str, path: &str) -> Request {
        Request::new(self.http_addr(), method, path)
    }

    pub async fn get_ops(&self, path: &str) -> super::Answer {
        Request::new(self.ops_addr(), "GET", path).send().await
    }

    /// A channel to the gRPC listener, on which every refusal is searched for our insides.
    pub fn channel(&self) -> Searched<Channel> {
        let url = format!("http://{}", self.grpc_addr());
        Searched(Endpoint::from_shared(url).unwrap().connect_lazy())
    }

    pub fn grpc(&self) -> OrganizationServiceClient<Searched<Channel>> {
        OrganizationServiceClient::new(self.channel())
    }

    /// What the process has logged so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    /// Waits until the process has logged a text, in capitals or not.
    pub async fn until_logged(&self, text: &str) {
        let logged = async {
            while !self.log().to_lowercase().contains(&text.to_lowercase()) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let waited = tokio::time::timeout(START_TIMEOUT, logged).await;
        waited.unwrap_or_else(|_| panic!("{text} is not in the log: {}", self.log()));
    }

    /// How much waits in a queue, such as that of the updates.
    pub async fn waiting_in(&self, queue: &str) -> usize {
        let metrics = self.get_ops("/metrics").await;
        let name = format!("orgd_queue_waiting{{queue=\"{queue}\"}} ");
        let text = metrics.text();
        let value = text.lines().find_map(|line| line.strip_prefix(&name));
        value.unwrap().parse().unwrap()
    }

    /// `PUT /v1/organizations/90` without its body of so many bytes, for which the service asks: it has
    /// the request then.
    pub async fn begin_put(&self, token: &str, body_bytes: usize, headers: &str) -> TcpStream {
        let head = format!(
            "PUT /v1/organizations/{OWN} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\
             Content-Length: {body_bytes}\r\nExpect: 100-continue\r\n{headers}\r\n"
        );
        let mut stream = TcpStream::connect(self.http_addr()).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut asked = [0; 25];
        stream.read_exact(&mut asked).await.unwrap();
        assert_eq!(&asked, b"HTTP/1.1 100 Continue\r\n\r\n");
        stream
    }

    pub fn stdout(&mut self) -> impl BufRead {
        BufReader::new(self.child.stdout.take().unwrap())
    }

    /// Whether the process has not ended.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by name, such as `TERM`.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = std::process::Command::new("kill").args(["-s", name, &pid]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits for the process to end by itself.
    pub async fn ended(mut self) -> ExitStatus {
        let ended = async {
            loop {
                match self.child.try_wait().unwrap() {
                    Some(status) => return status,
                    None => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        };
        tokio::time::timeout(START_TIMEOUT, ended).await.expect("the process ends")
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `orgd serve` on ports that the system chooses.
pub const SERVE: [&str; 7] =
    ["serve", "--grpc-addr", ANY_PORT, "--http-addr", ANY_PORT, "--ops-addr", ANY_PORT];

/// Loopback, and a port that the system chooses.
pub const ANY_PORT: &str = "127.0.0.1:0";

/// A gRPC request with a bearer token.
pub fn authorized<T>(token: &str, message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    let value = MetadataValue::try_from(format!("Bearer {token}")).unwrap();
    request.metadata_mut().insert("authorization", value);
    request
}

/// The reason that a status has in its details, or an empty string.
pub fn reason(status: &tonic::Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}
