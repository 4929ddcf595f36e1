//! Proxies on loopback addresses of their own: HAProxy with the configuration that `deploy/` recommends, nginx
//! with its defaults, and PgBouncer with its defaults before a PostgreSQL.

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr},
    os::unix::net::UnixStream,
    path::Path,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU8, Ordering},
};

use tempfile::TempDir;
use tokio::time::{Duration, sleep, timeout};

use super::{Database, PATIENCE, Service, postgres};

/// The addresses of the two instances in the recommended configuration.
const INSTANCES: [&str; 2] = ["10.0.0.1", "10.0.0.2"];

/// A loopback address of this caller alone: outgoing connections and port 0 are on 127.0.0.1, so a
/// port here is still free when a stopped instance is started again.
pub fn own_address() -> Ipv4Addr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, high | 0x80, low, NEXT.fetch_add(1, Ordering::Relaxed))
}

/// `orgd serve` on the ports of the recommended configuration.
pub fn serve(database: &Database, address: Ipv4Addr, settings: &[(&str, &str)]) -> Service {
    let [grpc, http, ops] = [50051, 8080, 9090].map(|port| format!("{address}:{port}"));
    let words = ["serve", "--grpc-addr", &grpc, "--http-addr", &http, "--ops-addr", &ops];
    Service::spawn(&words, &[&[("ORGD_DATABASE_URL", database.url())], settings].concat())
}

/// Starts a program that ends when standard input closes, which it does with the test's process too.
fn supervised(words: &[&str], log: &Path) -> Child {
    supervisor(words, log).spawn().unwrap()
}

fn supervisor(words: &[&str], log: &Path) -> Command {
    let mut command = Command::new("sh");
    command
        .args(["-c", "\"$@\" & read -r _; kill -KILL $!; wait", "sh"])
        .args(words)
        .env("PATH", "/usr/sbin:/usr/local/sbin:/usr/bin:/bin:/usr/local/bin")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(fs::File::create(log).unwrap());
    command
}

