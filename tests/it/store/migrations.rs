//! Promise 13: the schema is migrated by commands and by services that start, by many of them at once.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use sea_orm::{ConnectionTrait, TransactionTrait};
use sea_orm_migration::{prelude::*, schema::text_null};
use tokio::task::JoinSet;

use crate::harness::{
    ADMINISTRATOR, Database, FOREIGN, OWN, PATIENCE, SERVE, Service, cargo, orgd,
};

const ROUNDS: usize = 5;
const INSTANCES: usize = 4;
/// The table of the lease.
const LEASE: &str = "CREATE TABLE migration_lease (id INTEGER PRIMARY KEY, owner TEXT NOT NULL, \
    expires_at_ms BIGINT NOT NULL)";

#[tokio::test]
async fn four_instances_at_once_on_an_empty_database_all_succeed() {
    for round in 0..ROUNDS {
        for database in Database::of_each_kind().await {
            let results = thread::scope(|scope| {
                let migrate = || orgd(database.url(), "migrate up --json");
                let instances: Vec<_> = (0..INSTANCES).map(|_| scope.spawn(migrate)).collect();
                instances.into_iter().map(|instance| instance.join().unwrap()).collect::<Vec<_>>()
            });
            for result in results {
                let case = format!("round {round} on {}: {}", database.kind(), result.stderr);
                assert_eq!(result.code, 0, "{case}");
                let steps = result.json();
                let steps = steps.as_array().unwrap();
                assert!(!steps.is_empty() && steps.iter().all(|step| step["applied"] == true));
            }
        }
    }
}

