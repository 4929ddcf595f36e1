//! Commands that work on the database.

use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

use crate::harness::{
    ADMINISTRATOR, Command, Database, OWN, PATIENCE, Service, USER, ending_soon, on_both_databases,
    on_both_databases_with, orgd, orgd_to, orgd_with, orgd_with_input,
};

/// More than the time after which the service writes when credentials were used.
const WRITTEN: Duration = Duration::from_secs(6);

#[tokio::test]
async fn organizations_are_created_and_shown() {
    for database in Database::of_each_kind().await {
        let url = database.url();
        let first = orgd(url, "database create-organization --id 90 --name First --json").json();
        assert_eq!(
            (&first["id"], &first["name"], &first["etag"]),
            (&90.into(), &"First".into(), &"\"1\"".into())
        );
        let next =
            orgd(url, "database create-organization --name Next --subscription-id s --json").json();
        assert_eq!((&next["id"], &next["subscriptionId"]), (&91.into(), &"s".into()));
        assert_eq!(orgd(url, "database get-organization 91 --json").json(), next);
        assert!(orgd(url, "database get-organization 91").stdout.contains("Next"));

        for (words, sentence) in [
            (
                "database create-organization --id 90 --name Twice",
                "error: Organization 90 exists already. (ORGANIZATION_ALREADY_EXISTS)",
            ),
            (
                "database get-organization 92",
                "error: Organization 92 does not exist. (ORGANIZATION_NOT_FOUND)",
            ),
            ("database get-organization 0", "an id is a number from 1 to 9007199254740991"),
            (
                "database create-organization --name \t",
                "error: name must not be empty or blank. (FIELD_BLANK)",
            ),
        ] {
            let refused = orgd(url, words);
            assert_ne!(refused.code, 0, "{words}");
            assert!(refused.stderr.contains(sentence), "{words}: {}", refused.stderr);
        }
    }
}

#[tokio::test]
async fn an_issued_credential_works_until_it_is_revoked() {
    on_both_databases(async |service| {
        for words in [
            "credential issue --role user --organization 90",
            "credential issue --role user --organization 90 --kind api-key",
            "credential issue --role support --expires-in 30d",
        ] {
            let issued = orgd(service.database().url(), &format!("{words} --json")).json();
            let (id, secret) = (text(&issued["id"]), text(&issued["secret"]));
            let put = || service.put(OWN, secret, r#"{"name": "Issued"}"#);
            assert_eq!(put().send().await.status(), 200, "{words}");

            let listed = orgd(service.database().url(), "credential list --json");
            assert!(!listed.stdout.contains(secret), "no secret in a list");
            assert_eq!(state(&listed.json(), id), "valid");

            let revoke = format!("credential revoke {}", id.split_at(12).0);
            let audited =
                [("ORGD_DATABASE_URL", service.database().url()), ("ORGD_LOG", "orgd::audit=info")];
            let revoked = orgd_with(&audited, &revoke);
            assert_eq!(revoked.code, 0);
            let events = |command: &Command| command.stderr.matches("credential.revoke").count();
            assert_eq!(events(&revoked), 1);
            let again = orgd_with(&audited, &revoke);
            assert_eq!((again.code, &again.stdout), (0, &revoked.stdout), "as the first time");
            assert_eq!(events(&again), 0, "nothing was done: {}", again.stderr);
            assert!(
                revoked.stderr.contains(again.stderr.trim()),
                "as the first time: {}",
                again.stderr
            );
            assert_eq!(put().send().await.status(), 401, "{words}");
            let listed = orgd(service.database().url(), "credential list --json").json();
            assert_eq!(state(&listed, id), "revoked");
            assert!(!service.log().contains(secret), "no secret in the log");
        }
    })
    .await;
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn state<'a>(list: &'a Value, id: &str) -> &'a str {
    let listed = list.as_array().unwrap().iter().find(|credential| credential["id"] == id);
    text(&listed.unwrap()["state"])
}

