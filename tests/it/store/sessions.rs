//! Sessions with the database: what stands between, and what `orgd database check` says of it.

use std::fs;

use sea_orm::{ConnectionTrait, Statement};
use serde_json::Value;

use crate::harness::{
    ADMINISTRATOR, Cluster, Command, Database, OWN, Proxy, Service, assert_examples, orgd,
    orgd_with, proxies::Pgbouncer,
};

/// What a check tries of PostgreSQL that can do all.
const TRIALS: [&str; 11] = [
    "server",
    "version",
    "encoding",
    "isolation",
    "limits",
    "planner",
    "sessions",
    "schema",
    "statements",
    "revocation",
    "lost transactions",
];

/// Runs a command without being in the way of a proxy's tasks.
async fn command(database: &Database, words: &'static str) -> Command {
    let url = database.url().to_owned();
    tokio::task::spawn_blocking(move || orgd(&url, words)).await.unwrap()
}

/// The names of what was tried, and what was said of each; why it cannot run, where it cannot.
fn told(check: &Command) -> (Vec<(String, String)>, Option<String>) {
    let said: Value = serde_json::from_str(&check.stdout).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let findings = said["checks"].as_array().unwrap().iter();
    let findings = findings.map(|one| (text(&one["name"]), text(&one["said"]))).collect();
    assert_eq!(said["canRun"], check.code == 0);
    (findings, said["because"].as_str().map(str::to_owned))
}

