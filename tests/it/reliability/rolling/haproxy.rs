//! HAProxy with the configuration that `deploy/` recommends, on loopback addresses of its own.

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

/// More than any change takes, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(30);
/// The addresses of the two instances in the recommended configuration.
const INSTANCES: [&str; 2] = ["10.0.0.1", "10.0.0.2"];

/// A loopback address that nobody else uses: outgoing connections and port 0 are on 127.0.0.1, so a
/// port here is still free when a stopped instance is started again.
pub fn own_address() -> Ipv4Addr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, high | 0x80, low, NEXT.fetch_add(1, Ordering::Relaxed))
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
        // Ends HAProxy when standard input closes, which it does with the test's process too.
        let script = "\"$@\" & read -r _; kill -KILL $!; wait";
        let supervisor = Command::new("sh")
            .args(["-c", script, "sh", "haproxy", "-db", "-f"])
            .arg(&file)
            .env("PATH", "/usr/sbin:/usr/local/sbin:/usr/bin:/bin:/usr/local/bin")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(fs::File::create(folder.path().join("log")).unwrap())
            .spawn()
            .unwrap();
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

    /// Waits until HAProxy sends an instance, by its number, new requests at both doors, or at none.
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
