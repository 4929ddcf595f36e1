//! Which databases a URL may name, and how they are reached.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    process,
};

use sea_orm::ConnectionTrait;
use tempfile::TempDir;

use crate::harness::{ADMINISTRATOR, Cluster, Database, OWN, Service, orgd};

/// Every way in which a command comes to the database.
const COMMANDS: [&str; 5] = [
    "serve --grpc-addr 127.0.0.1:0 --http-addr 127.0.0.1:0 --ops-addr 127.0.0.1:0",
    "migrate",
    "migrate status",
    "credential list",
    "database get-organization 90",
];

/// Holds that an error is one line with this place and this cause, each of them once.
fn assert_told(stderr: &str, place: &str, cause: &str) {
    let errors: Vec<_> = stderr.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(errors.len(), 1, "{stderr}");
    for words in [place, cause] {
        assert_eq!(errors[0].matches(words).count(), 1, "{words}: {stderr}");
    }
    for noise in ["hunter2", "Error:", "pool timed out", "os error", "error returned from"] {
        assert!(!stderr.contains(noise), "{noise}: {stderr}");
    }
}

#[tokio::test]
async fn who_cannot_connect_is_told_the_first_cause_once() {
    let cluster = Cluster::start(&["max_connections=50"]);
    let admin = sea_orm::Database::connect(format!("{}/postgres", cluster.url)).await.unwrap();
    let by_password = "COPY (SELECT 'host all weak all scram-sha-256' UNION ALL \
        SELECT 'host all postgres all trust') TO ";
    let hba = admin.query_one_raw(sea_orm::Statement::from_string(
        admin.get_database_backend(),
        "SELECT current_setting('hba_file') AS file",
    ));
    let hba: String = hba.await.unwrap().unwrap().try_get("", "file").unwrap();
    for statement in [
        "CREATE ROLE weak LOGIN PASSWORD 'right'".to_owned(),
        format!("{by_password}'{hba}'"),
        "SELECT pg_reload_conf()".to_owned(),
    ] {
        admin.execute_unprepared(&statement).await.unwrap();
    }
    let server = cluster.url.rsplit('@').next().unwrap();
    for (url, place, cause) in [
        (
            "postgres://weak:hunter2@127.0.0.1:1/none".to_owned(),
            "cannot connect to the database: PostgreSQL at 127.0.0.1:1, database none: ",
            "connection refused",
        ),
        (
            format!("postgres://weak:hunter2@{server}/postgres"),
            &format!("PostgreSQL at {server}, database postgres: "),
            "password authentication failed for user \"weak\"; the password is that of the URL, else PGPASSWORD, else ",
        ),
        (
            format!("postgres://postgres:hunter2@{server}/absent"),
            &format!("PostgreSQL at {server}, database absent: "),
            "database \"absent\" does not exist",
        ),
        (
            "postgres://weak:hunter2@nowhere.invalid/orgd".to_owned(),
            "PostgreSQL at nowhere.invalid:5432, database orgd: ",
            "failed to lookup address information",
        ),
    ] {
        for words in COMMANDS {
            let refused = orgd(&url, words);
            assert_eq!(refused.code, 1, "{words}: {}", refused.stderr);
            assert_told(&refused.stderr, place, cause);
        }
    }
}

#[tokio::test]
async fn a_role_without_rights_is_told_the_statement_that_grants_them() {
    const ALL: &str = "GRANT SELECT, INSERT, UPDATE ON organizations, organization_changes, \
        organization_ids, credentials, seaql_migrations TO \"the-service\";";
    let cluster = Cluster::start(&["max_connections=50"]);
    let database = Database::postgres_at(&cluster.url, "granted").await;
    database.execute("CREATE ROLE \"the-service\" LOGIN PASSWORD 'hunter2'").await;
    let url = database.url().replacen("postgres@", "the-service:hunter2@", 1);
    let place = format!("PostgreSQL at {}, database granted: ", database.addr());
    // Nothing is there, and the role may make nothing.
    let refused = orgd(&url, "migrate");
    assert_told(
        &refused.stderr,
        &place,
        "permission denied for schema public; let the role that owns the tables run `orgd migrate`, then GRANT USAGE ON \
         SCHEMA public TO \"the-service\"; GRANT SELECT,",
    );
    database.seed().await;
    for words in COMMANDS {
        let refused = orgd(&url, words);
        assert_eq!(refused.code, 1, "{words}: {}", refused.stderr);
        let cause = format!("permission denied for table seaql_migrations; {ALL}");
        assert_told(&refused.stderr, &place, &cause);
    }
    // What the sentence says is enough, but for a table that is taken away again.
    database.execute(ALL).await;
    database.execute("REVOKE UPDATE ON organizations FROM \"the-service\"").await;
    let serve = COMMANDS[0].split(' ').collect::<Vec<_>>();
    let service = Service::spawn(&serve, &[("ORGD_DATABASE_URL", &url)]);
    let name = r#"{"name": "Not granted"}"#;
    let granted = "permission denied for table organizations; GRANT SELECT, INSERT, UPDATE ON \
        organizations TO ";
    service.until_logged("listening").await;
    assert_eq!(service.put(OWN, ADMINISTRATOR, name).send().await.status(), 500);
    service.until_logged(granted).await;
    database.execute("GRANT UPDATE ON organizations TO \"the-service\"").await;
    assert_eq!(service.put(OWN, ADMINISTRATOR, name).send().await.status(), 200);
    service.until_ready().await;
    // The probe has the whole sentence, with the role.
    database.execute("REVOKE SELECT ON organizations FROM \"the-service\"").await;
    let told = format!(
        "{place}permission denied for table organizations; GRANT SELECT, INSERT, UPDATE ON \
         organizations TO \\\"the-service\\\";"
    );
    service.until_logged(&told).await;
}

