//! A PostgreSQL of three nodes that fails over: Patroni, with etcd as its memory, and `HAProxy` in front,
//! which sends every connection to the node that leads. Writes are synchronous: a commit is answered
//! when a second node has it.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;

use super::{
    Request, binaries,
    crash::{children, kill},
    postgres::{Owner, free_port, owner},
};

/// How long nodes may take to become what they should be.
const PATIENCE: Duration = Duration::from_secs(120);

pub struct Patroni {
    /// Without a database; the address is `HAProxy`'s.
    pub url: String,
    nodes: Vec<Node>,
    others: Vec<Supervised>,
    owner: Owner,
    // The last to go, after all that has files in it.
    folder: TempDir,
}

struct Node {
    name: String,
    rest: u16,
    /// None while it is dead.
    process: Option<Supervised>,
}

impl Patroni {
    pub async fn start() -> Self {
        let folder = TempDir::new().unwrap();
        let owner = owner(folder.path());
        let at = folder.path();
        let [front, client, peer] = [(); 3].map(|()| free_port());
        let peer_url = format!("http://127.0.0.1:{peer}");
        let client_url = format!("http://127.0.0.1:{client}");
        let etcd = Supervised::start(
            &owner,
            at,
            "etcd",
            &[
                "etcd",
                "--name=etcd",
                &format!("--data-dir={}", at.join("etcd").display()),
                &format!("--listen-client-urls={client_url}"),
                &format!("--advertise-client-urls={client_url}"),
                &format!("--listen-peer-urls={peer_url}"),
                &format!("--initial-advertise-peer-urls={peer_url}"),
                &format!("--initial-cluster=etcd={peer_url}"),
            ],
        );
        let mut servers = String::new();
        let mut nodes = Vec::new();
        for name in ["one", "two", "three"] {
            let [port, rest] = [(); 2].map(|()| free_port());
            fs::write(at.join(format!("{name}.yml")), settings(at, name, port, rest, client))
                .unwrap();
            servers.push_str(&format!("  server {name} 127.0.0.1:{port} check port {rest}\n"));
            nodes.push(Node { name: name.to_owned(), rest, process: None });
        }
        fs::write(at.join("haproxy.cfg"), HAPROXY.replace("FRONT", &front.to_string()) + &servers)
            .unwrap();
        let settings = at.join("haproxy.cfg");
        let haproxy = ["haproxy", "-db", "-f", settings.to_str().unwrap()];
        let haproxy = Supervised::start(&owner, at, "haproxy", &haproxy);
        let mut patroni = Self {
            url: format!("postgres://postgres@127.0.0.1:{front}"),
            nodes,
            others: vec![haproxy, etcd],
            owner,
            folder,
        };
        patroni.revive();
        patroni.until_whole().await;
        patroni
    }

    /// Starts every node that is dead.
    pub fn revive(&mut self) {
        let folder = self.folder.path();
        for node in self.nodes.iter_mut().filter(|node| node.process.is_none()) {
            let settings = folder.join(format!("{}.yml", node.name));
            let words = ["patroni", settings.to_str().unwrap()];
            node.process = Some(Supervised::start(&self.owner, folder, &node.name, &words));
        }
    }

