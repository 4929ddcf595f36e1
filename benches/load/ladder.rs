//! The ladder: what a request costs the service, rung by rung, from bare axum to an update; each with log lines
//! and without.

use std::rc::Rc;

use crate::{
    Options,
    bounds::SERVICE_CPU,
    client::Call,
    database::Database,
    postgres::Cluster,
    process::{self, Process},
    results::{Key, Results},
    systems::{axum, target},
    table::{Table, number},
};

const RUNGS: [(Call, &str); 8] = [
    (Call::Livez, "`/livez`"),
    (Call::Options, "OPTIONS"),
    (Call::Stranger, "GET without a credential, 401"),
    (Call::Get, "GET"),
    (Call::DryRun, "PUT with `validateOnly`"),
    (Call::Put, "PUT"),
    (Call::GrpcGet, "gRPC `Get`"),
    (Call::Update, "gRPC `Update`"),
];

const CONNECTIONS: u32 = 64;
pub const AXUM: Key<'_> = ("ladder-axum", CONNECTIONS);
pub const OPTIONS: Key<'_> = ("options-lines", CONNECTIONS);
pub const GET: Key<'_> = ("get-lines", CONNECTIONS);
pub const QUIET_GET: Key<'_> = ("get-quiet", CONNECTIONS);
pub const PUT: Key<'_> = ("put-lines", CONNECTIONS);
pub const QUIET_PUT: Key<'_> = ("put-quiet", CONNECTIONS);

/// With the defaults, and without lines of requests; this program needs the line that names the addresses.
const SIDES: [(&str, &[(&str, &str)]); 2] =
    [("lines", &[]), ("quiet", &[("ORGD_LOG", "warn,orgd::server=info")])];

/// Measures all rungs over one PostgreSQL database, whose version it returns too.
pub async fn measure(cluster: &Cluster, options: &Options) -> (Results, Vec<String>) {
    let organizations = options.organizations;
    let database = Rc::new(Database::postgres(cluster, "ladder", organizations).await);
    let sides = SIDES.map(|(side, environment)| {
        let orgd = Process::orgd(process::orgd_binary(), &database.url, environment).0;
        (side, Rc::new(orgd))
    });
    let mut targets = vec![axum(AXUM.0, organizations)];
    for (call, _) in RUNGS {
        for (side, orgd) in &sides {
            let name = format!("{}-{side}", call.name());
            targets.push(target(&name, orgd, call, Some(&database), organizations));
        }
    }
    let results = Results::measure(&targets, &[CONNECTIONS], options).await;
    (results, vec![database.version().await])
}

/// A row for each rung: service CPU a request.
pub fn table(results: &Results) -> Table {
    let header = ["call", "µs", "÷ axum", "without lines: µs", "÷ axum", "lines ÷ none"];
    let mut table = Table::new(&header);
    let micros = |key: Key<'_>| number(results.median(key, SERVICE_CPU).map(|cpu| cpu * 1e6), 1);
    let ratio = |over: Key<'_>, under: Key<'_>| number(results.ratio(SERVICE_CPU, over, under), 2);
    let none = || "–".to_owned();
    table.row(vec![
        "bare axum".to_owned(),
        micros(AXUM),
        ratio(AXUM, AXUM),
        none(),
        none(),
        none(),
    ]);
    for (call, name) in RUNGS {
        let [lines, quiet] = SIDES.map(|(side, _)| format!("{}-{side}", call.name()));
        let [lines, quiet] = [(lines.as_str(), CONNECTIONS), (quiet.as_str(), CONNECTIONS)];
        table.row(vec![
            name.to_owned(),
            micros(lines),
            ratio(lines, AXUM),
            micros(quiet),
            ratio(quiet, AXUM),
            ratio(lines, quiet),
        ]);
    }
    table
}
