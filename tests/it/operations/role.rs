//! `docs/OPERATIONS.md`, "The service's role" and what follows from it: its SQL gives the service what it needs and nothing
//! more, a restored database can be migrated, and passwords come from a file and are replaced.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
};

use tempfile::TempDir;

use crate::harness::{Cluster, SERVE, Service, binaries, orgd, orgd_with};

fn page() -> String {
    fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/OPERATIONS.md")).unwrap()
}

/// The SQL below the heading, each block by itself.
fn blocks(heading: &str) -> Vec<String> {
    let page = page();
    let (_, section) = page.split_once(&format!("\n### {heading}\n")).expect("the heading");
    let section = section.split("\n## ").next().unwrap().split("\n### ").next().unwrap();
    let blocks = section.split("```sql\n").skip(1);
    blocks.map(|block| block.split_once("```").unwrap().0.to_owned()).collect()
}

/// The page lets a person type the passwords.
fn with_passwords(script: &str) -> String {
    script
        .replace("\\password orgd_owner\n", "ALTER ROLE orgd_owner PASSWORD 'OwnersWord';\n")
        .replace("\\password orgd\n", "ALTER ROLE orgd PASSWORD 'ServicesWord';\n")
}

/// A cluster on which everybody but the superuser has a password.
fn cluster_with_passwords(folder: &Path) -> Cluster {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    let rules = folder.join("hba");
    write(&rules, "host all postgres all trust\nhost all all all scram-sha-256\n", 0o644);
    Cluster::start(&[&format!("hba_file={}", rules.display())])
}

/// Has run the page's SQL and `orgd migrate`.
fn set_up(cluster: &Cluster) {
    let script = with_passwords(&blocks("The service's role").concat());
    run(&format!("{}/postgres", cluster.url), &script);
    let migrated = orgd(&url_of(cluster, "orgd_owner:OwnersWord", "orgd"), "migrate");
    assert_eq!(migrated.code, 0, "{}", migrated.stderr);
}

fn url_of(cluster: &Cluster, user: &str, database: &str) -> String {
    format!("{}/{database}", cluster.url.replacen("//postgres@", &format!("//{user}@"), 1))
}

/// The same, which must succeed.
fn run(url: &str, script: &str) {
    let done = psql(url, script);
    assert!(done.status.success(), "{script}: {}", String::from_utf8_lossy(&done.stderr));
}

/// What psql says to a script.
fn psql(url: &str, script: &str) -> std::process::Output {
    let mut psql = Command::new(binaries().join("psql"))
        .args(["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--dbname", url])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut psql.stdin.take().unwrap(), script.as_bytes()).unwrap();
    psql.wait_with_output().unwrap()
}

