//! Two of the same kind, one over the other: a large database and a small one, or two binaries of orgd.

use std::{
    path::{Path, PathBuf},
    rc::Rc,
};

use crate::{
    Options,
    bounds::{self, Bound, CPU, P99, RATE, SERVICE_CPU},
    client::Call,
    database::Database,
    postgres::Cluster,
    process::{self, Process},
    results::{Metric, Results},
    systems::target,
    table::Table,
};

/// What is compared with what, and what may come out.
pub struct Pair {
    /// First what is asked about, then what it is compared with.
    sides: [Side; 2],
    connections: Vec<u32>,
    bounds: Vec<(&'static str, Metric, Bound)>,
}

struct Side {
    name: &'static str,
    binary: PathBuf,
    organizations: u64,
}

const CALLS: [(Call, &str); 3] = [(Call::Put, "put"), (Call::Update, "grpc"), (Call::Get, "get")];
const KINDS: [&str; 2] = ["postgres", "sqlite"];

/// Whether the number of stored organizations matters: the same load on a few and on very many.
pub fn sizes(options: &Options) -> Pair {
    let binary = process::orgd_binary().to_owned();
    let side = |name, organizations| Side { name, binary: binary.clone(), organizations };
    let bound = Bound::AtMost(1.3);
    Pair {
        sides: [side("large", options.scale_organizations), side("small", options.organizations)],
        connections: vec![64],
        bounds: vec![("p99", P99, bound), ("CPU of service and database", CPU, bound)],
    }
}

/// What a change costs: this binary over another.
pub fn binaries(other: &Path, options: &Options) -> Pair {
    let side = |name, binary| Side { name, binary, organizations: options.organizations };
    Pair {
        sides: [side("this", process::orgd_binary().to_owned()), side("other", other.to_owned())],
        connections: options.connections.clone(),
        bounds: vec![
            ("service CPU", SERVICE_CPU, Bound::AtMost(1.03)),
            ("requests/s", RATE, Bound::AtLeast(0.97)),
        ],
    }
}

impl Pair {
    /// Measures both sides: the ratios, all numbers, and the databases' versions.
    pub async fn run(
        self,
        cluster: &Cluster,
        folder: &Path,
        options: &Options,
    ) -> (Table, Results, Vec<String>) {
        let mut targets = Vec::new();
        let mut versions = Vec::new();
        for Side { name: side, binary, organizations } in &self.sides {
            let postgres = Database::postgres(cluster, side, *organizations).await;
            let sqlite = Database::sqlite(folder, side, *organizations).await;
            versions = vec![postgres.version().await, sqlite.version().await];
            for (database, kind) in [postgres, sqlite].map(Rc::new).into_iter().zip(KINDS) {
                let orgd = Rc::new(Process::orgd(binary, &database.url, &[]).0);
                for (call, name) in CALLS {
                    let name = format!("{name}-{kind}-{side}");
                    targets.push(target(&name, &orgd, call, Some(&database), *organizations));
                }
            }
        }
        // The two sides one after the other.
        targets.sort_by(|one, other| one.name.cmp(&other.name));
        let results = Results::measure(&targets, &self.connections, options).await;
        (self.ratios(&results), results, versions)
    }

    fn ratios(&self, results: &Results) -> Table {
        let [over, under] = self.sides.each_ref().map(|side| side.name);
        let mut rows = Vec::new();
        for (kind, (_, call)) in KINDS.iter().flat_map(|kind| CALLS.map(|call| (kind, call))) {
            let key = |side: &str| format!("{call}-{kind}-{side}");
            let (above, below) = (key(over), key(under));
            for &connections in &self.connections {
                for &(what, metric, bound) in &self.bounds {
                    let ratio = results.ratio(metric, (&above, connections), (&below, connections));
                    let what = format!("{call}-{kind}, {connections}: {what}, {over} ÷ {under}");
                    rows.push((what, ratio, bound));
                }
            }
        }
        bounds::compared(rows)
    }
}
