//! The schema: brought up to date by whoever comes, at once with others.

use std::thread;

use crate::harness::{Database, orgd};

const ROUNDS: usize = 20;
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
        let output = std::process::Command::new(env!("CARGO"))
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
