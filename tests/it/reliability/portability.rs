//! Promise 15: the service asks of PostgreSQL nothing that distributed engines of its protocol refuse.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::{Command, Stdio},
};

use orgd::store::Store;
use sea_orm::{ConnectionTrait, DbBackend, TransactionTrait};

use crate::{
    api::parity::every_case,
    harness::{
        Database, Service, assert_examples,
        strict::{self, StatementLog},
    },
};

/// What the tests of the whole suite have the service say to PostgreSQL, at the least; else the search
/// would find nothing because there was nothing.
const STATEMENTS_MIN: usize = 10_000;
const DISTINCT_MIN: usize = 25;

/// Modules of tests that say nothing of this promise although they use PostgreSQL: those of promises
/// bring faults and clusters of their own, and are run serializable where that is their subject; those
/// of the composition build an image; those of the guide dump by programs of the distribution's version; those of
/// fairness measure times; those of connections, proxies, browsers and examples send the requests that others send
/// too, and wait long between them.
const LEFT_OUT: [&str; 13] = [
    "access::indistinguishable",
    "access::pending_writes",
    "access::revocation",
    "api::client_examples",
    "changes::streams",
    "fairness",
    "listener",
    "operations::compose",
    "operations::guide",
    "processes",
    "rest::browser",
    "reliability",
    "store::upgrades",
];

/// Of the text of a module that uses PostgreSQL.
const USES_POSTGRES: [&str; 3] =
    ["on_both_databases", "Database::postgres(", "Database::of_each_kind("];

#[tokio::test]
async fn examples_and_parity_need_nothing_that_distributed_engines_refuse() {
    let cluster = strict::start().await;
    let database = Database::strict(&cluster.url).await;
    database.seed().await;
    let service = Service::start(database).await;
    assert_examples(&service).await;
    every_case(&service, false).await;
    let observer = service.database().connect().await;
    let log = StatementLog::read(&observer).await;
    eprintln!("{} statements, {} distinct", log.len(), log.distinct().len());
    assert!(log.len() > 250 && log.distinct().len() > 15, "{:#?}", log.distinct());
    // Texts with values in them would differ as the values do.
    assert!(log.distinct().len() < 50, "{:#?}", log.distinct());
    assert_eq!(log.refused(), BTreeSet::new());
    let texts = Store::statement_texts(DbBackend::Postgres);
    assert_eq!(log.beside(&texts), BTreeSet::new(), "`orgd database check` has to try these");
    // The search finds what is not among them.
    assert!(log.beside(&texts[1..]).contains(texts[0].as_str()));

    // What the service's role is given, and what it is not.
    let role = sea_orm::Database::connect(service.database().url()).await.unwrap();
    let isolation = "SELECT 1 / (current_setting('transaction_isolation') = 'serializable')::int";
    role.execute_unprepared(isolation).await.unwrap();
    for lock in ["pg_advisory_lock(1)", "pg_try_advisory_lock(1)", "pg_advisory_xact_lock(1, 2)"] {
        let refused = role.execute_unprepared(&format!("SELECT {lock}")).await.unwrap_err();
        assert!(refused.to_string().contains("permission denied"), "{lock}: {refused}");
    }
    // The search finds each thing that it searches for, those three to begin with.
    assert_eq!(StatementLog::read(&observer).await.refused().len(), 3);
    for statement in [
        "BEGIN; SAVEPOINT a; RELEASE SAVEPOINT a; COMMIT",
        "SELECT id FROM organizations FOR UPDATE",
        "SELECT id FROM organizations FOR NO KEY UPDATE OF organizations",
        "SELECT id FROM credentials FOR SHARE",
        "DROP TRIGGER IF EXISTS a ON organizations",
        "LISTEN a",
        "NOTIFY a",
        "SELECT pg_notify('a', 'b')",
        "CREATE TABLE a (id INT); INSERT INTO a VALUES (1)",
    ] {
        let known = StatementLog::read(&observer).await.refused();
        let _ = role.execute_unprepared(statement).await;
        let found = StatementLog::read(&observer).await.refused();
        assert!(found.len() > known.len(), "{statement}: {found:?}");
    }
    let known = StatementLog::read(&observer).await.refused();
    let transaction = role.begin().await.unwrap();
    for statement in ["DELETE FROM a", "DROP TABLE a"] {
        transaction.execute_unprepared(statement).await.unwrap();
    }
    transaction.commit().await.unwrap();
    let found = StatementLog::read(&observer).await.refused();
    assert_eq!(found.difference(&known).count(), 1, "DDL after DML: {found:?}");
}

/// Runs this very program again, with every module of tests that uses PostgreSQL, over a strict
/// cluster, and searches the log of all that the service said to it.
#[tokio::test]
#[ignore = "long: make portability"]
async fn the_whole_suite_needs_nothing_that_distributed_engines_refuse() {
    let cluster = strict::start().await;
    let modules = modules();
    let skipped = modules.iter().filter(|(_, is_run)| !is_run);
    let skipped = skipped.flat_map(|(name, _)| ["--skip".to_owned(), format!("{name}::")]);
    let status = Command::new(std::env::current_exe().unwrap())
        .args(skipped)
        .env(strict::VARIABLE, &cluster.url)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::null())
        .status()
        .unwrap();
    let observer = sea_orm::Database::connect(format!("{}/postgres", cluster.url)).await.unwrap();
    let log = StatementLog::read(&observer).await;
    eprintln!("{} statements, {} distinct", log.len(), log.distinct().len());
    assert_eq!(log.refused(), BTreeSet::new());
    assert_eq!(log.without_names(), BTreeSet::new());
    let texts = Store::statement_texts(DbBackend::Postgres);
    assert_eq!(log.beside(&texts), BTreeSet::new(), "`orgd database check` has to try these");
    assert!(log.len() > STATEMENTS_MIN, "{}", log.len());
    assert!(log.distinct().len() > DISTINCT_MIN, "{:#?}", log.distinct());
    assert!(status.success(), "the suite fails on a strict PostgreSQL");
}

/// The modules of this program, and whether each uses PostgreSQL and speaks of this promise. A `mod.rs` is not among
/// them: to leave it out would leave out its whole folder.
fn modules() -> Vec<(String, bool)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it");
    let mut folders = vec![root.clone()];
    let mut modules = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(&root).unwrap().with_extension("");
            let name = name.to_str().unwrap().replace('/', "::");
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") && !name.ends_with("mod") {
                let text = fs::read_to_string(path).unwrap();
                let is_left_out = LEFT_OUT.iter().any(|left_out| name.starts_with(left_out));
                let uses_postgres = USES_POSTGRES.iter().any(|word| text.contains(word));
                modules.push((name, uses_postgres && !is_left_out));
            }
        }
    }
    assert!(modules.iter().filter(|(_, is_run)| *is_run).count() > 15, "{modules:?}");
    modules
}
