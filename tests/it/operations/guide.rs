//! `docs/OPERATIONS.md`: its backups and restores are run as an operator would, and its commands,
//! settings and metrics are those of the binary; so are the commands and settings of `docs/DEPLOYMENT.md`.

use std::{fs, iter, path::Path, process::Command};

use tempfile::TempDir;

use crate::harness::{
    ADMINISTRATOR, Database, FOREIGN, OWN, Service, USER, binaries, on_both_databases, orgd,
    orgd_with,
};

/// Organizations beside the seeded ones: a backup takes long enough for writes to come between.
const ORGANIZATIONS: u32 = 20_000;

fn page() -> String {
    text("docs/OPERATIONS.md")
}

fn text(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The words after `orgd` in a line of a page, where it is a command of orgd's: with its variables before it, or in a
/// container.
fn words_of(line: &str) -> Option<Vec<String>> {
    let line = line.trim_start().strip_prefix("$ ")?;
    // What is quoted is one word.
    let parts = line.split('\'').enumerate();
    let line =
        parts.map(|(number, part)| part.replace(' ', if number % 2 == 0 { " " } else { "_" }));
    let line: String = line.collect();
    let words = line.split_whitespace().take_while(|word| !word.starts_with('#'));
    let mut words = words.skip_while(|word| word.starts_with("ORGD_"));
    match words.next()? {
        "orgd" => {}
        "kubectl" => {
            words.find(|word| *word == "/usr/local/bin/orgd")?;
        }
        // The word after it is the service of docker-compose.yml, whose image is orgd's.
        "docker" => {
            words.find(|word| *word == "--rm")?;
            words.next()?;
        }
        _ => return None,
    }
    // One of the shell's.
    Some(words.filter(|word| *word != "&").map(str::to_owned).collect())
}

/// The commands of a code block below a heading, the first of which has the number 0.
fn commands(heading: &str, number: usize) -> String {
    let page = page();
    let (_, section) = page.split_once(&format!("\n### {heading}\n")).expect("a heading");
    let block = section.split("```").skip(1).step_by(2).nth(number).expect("a code block");
    let lines: Vec<_> = block.lines().filter_map(|line| line.strip_prefix("$ ")).collect();
    assert!(!lines.is_empty(), "{heading} {number}: {block}");
    lines.join("\n")
}

/// Runs commands in a folder and answers what they print. All of them must succeed.
fn shell(commands: &str, folder: &Path, variable: (&str, &str)) -> String {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(iter::once(binaries()).chain(std::env::split_paths(&path)));
    let output = Command::new("sh")
        .args(["-euc", commands])
        .current_dir(folder)
        .env("PATH", path.unwrap())
        .env(variable.0, variable.1)
        .output()
        .unwrap();
    assert!(output.status.success(), "{commands}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The same, while one update after the other comes to the service.
async fn shell_while_writing(
    service: &Service,
    commands: String,
    folder: &Path,
    (name, value): (&'static str, &str),
) -> String {
    let (folder, value) = (folder.to_owned(), value.to_owned());
    let work =
        tokio::task::spawn_blocking(move || shell(&commands, &folder, (name, value.as_str())));
    let mut round = 0;
    while !work.is_finished() {
        round += 1;
        set_name(service, FOREIGN, &format!("Round {round}")).await;
    }
    work.await.unwrap()
}

async fn set_name(service: &Service, id: i64, name: &str) {
    let body = format!(r#"{{"name": "{name}"}}"#);
    let answer = service.put(id, ADMINISTRATOR, &body).send().await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
}

/// A service over many organizations.
async fn serve_many(database: Database) -> Service {
    database.seed().await;
    let date = format!("SELECT date_created FROM organizations WHERE id = {OWN}");
    let insert = format!(
        "INSERT INTO organizations (id, name, handshake_version, version, date_created, \
         date_modified) WITH RECURSIVE more (id) AS (SELECT 1000 UNION ALL SELECT id + 1 FROM more \
         WHERE id < 999 + {ORGANIZATIONS}) SELECT id, 'Organization ' || id, 0, 1, ({date}), \
         ({date}) FROM more"
    );
    database.execute(&insert).await;
    Service::start(database).await
}

/// Everything is as at one moment between "Before" and "After", and the service works with it.
async fn assert_restored(service: &Service) {
    let database = service.database();
    assert_eq!(database.name(OWN).await, "Before");
    for id in [OWN, FOREIGN] {
        let organization = database.organization(id).await;
        let changes = database.changes(id).await;
        let versions: Vec<_> = changes.iter().map(|change| change.version).collect();
        let expected: Vec<_> = (1..=organization.etag.version()).collect();
        assert_eq!(versions, expected, "a row and its change log are of one moment");
    }
    let answer = service.put(OWN, USER, r#"{"name": "Again"}"#).send().await;
    assert_eq!(answer.status(), 200, "a restored credential holds: {}", answer.text());
}

#[tokio::test]
async fn a_sqlite_backup_made_under_writes_is_restored_as_it_was() {
    let tool = Command::new("sqlite3").arg("--version").output();
    tool.expect("the tests need the command sqlite3: run `make test`, which installs it");
    let service = serve_many(Database::sqlite()).await;
    let database = service.shared_database();
    let file = database.url().strip_prefix("sqlite://").unwrap().strip_suffix("?mode=rwc").unwrap();
    assert!(file.ends_with("/orgd.db"), "{file}");
    let folder = Path::new(file).parent().unwrap();
    let url = ("ORGD_DATABASE_URL", database.url());

    set_name(&service, OWN, "Before").await;
    let back_up = commands("SQLite", 0);
    let printed = shell_while_writing(&service, back_up, folder, url).await;
    assert_eq!(printed.trim(), "ok", "of the integrity check");
    set_name(&service, OWN, "After").await;
    // Leaves a -wal behind, as a crash does.
    service.signal("KILL");
    service.ended().await;
    assert!(folder.join("orgd.db-wal").exists());

    shell(&commands("SQLite", 1), folder, url);
    assert_restored(&Service::start_beside(database.clone()).await).await;
}

#[tokio::test]
async fn a_postgresql_dump_made_under_writes_is_restored_as_it_was() {
    let service = serve_many(Database::postgres().await).await;
    let database = service.shared_database();
    let folder = TempDir::new().unwrap();

    set_name(&service, OWN, "Before").await;
    let url = ("ORGD_DATABASE_URL", database.url());
    shell_while_writing(&service, commands("PostgreSQL", 0), folder.path(), url).await;
    set_name(&service, OWN, "After").await;

    let new = Database::postgres().await;
    shell(&commands("PostgreSQL", 2), folder.path(), ("NEW_DATABASE_URL", new.url()));
    assert_restored(&Service::start(new).await).await;
    assert_eq!(database.name(OWN).await, "After", "the old one is left alone");
}

#[tokio::test]
async fn the_certificates_of_the_page_are_taken_by_service_and_commands() {
    let folder = TempDir::new().unwrap();
    shell(&commands("A CA of your own", 0), folder.path(), ("LC_ALL", "C"));
    let [cert, key, ca] = ["orgd.pem", "orgd.key", "ca.pem"]
        .map(|name| folder.path().join(name).display().to_string());
    let database = Database::sqlite();
    database.seed().await;
    let settings = [("ORGD_TLS_CERT", cert.as_str()), ("ORGD_TLS_KEY", key.as_str())];
    let service = Service::start_with(database.into(), &settings).await;
    for host in ["localhost", "127.0.0.1"] {
        let server = format!("https://{host}:{}", service.grpc_addr().port());
        let variables = [("ORGD_SERVER", server.as_str()), ("ORGD_SERVER_CA", &ca)];
        let listed =
            orgd_with(&[&variables[..], &[("ORGD_TOKEN", USER)]].concat(), "organization list");
        assert_eq!((listed.code, listed.stderr.as_str()), (0, ""), "{host}");
    }
}

#[test]
fn every_command_and_every_setting_of_the_page_is_one_of_the_binary() {
    let pages = ["docs/OPERATIONS.md", "docs/DEPLOYMENT.md", "README.md"].map(text);
    for (page, commands_min) in pages.iter().zip([10, 6, 7]) {
        let commands: Vec<_> = page.lines().filter_map(words_of).collect();
        assert!(commands.len() >= commands_min, "{commands:?}");
        for words in commands {
            // Whatever comes before --help is read first, and --help ends the command before it acts.
            let read = orgd("", &format!("{} --help", words.join(" ")));
            assert_eq!(read.code, 0, "{words:?}: {}", read.stderr);
        }
    }

    let settings = orgd("", "config --page").stdout;
    let of_no_name = |letter: char| !letter.is_ascii_uppercase() && letter != '_';
    let names = pages.iter().flat_map(|page| page.split(of_no_name));
    for name in names.filter(|word| word.starts_with("ORGD_")) {
        let is_there = settings.contains(&format!("| `{name}` |"));
        assert!(is_there, "{name} is no setting");
    }
}

#[tokio::test]
async fn every_metric_of_the_page_is_there() {
    let page = page();
    let prefixes = ["orgd_", "db_client_", "http_server_", "rpc_server_", "process_"];
    let names = page.split('`').skip(1).step_by(2);
    let names: Vec<_> =
        names.filter(|name| prefixes.iter().any(|prefix| name.starts_with(prefix))).collect();
    assert!(names.len() >= 10, "{names:?}");
    // Of a service without a certificate there is none to tell of: `listener::tls` looks at it.
    let needs_certificate = "orgd_tls_certificate_expiry_timestamp_seconds";
    assert!(names.contains(&needs_certificate));
    on_both_databases(async |service| {
        // What counts by code is there from the first answer on.
        set_name(&service, OWN, "Counted").await;
        let metrics = service.get_ops("/metrics").await;
        for name in names.iter().filter(|name| **name != needs_certificate) {
            let head = format!("# TYPE {name} ");
            assert!(metrics.text().contains(&head), "{name} on {}", service.database().kind());
        }
    })
    .await;
}
