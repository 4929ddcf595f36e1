//! Promise 3: the files of SQLite, which grow, and which somebody may remove or replace.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use sea_orm::{ConnectionTrait, DatabaseConnection, TransactionTrait};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

use crate::harness::{ADMINISTRATOR, Database, OWN, PATIENCE, Service, orgd};

const MEBIBYTE: u64 = 1 << 20;

async fn status(service: &Service, method: &str, path: &str, body: &str) -> u16 {
    let request = service.request(method, path).header("content-type", "application/json");
    let request = request.bearer(ADMINISTRATOR);
    request.body(body.to_owned()).send().await.status()
}

async fn put(service: &Service, name: &str) -> u16 {
    let body = format!(r#"{{"name": "{name}"}}"#);
    status(service, "PUT", &format!("/v1/organizations/{OWN}"), &body).await
}

async fn until_ready(service: &Service, is_ready: bool) {
    let wanted = if is_ready { 200 } else { 503 };
    let becoming = async {
        while service.get_ops("/readyz").await.status() != wanted {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, becoming).await.unwrap_or_else(|_| panic!("/readyz becomes {wanted}"));
}

async fn execute(connection: &DatabaseConnection, statement: &str) {
    connection.execute_unprepared(statement).await.unwrap();
}

#[tokio::test]
async fn the_log_of_sqlite_shrinks_once_its_last_reader_has_gone() {
    let folder = TempDir::new().unwrap();
    let database = Database::sqlite_in(folder.path());
    database.seed().await;
    let service = Service::start(database).await;
    let connection = service.database().connect().await;
    let log = || fs::metadata(folder.path().join("orgd.db-wal")).unwrap().len();

    let reader = service.database().connect().await.begin().await.unwrap();
    reader.execute_unprepared("SELECT id FROM organizations").await.unwrap();
    execute(&connection, "CREATE TABLE filler (bytes BLOB)").await;
    for _ in 0..32 {
        execute(&connection, "INSERT INTO filler VALUES (randomblob(1048576))").await;
    }
    assert_eq!(put(&service, "While somebody reads").await, 200);
    assert!(log() > 32 * MEBIBYTE, "a reader keeps it");
    reader.rollback().await.unwrap();
    for number in 0.. {
        assert_eq!(put(&service, &format!("After {number}")).await, 200);
        if log() <= 8 * MEBIBYTE {
            break;
        }
        assert!(number < 20, "the log has {} bytes", log());
    }
}

/// What happens to the files, and how it is undone where it can be.
struct Mishap {
    name: &'static str,
    happens: fn(&Path),
    is_undone: Option<fn(&Path)>,
}

fn file(folder: &Path, suffix: &str) -> PathBuf {
    folder.join(format!("orgd.db{suffix}"))
}

fn move_back(folder: &Path, suffix: &str) {
    fs::rename(folder.join("aside"), file(folder, suffix)).unwrap();
}

fn move_away(folder: &Path, suffix: &str) {
    fs::rename(file(folder, suffix), folder.join("aside")).unwrap();
}

const MISHAPS: [Mishap; 8] = [
    Mishap {
        name: "the database is moved away and back",
        happens: |folder| move_away(folder, ""),
        is_undone: Some(|folder| move_back(folder, "")),
    },
    Mishap {
        name: "the log is moved away and back",
        happens: |folder| move_away(folder, "-wal"),
        is_undone: Some(|folder| move_back(folder, "-wal")),
    },
    Mishap {
        name: "another database is in its place for a while",
        happens: |folder| {
            move_away(folder, "");
            fs::copy(folder.join("aside"), file(folder, "")).unwrap();
        },
        is_undone: Some(|folder| move_back(folder, "")),
    },
    Mishap {
        name: "the database is replaced by a copy",
        happens: |folder| {
            fs::copy(file(folder, ""), folder.join("copy")).unwrap();
            fs::rename(folder.join("copy"), file(folder, "")).unwrap();
        },
        is_undone: None,
    },
    Mishap {
        name: "the database is removed",
        happens: |folder| fs::remove_file(file(folder, "")).unwrap(),
        is_undone: None,
    },
    Mishap {
        name: "the log is removed",
        happens: |folder| fs::remove_file(file(folder, "-wal")).unwrap(),
        is_undone: None,
    },
    Mishap {
        name: "the log's index is removed",
        happens: |folder| fs::remove_file(file(folder, "-shm")).unwrap(),
        is_undone: None,
    },
    Mishap {
        name: "all of them are removed",
        happens: |folder| {
            for suffix in ["", "-wal", "-shm"] {
                fs::remove_file(file(folder, suffix)).unwrap();
            }
        },
        is_undone: None,
    },
];

#[tokio::test]
async fn files_that_are_removed_or_replaced_are_noticed_before_anything_is_acknowledged() {
    for Mishap { name, happens, is_undone } in MISHAPS {
        eprintln!("{name}");
        let folder = TempDir::new().unwrap();
        let database = Database::sqlite_in(folder.path());
        database.seed().await;
        let settings = [("ORGD_AUTH_CACHE_TTL", "60s")];
        let service = Service::start_with(Arc::new(database), &settings).await;
        assert_eq!(put(&service, "Before").await, 200, "{name}");

        happens(folder.path());
        for _ in 0..3 {
            assert_eq!(put(&service, "Lost").await, 503, "{name}");
            let lists = status(&service, "GET", "/v1/organizations", "").await;
            let get = status(&service, "GET", "/v1/organizations/90", "").await;
            let post = status(&service, "POST", "/v1/organizations", r#"{"name": "Lost"}"#).await;
            assert_eq!((lists, get, post), (503, 503, 503), "{name}");
        }
        until_ready(&service, false).await;
        service.until_logged("was removed or replaced while the service has it open").await;
        let Some(is_undone) = is_undone else { continue };
        is_undone(folder.path());
        until_ready(&service, true).await;
        service.until_logged("the database's files are back").await;
        assert_eq!(service.database().name(OWN).await, "Before", "{name}");
        for number in 0..10 {
            let name = format!("After {number}");
            assert_eq!(put(&service, &name).await, 200);
            assert_eq!(service.database().name(OWN).await, name);
        }
    }
}

/// Without a call: the service notices by itself.
#[tokio::test]
async fn a_removed_file_is_noticed_without_a_call() {
    let folder = TempDir::new().unwrap();
    let database = Database::sqlite_in(folder.path());
    database.seed().await;
    let service = Service::start(database).await;
    fs::remove_file(folder.path().join("orgd.db")).unwrap();
    until_ready(&service, false).await;
    assert!(service.log().contains("stop the service first"), "{}", service.log());
}

#[tokio::test]
async fn legitimate_changes_to_a_database_file_in_use_do_not_stop_the_service() {
    let folder = TempDir::new().unwrap();
    let database = Arc::new(Database::sqlite_in(folder.path()));
    database.seed().await;
    let service = Service::start_beside(database.clone()).await;
    for round in 0..2 {
        let connection = database.connect().await;
        let backup = folder.path().join(format!("backup-{round}.db"));
        let backup = format!("VACUUM INTO '{}'", backup.display());
        let statements =
            [&backup, "PRAGMA wal_checkpoint(TRUNCATE)", "VACUUM", "PRAGMA integrity_check"];
        for statement in statements {
            execute(&connection, statement).await;
            assert_eq!(put(&service, statement.get(..6).unwrap()).await, 200, "{statement}");
        }
        connection.close().await.unwrap();
        assert_eq!(put(&service, "Closed").await, 200);
        for words in ["database get-organization 90", "credential list", "migrate"] {
            assert_eq!(orgd(database.url(), words).code, 0, "{words}");
            assert_eq!(put(&service, words).await, 200, "{words}");
        }
        let other = Service::start_beside(database.clone()).await;
        assert_eq!(put(&other, "By another").await, 200);
        other.signal("TERM");
        assert!(other.ended().await.success());
        assert_eq!(put(&service, "Alone again").await, 200);
    }
    until_ready(&service, true).await;
    assert!(!service.log().contains("removed or replaced"), "{}", service.log());
}
