//! Settings: where they come from, what is refused, what is shown, and the page that lists them.

use std::{fs, path::Path};

use expect_test::expect_file;
use tempfile::TempDir;

use crate::harness::{ANY_PORT, Database, OWN, Service, USER, orgd, orgd_with};

/// A settings file of its own, and the flag that names it.
fn file(folder: &TempDir, text: &str) -> String {
    let folder = tempfile::tempdir_in(folder).unwrap().keep();
    let path = folder.join("orgd.toml");
    fs::write(&path, text).unwrap();
    format!("--config {}", path.display())
}

/// The line of a setting.
fn shown<'a>(text: &'a str, key: &str) -> &'a str {
    let line = text.lines().find(|line| line.trim_start_matches("# ").starts_with(key));
    line.unwrap_or_else(|| panic!("no {key} in {text}"))
}

#[test]
fn settings_come_from_flags_then_variables_then_the_file_then_defaults() {
    let folder = TempDir::new().unwrap();
    let flag = file(&folder, "idle_timeout = \"1s\"\nstall_timeout = \"1s\"\nstreams_max = 1\n");
    let variables = [("ORGD_IDLE_TIMEOUT", "2s"), ("ORGD_STALL_TIMEOUT", "2s")];
    let printed = orgd_with(&variables, &format!("config {flag} --idle-timeout 3s")).stdout;
    for line in [
        "idle_timeout = \"3s\"  # command line",
        "stall_timeout = \"2s\"  # variable ORGD_STALL_TIMEOUT",
        "connection_age_max = \"15m\"  # default",
    ] {
        assert!(printed.lines().any(|printed| printed == line), "{line} in {printed}");
    }
    let from_file = shown(&printed, "streams_max");
    assert!(from_file.starts_with("streams_max = 1  # file "), "{from_file}");
    assert!(from_file.ends_with("orgd.toml"), "{from_file}");
    assert!(shown(&printed, "tls_cert").ends_with("is not set"));
}

#[test]
fn printed_settings_can_be_read_again() {
    let folder = TempDir::new().unwrap();
    let printed = orgd_with(&[("ORGD_STREAMS_MAX", "7")], "config").stdout;
    let again = orgd_with(&[], &format!("config {}", file(&folder, &printed)));
    assert_eq!(again.code, 0, "{}", again.stderr);
    let line = shown(&again.stdout, "streams_max");
    assert!(line.starts_with("streams_max = 7  # file "), "{line}");
}

#[test]
fn secrets_are_not_shown_wherever_they_come_from() {
    let folder = TempDir::new().unwrap();
    // A default is none.
    let default = orgd_with(&[], "config").stdout;
    let line = "database_url = \"sqlite://orgd.db?mode=rwc\"  # default";
    assert_eq!(shown(&default, "database_url ="), line);
    let url = "postgres://someone:hunter2@db/orgd";
    let flag = file(&folder, &format!("database_url = \"{url}\"\n"));
    let variables = [("ORGD_DATABASE_URL", url)];
    for (variables, words) in [
        (&[][..], format!("config {flag}")),
        (&variables[..], "config".to_owned()),
        (&[][..], format!("config --database-url {url}")),
        (&variables[..], "serve --help".to_owned()),
    ] {
        let command = orgd_with(variables, &words);
        assert_eq!(command.code, 0, "{words}: {}", command.stderr);
        assert!(command.stdout.contains("database"), "{words}");
        for text in [&command.stdout, &command.stderr] {
            assert!(!text.contains("hunter2"), "{words}: {text}");
        }
    }
}