/// All of orgd's rows.
async fn content(database: &Database) -> Vec<String> {
    let connection = database.connect().await;
    let mut content = Vec::new();
    for table in ["organizations", "organization_changes", "credentials", "seaql_migrations"] {
        let rows = format!("SELECT CAST({table} AS text) AS row FROM {table} ORDER BY 1");
        let rows = Statement::from_string(connection.get_database_backend(), rows);
        for row in connection.query_all_raw(rows).await.unwrap() {
            content.push(row.try_get("", "row").unwrap());
        }
    }
    connection.close().await.unwrap();
    content
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_of_postgresql_tries_all_that_is_needed_and_leaves_nothing_behind() {
    let database = Database::postgres().await;
    database.seed().await;
    let before = content(&database).await;
    let check = command(&database, "database check").await;
    assert_eq!(check.code, 0, "{} {}", check.stdout, check.stderr);
    eprint!("{}", check.stdout);
    assert!(check.stdout.ends_with("\ncan run\n"), "{}", check.stdout);
    assert_eq!(check.stderr, "", "nothing is warned of");
    for said in [
        "encoding: UTF8",
        "limits: statement_timeout 1s, lock_timeout 1s; of workers: statement_timeout 1s, \
         lock_timeout 250ms",
        "planner: plan_cache_mode force_generic_plan, enable_seqscan off, jit off",
        "revocation: a write that waited was ended after ",
        "lost transactions: a transaction that lost to another was done at try 2",
        "clock: the database's is ",
    ] {
        assert!(check.stdout.contains(said), "{said}: {}", check.stdout);
    }
    let (findings, because) = told(&command(&database, "database check --json").await);
    let names: Vec<_> = findings.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, [&TRIALS[..], &["clock"]].concat());
    assert_eq!(because, None);
    assert_eq!(content(&database).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_of_sqlite_tries_all_that_is_needed_and_leaves_nothing_behind() {
    let database = Database::sqlite();
    database.seed().await;
    let file = database.url().split(['/', '?']).filter(|part| !part.is_empty());
    let path: Vec<_> = file.skip(1).take_while(|part| !part.starts_with("mode")).collect();
    let path = format!("/{}", path.join("/"));
    let before = fs::read(&path).unwrap();
    let check = command(&database, "database check").await;
    assert_eq!(check.code, 0, "{} {}", check.stdout, check.stderr);
    for said in ["version: 3.", "journal mode: wal", "encoding: UTF-8", "integrity: ok"] {
        assert!(check.stdout.contains(said), "{said}: {}", check.stdout);
    }
    assert!(check.stdout.ends_with("\ncan run\n"), "{}", check.stdout);
    assert_eq!(fs::read(&path).unwrap(), before);

    let held = database.hold().await;
    let (_, because) = told(&command(&database, "database check --json").await);
    assert!(because.unwrap().starts_with("write lock: "));
    held.rollback().await.unwrap();
    // A page of a table that is not of the schema: the database can be opened.
    let mut damaged = before;
    let page = damaged.len() - 4096;
    damaged[page..page + 100].fill(0xff);
    fs::write(&path, damaged).unwrap();
    let check = command(&database, "database check").await;
    assert_eq!(check.code, 1, "{}", check.stdout);
    assert!(check.stdout.contains("cannot, because integrity: "), "{}", check.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_says_why_orgd_cannot_run() {
    let absent = command(&Database::sqlite(), "database check --json").await;
    assert!(told(&absent).1.unwrap().starts_with("file: "));

    let cluster = Cluster::start(&["max_connections=50"]);
    let latin = format!("{}/latin", cluster.url);
    let admin = sea_orm::Database::connect(format!("{}/postgres", cluster.url)).await.unwrap();
    let create = "CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0";
    admin.execute_unprepared(create).await.unwrap();
    let check = orgd(&latin, "database check");
    assert_eq!(check.code, 1, "{}", check.stdout);
    let because = "cannot, because encoding: it is LATIN1, and must be UTF8";
    assert!(check.stdout.contains(because), "{}", check.stdout);
    assert!(check.stderr.contains("orgd cannot run on this database"), "{}", check.stderr);
    let of_several = [("ORGD_DATABASE_URL", "postgres:///orgd"), ("PGHOST", "one,other")];
    let several = orgd_with(&of_several, "database check");
    assert!(
        several.stdout.contains("several hosts") && !several.stdout.contains("lookup"),
        "{}",
        several.stdout
    );
    let nowhere = orgd("postgres://odd:hunter2@127.0.0.1:1/none", "database check");
    let because =
        "cannot, because server: PostgreSQL at 127.0.0.1:1, database none: connection refused";
    assert!(nowhere.stdout.contains(because), "{}", nowhere.stdout);

    let database = Database::postgres_at(&cluster.url, "checked").await;
    database.seed().await;
    // What is set is lost, and the database is set to what would do.
    database.execute("ALTER DATABASE checked SET statement_timeout = '1s'").await;
    let proxy = Proxy::start_losing_settings(database.addr()).await;
    let lost = command(&database.behind(&proxy), "database check").await;
    assert!(lost.stdout.contains("cannot, because limits: lock_timeout is 0 "), "{}", lost.stdout);
    assert!(lost.stdout.contains("use session pooling"), "{}", lost.stdout);
    // A table that is not what the statements need.
    database.execute("ALTER TABLE credentials RENAME COLUMN role TO part").await;
    let check = command(&database, "database check").await;
    assert!(check.stdout.contains("cannot, because statements: it refuses"), "{}", check.stdout);
}

/// A database that has functions of its own before those of PostgreSQL: what it does is not what it says.
async fn with_function(name: &str, function: &str) -> Database {
    let database = Database::postgres().await;
    database.seed().await;
    database.execute(&format!("CREATE FUNCTION public.{name} {function}")).await;
    let connection = database.connect().await;
    let own = "SELECT format('ALTER DATABASE %I SET search_path = public, pg_catalog', current_database()) AS own";
    let own = Statement::from_string(connection.get_database_backend(), own);
    let own: String =
        connection.query_one_raw(own).await.unwrap().unwrap().try_get("", "own").unwrap();
    database.execute(&own).await;
    connection.close().await.unwrap();
    database
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_does_not_believe_what_a_server_says_of_its_limits() {
    // It reads back as it was set, and is longer than a revocation waits.
    let set = "(name text, value text, is_local bool) RETURNS text LANGUAGE sql AS $$ \
        SELECT pg_catalog.set_config(name, CASE WHEN name = 'statement_timeout' THEN '{limit}' ELSE value END, is_local) $$";
    let says = "; CREATE FUNCTION public.current_setting(name text) RETURNS text LANGUAGE sql AS $$ \
        SELECT CASE WHEN name = 'statement_timeout' THEN '1s' ELSE pg_catalog.current_setting(name) END $$";
    for limit in ["2500ms", "9s"] {
        let set = set.replace("{limit}", limit);
        let database = with_function("set_config", &format!("{set}{says}")).await;
        let check = command(&database, "database check").await;
        let because = "cannot, because revocation: a write that waited was not ended in time";
        assert!(check.stdout.contains(because), "{limit}: {}", check.stdout);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_planner_that_takes_no_settings_is_no_obstacle() {
    let set = "(name text, value text, is_local bool) RETURNS text LANGUAGE plpgsql AS $$ BEGIN \
        IF name IN ('jit', 'plan_cache_mode') THEN RAISE EXCEPTION 'unknown parameter'; END IF; \
        RETURN pg_catalog.set_config(name, value, is_local); END $$";
    let database = with_function("set_config", set).await;
    let check = command(&database, "database check").await;
    for said in [
        "planner: plan_cache_mode cannot be set, and batches are slower, enable_seqscan off, jit cannot be set",
        "limits: statement_timeout 1s, lock_timeout 1s; of workers: statement_timeout 1s, lock_timeout 250ms",
        "\ncan run\n",
    ] {
        assert!(check.stdout.contains(said), "{said}: {}", check.stdout);
    }
    let service = Service::start(database).await;
    service.until_ready().await;
    assert_examples(&service).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_tells_how_far_the_databases_clock_is_off() {
    for (hours, direction) in [(1, "ahead of"), (-1, "behind")] {
        let clock = format!(
            "() RETURNS timestamptz LANGUAGE sql AS $$ \
             SELECT pg_catalog.clock_timestamp() + interval '{hours} hour' $$"
        );
        let database = with_function("clock_timestamp", &clock).await;
        let check = command(&database, "database check").await;
        let (_, said) = check.stdout.split_once("clock: the database's is ").unwrap();
        let (found, rest) = said.split_once(" ms ").unwrap();
        assert!(rest.starts_with(direction), "{said}");
        // The way to the database and back takes a part of a second.
        assert!((3_590_000..3_610_000).contains(&found.parse::<u32>().unwrap()), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_works_behind_pgbouncer_that_pools_by_session() {
    let database = Database::postgres().await;
    let pooler = Pgbouncer::start(&database, "session").await;
    let behind = database.by_way_of(pooler.addr());
    behind.seed().await;
    let check = command(&behind, "database check").await;
    assert!(check.stdout.ends_with("\ncan run\n"), "{} {}", check.stdout, check.stderr);
    let service = Service::start(behind).await;
    service.until_ready().await;
    assert_examples(&service).await;
    for number in 0..20 {
        let body = format!(r#"{{"name": "Pooled {number}"}}"#);
        assert_eq!(service.put(OWN, ADMINISTRATOR, &body).send().await.status(), 200);
    }
    let observer = database.connect().await;
    let ask = "SELECT DISTINCT application_name FROM pg_stat_activity \
        WHERE datname = current_database() AND pid <> pg_backend_pid()";
    let ask = Statement::from_string(observer.get_database_backend(), ask);
    let rows = observer.query_all_raw(ask).await.unwrap();
    let names: Vec<String> =
        rows.iter().map(|row| row.try_get("", "application_name").unwrap()).collect();
    assert!(names.contains(&"orgd".to_owned()), "{names:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_does_not_start_behind_pgbouncer_that_pools_by_transaction() {
    const SERVE: &str =
        "serve --grpc-addr 127.0.0.1:0 --http-addr 127.0.0.1:0 --ops-addr 127.0.0.1:0";
    let database = Database::postgres().await;
    database.seed().await;
    let pooler = Pgbouncer::start(&database, "transaction").await;
    let behind = database.by_way_of(pooler.addr());
    let told = "one session to several connections (transaction pooling); use session pooling";
    // Again and again: the pooler then has sessions that are set up already.
    for words in [SERVE, "credential list", "migrate", "migrate status", SERVE, SERVE] {
        let refused = command(&behind, words).await;
        assert_eq!(refused.code, 1, "{words}: {}", refused.stderr);
        assert!(refused.stderr.contains(told), "{words}: {}", refused.stderr);
    }
    let check = command(&behind, "database check").await;
    assert_eq!(check.code, 1, "{}", check.stdout);
    assert!(check.stdout.contains("cannot, because limits: "), "{}", check.stdout);
    assert!(check.stdout.contains(told), "{}", check.stdout);
}