/// Runs a command as a user without rights to the files of others, which root would have.
fn orgd_as_nobody(url: &str, words: &str) -> process::Output {
    let binary = env!("CARGO_BIN_EXE_orgd");
    let is_root = fs::metadata("/proc/self").is_ok_and(|process| {
        use std::os::unix::fs::MetadataExt;
        process.uid() == 0
    });
    let wrapper = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", binary];
    let command = if is_root { &wrapper[..] } else { &wrapper[4..] };
    let mut process = process::Command::new(command[0]);
    process.args(&command[1..]).args(words.split(' ')).env("ORGD_DATABASE_URL", url);
    process.output().unwrap()
}

#[tokio::test]
async fn who_cannot_open_a_file_is_told_why() {
    let folder = TempDir::new().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    fs::create_dir(path("folder.db")).unwrap();
    fs::write(path("file"), "").unwrap();
    let made = format!("sqlite://{}?mode=rwc", path("orgd.db"));
    assert_eq!(orgd(&made, "migrate").code, 0);
    for (name, cause) in [
        ("none/orgd.db", format!("the folder {} does not exist", path("none"))),
        ("file/orgd.db", format!("{} is no folder", path("file"))),
        ("folder.db", "it is a folder".to_owned()),
    ] {
        let refused = orgd(&format!("sqlite://{}?mode=rwc", path(name)), "migrate");
        assert_eq!(refused.code, 1, "{}", refused.stderr);
        let place = format!("SQLite in {}: ", path(name));
        assert_told(&refused.stderr, &place, &cause);
    }
    let bare = format!("sqlite://{}", path("absent.db"));
    for words in ["migrate", COMMANDS[0]] {
        let refused = orgd(&bare, words);
        assert_eq!(refused.code, 1, "{}", refused.stderr);
        let place = format!("SQLite in {}: ", path("absent.db"));
        let cause = "there is no such file; end the URL with ?mode=rwc to make it";
        assert_told(&refused.stderr, &place, cause);
    }
    for (mode, words, cause) in [
        (0o000, "credential list", "the file cannot be read: permission denied"),
        (0o444, "migrate", "the file cannot be written: permission denied"),
        (0o666, "migrate", "no file can be made in the folder"),
    ] {
        fs::set_permissions(path("orgd.db"), Permissions::from_mode(mode)).unwrap();
        let refused = orgd_as_nobody(&made, words);
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        let place = format!("SQLite in {}: ", path("orgd.db"));
        assert_told(&String::from_utf8(refused.stderr).unwrap(), &place, cause);
    }
}

#[tokio::test]
async fn a_server_is_reached_by_its_address_of_ipv6() {
    let cluster = Cluster::start(&["max_connections=50", "listen_addresses=127.0.0.1,::1"]);
    let [bracketed, named] =
        ["[::1]", "localhost"].map(|host| cluster.url.replace("127.0.0.1", host));
    let database = Database::postgres_at(&cluster.url, "ipv6").await;
    database.seed().await;
    let port = cluster.url.rsplit(':').next().unwrap();
    let parameters = format!("postgres://postgres@localhost/ipv6?host=[::1]&port={port}");
    for url in [format!("{bracketed}/ipv6"), format!("{named}/ipv6"), parameters] {
        for words in ["migrate", "database get-organization 90"] {
            let done = orgd(&url, words);
            assert_eq!(done.code, 0, "{url} {words}: {}", done.stderr);
        }
        // Over the connections of workers, too.
        let serve = ["serve", "--grpc-addr", "[::1]:0", "--http-addr", "[::1]:0"];
        let service = Service::spawn(
            &[&serve[..], &["--ops-addr", "127.0.0.1:0"]].concat(),
            &[("ORGD_DATABASE_URL", &url)],
        );
        service.until_ready().await;
        let answer = service.put(OWN, ADMINISTRATOR, r#"{"name": "By IPv6"}"#).send().await;
        assert_eq!(answer.status(), 200, "{url}");
    }
}

#[tokio::test]
async fn a_database_that_cannot_keep_every_text_is_refused_at_the_start() {
    let cluster = Cluster::start(&["max_connections=50"]);
    let admin = sea_orm::Database::connect(format!("{}/postgres", cluster.url)).await.unwrap();
    for encoding in ["SQL_ASCII", "LATIN1", "EUC_JP"] {
        let name = encoding.to_lowercase();
        let create = format!("CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0");
        admin.execute_unprepared(&create).await.unwrap();
        let url = format!("{}/{name}", cluster.url);
        for words in [
            "serve --grpc-addr 127.0.0.1:0 --http-addr 127.0.0.1:0 --ops-addr 127.0.0.1:0",
            "migrate",
            "credential list",
        ] {
            let refused = orgd(&url, words);
            assert_eq!(refused.code, 1, "{encoding} {words}");
            let told = "the encoding of the database is not UTF8";
            assert!(refused.stderr.contains(told), "{encoding} {words}: {}", refused.stderr);
        }
    }
}