#[test]
fn wrong_settings_are_reported_and_nothing_starts() {
    let folder = TempDir::new().unwrap();
    let in_file = |text: &str| format!("serve {}", file(&folder, text));
    for (words, sentences) in [
        (in_file("idle_timout = \"1s\""), ["orgd.toml", "there is no setting idle_timout"]),
        (in_file("page = true"), ["orgd.toml", "there is no setting page"]),
        (in_file("config = \"x\""), ["orgd.toml", "there is no setting config"]),
        (in_file("idle_timeout = 5"), ["orgd.toml", "'5' for '--idle-timeout <TIME>'"]),
        (in_file("idle_timeout = [\"5s\"]"), ["orgd.toml", "must be a text, a number"]),
        (in_file("streams_max = -1"), ["orgd.toml", "'-1' for '--streams-max <NUMBER>'"]),
        (in_file("tls_cert = \"x.pem\""), ["orgd.toml", "required arguments"]),
        (in_file("what is this"), ["orgd.toml", "is not TOML"]),
        ("serve --config nowhere.toml".to_owned(), ["cannot read nowhere.toml", ""]),
        ("serve --idle-timeout 0s".to_owned(), ["--idle-timeout", "1ms at least"]),
        ("serve --connection-age-max 2d".to_owned(), ["--connection-age-max", "a day at most"]),
        ("serve --connections-max 0".to_owned(), ["--connections-max", "'0'"]),
        ("serve --database-connections 8".to_owned(), ["--database-connections", "9..=1000"]),
        ("serve --trace-sample-ratio 2".to_owned(), ["--trace-sample-ratio", "from 0 to 1"]),
        ("serve --log x=y=z".to_owned(), ["'--log <FILTER>'", "x=y=z is no directive"]),
        (
            "serve --otlp-endpoint https://127.0.0.1:4317".to_owned(),
            ["--otlp-endpoint <URL>", "traces are sent in plain text"],
        ),
        ("serve --tls-cert x".to_owned(), ["--tls-key <FILE> (ORGD_TLS_KEY)", "required"]),
        (
            "serve --database-statement-timeout 1001ms".to_owned(),
            ["--database-statement-timeout must be 1s at most", "a revocation waits"],
        ),
        (
            "serve --request-deadline 1s".to_owned(),
            ["--database-statement-timeout must be shorter", "--request-deadline"],
        ),
        (
            "gateway --upstream https://127.0.0.1:1 --upstream-ca nowhere.pem --http-addr \
             127.0.0.1:0 --ops-addr 127.0.0.1:0"
                .to_owned(),
            ["cannot read --upstream-ca", "nowhere.pem"],
        ),
    ] {
        let refused = orgd_with(&[], &words);
        assert_ne!(refused.code, 0, "{words}");
        for sentence in sentences {
            assert!(refused.stderr.contains(sentence), "{words}: {}", refused.stderr);
        }
    }
    // Those that contradict each other are wrong words too, whatever else is wrong.
    let url = [("ORGD_DATABASE_URL", "sqlite://nowhere/orgd.db")];
    for (words, sentence) in [
        ("serve --proxy-protocol true", "--proxy-protocol needs --trusted-proxies"),
        ("demo --proxy-protocol true", "--proxy-protocol needs --trusted-proxies"),
        (
            "gateway --upstream http://127.0.0.1:1 --proxy-protocol true",
            "--proxy-protocol needs --trusted-proxies",
        ),
        ("serve --request-deadline 1s", "--database-statement-timeout must be shorter"),
        ("serve --database-statement-timeout 1001ms", "must be 1s at most"),
    ] {
        let refused = orgd_with(&url, words);
        assert_eq!(refused.code, 2, "{words}: {}", refused.stderr);
        let is_told = refused.stderr.starts_with("error: ") && refused.stderr.contains(sentence);
        assert!(is_told, "{words}: {}", refused.stderr);
    }
}