/// Services that start at once on an empty database all become ready; each step is applied once, and
/// the schema is whole.
async fn start_at_once(rounds: usize) {
    for round in 0..rounds {
        for database in Database::of_each_kind().await {
            let database = Arc::new(database);
            let mut starting = JoinSet::new();
            for _ in 0..INSTANCES {
                let url = database.url().to_owned();
                let spawn = move || Service::spawn(&SERVE, &[("ORGD_DATABASE_URL", &url)]);
                starting.spawn_blocking(spawn);
            }
            let services = starting.join_all().await;
            let case = format!("round {round} over {}", database.kind());
            let steps = orgd(database.url(), "migrate status --json").json();
            let steps = steps.as_array().unwrap();
            assert!(steps.iter().all(|step| step["applied"] == true), "{case}: {steps:?}");
            let connection = database.connect().await;
            let recorded = "SELECT version FROM seaql_migrations";
            let recorded =
                sea_orm::Statement::from_string(connection.get_database_backend(), recorded);
            let recorded = connection.query_all_raw(recorded).await.unwrap().len();
            assert_eq!(recorded, steps.len(), "{case}: each step once");
            connection.close().await.unwrap();

            database.seed().await;
            for (number, service) in services.iter().enumerate() {
                let name = format!("By {number}");
                let body = format!(r#"{{"name": "{name}"}}"#);
                let answer = service.put(OWN, ADMINISTRATOR, &body).send().await;
                assert_eq!(answer.status(), 200, "{case}: {}", answer.text());
                assert_eq!(database.name(OWN).await, name, "{case}");
                service.until_ready().await;
            }
        }
    }
    eprintln!("{rounds} of {rounds} rounds of {INSTANCES} instances on both databases");
}

#[tokio::test]
async fn services_that_start_at_once_on_an_empty_database_all_serve() {
    start_at_once(3).await;
}

#[tokio::test]
#[ignore = "long: make soak"]
async fn services_that_start_at_once_on_an_empty_database_all_serve_every_time() {
    start_at_once(20).await;
}

#[tokio::test]
async fn a_lease_is_waited_for_while_it_holds_and_taken_when_it_has_run_out() {
    for database in Database::of_each_kind().await {
        let connection = database.connect().await;
        connection.execute_unprepared(LEASE).await.unwrap();
        let insert = "INSERT INTO migration_lease VALUES (1, 'somebody', 0)";
        connection.execute_unprepared(insert).await.unwrap();
        let migrated = orgd(database.url(), "migrate up --json");
        assert_eq!(migrated.code, 0, "{}", migrated.stderr);
        assert!(!migrated.stderr.contains("waiting for its lease"), "{}", migrated.stderr);

        // One that holds for long, and runs out when somebody is seen to wait for it.
        let hold = format!("INSERT INTO migration_lease VALUES (1, 'somebody', {})", i64::MAX);
        for statement in ["DELETE FROM migration_lease", &hold, "DROP TABLE seaql_migrations"] {
            connection.execute_unprepared(statement).await.unwrap();
        }
        let mut migrating = Command::new(env!("CARGO_BIN_EXE_orgd"))
            .arg("migrate")
            .env("ORGD_DATABASE_URL", database.url())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(migrating.stderr.take().unwrap()).lines();
        let waits = |line: std::io::Result<String>| line.unwrap().contains("waiting for its lease");
        assert!(lines.any(waits), "the lease was taken before its end");
        assert!(migrating.try_wait().unwrap().is_none());
        let run_out = "UPDATE migration_lease SET expires_at_ms = 0";
        connection.execute_unprepared(run_out).await.unwrap();
        assert!(migrating.wait().unwrap().success());
    }
}

/// As where several instances start on an empty database, and the one that is first is slow.
#[tokio::test]
async fn a_table_of_the_lease_that_another_is_creating_is_waited_for() {
    for is_kept in [true, false] {
        let database = Database::postgres().await;
        let other = database.connect().await.begin().await.unwrap();
        other.execute_unprepared(LEASE).await.unwrap();
        let url = database.url().to_owned();
        let migration = tokio::task::spawn_blocking(move || orgd(&url, "migrate up"));
        // It waits for a lock 100 ms at a time.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let waits = !migration.is_finished();
        if is_kept {
            other.commit().await.unwrap();
        } else {
            other.rollback().await.unwrap();
        }
        let migrated = migration.await.unwrap();
        assert_eq!(migrated.code, 0, "{}", migrated.stderr);
        assert!(waits, "it was over before the name was free");
    }
}

/// As where other instances wait for the lease, on a slow disk: each of their questions locks its row.
#[tokio::test]
async fn a_lease_whose_row_is_locked_is_given_back_when_the_row_is_free() {
    let database = Database::postgres().await;
    database.seed().await;
    forget_last_step(&database).await;
    let changes = database.lock_table("organization_changes").await;
    let url = database.url().to_owned();
    let migration = tokio::task::spawn_blocking(move || orgd(&url, "migrate"));
    database.until_locks_are_waited_for(1).await;
    let lease = database.connect().await.begin().await.unwrap();
    lease.execute_unprepared("SELECT * FROM migration_lease FOR UPDATE").await.unwrap();
    changes.rollback().await.unwrap();
    let give_up = Instant::now() + PATIENCE;
    while orgd(database.url(), "migrate status").stdout.contains("pending") {
        assert!(Instant::now() < give_up, "the step was not done");
    }
    database.until_locks_are_waited_for(1).await;
    // Longer than a statement waits for a lock.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let waits = !migration.is_finished();
    lease.rollback().await.unwrap();
    let migrated = migration.await.unwrap();
    assert_eq!(migrated.code, 0, "{}", migrated.stderr);
    assert!(waits, "it was over before the row was free");
    let left = database.connect().await.execute_unprepared("DELETE FROM migration_lease").await;
    assert_eq!(left.unwrap().rows_affected(), 0, "the lease was left behind");
}

/// Each statement by which a migration writes loses twice, as it may to any other transaction: to a conflict on an engine
/// that is strict, to a deadlock, or to a lock.
#[tokio::test]
async fn a_migration_whose_statements_lose_to_other_transactions_asks_again() {
    for code in ["40001", "40P01", "55P03"] {
        for (event, table) in [
            ("INSERT", "migration_lease"),
            ("INSERT", "seaql_migrations"),
            ("DELETE", "migration_lease"),
        ] {
            let case = format!("{event} of {table}, {code}");
            let database = Database::postgres().await;
            database.seed().await;
            forget_last_step(&database).await;
            let lose = format!(
                "CREATE SEQUENCE tries; CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
                 IF nextval('tries') <= 2 THEN RAISE EXCEPTION 'lost' USING ERRCODE = '{code}'; END IF; \
                 RETURN COALESCE(NEW, OLD); END $$; \
                 CREATE TRIGGER lose BEFORE {event} ON {table} FOR EACH ROW EXECUTE FUNCTION lose()"
            );
            database.execute(&lose).await;
            let migrated = orgd(database.url(), "migrate");
            assert_eq!(migrated.code, 0, "{case}: {}", migrated.stderr);
            assert!(!orgd(database.url(), "migrate status").stdout.contains("pending"), "{case}");
            let connection = database.connect().await;
            // The third try, and no lease that is left behind.
            let found = "SELECT 1 FROM tries WHERE last_value = 3 \
                AND NOT EXISTS (SELECT 1 FROM migration_lease)";
            let found = sea_orm::Statement::from_string(connection.get_database_backend(), found);
            assert_eq!(connection.query_all_raw(found).await.unwrap().len(), 1, "{case}");
        }
    }
}

#[tokio::test]
async fn status_shows_what_is_pending_and_writes_nothing() {
    let sqlite = Database::sqlite();
    fs::write(file_of(&sqlite), "").unwrap();
    for database in [sqlite, Database::postgres().await] {
        for _ in 0..2 {
            let steps = orgd(database.url(), "migrate status --json").json();
            assert!(steps.as_array().unwrap().iter().all(|step| step["applied"] == false));
        }
        if database.is_sqlite() {
            assert_eq!(fs::metadata(file_of(&database)).unwrap().len(), 0);
        }
        assert_eq!(orgd(database.url(), "migrate").code, 0);
        let status = orgd(database.url(), "migrate status");
        assert!(status.stdout.contains("applied") && !status.stdout.contains("pending"));
    }
}

fn file_of(database: &Database) -> PathBuf {
    let path = database.url().strip_prefix("sqlite://").unwrap();
    path.split('?').next().unwrap().into()
}

/// The tables that there are.
async fn tables(database: &Database) -> usize {
    let connection = database.connect().await;
    let all = if database.is_sqlite() {
        "SELECT name FROM sqlite_schema"
    } else {
        "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"
    };
    let all = sea_orm::Statement::from_string(connection.get_database_backend(), all);
    let tables = connection.query_all_raw(all).await.unwrap().len();
    connection.close().await.unwrap();
    tables
}

#[tokio::test]
async fn commands_that_read_neither_create_nor_migrate_a_database() {
    let reading = ["database get-organization 90", "credential list", "migrate status"];
    let absent = Database::sqlite();
    for words in reading {
        let refused = orgd(absent.url(), words);
        assert_eq!(refused.code, 1, "{words}");
        assert!(refused.stderr.contains("`orgd migrate`"), "{words}: {}", refused.stderr);
        assert!(!file_of(&absent).exists(), "{words}");
    }
    let empty = Database::sqlite();
    fs::write(file_of(&empty), "").unwrap();
    for database in [empty, Database::postgres().await] {
        for words in &reading[..2] {
            let refused = orgd(database.url(), words);
            assert_eq!(refused.code, 1, "{words}");
            assert!(refused.stderr.contains("`orgd migrate`"), "{words}: {}", refused.stderr);
        }
        assert_eq!(tables(&database).await, 0, "{}", database.kind());
        // A step is pending, as after an upgrade.
        database.seed().await;
        forget_last_step(&database).await;
        for words in &reading[..2] {
            let refused = orgd(database.url(), words);
            assert_eq!(refused.code, 1, "{words}");
            assert!(refused.stderr.contains("`orgd migrate`"), "{words}: {}", refused.stderr);
            assert!(orgd(database.url(), "migrate status").stdout.contains("pending"));
        }
        let check = orgd(database.url(), "database check");
        assert!(check.stdout.contains("cannot, because schema: "), "{}", check.stdout);
        assert_eq!(orgd(database.url(), "migrate").code, 0);
        for words in reading {
            assert_eq!(orgd(database.url(), words).code, 0, "{words}");
        }
    }
}

/// Makes the last step pending again.
async fn forget_last_step(database: &Database) {
    database.execute("DROP INDEX organization_changes_idempotency").await;
    let forget =
        "DELETE FROM seaql_migrations WHERE version LIKE '%index_organization_changes_idempotency'";
    database.execute(forget).await;
}

/// A step as a new field has one: it adds a column to two tables.
#[derive(DeriveMigrationName)]
struct AddNote;

#[async_trait::async_trait]
impl MigrationTrait for AddNote {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in ["organizations", "organization_changes"] {
            if !manager.has_column(table, "note").await? {
                let column = Table::alter().table(table).add_column(text_null("note")).to_owned();
                manager.alter_table(column).await?;
            }
        }
        Ok(())
    }
}

