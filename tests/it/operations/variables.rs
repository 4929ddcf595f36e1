//! Variables: empty and misspelt ones, secrets in files, addresses; and how tables look.

use std::fs;

use tempfile::TempDir;

use crate::harness::{ADMINISTRATOR, Database, Service, orgd, orgd_with};

fn file(folder: &TempDir, name: &str, text: &str) -> String {
    let path = folder.path().join(name);
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn an_empty_variable_counts_as_not_set() {
    let page = orgd_with(&[], "config --page").stdout;
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    let names: Vec<_> =
        rows.map(|row| row.split('`').find(|part| part.starts_with("ORGD_"))).collect();
    assert!(names.len() > 40, "{page}");
    let empty: Vec<_> = names.into_iter().map(|name| (name.unwrap(), "")).collect();
    for words in ["config", "gateway --help", "serve --help", "organization list --help"] {
        let (with, without) = (orgd_with(&empty, words), orgd_with(&[], words));
        assert_eq!((with.code, with.stderr.as_str()), (0, ""), "{words}");
        // The tests' own one is not empty without them.
        let lines = |text: &str| {
            let lines = text.lines().filter(|line| !line.starts_with("lame_duck_time"));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(lines(&with.stdout), lines(&without.stdout), "{words}");
    }
    let needed = orgd_with(&empty, "gateway");
    assert!(needed.stderr.contains("--upstream <URL> (ORGD_UPSTREAM)"), "{}", needed.stderr);
}

#[test]
fn a_misspelt_variable_is_warned_of_with_the_nearest_name() {
    let misspelt = [
        ("ORGD_IDLE_TIMOUT", "1s"),
        // Of another command, of nobody, of Kubernetes.
        ("ORGD_UPSTREAM", "http://127.0.0.1:1"),
        ("ORGD_SREVER", ""),
        ("ORGD_PORT_8080_TCP_ADDR", "10.0.0.1"),
        ("ORGD_SERVICE_HOST", "10.0.0.1"),
    ];
    let warning = "ORGD_IDLE_TIMOUT has no effect: there is no such setting. The nearest is ORGD_IDLE_TIMEOUT.";
    for words in ["config", "completions bash"] {
        let warned = orgd_with(&misspelt, words);
        assert_eq!(warned.code, 0, "{words}");
        assert_eq!(warned.stderr, format!("warning: {warning}\n"), "{words}");
    }
    // One that may be anything has no nearest.
    let unknown = orgd_with(&[("ORGD_ENTRIES", "4")], "completions bash");
    let warning = "ORGD_ENTRIES has no effect: there is no such setting. `orgd config` lists all that there are.";
    assert_eq!(unknown.stderr, format!("warning: {warning}\n"));
    // A service says it in its log.
    let url = [("ORGD_DATABASE_URL", "sqlite://nowhere/orgd.db")];
    let words = "serve --grpc-addr 127.0.0.1:0 --http-addr 127.0.0.1:0 --ops-addr 127.0.0.1:0";
    let log = orgd_with(&[&misspelt[..], &url].concat(), words).stderr;
    let of_variable = log.lines().filter(|line| line.contains("ORGD_IDLE_TIMOUT"));
    let logged: Vec<serde_json::Value> =
        of_variable.map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(logged.len(), 1, "{log}");
    assert_eq!(
        (&logged[0]["level"], &logged[0]["nearest"]),
        (&"WARN".into(), &"ORGD_IDLE_TIMEOUT".into())
    );
}

#[tokio::test]
async fn the_databases_url_may_be_in_a_file() {
    let folder = TempDir::new().unwrap();
    for database in Database::of_each_kind().await {
        database.seed().await;
        let path = file(&folder, "url", &format!(" {}\n\n", database.url()));
        let of_variable = [("ORGD_DATABASE_URL_FILE", path.as_str())];
        let words = "database get-organization 90";
        let flag = format!("{words} --database-url-file {path}");
        let setting = file(&folder, "orgd.toml", &format!("database_url_file = \"{path}\"\n"));
        let in_file = [("ORGD_CONFIG", setting.as_str())];
        for (variables, words) in
            [(&of_variable[..], words), (&[], flag.as_str()), (&in_file, words)]
        {
            let read = orgd_with(variables, words);
            assert_eq!(read.code, 0, "{words}: {}", read.stderr);
            assert!(read.stdout.contains("Organization 90"), "{}", read.stdout);
        }
        Service::spawn(&crate::harness::SERVE, &of_variable).until_ready().await;

        let other = [("ORGD_DATABASE_URL", database.url())];
        let both = orgd_with(&[of_variable, other].concat(), words);
        assert_eq!(both.code, 2, "{}", both.stderr);
        for part in ["cannot be used with", "--database-url <URL>", "--database-url-file <FILE>"] {
            assert!(both.stderr.contains(part), "{}", both.stderr);
        }
        assert!(!both.stderr.contains(database.url()), "{}", both.stderr);
        // What comes before the settings file comes before either form in it.
        let nowhere = file(&folder, "nowhere.toml", "database_url_file = \"nowhere\"\n");
        let read = orgd_with(&[other, [("ORGD_CONFIG", nowhere.as_str())]].concat(), words);
        assert_eq!(read.code, 0, "{}", read.stderr);
    }
    let empty = file(&folder, "empty", " \n");
    for (path, sentence) in [
        ("nowhere", "error: cannot read --database-url-file nowhere: "),
        (empty.as_str(), &format!("error: --database-url-file {empty} is empty")),
    ] {
        let refused = orgd_with(&[("ORGD_DATABASE_URL_FILE", path)], "migrate status");
        assert_eq!(refused.code, 1);
        assert!(refused.stderr.starts_with(sentence), "{}", refused.stderr);
    }
}

#[tokio::test]
async fn the_token_may_be_in_a_file() {
    let service = Service::over_sqlite(&[]).await;
    let folder = TempDir::new().unwrap();
    let address = format!("http://{}", service.grpc_addr());
    let server = ("ORGD_SERVER", address.as_str());
    let text = format!("\n {ADMINISTRATOR}\t\n");
    let path = file(&folder, "token", &text);
    let (in_file, in_variable) =
        (("ORGD_TOKEN_FILE", path.as_str()), ("ORGD_TOKEN", text.as_str()));
    let flag = format!("whoami --token-file {path}");
    for (variables, words) in [
        (&[server, in_file][..], "whoami"),
        (&[server, in_variable], "whoami"),
        (&[server], flag.as_str()),
    ] {
        let read = orgd_with(variables, words);
        assert_eq!(read.code, 0, "{words}: {}", read.stderr);
    }
    let both = orgd_with(&[server, in_file, in_variable], "whoami");
    assert_eq!(both.code, 2, "{}", both.stderr);
    let sentence =
        "error: the token is in ORGD_TOKEN and in --token-file (ORGD_TOKEN_FILE): set one\n";
    assert_eq!(both.stderr, sentence);
    assert!(!both.stderr.contains(ADMINISTRATOR), "{}", both.stderr);
    let empty = file(&folder, "empty", "\n");
    let refused = orgd_with(&[server, ("ORGD_TOKEN_FILE", &empty)], "whoami");
    assert_eq!(refused.code, 4);
    assert!(
        refused.stderr.starts_with(&format!("error: --token-file {empty} is empty")),
        "{}",
        refused.stderr
    );
}

#[test]
fn a_listener_may_be_named_by_its_port_alone_or_by_localhost() {
    for (addr, reached) in
        [(":1", "127.0.0.1:1"), ("localhost:1", "127.0.0.1:1"), ("[::1]:1", "[::1]:1")]
    {
        let asked = orgd_with(&[("ORGD_OPS_ADDR", addr)], "healthcheck");
        assert_eq!(asked.code, 1, "{}", asked.stderr);
        assert!(
            asked.stderr.contains(&format!(
                "cannot reach {reached}: connection refused; start the service there, or set \
                 --ops-addr (ORGD_OPS_ADDR)"
            )),
            "{addr}: {}",
            asked.stderr
        );
    }
    for addr in
        ["8080", "localhost", "localhost:x", "example.org:80", "127.0.0.1", ":70000", "::1:"]
    {
        let refused = orgd_with(&[("ORGD_HTTP_ADDR", addr)], "serve");
        assert_eq!(refused.code, 2, "{addr}: {}", refused.stderr);
        assert!(refused.stderr.contains("or :8080 for every IPv4 address"), "{}", refused.stderr);
    }
}

#[tokio::test]
async fn columns_are_as_wide_as_a_terminal_shows_their_characters() {
    let database = Database::sqlite();
    database.seed().await;
    for (id, name) in [(101, "東京株式会社"), (102, "e\u{301}a")] {
        let words =
            format!("database create-organization --id {id} --name {name} --subscription-id s");
        assert_eq!(orgd(database.url(), &words).code, 0);
    }
    let service = Service::start(database).await;
    let address = format!("http://{}", service.grpc_addr());
    let variables = [("ORGD_SERVER", address.as_str()), ("ORGD_TOKEN", ADMINISTRATOR)];
    let listed = orgd_with(&variables, "organization list").stdout;
    let rows = [
        "ID   NAME             SUBSCRIPTION",
        "90   Organization 90  free ",
        "101  東京株式会社     s ",
        "102  e\u{301}a               s ",
    ];
    for row in rows {
        assert!(listed.lines().any(|line| line.starts_with(row)), "{row} in {listed}");
    }
}
