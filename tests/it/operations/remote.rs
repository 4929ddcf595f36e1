//! `orgd organization`, against a running service; completions and the manual.

use std::{
    io::{BufRead, BufReader},
    process::{Command as Process, Stdio},
};

use orgd::domain::Field;

use crate::harness::{
    ADMINISTRATOR, Command, FOREIGN, OWN, SUPPORT, Service, USER, disclosure::assert_tells_nothing,
    on_both_databases, orgd_with,
};

fn call(service: &Service, token: &str, words: &str) -> Command {
    let server = format!("http://{}", service.grpc_addr());
    let variables = [("ORGD_SERVER", server.as_str()), ("ORGD_TOKEN", token)];
    let done = orgd_with(&variables, &format!("organization {words}"));
    // Why a file cannot be read is in the system's words, and for whoever has the file.
    for line in done.stderr.lines().filter(|line| !line.contains("--token-file")) {
        let logged: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
        assert_tells_nothing(logged["message"].as_str().unwrap_or(line));
    }
    done
}

/// Lines of JSON.
fn objects(command: &Command) -> Vec<serde_json::Value> {
    assert_eq!(command.code, 0, "{}", command.stderr);
    command.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn organizations_are_changed_listed_and_followed() {
    on_both_databases(async |service| {
        let updated = call(&service, SUPPORT, "update 90 --name Renamed --clear-subscription-id");
        assert_eq!(updated.code, 0, "{}", updated.stderr);
        let lines: Vec<_> = updated.stdout.lines().collect();
        assert!(lines[0].starts_with("ID  NAME     SUBSCRIPTION  MODIFIED"), "{lines:?}");
        assert!(lines[1].starts_with("90  Renamed  -             2"), "{lines:?}");
        assert!(lines[1].ends_with("\"2\""), "{lines:?}");
        let stored = service.database().organization(OWN).await;
        assert_eq!(
            (stored.value(Field::Name), stored.value(Field::SubscriptionId)),
            (Some("Renamed"), None)
        );

        let words = r#"update 90 --handshake Secret --etag "2" --json"#;
        let updated = objects(&call(&service, ADMINISTRATOR, words));
        assert_eq!(updated[0]["etag"], "\"3\"");
        let checked = "update 90 --name Checked --etag 3 --validate-only --json";
        let checked = call(&service, ADMINISTRATOR, checked);
        assert_eq!(objects(&checked)[0]["name"], "Checked");
        assert_eq!(checked.stderr, "Checked only: nothing was stored.\n");
        let checked =
            call(&service, ADMINISTRATOR, "update 90 --name Checked --validate-only --json");
        assert_eq!(objects(&checked)[0]["name"], "Checked");
        assert_eq!(service.database().name(OWN).await, "Renamed");

        let listed = objects(&call(&service, SUPPORT, "list --json"));
        assert_eq!(listed.len(), 2);
        assert_eq!(listed[0]["id"], OWN);
        assert_eq!(objects(&call(&service, USER, "list --json")).len(), 1, "a user's own");

        let changes = call(&service, ADMINISTRATOR, "changes 90");
        let lines: Vec<_> = changes.stdout.lines().collect();
        assert!(lines[0].starts_with("VERSION  DATE"), "{lines:?}");
        assert!(lines[2].contains(r#"name: "Organization 90" -> "Renamed""#), "{lines:?}");
        assert!(lines[2].contains(r#"subscription_id: "free" -> -"#), "{lines:?}");
        assert!(lines[3].trim_end().ends_with("handshake"), "{lines:?}");
        let changes = objects(&call(&service, USER, "changes 90 --after 1 --json"));
        assert_eq!(
            changes.iter().map(|change| change["version"].as_i64().unwrap()).collect::<Vec<_>>(),
            [2, 3]
        );

        let mut following = Process::new(env!("CARGO_BIN_EXE_orgd"))
            .args(["organization", "changes", "90", "--after", "2", "--follow", "--json"])
            .env("ORGD_SERVER", format!("http://{}", service.grpc_addr()))
            .env("ORGD_TOKEN", USER)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(following.stdout.take().unwrap()).lines();
        let mut version = || {
            let line = lines.next().unwrap().unwrap();
            serde_json::from_str::<serde_json::Value>(&line).unwrap()["version"].clone()
        };
        assert_eq!(version(), 3);
        assert_eq!(service.put(OWN, USER, r#"{"name": "Followed"}"#).send().await.status(), 200);
        assert_eq!(version(), 4);
        following.kill().unwrap();
        following.wait().unwrap();
    })
    .await;
}

/// All commands of organizations have one source, even beside a database of the default's name.
#[tokio::test]
async fn organizations_are_created_and_shown_by_the_service_alone() {
    on_both_databases(async |service| {
        let words = "create --name Made --subscription-id s --json";
        let checked = call(&service, ADMINISTRATOR, &format!("{words} --validate-only"));
        assert_eq!(objects(&checked)[0]["name"], "Made");
        let created = objects(&call(&service, ADMINISTRATOR, words)).remove(0);
        assert_eq!((&created["name"], &created["subscriptionId"]), (&"Made".into(), &"s".into()));
        let id = created["id"].as_i64().unwrap();
        assert_eq!(service.database().name(id).await, "Made");
        let got = call(&service, ADMINISTRATOR, &format!("get {id} --json"));
        assert_eq!(objects(&got), std::slice::from_ref(&created));
        let row = call(&service, USER, "get 90").stdout;
        assert!(row.starts_with("ID  NAME") && row.contains("\n90  Organization 90"), "{row}");
        for (token, words, code, sentence) in [
            (USER, "create --name N", 4, "CREATION_FORBIDDEN"),
            (USER, "get 94", 4, "ORGANIZATION_FORBIDDEN"),
            (SUPPORT, "get 77", 3, "ORGANIZATION_NOT_FOUND"),
            (ADMINISTRATOR, "create --name \t", 1, "must not be empty or blank"),
            (ADMINISTRATOR, "create --id 7 --name N", 2, "unexpected argument '--id'"),
            (ADMINISTRATOR, "create", 2, "--name <NAME>"),
        ] {
            let refused = call(&service, token, words);
            assert_eq!(refused.code, code, "{words}: {}", refused.stderr);
            assert!(refused.stderr.contains(sentence), "{words}: {}", refused.stderr);
        }
    })
    .await;
    // Without a service nothing is read or made, in whichever folder.
    let absent = crate::harness::Database::sqlite();
    let url = ("ORGD_DATABASE_URL", absent.url());
    let server = ("ORGD_SERVER", "http://127.0.0.1:1");
    for words in ["create --name N", "get 90", "list", "changes 90", "update 90 --name N"] {
        let words = format!("organization {words}");
        let refused = orgd_with(&[url, server, ("ORGD_TOKEN", SUPPORT)], &words);
        assert_eq!((refused.code, refused.stdout.as_str()), (6, ""), "{words}: {}", refused.stderr);
    }
    let file = absent.url().trim_start_matches("sqlite://").trim_end_matches("?mode=rwc");
    assert!(!std::path::Path::new(file).exists(), "{file}");
}

#[tokio::test]
async fn exit_codes_tell_programs_what_went_wrong() {
    on_both_databases(async |service| {
        for (token, words, code, sentence) in [
            (SUPPORT, "update 77 --name N", 3, "ORGANIZATION_NOT_FOUND"),
            (USER, "update 94 --name N", 4, "ORGANIZATION_FORBIDDEN"),
            (USER, "update 90 --subscription-id s", 4, "FIELD_FORBIDDEN"),
            ("no-token", "list", 4, "CREDENTIAL_INVALID"),
            (SUPPORT, r#"update 90 --name N --etag "9""#, 5, "ETAG_MISMATCH"),
            (SUPPORT, "update 90 --name N --etag 9", 5, "ETAG_MISMATCH"),
            (SUPPORT, "update 90", 2, "nothing to change"),
            ("to\u{1}ken", "list", 4, "characters that no token has"),
            (SUPPORT, "update 0 --name N", 1, "organization.id"),
            (SUPPORT, "update 90 --subscription-id s --clear-subscription-id", 2, "cannot be used"),
            (SUPPORT, "update ninety --name N", 2, "an id is a number from 1 to 9007199254740991"),
            ("Bearer no-token", "list", 4, "leave out the word before it"),
            (SUPPORT, "list --server ftp://x", 2, "invalid value"),
        ] {
            let refused = call(&service, token, words);
            assert_eq!(refused.code, code, "{words}: {}", refused.stderr);
            assert!(refused.stderr.contains(sentence), "{words}: {}", refused.stderr);
            assert!(!refused.stderr.contains(token), "{words}: {}", refused.stderr);
            assert_eq!(refused.stdout, "", "{words}");
        }
        // The sentence is its own, and not the system's, which no client may see.
        let variables = [("ORGD_TOKEN", SUPPORT), ("ORGD_SERVER", "http://127.0.0.1:1")];
        let unreachable = orgd_with(&variables, "organization update 90 --name N");
        assert_eq!(unreachable.code, 6, "{}", unreachable.stderr);
        // The command that it names is made once, however often it is run.
        let key = unreachable.stderr.split_once("with --key ").unwrap().1;
        let key = key.split(':').next().unwrap();
        let again = format!("update 90 --name Again --json --key {key}");
        let first = objects(&call(&service, SUPPORT, &again));
        assert_eq!(objects(&call(&service, SUPPORT, &again)), first);
        let other = call(&service, SUPPORT, &again.replace("Again", "Other"));
        assert!(other.stderr.contains("IDEMPOTENCY_KEY_REUSED"), "{}", other.stderr);
        let unread = orgd_with(&[], "organization list --token-file nowhere");
        assert_eq!(unread.code, 1, "{}", unread.stderr);
        assert!(unread.stderr.contains("cannot read --token-file nowhere"), "{}", unread.stderr);
        for variables in [&[][..], &[("ORGD_TOKEN", "")], &[("ORGD_TOKEN", " \n")]] {
            let without = orgd_with(variables, "organization list");
            assert!(without.stderr.contains("a token is needed"), "{}", without.stderr);
            assert_eq!(without.code, 4, "{variables:?}");
        }
        assert_eq!(service.database().organization(FOREIGN).await.etag.version(), 1);
    })
    .await;
}

#[tokio::test]
async fn colours_are_for_terminals_alone() {
    let database = crate::harness::Database::sqlite();
    database.seed().await;
    let service = Service::start(database).await;
    let server = format!("http://{}", service.grpc_addr());
    let list = format!("{} organization list", env!("CARGO_BIN_EXE_orgd"));
    // `script` runs a command on a terminal.
    let on_terminal = |variables: &[(&str, &str)]| {
        let mut command = Process::new("script");
        command.args(["-qec", &list, "/dev/null"]).env("ORGD_SERVER", &server);
        command.env("ORGD_TOKEN", SUPPORT).env("TERM", "xterm").env_remove("NO_COLOR");
        command.env_remove("CI").stdin(Stdio::null());
        let output = command.envs(variables.iter().copied()).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(on_terminal(&[]).contains("\u{1b}[1mID"), "{:?}", on_terminal(&[]));
    assert!(!on_terminal(&[("NO_COLOR", "1")]).contains('\u{1b}'));
    assert!(!call(&service, SUPPORT, "list").stdout.contains('\u{1b}'));
}

#[test]
fn shells_complete_and_the_manual_has_a_page_for_each_command() {
    for (shell, word) in [("bash", "_orgd"), ("zsh", "#compdef orgd"), ("fish", "complete -c orgd")]
    {
        let script = orgd_with(&[], &format!("completions {shell}"));
        assert_eq!(script.code, 0, "{}", script.stderr);
        assert!(script.stdout.contains(word), "{shell}");
        assert!(script.stdout.contains("healthcheck"), "{shell}");
    }
    let folder = tempfile::TempDir::new().unwrap();
    let written = orgd_with(&[], &format!("man {}", folder.path().display()));
    assert_eq!(written.code, 0, "{}", written.stderr);
    for page in ["orgd.1", "orgd-serve.1", "orgd-organization-update.1"] {
        let text = std::fs::read_to_string(folder.path().join(page)).unwrap();
        assert!(text.contains(".SH NAME"), "{page}");
    }
    let update = folder.path().join("orgd-organization-update.1");
    let update = std::fs::read_to_string(update).unwrap();
    assert!(update.contains("there is no such organization"));
    for variable in ["ORGD_SERVER", "ORGD_SERVER_CA", "ORGD_TOKEN", "ORGD_TOKEN_FILE"] {
        assert!(update.contains(variable), "{variable}");
    }
}