/// When a credential was used last, by `orgd credential list`.
fn last_used(database: &Database, subject: &str) -> Option<String> {
    let listed = orgd(database.url(), "credential list --json").json();
    let listed = listed.as_array().unwrap().iter().find(|one| one["subject"] == subject);
    listed.unwrap()["lastUsedAt"].as_str().map(ToOwned::to_owned)
}

#[tokio::test]
async fn a_list_of_credentials_says_when_each_was_used_last() {
    for ttl in ["0s", "5s"] {
        let settings = [("ORGD_AUTH_CACHE_TTL", ttl)];
        on_both_databases_with(&settings, async |service| {
            let database = service.database();
            let table = orgd(database.url(), "credential list").stdout;
            assert!(
                table.lines().next().unwrap().contains("EXPIRES  LAST USED  STATE  DESCRIPTION"),
                "{table}"
            );
            assert_eq!(last_used(database, "test-user"), None);
            // A write that fails harms no request, and is done once it can be.
            let (forbid, allow) = if database.is_sqlite() {
                (
                    "CREATE TRIGGER forbid BEFORE UPDATE OF last_used_time ON credentials \
                     BEGIN SELECT RAISE(ABORT, 'forbidden'); END",
                    "DROP TRIGGER forbid",
                )
            } else {
                (
                    "ALTER TABLE credentials ADD CONSTRAINT forbid CHECK (last_used_time IS NULL)",
                    "ALTER TABLE credentials DROP CONSTRAINT forbid",
                )
            };
            let put = async || service.put(OWN, USER, "{}").send().await.status();
            database.execute(forbid).await;
            assert_eq!(put().await, 200);
            sleep(WRITTEN).await;
            assert_eq!((put().await, last_used(database, "test-user")), (200, None));
            assert_eq!(service.get_ops("/readyz").await.status(), 200);
            database.execute(allow).await;
            let noted = timeout(PATIENCE, async {
                loop {
                    if let Some(noted) = last_used(database, "test-user") {
                        return noted;
                    }
                    sleep(Duration::from_millis(200)).await;
                }
            });
            let noted = noted.await.expect("it is written");
            let table = orgd(database.url(), "credential list").stdout;
            assert!(table.contains(&noted), "{table}");
            // Once a minute at most, and never by what was refused.
            sleep(WRITTEN).await;
            assert_eq!(put().await, 200);
            sleep(WRITTEN).await;
            assert_eq!(last_used(database, "test-user").as_ref(), Some(&noted));
            assert_eq!(last_used(database, "test-support"), None);
            // Of several instances the latest wins.
            let later = "2100-01-01 00:00:00+00:00";
            let set = format!("UPDATE credentials SET last_used_time = '{later}'");
            database.execute(&set).await;
            let request = service.request("GET", "/v1/organizations/90").bearer(ADMINISTRATOR);
            assert_eq!(request.send().await.status(), 200);
            sleep(WRITTEN).await;
            let kept = last_used(database, "test-administrator").unwrap();
            assert!(kept.starts_with("2100-01-01T00:00:00"), "{kept}");
        })
        .await;
    }
}

#[tokio::test]
async fn an_expired_credential_is_refused() {
    on_both_databases(async |service| {
        let (url, words) = (service.database().url(), "--role user --organization 90 --subject it");
        let put = async |secret: &str| service.put(OWN, secret, "{}").send().await.status();
        let (secret, _, before) = ending_soon(url, words, put).await;
        assert_eq!(before, 200);
        let expired = async {
            while put(&secret).await != 401 {
                sleep(Duration::from_millis(100)).await;
            }
        };
        timeout(Duration::from_secs(30), expired).await.unwrap();
        let listed = orgd(url, "credential list --json").json();
        let its = listed.as_array().unwrap().iter().filter(|one| one["subject"] == "it");
        assert!(its.clone().count() > 0 && its.clone().all(|one| one["state"] == "expired"));
    })
    .await;
}