    /// Waits until one node leads, and the others follow, one of them synchronously.
    pub async fn until_whole(&self) {
        let whole = async {
            while self.those("/primary").await.len() != 1
                || self.those("/replica").await.len() != self.nodes.len() - 1
                || self.those("/synchronous").await.len() != 1
            {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, whole).await;
        waited.unwrap_or_else(|_| panic!("the cluster is not whole: {}", self.logs()));
    }

    /// Ends the node that leads with SIGKILL, Patroni and PostgreSQL at once. Answers its name.
    pub async fn kill_leader(&mut self) -> String {
        let leader = *self.those("/primary").await.first().expect("a leader");
        let node = &mut self.nodes[leader];
        let lock = self.folder.path().join(&node.name).join("postmaster.pid");
        let lock = fs::read_to_string(lock).unwrap();
        let postmaster: u32 = lock.lines().next().unwrap().parse().unwrap();
        let process = node.process.take().unwrap();
        let mut doomed = [process.pids(), vec![postmaster]].concat();
        // Stopped first, so that none sees another end.
        kill("STOP", &doomed);
        doomed.extend(children(postmaster));
        kill("KILL", &doomed);
        node.name.clone()
    }

    /// The nodes whose Patroni answers 200 to a question of its REST API.
    async fn those(&self, path: &str) -> Vec<usize> {
        let mut those = Vec::new();
        for (index, node) in self.nodes.iter().enumerate() {
            let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, node.rest));
            let answer = Request::new(addr, "GET", path).try_send();
            let answer = tokio::time::timeout(Duration::from_secs(2), answer).await;
            if matches!(answer, Ok(Ok(answer)) if answer.status() == 200) {
                those.push(index);
            }
        }
        those
    }

    fn logs(&self) -> String {
        let log =
            |name: &str| fs::read_to_string(self.folder.path().join(name).with_extension("log"));
        let names = ["etcd", "haproxy", "one", "two", "three"];
        names.map(|name| format!("{name}: {}\n", log(name).unwrap_or_default())).concat()
    }
}

impl Drop for Patroni {
    fn drop(&mut self) {
        // The nodes before the memory that they stop with.
        self.nodes.clear();
        self.others.clear();
    }
}

/// A process that is ended when the value, or this process, is gone.
struct Supervised(Child);

impl Supervised {
    fn start(owner: &Owner, folder: &Path, name: &str, words: &[&str]) -> Self {
        let log = fs::File::create(folder.join(name).with_extension("log")).unwrap();
        let mut supervisor = Command::new("sh");
        // Not everyone has the folder of HAProxy in the path.
        supervisor
            .args(["-c", "PATH=$PATH:/usr/sbin; \"$@\" & read -r _; kill $!; wait", "sh"])
            .args(words)
            .stdin(Stdio::piped())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        Self(owner.run(&mut supervisor).spawn().unwrap())
    }

    fn pids(&self) -> Vec<u32> {
        children(self.0.id())
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

const HAPROXY: &str = "\
defaults
  mode tcp
  timeout connect 1s
  timeout client 30m
  timeout server 30m
  timeout check 1s
listen postgresql
  bind 127.0.0.1:FRONT
  option httpchk GET /primary
  http-check expect status 200
  default-server inter 500ms fall 2 rise 1 on-marked-down shutdown-sessions
";

/// Patroni's settings of a node. JSON is YAML too.
fn settings(folder: &Path, name: &str, port: u16, rest: u16, etcd: u16) -> String {
    let addr = |port: u16| format!("127.0.0.1:{port}");
    serde_json::json!({
        "scope": "orgd",
        "name": name,
        "restapi": { "listen": addr(rest), "connect_address": addr(rest) },
        "etcd3": { "host": addr(etcd) },
        "bootstrap": {
            "dcs": {
                "ttl": 10,
                "loop_wait": 1,
                "retry_timeout": 3,
                "synchronous_mode": true,
                // No second node, no commit.
                "synchronous_mode_strict": true,
                "postgresql": {
                    "use_pg_rewind": true,
                    "parameters": { "max_connections": 100 },
                },
            },
            "initdb": [{ "encoding": "UTF8" }, { "locale": "C" }, "data-checksums"],
        },
        "postgresql": {
            "listen": addr(port),
            "connect_address": addr(port),
            "data_dir": folder.join(name),
            "bin_dir": binaries(),
            "pgpass": folder.join(format!("{name}.pgpass")),
            "remove_data_directory_on_diverged_timelines": true,
            "pg_hba": [
                "host all all 127.0.0.1/32 trust",
                "host replication all 127.0.0.1/32 trust",
            ],
            "authentication": {
                "superuser": { "username": "postgres", "password": "superuser" },
                "replication": { "username": "replicator", "password": "replication" },
            },
            "parameters": { "unix_socket_directories": folder },
        },
    })
    .to_string()
}