#[tokio::test]
async fn a_step_that_was_cut_is_completed() {
    for database in Database::of_each_kind().await {
        database.seed().await;
        database.execute("ALTER TABLE organizations ADD COLUMN note text").await;
        let connection = database.connect().await;
        let manager = SchemaManager::new(&connection);
        for run in ["after the cut", "once more"] {
            AddNote.up(&manager).await.unwrap_or_else(|error| panic!("{run}: {error}"));
        }
        for table in ["organizations", "organization_changes"] {
            assert!(manager.has_column(table, "note").await.unwrap(), "{table}");
        }
    }
}

/// SQLite has no locks of tables.
#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_waits_for_a_lock_does_not_block_others() {
    let database = Database::postgres().await;
    database.seed().await;
    let service = Service::start(database).await;
    let database = service.shared_database();
    forget_last_step(&database).await;
    let holder = database.connect().await.begin().await.unwrap();
    let touch =
        format!("UPDATE organization_changes SET name = name WHERE organization_id = {OWN}");
    holder.execute_unprepared(&touch).await.unwrap();
    let url = database.url().to_owned();
    let migration = tokio::task::spawn_blocking(move || orgd(&url, "migrate"));
    let begin = Instant::now();
    let mut answers = Vec::new();
    // The step is tried several times.
    while begin.elapsed() < Duration::from_secs(4) {
        let body = format!(r#"{{"name": "Meanwhile {}"}}"#, answers.len());
        let answer = service.put(FOREIGN, ADMINISTRATOR, &body).send().await;
        answers.push((answer.status(), answer.text().to_owned()));
    }
    let waits = !migration.is_finished();
    holder.commit().await.unwrap();
    let migrated = migration.await.unwrap();
    assert!(waits, "it was over before the table was free");
    for (status, text) in &answers {
        assert_eq!(*status, 200, "{text}: {}", service.log());
    }
    assert_eq!(migrated.code, 0, "{}", migrated.stderr);
    assert!(migrated.stderr.contains("waits for a transaction"), "{}", migrated.stderr);
    assert!(!orgd(database.url(), "migrate status").stdout.contains("pending"));
    assert_eq!(database.changes(FOREIGN).await.len(), answers.len() + 1);
}

#[tokio::test]
async fn the_migrations_own_command_line_brings_the_schema_up() {
    const NAME: &str = "orgd-migrations";
    // With the features of dependencies that the tests were built with, so that the link alone is left.
    let build = [
        "build",
        "--profile=test",
        "--quiet",
        "--locked",
        "--workspace",
        "--examples",
        "--bin",
        NAME,
    ];
    let output = cargo().args(build).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let program = Path::new(env!("CARGO_BIN_EXE_orgd")).with_file_name(NAME);
    for database in Database::of_each_kind().await {
        let mut command = Command::new(&program);
        let output = command.arg("up").env("DATABASE_URL", database.url()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let status = orgd(database.url(), "migrate status");
        assert!(!status.stdout.contains("pending"), "{}", status.stdout);
        database.seed().await;
    }
}