#[tokio::test]
async fn a_service_and_a_gateway_run_with_a_file_alone() {
    let database = Database::sqlite();
    database.seed().await;
    let folder = TempDir::new().unwrap();
    let listeners = format!("http_addr = \"{ANY_PORT}\"\nops_addr = \"{ANY_PORT}\"\n");
    let url = database.url();
    let text = format!("{listeners}grpc_addr = \"{ANY_PORT}\"\ndatabase_url = \"{url}\"\n");
    let flag = file(&folder, &text);
    let words: Vec<_> = flag.split(' ').collect();
    let service = Service::spawn(&[&["serve"], &words[..]].concat(), &[]);
    let upstream = format!("{listeners}upstream = \"http://{}\"\n", service.grpc_addr());
    let path = folder.path().join("gateway.toml");
    fs::write(&path, upstream).unwrap();
    let gateway = Service::spawn(&["gateway"], &[("ORGD_CONFIG", path.to_str().unwrap())]);
    for instance in [&service, &gateway] {
        assert_eq!(instance.put(OWN, USER, r#"{"name": "By file"}"#).send().await.status(), 200);
    }
}

#[test]
fn the_configuration_page_lists_every_setting() {
    let page = orgd("", "config --page");
    assert_eq!(page.code, 0, "{}", page.stderr);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/CONFIG.md");
    expect_file![path].assert_eq(&page.stdout);
}

/// Why a command failed is no log line.
#[test]
fn no_log_filter_hides_why_a_command_failed() {
    for level in ["off", "orgd::request=info", "orgd=off,warn", "trace", "orgd::audit=error"] {
        for words in [
            "migrate",
            "migrate status",
            "serve --grpc-addr 127.0.0.1:0 --http-addr 127.0.0.1:0 --ops-addr 127.0.0.1:0",
            "credential list",
            "database get-organization 90",
            "organization list",
            "whoami",
            "healthcheck --ops-addr 127.0.0.1:1",
            "gateway --upstream https://127.0.0.1:1 --upstream-ca nowhere.pem --http-addr 127.0.0.1:0 \
             --ops-addr 127.0.0.1:0",
            "man nowhere",
        ] {
            for format in ["text", "json"] {
                let variables = [
                    ("ORGD_LOG", level),
                    ("ORGD_LOG_FORMAT", format),
                    ("ORGD_DATABASE_URL", "sqlite://nowhere/orgd.db"),
                ];
                let failed = orgd_with(&variables, words);
                let asks = ["organization list", "whoami"].contains(&words);
                let code = if asks { 4 } else { 1 };
                assert_eq!(failed.code, code, "{level} {words}: {}", failed.stderr);
                let errors = failed.stderr.lines().filter(|line| line.starts_with("error: "));
                assert_eq!(errors.count(), 1, "{level} {words}: {}", failed.stderr);
            }
        }
    }
}

/// By default a command that fails says nothing else, and no command says it in another shape.
#[test]
fn every_failure_is_one_error_on_standard_error() {
    let url = ("ORGD_DATABASE_URL", "sqlite://nowhere/orgd.db");
    for format in ["auto", "text", "json"] {
        for words in [
            "",
            "credential",
            "organization",
            "database",
            "nonsense",
            "serve --nonsense",
            "serve --idle-timeout 0s",
            "serve --tls-cert x",
            "gateway",
            "migrate",
            "credential list",
            "credential issue --role nobody",
            "database create-organization --name N",
            "database get-organization 90",
            "organization get 90",
            "organization update 90",
            "completions nonsense",
            "config --config nowhere.toml",
        ] {
            let failed = orgd_with(&[url, ("ORGD_LOG_FORMAT", format)], words);
            assert_eq!(failed.stdout, "", "{words}");
            assert!(failed.stderr.starts_with("error: "), "{words}: {}", failed.stderr);
            assert_eq!(failed.stderr.matches("error: ").count(), 1, "{words}: {}", failed.stderr);
        }
        // A service has logged by then that it starts, and over which database.
        let words = "serve --grpc-addr 127.0.0.1:0 --http-addr 127.0.0.1:0 --ops-addr 127.0.0.1:0";
        let failed = orgd_with(&[url, ("ORGD_LOG_FORMAT", format)], words);
        let last = failed.stderr.lines().last().unwrap();
        assert!(last.starts_with("error: cannot connect to the database"), "{}", failed.stderr);
        assert_eq!(failed.stderr.matches("error: ").count(), 1, "{}", failed.stderr);
    }
}

#[test]
fn a_meaningless_log_filter_is_refused() {
    let folder = TempDir::new().unwrap();
    for filter in ["", "inof", "ordg=info", "orgd::reqest=info", "warn,orgd=inof", "orgd="] {
        // An empty variable is not set; an empty filter in the file is refused.
        let words = ["migrate status", "config", "serve"];
        for words in words.into_iter().filter(|_| !filter.is_empty()) {
            let refused = orgd_with(&[("ORGD_LOG", filter)], words);
            assert_eq!(refused.code, 2, "{filter}: {}", refused.stderr);
            assert!(refused.stderr.contains("for '--log <FILTER>'"), "{}", refused.stderr);
        }
        let flag = file(&folder, &format!("log = \"{filter}\"\n"));
        let refused = orgd_with(&[], &format!("config {flag}"));
        assert_eq!(refused.code, 1, "{filter}: {}", refused.stderr);
        assert!(refused.stderr.starts_with("error: "), "{}", refused.stderr);
    }
    assert_eq!(orgd_with(&[("ORGD_LOG", "warn,h2=debug,orgd::audit=info")], "config").code, 0);
}
