//! What is compared: orgd, its peer and the floors, all started at once over databases with the same
//! rows, and idle while another is measured.

use std::{fs, path::Path, rc::Rc};

use crate::{
    client::Call,
    database::Database,
    measure::{Load, Target},
    postgres::Cluster,
    process::{self, Process},
    results::median,
};

/// The calls of one orgd with and without log lines, at 64 connections (`ladder.rs`).
pub const LADDER: &str = "ladder";

/// The systems' names, in the order in which they are measured.
pub const NAMES: [&str; 15] = [
    LADDER,
    "orgd-put-postgres",
    "orgd-grpc-postgres",
    "orgd-get-postgres",
    "orgd-put-sqlite",
    "orgd-grpc-sqlite",
    "orgd-get-sqlite",
    "orgd-put-sqlite-single",
    "orgd-put-postgres-single",
    "pgbench",
    "axum",
    "peer-put",
    "peer-get",
    "peer-put-lines",
    "peer-get-lines",
];

/// orgd with one commit for each update, to tell what it gains by writing several at once.
const SINGLE: &[(&str, &str)] = &[("ORGD_WRITE_BATCH_MAX", "1")];

/// How often a start is timed.
const STARTS: u32 = 5;

/// All systems; a process ends with its last target.
pub struct Systems {
    pub targets: Vec<Target>,
    pub facts: Facts,
    pub versions: Vec<String>,
}

/// What does not depend on a load.
pub struct Facts {
    /// From the start of a process until it is ready, in milliseconds.
    pub ready_postgres: f64,
    pub ready_sqlite: f64,
    /// The stripped binary, in MiB.
    pub binary: f64,
}

impl Systems {
    pub async fn start(cluster: &Cluster, folder: &Path, organizations: u64) -> Self {
        let postgres = async |name| Rc::new(Database::postgres(cluster, name, organizations).await);
        let sqlite = async |name| Rc::new(Database::sqlite(folder, name, organizations).await);
        let in_postgres = postgres("orgd").await;
        let in_sqlite = sqlite("orgd").await;
        let mut systems = Self {
            targets: Vec::new(),
            facts: Facts {
                ready_postgres: time_start(&in_postgres),
                ready_sqlite: time_start(&in_sqlite),
                binary: fs::metadata(process::orgd_binary()).unwrap().len() as f64
                    / f64::from(1 << 20),
            },
            versions: vec![in_postgres.version().await, in_sqlite.version().await],
        };

        for (database, suffix) in [(&in_postgres, "postgres"), (&in_sqlite, "sqlite")] {
            let orgd = Rc::new(Process::orgd(process::orgd_binary(), &database.url, &[]).0);
            for (call, name) in [(Call::Put, "put"), (Call::Update, "grpc"), (Call::Get, "get")] {
                let name = format!("orgd-{name}-{suffix}");
                systems.add(&name, &orgd, call, Some(database), organizations);
            }
        }
        let singles = [(sqlite("single").await, "sqlite"), (postgres("single").await, "postgres")];
        for (database, suffix) in &singles {
            let orgd = Rc::new(Process::orgd(process::orgd_binary(), &database.url, SINGLE).0);
            let name = format!("orgd-put-{suffix}-single");
            systems.add(&name, &orgd, Call::Put, Some(database), organizations);
        }
        systems.targets.push(Target {
            name: "pgbench".to_owned(),
            load: Load::Pgbench,
            process: None,
            database: Some(postgres("pgbench").await),
            organizations,
        });
        systems.targets.push(axum("axum", organizations));
        systems.add_peer(&postgres("peer").await, organizations);
        systems
    }

    fn add_peer(&mut self, database: &Rc<Database>, organizations: u64) {
        let mut node = None;
        for (log_lines, suffix) in [(false, ""), (true, "-lines")] {
            let Some((peer, version)) = process::peer(&database.url, log_lines) else {
                let missing = "no peer, because Node.js or its packages are not there";
                self.versions.push(missing.to_owned());
                return;
            };
            let peer = Rc::new(peer);
            for (call, name) in [(Call::Put, "put"), (Call::Get, "get")] {
                let name = format!("peer-{name}{suffix}");
                self.add(&name, &peer, call, Some(database), organizations);
            }
            node = Some(version);
        }
        self.versions.extend(node);
    }

    fn add(
        &mut self,
        name: &str,
        process: &Rc<Process>,
        call: Call,
        database: Option<&Rc<Database>>,
        organizations: u64,
    ) {
        self.targets.push(target(name, process, call, database, organizations));
    }
}

/// A floor that every run can have.
pub fn axum(name: &str, organizations: u64) -> Target {
    let axum = Rc::new(Process::other(&mut process::myself("floor")));
    target(name, &axum, Call::Put, None, organizations)
}

/// A process, loaded with one kind of call.
pub fn target(
    name: &str,
    process: &Rc<Process>,
    call: Call,
    database: Option<&Rc<Database>>,
    organizations: u64,
) -> Target {
    let addr = process.addresses.of(call);
    Target {
        name: name.to_owned(),
        load: Load::Requests { call, addr },
        process: Some(process.clone()),
        database: database.cloned(),
        organizations,
    }
}

/// The median of several starts on a database that has its schema, in milliseconds.
fn time_start(database: &Database) -> f64 {
    let starts = (0..STARTS).map(|_| {
        Process::orgd(process::orgd_binary(), &database.url, &[]).1.as_secs_f64() * 1000.0
    });
    median(starts.collect()).unwrap()
}
