//! The processes that are measured, each killed with its value.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::client::Call;

/// How long a service may take until it is ready.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// A process that serves.
pub struct Process {
    child: Child,
    pub addresses: Addresses,
}

/// Where a process listens; only orgd has more than HTTP.
#[derive(Clone, Copy)]
pub struct Addresses {
    http: SocketAddr,
    grpc: Option<SocketAddr>,
    ops: Option<SocketAddr>,
}

impl Addresses {
    /// Where one kind of call goes.
    pub fn of(self, call: Call) -> SocketAddr {
        match call {
            Call::Livez => self.ops.expect("a service with an operations listener"),
            call if call.is_grpc() => self.grpc.expect("a service with a gRPC listener"),
            _ => self.http,
        }
    }
}

impl Process {
    /// `orgd serve` over a database, and how long it took until it was ready.
    pub fn orgd(
        binary: &Path,
        database_url: &str,
        environment: &[(&str, &str)],
    ) -> (Self, Duration) {
        let any = "127.0.0.1:0";
        let mut command = Command::new(binary);
        command
            .args(["serve", "--grpc-addr", any, "--http-addr", any, "--ops-addr", any])
            .env_clear()
            .env("ORGD_DATABASE_URL", database_url)
            .envs(environment.iter().copied())
            .stderr(Stdio::piped());
        let started = Instant::now();
        let process = Self::start(&mut command, |line| {
            let event: Value = serde_json::from_str(line).ok()?;
            let addr = |listener: &str| event[listener].as_str()?.parse().ok();
            Some(Addresses { http: addr("http")?, grpc: addr("grpc"), ops: addr("ops") })
        });
        let ops = process.addresses.ops.expect("orgd says where it listens");
        while !is_ready(ops) {
            assert!(started.elapsed() < START_TIMEOUT, "orgd is not ready");
            #[expect(clippy::disallowed_methods, reason = "nothing else is to be done meanwhile")]
            std::thread::sleep(Duration::from_micros(500));
        }
        (process, started.elapsed())
    }

    /// Any other service, which prints the address of its HTTP listener.
    pub fn other(command: &mut Command) -> Self {
        Self::start(command.stdout(Stdio::piped()), |line| {
            Some(Addresses { http: line.trim().parse().ok()?, grpc: None, ops: None })
        })
    }

    /// Reads what the process prints until it says where it listens.
    fn start(command: &mut Command, addresses: impl Fn(&str) -> Option<Addresses>) -> Self {
        let mut child = command.stdin(Stdio::null()).spawn().unwrap();
        let output: Box<dyn Read + Send> = match (child.stdout.take(), child.stderr.take()) {
            (Some(stdout), _) => Box::new(stdout),
            (None, stderr) => Box::new(stderr.expect("one of the two is piped")),
        };
        let mut output = BufReader::new(output);
        let mut said = String::new();
        let addresses = loop {
            let before = said.len();
            let read = output.read_line(&mut said).unwrap();
            assert!(read > 0, "{command:?} does not listen: {said}");
            if let Some(addresses) = addresses(said.split_at(before).1) {
                break addresses;
            }
        };
        // So that the pipe is never full; ends with the process.
        std::thread::spawn(move || io::copy(&mut output, &mut io::sink()));
        Self { child, addresses }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The binary that was built with this program.
pub fn orgd_binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_orgd"))
}

/// A part of this program in a process of its own; see `main.rs`.
pub fn myself(part: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg(part);
    command
}

/// The peer over a database, with or without its own log lines, and what runs it; none where it is not installed.
pub fn peer(database_url: &str, log_lines: bool) -> Option<(Process, String)> {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/target/peer"));
    let version = Command::new("node").arg("--version").output().ok()?;
    if !folder.join("node_modules").exists() {
        return None;
    }
    let mut command = Command::new("node");
    command
        .arg("server.js")
        .current_dir(folder)
        .env("NODE_ENV", "production")
        .env("LOG_LINES", if log_lines { "1" } else { "0" })
        .env("DATABASE_URL", database_url);
    let version = format!("Node.js {}", String::from_utf8_lossy(&version.stdout).trim());
    Some((Process::other(&mut command), version))
}

/// Whether `/readyz` answers 200.
fn is_ready(ops: SocketAddr) -> bool {
    let ask = || -> io::Result<String> {
        let mut stream = TcpStream::connect(ops)?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: ops\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200 "))
}