fn write(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[tokio::test]
async fn the_pages_sql_gives_the_service_what_it_needs_and_no_more() {
    let folder = TempDir::new().unwrap();
    let cluster = cluster_with_passwords(folder.path());
    set_up(&cluster);
    let url_of = |user: &str| url_of(&cluster, user, "orgd");

    // The password is in a file that libpq's tools read too.
    let passwords = folder.path().join("pgpass");
    write(&passwords, "*:*:orgd:orgd:ServicesWord\n", 0o600);
    let (url, file) = (url_of("orgd"), passwords.to_str().unwrap());
    let environment = [("ORGD_DATABASE_URL", url.as_str()), ("PGPASSFILE", file)];
    let issued = orgd_with(&environment, "credential issue --role administrator --subject ada");
    assert_eq!(issued.code, 0, "{}", issued.stderr);
    let words = "database create-organization --id 90 --name Before";
    let created = orgd_with(&environment, words);
    assert_eq!(created.code, 0, "{}", created.stderr);
    let service = Service::spawn(&SERVE, &environment);
    service.until_ready().await;
    let answer = service.put(90, issued.stdout.trim(), r#"{"name": "After"}"#).send().await;
    assert_eq!(answer.status(), 200, "{}", answer.text());

    for statement in [
        "DELETE FROM organizations",
        "TRUNCATE organization_changes",
        "DROP TABLE credentials",
        "CREATE TABLE more (id INT)",
        "ALTER TABLE organizations ADD COLUMN more INT",
    ] {
        let refused = psql(&url_of("orgd:ServicesWord"), statement);
        let said = String::from_utf8(refused.stderr).unwrap();
        let is_refused = said.contains("permission denied") || said.contains("must be owner");
        assert!(is_refused, "{statement}: {said}");
    }
    // Nor does anybody else reach the database.
    let script = "CREATE ROLE other LOGIN PASSWORD 'OthersWord'";
    assert!(psql(&format!("{}/postgres", cluster.url), script).status.success());
    let refused = psql(&url_of("other:OthersWord"), "SELECT 1");
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("permission denied for database"), "{said}");
}

/// psql takes a pasted block as one line: what follows a command of its own would be that command's.
#[test]
fn the_sql_can_be_pasted() {
    let blocks = blocks("The service's role");
    assert_eq!(blocks.len(), 3);
    for block in &blocks[..2] {
        let (before, _) = block.trim_end().rsplit_once('\n').unwrap();
        assert!(!before.contains('\\'), "{block}");
    }
    assert!(blocks[2].lines().all(|line| line.starts_with("\\password ")), "{}", blocks[2]);
}

#[tokio::test]
async fn a_restored_database_is_the_owners_and_the_service_can_run_on_it() {
    let folder = TempDir::new().unwrap();
    let cluster = cluster_with_passwords(folder.path());
    set_up(&cluster);
    let [old, new] =
        ["orgd", "orgd_new"].map(|name| url_of(&cluster, "orgd_owner:OwnersWord", name));
    let issued = orgd(&old, "credential issue --role support --subject kept");
    assert_eq!(issued.code, 0, "{}", issued.stderr);
    let dump = folder.path().join("orgd.dump").display().to_string();
    let tool = |name: &str, words: &[&str]| {
        let output = Command::new(binaries().join(name)).args(words).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    tool("pg_dump", &["--format=custom", &format!("--file={dump}"), &old]);
    run(&format!("{}/postgres", cluster.url), &blocks("PostgreSQL").concat());
    let words = ["--single-transaction", "--no-owner", &format!("--dbname={new}"), &dump];
    assert!(page().contains("pg_restore --single-transaction --no-owner --dbname="));
    tool("pg_restore", &words);

    let service = url_of(&cluster, "orgd:ServicesWord", "orgd_new");
    let listed = orgd(&service, "credential list");
    assert!(listed.stdout.contains(" kept "), "{} {}", listed.stdout, listed.stderr);
    assert_eq!(orgd(&service, "database check").code, 0);
    // As the steps of the next release would.
    run(&new, "ALTER TABLE organizations ADD COLUMN more INT; CREATE TABLE later (id INT)");
    run(&service, "INSERT INTO later VALUES (1)");
    let refused = psql(&service, "DELETE FROM organizations");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("permission denied"));
    // Nor does anybody else reach it.
    run(&format!("{}/postgres", cluster.url), "CREATE ROLE other LOGIN PASSWORD 'OthersWord'");
    let refused = psql(&url_of(&cluster, "other:OthersWord", "orgd_new"), "SELECT 1");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("permission denied for database"));
}

#[tokio::test]
async fn a_second_role_has_the_rights_of_the_first_and_can_be_dropped() {
    let folder = TempDir::new().unwrap();
    let cluster = cluster_with_passwords(folder.path());
    set_up(&cluster);
    let page = page();
    let statement = |text: &'static str| {
        assert!(page.contains(&format!("`{text}`")), "{text}");
        text
    };
    let superuser = format!("{}/postgres", cluster.url);
    run(&superuser, statement("CREATE ROLE orgd_b LOGIN IN ROLE orgd;"));
    run(&superuser, "ALTER ROLE orgd_b PASSWORD 'NextWord'");
    run(&superuser, statement("ALTER ROLE orgd NOLOGIN;"));
    let first = orgd(&url_of(&cluster, "orgd:ServicesWord", "orgd"), "credential list");
    assert!(first.stderr.contains("not permitted to log in"), "{}", first.stderr);
    let second = url_of(&cluster, "orgd_b:NextWord", "orgd");
    let checked = orgd(&second, "database check");
    assert_eq!(checked.code, 0, "{} {}", checked.stdout, checked.stderr);
    let issued = orgd(&second, "credential issue --role support");
    assert_eq!(issued.code, 0, "{}", issued.stderr);
    run(&superuser, statement("DROP ROLE orgd_b;"));
}
