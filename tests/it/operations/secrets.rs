//! No output contains a part of a secret, however the secret was set and whatever the log level is.

use std::{fs, path::Path, sync::Arc};

use tempfile::TempDir;

use crate::harness::{ADMINISTRATOR, Database, OWN, Service, USER, authorized, orgd_with};
use orgd::proto::v1::GetOrganizationRequest;

/// Parts of every password here.
const PARTS: [&str; 3] = ["Storm", "Petrel", "64711"];
/// Those that no metric and no time has by chance.
const WORDS: [&str; 2] = ["Storm", "Petrel"];

/// What is set, and what is said of it; nothing where it is good.
const REFUSED: [(&str, &str); 13] = [
    ("postgres://odd:64711?StormPetrel@127.0.0.1:1/odd", "percent-encode"),
    ("postgres://odd:64711/StormPetrel@127.0.0.1:1/odd", "percent-encode"),
    ("postgres://odd:64711#StormPetrel@127.0.0.1:1/odd", "percent-encode"),
    ("postgres://odd:64711@StormPetrel@127.0.0.1:1/odd", "percent-encode"),
    ("postgres://odd:Storm?Petrel=64711&x=y@127.0.0.1:1/odd", "percent-encode"),
    ("postgres://odd:Storm%FFPetrel@127.0.0.1:1/odd", "percent-encode"),
    ("postgres://odd:StormPetrel@127.0.0.1:64711Petrel/odd", "percent-encode"),
    ("postgres://127.0.0.1:1/odd?password=64711&Storm=Petrel", "has no effect here"),
    ("postgres://127.0.0.1:1/odd?connect_timeout=StormPetrel", "has no effect here"),
    (
        "postgres://127.0.0.1:1/odd?sslmode=StormPetrel",
        "sslmode of the URL must be disable, allow,",
    ),
    ("postgres:odd:StormPetrel@127.0.0.1:1/odd", "neither sqlite"),
    ("mysql://odd:StormPetrel@127.0.0.1:1/odd", "neither sqlite"),
    ("odd:StormPetrel@127.0.0.1", "neither sqlite"),
];

const LEVELS: [&str; 2] = ["warn,orgd=info", "trace"];

fn assert_silent(parts: &[&str], text: &str, about: &str) {
    for part in parts {
        assert!(!text.contains(part), "{about} has {part}: {text}");
    }
}

/// What a command prints, in which nothing of a password may be.
fn printed(variables: &[(&str, &str)], words: &str) -> (i32, String) {
    let command = orgd_with(variables, words);
    let text = command.stdout + &command.stderr;
    assert_silent(&PARTS, &text, &format!("{words} {variables:?}"));
    assert!(!text.contains("panicked"), "{text}");
    (command.code, text)
}

