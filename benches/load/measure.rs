//! One window: a load on one system, and what the system used meanwhile.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, ChildStdout, Command, Stdio},
    rc::Rc,
    time::{Duration, Instant},
};

use orgd::store::now;
use time::OffsetDateTime;
use tokio::time::sleep;

use crate::{
    client::Call,
    database::Database,
    pgbench::Pgbench,
    process::{Process, myself},
    usage,
    worker::{self, Report},
};

/// What is measured.
pub struct Target {
    pub name: String,
    pub load: Load,
    /// The service; none where there is only a database.
    pub process: Option<Rc<Process>>,
    pub database: Option<Rc<Database>>,
    /// How many organizations it has.
    pub organizations: u64,
}

/// How it is loaded.
pub enum Load {
    Requests { call: Call, addr: SocketAddr },
    Pgbench,
}

/// When, and with how many connections.
#[derive(Clone, Copy)]
pub struct Window {
    /// The number of the window, unlike any other's over the same databases.
    pub number: u32,
    pub round: u32,
    pub connections: u32,
    pub warm_up: f64,
    pub seconds: f64,
    /// How long a connection rests after a refusal.
    pub pause: f64,
}

/// What was found.
pub struct Measurement {
    pub name: String,
    pub round: u32,
    pub connections: u32,
    pub report: Report,
    /// Processor seconds a request.
    pub service_cpu: Option<f64>,
    pub database_cpu: Option<f64>,
    /// Processors that were busy with neither the load nor what is measured.
    pub other_cpu: f64,
    /// The mean speed of a processor just before and just after.
    pub speed: f64,
    /// Memory of the service, in MiB.
    pub resident: Option<f64>,
    pub wal_syncs: Option<f64>,
    pub batch_size: Option<f64>,
}

/// Measures a window.
pub async fn measure(target: &Target, window: Window) -> Measurement {
    // What the system before has left to the kernel would else be written to the disk beside this one.
    assert!(Command::new("sync").status().unwrap().success());
    let database = target.database.as_deref();
    let syncs_before = wal_syncs(database).await;
    let speed_before = usage::speed();
    let mut load = Running::start(target, window, syncs_before.is_some());
    load.until_begin(window).await;
    let before = Snapshot::take(target, load.pid());
    load.until_end(window).await;
    let after = Snapshot::take(target, load.pid());
    let resident = target.pid().map(usage::resident);
    let report = load.finish(before.at, after.at);
    let speed = f64::midpoint(speed_before, usage::speed());
    let syncs = wal_syncs(database).await.zip(syncs_before);
    let batch_size = match (database, target.is_logging()) {
        (Some(database), true) => database.batch_size(before.at, after.at).await,
        _ => None,
    };

    let seconds = (after.instant - before.instant).as_secs_f64();
    let used = |of: fn(&Snapshot) -> Option<f64>| Some(of(&after)? - of(&before)?);
    let (service, database) = (used(|at| at.service), used(|at| at.database));
    let measured = service.unwrap_or(0.0) + database.unwrap_or(0.0) + after.load - before.load;
    let per_request = |used: f64| used / seconds / report.rate;
    Measurement {
        name: target.name.clone(),
        round: window.round,
        connections: window.connections,
        service_cpu: service.map(per_request),
        database_cpu: database.map(per_request),
        other_cpu: (after.machine - before.machine - measured) / seconds,
        speed,
        resident,
        wal_syncs: syncs.map(|(after, before)| (after - before) as f64 / report.requests as f64),
        batch_size,
        report,
    }
}

async fn wal_syncs(database: Option<&Database>) -> Option<i64> {
    database?.wal_syncs().await
}

impl Target {
    fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(|process| process.pid())
    }

    /// Whether what it does is in orgd's change log.
    fn is_logging(&self) -> bool {
        matches!(self.load, Load::Requests { call, .. } if call.is_change())
    }
}

/// Processor seconds since the start of each.
struct Snapshot {
    at: OffsetDateTime,
    instant: Instant,
    service: Option<f64>,
    database: Option<f64>,
    load: f64,
    machine: f64,
}

impl Snapshot {
    fn take(target: &Target, load: u32) -> Self {
        Self {
            at: now(),
            instant: Instant::now(),
            service: target.pid().map(usage::cpu),
            database: target.database.as_ref().and_then(|database| database.cpu()),
            load: usage::cpu(load),
            machine: usage::cpu_of_machine(),
        }
    }
}

/// A load that runs.
enum Running {
    Worker { child: Child, output: BufReader<ChildStdout> },
    Pgbench(Pgbench),
}

impl Running {
    fn start(target: &Target, window: Window, is_settling: bool) -> Self {
        let Window { number, connections, warm_up, seconds, pause, .. } = window;
        let organizations = target.organizations;
        let Load::Requests { call, addr } = target.load else {
            let database = target.database.as_ref().expect("pgbench loads a database");
            // A second for its own start and for ours to look at it.
            let seconds = warm_up + seconds + 1.0;
            let pgbench = Pgbench::start(&database.url, organizations, connections, seconds);
            return Self::Pgbench(pgbench);
        };
        let mut command = myself("worker");
        command.args(["--call", &call.name(), "--addr", &addr.to_string()]);
        for (flag, value) in [
            ("--connections", connections.to_string()),
            ("--warm-up", warm_up.to_string()),
            ("--seconds", seconds.to_string()),
            ("--organizations", organizations.to_string()),
            ("--pause", pause.to_string()),
            ("--run", number.to_string()),
        ] {
            command.args([flag, &value]);
        }
        if is_settling && call.is_change() {
            command.arg("--settle");
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        Self::Worker { child, output }
    }

    fn pid(&self) -> u32 {
        match self {
            Self::Worker { child, .. } => child.id(),
            Self::Pgbench(pgbench) => pgbench.pid(),
        }
    }

    async fn until_begin(&mut self, window: Window) {
        match self {
            Self::Worker { output, .. } => assert_eq!(line(output), worker::BEGIN),
            Self::Pgbench(_) => sleep(Duration::from_secs_f64(window.warm_up)).await,
        }
    }

    async fn until_end(&mut self, window: Window) {
        match self {
            Self::Worker { output, .. } => assert_eq!(line(output), worker::END),
            Self::Pgbench(_) => sleep(Duration::from_secs_f64(window.seconds)).await,
        }
    }

    fn finish(self, begin: OffsetDateTime, end: OffsetDateTime) -> Report {
        match self {
            Self::Worker { mut child, mut output } => {
                drop(child.stdin.take());
                let report = serde_json::from_str(&line(&mut output)).expect("a report");
                assert!(child.wait().unwrap().success());
                report
            }
            Self::Pgbench(pgbench) => pgbench.finish(begin, end),
        }
    }
}

/// What a worker says next. Blocks: nothing else is to be done meanwhile.
fn line(output: &mut BufReader<ChildStdout>) -> String {
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    assert!(!line.is_empty(), "the load has ended too soon");
    line.trim_end().to_owned()
}
