//! Whether the number of stored organizations matters: the same load on a few and on very many.

use std::{path::Path, rc::Rc};

use crate::{
    Options,
    bounds::{self, Bound, CPU, P99},
    client::Call,
    database::Database,
    postgres::Cluster,
    process::Process,
    results::Results,
    systems::target,
    table::Table,
};

const CONNECTIONS: u32 = 64;

/// How much worse the large database may be.
const BOUND: Bound = Bound::AtMost(1.3);

/// Measures both sizes: the ratios, all numbers, and the databases' versions.
pub async fn run(
    cluster: &Cluster,
    folder: &Path,
    options: &Options,
) -> (Table, Results, Vec<String>) {
    let sizes = [("small", options.organizations), ("large", options.scale_organizations)];
    let mut targets = Vec::new();
    let mut versions = Vec::new();
    for (size, organizations) in sizes {
        let postgres = Database::postgres(cluster, size, organizations).await;
        let sqlite = Database::sqlite(folder, size, organizations).await;
        versions = vec![postgres.version().await, sqlite.version().await];
        for (database, kind) in [(Rc::new(postgres), "postgres"), (Rc::new(sqlite), "sqlite")] {
            let orgd = Rc::new(Process::orgd(&database.url, &[]).0);
            for (call, name) in [(Call::Put, "put"), (Call::Get, "get")] {
                let name = format!("{name}-{kind}-{size}");
                targets.push(target(&name, &orgd, call, Some(&database), organizations));
            }
        }
    }
    // The two sizes one after the other.
    targets.sort_by(|one, other| one.name.cmp(&other.name));
    let results = Results::measure(&targets, &[CONNECTIONS], options).await;
    (ratios(&results), results, versions)
}

fn ratios(results: &Results) -> Table {
    let mut rows = Vec::new();
    for kind in ["put-postgres", "get-postgres", "put-sqlite", "get-sqlite"] {
        let (large, small) = (format!("{kind}-large"), format!("{kind}-small"));
        for (what, metric) in [("p99", P99), ("CPU of service and database", CPU)] {
            let ratio = results.ratio(metric, (&large, CONNECTIONS), (&small, CONNECTIONS));
            rows.push((format!("{kind}, {CONNECTIONS}: {what}, large ÷ small"), ratio, BOUND));
        }
    }
    bounds::compared(rows)
}