#[tokio::test]
async fn a_secret_is_imported_from_standard_input_alone() {
    for database in Database::of_each_kind().await {
        let url = database.url();
        assert_eq!(orgd(url, "database create-organization --id 90 --name Own").code, 0);
        let import = "credential issue --role user --organization 90 --secret-stdin";
        let imported = orgd_with_input(url, import, &format!("{USER}\n"));
        assert_eq!(imported.code, 0, "{}", imported.stderr);
        assert!(!imported.stdout.contains(USER), "not shown: who imports it has it");

        for (words, input, sentence) in [
            (import.to_owned(), USER.to_owned(), "are not used again. (CREDENTIAL_ALREADY_EXISTS)"),
            (import.to_owned(), USER.to_uppercase(), "holds no secret of kind bearer"),
            (
                format!("{import} --kind api-key"),
                format!("orgd_{}", "0".repeat(47) + "1"),
                "the API key's checksum is wrong",
            ),
            (
                format!("{import} --kind api-key"),
                USER.to_owned(),
                "holds no secret of kind api-key",
            ),
            (import.replace("90", "91"), other_token(), "Organization 91 does not exist."),
            (
                "credential issue --role support --organization 90".to_owned(),
                String::new(),
                "the other roles to none. (FIELD_REQUIRED)",
            ),
            ("credential issue --role user".to_owned(), String::new(), "--organization"),
            (
                "credential revoke 00000000".to_owned(),
                String::new(),
                "error: No credential has an id that begins with \"00000000\". (CREDENTIAL_NOT_FOUND)\n",
            ),
            ("credential revoke xyz".to_owned(), String::new(), "An id is 8 to 64 digits"),
        ] {
            let refused = orgd_with_input(url, &words, &input);
            assert_ne!(refused.code, 0, "{words}");
            assert!(refused.stderr.contains(sentence), "{words}: {}", refused.stderr);
        }

        let service = Service::start(database).await;
        assert_eq!(service.put(OWN, USER, r#"{"name": "Imported"}"#).send().await.status(), 200);
    }
}

fn other_token() -> String {
    "3f0d2b6e-58a4-4f0a-9a55-0e2b6f6f7c10".to_owned()
}

#[tokio::test]
async fn a_seeding_command_can_run_again_and_prints_its_secret_once() {
    for database in Database::of_each_kind().await {
        let words = "credential issue --role administrator --subject demo --if-absent";
        let first = orgd(database.url(), words);
        assert_eq!(first.code, 0, "{}", first.stderr);
        assert!(!first.stdout.is_empty());
        let second = orgd(database.url(), words);
        assert_eq!((second.code, second.stdout.as_str()), (0, ""));
        assert_eq!(
            second.stderr,
            "demo has a valid credential already; nothing was issued. Its secret is not shown again: \
             `orgd credential issue` for another subject, or without --if-absent, makes a new one.\n"
        );

        let words = "database create-organization --id 90 --name Seeded --if-absent";
        assert_eq!(orgd(database.url(), words).code, 0);
        let second = orgd(database.url(), words);
        assert_eq!((second.code, second.stdout.as_str()), (0, ""));
        assert_eq!(second.stderr, "There is such an organization already; nothing was stored.\n");
    }
}

/// `TOKEN=$(orgd credential issue …)` works. Whatever else is said is for the terminal, and a log line is there
/// only where the operator asks for the log.
#[tokio::test]
async fn standard_output_has_the_secret_alone_and_no_log_line_comes_uncalled() {
    for database in Database::of_each_kind().await {
        assert_eq!(orgd(database.url(), "migrate").code, 0);
        for kind in ["bearer", "api-key"] {
            let words = format!("credential issue --role support --kind {kind}");
            let issued = orgd(database.url(), &words);
            let secret = issued.stdout.strip_suffix('\n').unwrap();
            assert!(orgd::auth::Secret::parse(secret).is_some(), "{}", issued.stdout);
            let (id, rest) = issued.stderr.split_at("Issued as credential 0123456789ab".len());
            assert_eq!(rest, ". Keep the secret: it is not shown again.\n", "{}", issued.stderr);
            let revoked = orgd(database.url(), &format!("credential revoke {}", id.split_at(21).1));
            assert_eq!((revoked.code, revoked.stdout.as_str()), (0, ""), "{}", revoked.stderr);
            assert!(revoked.stderr.starts_with("Credential "), "{}", revoked.stderr);
            assert_eq!(revoked.stderr.lines().count(), 1, "{}", revoked.stderr);
        }
        let url = ("ORGD_DATABASE_URL", database.url());
        let words = "credential issue --role support";
        for log in ["info", "orgd::audit=info"] {
            let audited = orgd_with(&[url, ("ORGD_LOG", log)], words);
            assert!(audited.stderr.contains("credential.issue"), "{}", audited.stderr);
            assert_eq!(audited.stdout.lines().count(), 1, "{}", audited.stdout);
        }
        let created = orgd(database.url(), "database create-organization --name Quiet");
        assert_eq!((created.code, created.stderr.as_str()), (0, ""));
    }
}

/// A command in another folder than the service's would else make a database, and a secret of use to nobody.
#[test]
fn a_command_says_that_it_made_a_database_and_one_that_needs_one_makes_none() {
    for (words, is_made) in [
        ("credential issue --role support", true),
        ("database create-organization --name First", true),
        ("credential revoke 00000000", false),
        ("credential list", false),
        ("database check", false),
    ] {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("orgd.db");
        let url = format!("sqlite://{}?mode=rwc", file.display());
        let first = orgd(&url, words);
        assert_eq!(
            (file.exists(), first.code == 0),
            (is_made, is_made),
            "{words}: {}",
            first.stderr
        );
        let said = format!("There was no database: {} is new. A service over", file.display());
        assert_eq!(first.stderr.starts_with(&said), is_made, "{words}: {}", first.stderr);
        assert!(!is_made || !orgd(&url, words).stderr.contains(&said), "{words}");
    }
}

#[tokio::test]
async fn healthcheck_tells_by_its_exit_code_whether_a_service_is_ready() {
    on_both_databases(async |service| {
        let ask = format!("healthcheck --ops-addr {}", service.ops_addr());
        assert_eq!(orgd("", &ask).code, 0);
        drop(service);
        assert_eq!(orgd("", &ask).code, 1);
    })
    .await;
}

#[tokio::test]
async fn a_closed_pipe_ends_a_command_without_a_failure() {
    let service = Service::over_sqlite(&[]).await;
    let server = format!("http://{}", service.grpc_addr());
    let variables = [
        ("ORGD_DATABASE_URL", service.database().url()),
        ("ORGD_SERVER", &server),
        ("ORGD_TOKEN", ADMINISTRATOR),
        ("ORGD_LOG", "off"),
    ];
    let folder = tempfile::tempdir().unwrap();
    let man = format!("man {}", folder.path().display());
    for words in [
        "--help",
        "--version",
        "serve --help",
        "completions bash",
        "completions zsh",
        "completions fish",
        "completions elvish",
        "completions powershell",
        &man,
        "config",
        "config --page",
        "migrate",
        "migrate status",
        "migrate status --json",
        "database get-organization 90",
        "database check",
        "organization get 90",
        "organization create --name Unread",
        "organization list",
        "organization list --json",
        "organization changes 90",
        "organization changes 90 --follow",
        "organization update 90 --name Read",
        "whoami",
        "whoami --json",
        "database create-organization --name Unread",
        "credential list",
        "credential list --json",
        "demo --grpc-addr 127.0.0.1:0 --http-addr 127.0.0.1:0 --ops-addr 127.0.0.1:0",
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let closed = orgd_to(writer, &variables, words);
        assert_eq!((closed.code, closed.stderr.as_str()), (0, ""), "{words}");
        // What cannot be written is lost, and that is said, but for help.
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let full = orgd_to(full, &variables, words);
        assert!(!full.stderr.contains("panicked"), "{words}: {}", full.stderr);
        if !words.contains("--help") && !words.contains("--version") && !words.starts_with("man") {
            assert_eq!(full.code, 1, "{words}: {}", full.stderr);
            assert!(full.stderr.contains("error: cannot write to standard"), "{}", full.stderr);
        }
    }
    // The secret was not read, so it is lost.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let lost = orgd_to(writer, &variables, "credential issue --role support");
    assert_eq!(lost.code, 1, "{}", lost.stderr);
    assert!(lost.stderr.contains("could not be printed: revoke it"), "{}", lost.stderr);
}
