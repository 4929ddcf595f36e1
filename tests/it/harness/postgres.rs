//! A PostgreSQL of one's own: a private cluster on loopback, which ends with the process that started
//! it. The load program (`benches/load`) uses this file too.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

const START_TIMEOUT: Duration = Duration::from_secs(30);

pub struct Cluster {
    /// Without a database, such as `postgres://postgres@127.0.0.1:5433`.
    pub url: String,
    pub(super) folder: PathBuf,
    port: u16,
    settings: Vec<String>,
    owner: Owner,
    /// Ends the cluster when its standard input closes, which it does with this process, however
    /// that ends.
    pub(super) supervisor: Option<Child>,
}

impl Cluster {
    /// With settings beside the defaults, such as `max_connections=300`.
    pub fn start(settings: &[&str]) -> Self {
        let mut initdb = Command::new(binaries().join("initdb"));
        initdb.args(["--encoding=UTF8", "--locale=C", "--no-sync", "--auth=trust"]);
        initdb.args(["--username=postgres", "--pgdata"]);
        Self::start_from(initdb, settings)
    }

    /// A standby, which follows this cluster and only reads. Not for the load program.
    #[allow(dead_code, reason = "the load program has none")]
    pub fn standby(&self) -> Self {
        let mut basebackup = Command::new(binaries().join("pg_basebackup"));
        basebackup.args(["--dbname", &self.url, "--write-recovery-conf", "--checkpoint=fast"]);
        basebackup.args(["--no-sync", "--pgdata"]);
        let settings: Vec<_> = self.settings.iter().map(String::as_str).collect();
        Self::start_from(basebackup, &settings)
    }

    /// Starts a server on what a command makes, to whose words the folder is added.
    fn start_from(mut command: Command, settings: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("orgd-postgres-").tempdir().unwrap().keep();
        let owner = owner(&folder);
        command.arg(folder.join("data"));
        let output = owner.run(&mut command).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

        let port = free_port();
        let mut cluster = Self {
            url: format!("postgres://postgres@127.0.0.1:{port}"),
            folder,
            port,
            settings: settings.iter().map(|&setting| setting.to_owned()).collect(),
            owner,
            supervisor: None,
        };
        cluster.serve();
        cluster
    }

    /// Starts the server on what is stored, and waits until it listens.
    pub(super) fn serve(&mut self) {
        let log = fs::File::create(self.folder.join("log")).unwrap();
        // No quotes are needed: the words after the script are its arguments. The folder goes too,
        // unless a word comes before the end.
        let script = "folder=$1; shift; \"$@\" & read -r keep; kill -QUIT $!; wait; \
             [ \"$keep\" ] || rm -rf \"$folder\"";
        let mut supervisor = Command::new("sh");
        supervisor
            .args(["-c", script, "sh", self.folder.to_str().unwrap()])
            .arg(binaries().join("postgres"))
            .args(["-D", self.folder.join("data").to_str().unwrap(), "-p", &self.port.to_string()])
            .args(["-c", "listen_addresses=127.0.0.1"])
            .args(["-c", "unix_socket_directories=", "-c", "fsync=on"])
            .args(self.settings.iter().flat_map(|setting| ["-c", setting]))
            .stdin(Stdio::piped())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        self.supervisor = Some(self.owner.run(&mut supervisor).spawn().unwrap());
        wait_for(self.port, &self.folder);
    }
}

/// The variable by which a test process is told which binaries to use.
const BINARIES: &str = "TEST_POSTGRES_BIN";

/// Where the server's binaries are: where the process was told, else the newest of those that a distribution installs.
pub fn binaries() -> PathBuf {
    if let Some(told) = std::env::var_os(BINARIES) {
        return told.into();
    }
    let installed = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut versions: Vec<PathBuf> = installed.map(|entry| entry.path().join("bin")).collect();
    versions.sort();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = versions.into_iter().rev().chain(std::env::split_paths(&path));
    let found = found.into_iter().find(|folder| folder.join("initdb").exists());
    found.expect("a PostgreSQL server is needed: run `make test`, or install `postgresql`")
}

/// PostgreSQL refuses to run as root, so root runs it as the user that the package made.
pub(super) struct Owner(Option<(u32, u32)>);

pub(super) fn owner(folder: &Path) -> Owner {
    let id = |arguments: &[&str]| {
        let output = Command::new("id").args(arguments).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().parse::<u32>().ok()
    };
    if id(&["-u"]) != Some(0) {
        return Owner(None);
    }
    let uid = id(&["-u", "postgres"]).expect("the package `postgresql` makes a user `postgres`");
    let gid = id(&["-g", "postgres"]).unwrap();
    std::os::unix::fs::chown(folder, Some(uid), Some(gid)).unwrap();
    Owner(Some((uid, gid)))
}

impl Owner {
    pub(super) fn run<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        match self.0 {
            Some((uid, gid)) => command.uid(uid).gid(gid).current_dir("/"),
            None => command,
        }
    }
}

/// A port that is free now.
pub(super) fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

#[expect(clippy::disallowed_methods, reason = "once, before anything else waits for the runtime")]
fn wait_for(port: u16, folder: &Path) {
    let started = Instant::now();
    let log = || fs::read_to_string(folder.join("log")).unwrap_or_default();
    while !log().contains("database system is ready to accept")
        || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err()
    {
        assert!(started.elapsed() < START_TIMEOUT, "PostgreSQL did not start: {}", log());
        sleep(Duration::from_millis(20));
    }
}