fn write(folder: &Path, text: &str) -> String {
    let path = folder.join("orgd.toml");
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn an_unusual_url_is_refused_and_no_part_of_it_is_repeated() {
    let folder = TempDir::new().unwrap();
    for (url, sentence) in REFUSED {
        let path = write(folder.path(), &format!("database_url = \"{url}\"\n"));
        for level in LEVELS {
            let log = ("ORGD_LOG", level);
            for words in [
                "serve --grpc-addr 127.0.0.1:0 --http-addr 127.0.0.1:0 --ops-addr \
                           127.0.0.1:0",
                "migrate status",
                "credential list",
            ] {
                for (variables, words) in [
                    (vec![log, ("ORGD_DATABASE_URL", url)], words.to_owned()),
                    (vec![log, ("ORGD_CONFIG", path.as_str())], words.to_owned()),
                    (vec![log], format!("{words} --database-url {url}")),
                ] {
                    let (code, text) = printed(&variables, &words);
                    assert_eq!(code, 1, "{words}: {text}");
                    let error = text.lines().find(|line| line.starts_with("error: "));
                    assert!(error.is_some_and(|error| error.contains(sentence)), "{text}");
                }
            }
        }
        let (code, text) = printed(&[("ORGD_DATABASE_URL", url)], "config");
        assert_eq!(code, 0, "{text}");
        assert!(text.contains("# database_url = (not shown)  # variable"), "{text}");
        assert_eq!(printed(&[("ORGD_DATABASE_URL", url)], "serve --help").0, 0);
        // In the place of another, or of nothing.
        for words in
            ["gateway --upstream", "serve --otlp-endpoint", "serve --ops-addr", "serve --log"]
        {
            assert_eq!(printed(&[], &format!("{words} {url}")).0, 2);
        }
        for words in ["", "serve ", "migrate ", "serve --database "] {
            assert_eq!(printed(&[], &format!("{words}{url}")).0, 2, "{words}{url}");
        }
    }
}

#[test]
fn a_mistake_in_a_file_is_reported_by_line_and_column() {
    let folder = TempDir::new().unwrap();
    let good = "postgres://odd:StormPetrel64711@db/orgd";
    for (text, place) in [
        (format!("database_url = \"{good}\n"), "line 1, column "),
        (format!("streams_max = 7\ndatabase_url = {good}\"\n"), "line 2, column "),
        (format!("database_url = {good}\n"), "line 1, column "),
        (format!("database_url = '{good}\n"), "line 1, column "),
        (format!("database_url = \"\"\"{good}\n"), "line 2, column "),
        (format!("database_url = \"{good}\\q\"\n"), "line 1, column "),
        (format!("database_url = \"{good}\" \"{good}\"\n"), "line 1, column "),
        (format!("database_url \"{good}\"\n"), "line 1, column "),
        (format!("database_url = \"{good}\"\ndatabase_url = \"{good}\"\n"), "line 2, column 1"),
        (format!("[\"{good}\"]\n"), "there is no setting of this name"),
        (format!("\"{good}\" = 1\n"), "there is no setting of this name"),
        (format!("database_url = [\"{good}\"]\n"), "database_url must be a text"),
        (format!("upstream = \"{good}\"\n"), "'--upstream <URL>'"),
        (format!("otlp_endpoint = \"http:/{good}\"\n"), "'--otlp-endpoint <URL>'"),
        (format!("grpc_addr = \"{good}\"\n"), "'--grpc-addr <ADDR>'"),
        (format!("idle_timeout = \"64711{good}\"\n"), "'--idle-timeout <TIME>'"),
        (format!("connections_max = \"{good}\"\n"), "'--connections-max <NUMBER>'"),
        (format!("trace_remote_parents = \"{good}\"\n"), "'--trace-remote-parents <BOOL>'"),
        (format!("log_format = \"{good}\"\n"), "'--log-format <FORMAT>'"),
        ("log = \"postgres://odd:64711,StormPetrel,x=@db\"\n".to_owned(), "'--log <FILTER>'"),
    ] {
        let path = write(folder.path(), &text);
        for words in ["serve", "config", "migrate"] {
            let (code, printed) = printed(&[("ORGD_CONFIG", &path), ("ORGD_LOG", "trace")], words);
            assert_eq!(code, 1, "{text}: {printed}");
            assert!(printed.contains(place), "{text}: {printed}");
        }
    }
}

#[test]
fn services_are_named_by_host_and_port_alone() {
    for (name, words) in [
        ("ORGD_UPSTREAM", "gateway"),
        ("ORGD_UPSTREAM", "config"),
        ("ORGD_OTLP_ENDPOINT", "serve"),
        ("ORGD_OTLP_ENDPOINT", "config"),
        ("ORGD_SERVER", "organization list"),
    ] {
        for value in [
            "http://odd:StormPetrel@127.0.0.1:1",
            "https://StormPetrel@127.0.0.1:1",
            "http://127.0.0.1:1/?key=StormPetrel",
            "http://127.0.0.1:1/StormPetrel",
            "http://127.0.0.1:1#StormPetrel",
            "odd:StormPetrel",
            "http:/odd:StormPetrel@127.0.0.1:1",
            "http://odd:StormPetrel@[",
        ] {
            let (code, text) = printed(&[(name, value)], words);
            assert_eq!(code, 2, "{value}: {text}");
            assert!(text.contains("must be http://HOST:PORT"), "{value}: {text}");
            // Help is given beside whatever is set.
            let (code, text) = printed(&[(name, value)], &format!("{words} --help"));
            assert_eq!(code, 0, "{value}: {text}");
        }
    }
}

/// A good password that is in use, and the bearer tokens of callers, at the level that says most.
#[tokio::test]
async fn secrets_that_work_are_not_logged() {
    let database = Database::postgres().await;
    database.seed().await;
    let (user, rest) = database.url().split_once('@').unwrap();
    let user =
        user.rsplit_once(':').filter(|(_, user)| !user.starts_with('/')).map_or(user, |u| u.0);
    let url = format!("{user}:Storm%3FPetrel%2F64711@{rest}");
    let settings = [
        ("ORGD_DATABASE_URL", url.as_str()),
        ("ORGD_LOG", "trace"),
        ("ORGD_OTLP_ENDPOINT", "http://127.0.0.1:1"),
    ];
    let words = ["serve", "--grpc-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0"];
    let service = Service::spawn(&[&words[..], &["--ops-addr", "127.0.0.1:0"]].concat(), &settings);
    service.until_ready().await;
    assert_eq!(service.put(OWN, USER, r#"{"name": "x"}"#).send().await.status(), 200);
    let message = GetOrganizationRequest { id: OWN, ..GetOrganizationRequest::default() };
    service.grpc().get(authorized(ADMINISTRATOR, message)).await.unwrap();
    assert_silent(&WORDS, service.get_ops("/metrics").await.text(), "/metrics");
    service.signal("TERM");
    service.until_logged("every request was answered").await;
    assert_silent(&WORDS, &service.log(), "serve");
    for secret in [USER, ADMINISTRATOR] {
        let log = service.log();
        let line = log.lines().find(|line| line.contains(secret));
        assert!(line.is_none(), "{line:?}");
    }
    for words in [
        "migrate status",
        "credential list",
        "config",
        "database get-organization 90",
        "database check",
    ] {
        assert_eq!(printed(&settings[..2], words).0, 0, "{words}");
    }
    let shared = Arc::new(Database::sqlite());
    shared.seed().await;
    let service = Service::start_with(shared, &[]).await;
    let server = format!("http://{}", service.grpc_addr());
    let settings = [("ORGD_TOKEN", ADMINISTRATOR), ("ORGD_SERVER", &server), ("ORGD_LOG", "trace")];
    let listed = orgd_with(&settings, "organization list");
    assert_eq!(listed.code, 0, "{}", listed.stderr);
    assert!(!listed.stderr.contains(ADMINISTRATOR), "{}", listed.stderr);
}