/// Waits until a server listens.
async fn until_it_listens(addr: SocketAddr, log: &Path) {
    let listens = async {
        while tokio::net::TcpStream::connect(addr).await.is_err() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    let waited = timeout(PATIENCE, listens).await;
    waited.unwrap_or_else(|_| panic!("{}", fs::read_to_string(log).unwrap_or_default()));
}

/// A process of PgBouncer with its defaults; it ends with the value or with the test's process.
pub struct Pgbouncer {
    addr: SocketAddr,
    _folder: TempDir,
    _supervisor: Child,
}

impl Pgbouncer {
    /// Before the server of a database, and pooling by `session` or by `transaction`.
    pub async fn start(database: &Database, mode: &str) -> Self {
        let addr = SocketAddr::from((own_address(), 6432));
        let folder = TempDir::new().unwrap();
        let owner = postgres::owner(folder.path());
        let server = database.addr();
        let text = format!(
            "[databases]\n* = host={} port={} user={}\n[pgbouncer]\nlisten_addr = {}\n\
             listen_port = {}\nunix_socket_dir =\nauth_type = any\npool_mode = {mode}\n",
            server.ip(),
            server.port(),
            database.role(),
            addr.ip(),
            addr.port(),
        );
        let file = folder.path().join("pgbouncer.ini");
        fs::write(&file, text).unwrap();
        let log = folder.path().join("log");
        let mut command = supervisor(&["pgbouncer", file.to_str().unwrap()], &log);
        let supervisor = owner.run(&mut command).spawn().unwrap();
        until_it_listens(addr, &log).await;
        Self { addr, _folder: folder, _supervisor: supervisor }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

/// A process of nginx with its defaults, but for its timeouts; it ends with the value or with the test's
/// process.
pub struct Nginx {
    address: Ipv4Addr,
    _folder: TempDir,
    _supervisor: Child,
}

impl Nginx {
    /// In front of a service. Cuts what is quiet for `quiet_max`: a minute by nginx's defaults.
    pub async fn start(service: &Service, quiet_max: Duration) -> Self {
        let address = own_address();
        let folder = TempDir::new().unwrap();
        let path = folder.path().display();
        let (rest, grpc, seconds) = (service.http_addr(), service.grpc_addr(), quiet_max.as_secs());
        let text = format!(
            "daemon off;
             master_process off;
             pid {path}/pid;
             error_log stderr;
             events {{}}
             http {{
                 access_log off;
                 client_body_temp_path {path}; proxy_temp_path {path}; fastcgi_temp_path {path};
                 uwsgi_temp_path {path}; scgi_temp_path {path};
                 proxy_read_timeout {seconds}s; grpc_read_timeout {seconds}s;
                 server {{ listen {address}:8080; location / {{ proxy_pass http://{rest}; }} }}
                 server {{ listen {address}:50051 http2; location / {{ grpc_pass grpc://{grpc}; }} }}
             }}"
        );
        let file = folder.path().join("nginx.conf");
        fs::write(&file, text).unwrap();
        let log = folder.path().join("log");
        let file = file.to_str().unwrap();
        let supervisor = supervised(&["nginx", "-p", &path.to_string(), "-c", file], &log);
        until_it_listens((address, 50051).into(), &log).await;
        Self { address, _folder: folder, _supervisor: supervisor }
    }

    pub fn rest(&self) -> SocketAddr {
        (self.address, 8080).into()
    }

    pub fn grpc(&self) -> SocketAddr {
        (self.address, 50051).into()
    }
}

/// A process of HAProxy, which ends with the value or with the test's process.
pub struct Haproxy {
    address: Ipv4Addr,
    folder: TempDir,
    _supervisor: Child,
}

impl Haproxy {
    /// In front of two instances. `changes` are made to the file: text, and what takes its place.
    pub fn start(instances: [Ipv4Addr; 2], changes: &[(&str, &str)]) -> Self {
        let address = own_address();
        let folder = TempDir::new().unwrap();
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/haproxy.cfg");
        let mut text = fs::read_to_string(path).unwrap();
        let bind = format!("bind {address}:");
        let [first, second] = instances.map(|instance| instance.to_string());
        let own = [("bind :", bind.as_str()), (INSTANCES[0], &first), (INSTANCES[1], &second)];
        for (from, to) in own.iter().chain(changes) {
            assert!(text.contains(from), "{from} is not in deploy/haproxy.cfg");
            text = text.replace(from, to);
        }
        let socket = folder.path().join("socket");
        let socket = format!("global\n    stats socket {} level admin\n", socket.display());
        text = text.replacen("global\n", &socket, 1);
        let file = folder.path().join("haproxy.cfg");
        fs::write(&file, text).unwrap();
        let words = ["haproxy", "-db", "-f", file.to_str().unwrap()];
        let supervisor = supervised(&words, &folder.path().join("log"));
        Self { address, folder, _supervisor: supervisor }
    }

    pub fn rest(&self) -> SocketAddr {
        (self.address, 8080).into()
    }

    pub fn grpc(&self) -> SocketAddr {
        (self.address, 50051).into()
    }

    /// What HAProxy has said: which instance was taken out or in and why, and which requests failed.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// What HAProxy answers to a command; nothing while it does not listen yet.
    fn ask(&self, command: &str) -> String {
        let mut answer = String::new();
        if let Ok(mut stream) = UnixStream::connect(self.folder.path().join("socket")) {
            stream.write_all(format!("{command}\n").as_bytes()).unwrap();
            stream.read_to_string(&mut answer).unwrap();
        }
        answer
    }

    /// Waits until HAProxy sends an instance, by its number, new requests at both listeners, or at none.
    pub async fn until(&self, instance: usize, takes: bool) {
        let name = format!("orgd{}", instance + 1);
        let is_so = |statistics: &str| {
            let servers = statistics.lines().map(|line| line.split(',').collect::<Vec<_>>());
            let states: Vec<_> = servers
                .filter(|fields| fields.get(1) == Some(&name.as_str()))
                .map(|fields| fields[17].starts_with("UP"))
                .collect();
            states.len() == 2 && states.iter().all(|is_up| *is_up == takes)
        };
        let becoming = async {
            while !is_so(&self.ask("show stat")) {
                sleep(Duration::from_millis(10)).await;
            }
        };
        let waited = timeout(PATIENCE, becoming).await;
        let seen = || format!("{}\n{}", self.ask("show stat"), self.log());
        waited.unwrap_or_else(|_| panic!("{name} should take requests: {takes}\n{}", seen()));
    }
}
