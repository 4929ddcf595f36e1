//! The schema: brought up to date by whoever comes, at once with others.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    thread,
};

use sea_orm::ConnectionTrait;

use crate::harness::{Database, orgd};

/// `reliability::upgrades` has more, of services, in its long form.
const ROUNDS: usize = 5;
const INSTANCES: usize = 4;

#[tokio::test]
async fn four_instances_at_once_on_an_empty_database_all_succeed() {
    for round in 0..ROUNDS {
        for database in [Database::sqlite(), Database::postgres().await] {
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

#[tokio::test]
async fn a_lease_is_waited_for_while_it_holds_and_taken_when_it_has_run_out() {
    for database in [Database::sqlite(), Database::postgres().await] {
        let connection = database.connect().await;
        let table = "CREATE TABLE migration_lease (id INTEGER PRIMARY KEY, owner TEXT NOT NULL, \
            expires_at_ms BIGINT NOT NULL)";
        connection.execute_unprepared(table).await.unwrap();
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

#[tokio::test]
async fn status_shows_what_is_pending_and_writes_nothing() {
    for database in [Database::sqlite(), Database::postgres().await] {
        for _ in 0..2 {
            let steps = orgd(database.url(), "migrate status --json").json();
            assert!(steps.as_array().unwrap().iter().all(|step| step["applied"] == false));
        }
        assert_eq!(orgd(database.url(), "migrate").code, 0);
        let status = orgd(database.url(), "migrate status");
        assert!(status.stdout.contains("applied") && !status.stdout.contains("pending"));
    }
}

#[tokio::test]
async fn the_migrations_own_command_line_brings_the_schema_up() {
    for database in [Database::sqlite(), Database::postgres().await] {
        let output = Command::new(env!("CARGO"))
            .args(["run", "--quiet", "--package", "orgd-migrations", "--features", "cli"])
            .args(["--", "up"])
            .env("DATABASE_URL", database.url())
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let status = orgd(database.url(), "migrate status");
        assert!(!status.stdout.contains("pending"), "{}", status.stdout);
        database.seed().await;
    }
}
