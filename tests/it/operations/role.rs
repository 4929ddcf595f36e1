//! `docs/OPERATIONS.md`, "The service's role": its SQL gives the service what it needs and nothing more, and the password
//! comes from a file.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
};

use tempfile::TempDir;

use crate::harness::{Cluster, SERVE, Service, binaries, orgd, orgd_with};

/// The block in this language below the heading.
fn block(language: &str) -> String {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/OPERATIONS.md");
    let page = fs::read_to_string(page).unwrap();
    let (_, section) = page.split_once("\n### The service's role\n").expect("the heading");
    let (_, rest) = section.split_once(&format!("```{language}\n")).expect("the block");
    rest.split_once("```").unwrap().0.to_owned()
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
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    // Everybody but the superuser has a password.
    let rules = folder.path().join("hba");
    write(&rules, "host all postgres all trust\nhost all all all scram-sha-256\n", 0o644);
    let cluster = Cluster::start(&[&format!("hba_file={}", rules.display())]);
    // The page lets a person type the passwords.
    let script = block("sql")
        .replace("\\password orgd_owner", "ALTER ROLE orgd_owner PASSWORD 'OwnersWord';")
        .replace("\\password orgd\n", "ALTER ROLE orgd PASSWORD 'ServicesWord';\n");
    let made = psql(&format!("{}/postgres", cluster.url), &script);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));

    let url_of = |user: &str| format!("{}/orgd", cluster.url.replacen("postgres@", user, 1));
    let migrated = orgd(&url_of("orgd_owner:OwnersWord@"), "migrate");
    assert_eq!(migrated.code, 0, "{}", migrated.stderr);

    // The password is in a file that libpq's tools read too.
    let passwords = folder.path().join("pgpass");
    write(&passwords, "*:*:orgd:orgd:ServicesWord\n", 0o600);
    let (url, file) = (url_of("orgd@"), passwords.to_str().unwrap());
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
        let refused = psql(&url_of("orgd:ServicesWord@"), statement);
        let said = String::from_utf8(refused.stderr).unwrap();
        let is_refused = said.contains("permission denied") || said.contains("must be owner");
        assert!(is_refused, "{statement}: {said}");
    }
    // Nor does anybody else reach the database.
    let script = "CREATE ROLE other LOGIN PASSWORD 'OthersWord'";
    assert!(psql(&format!("{}/postgres", cluster.url), script).status.success());
    let refused = psql(&url_of("other:OthersWord@"), "SELECT 1");
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("permission denied for database"), "{said}");
}
