//! What a service says once when it starts: its version, its database, its addresses, and how to let somebody in.

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{ANY_PORT, Database, SERVE, Service, orgd};

const NOBODY: &str = "nobody has a credential; `orgd credential issue --role administrator --subject NAME` makes one, \
                      over the same database";

/// The fields of the one line with this message.
fn line(service: &Service, message: &str) -> Value {
    let log = service.log();
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let mut lines = lines.filter(|line| line["message"] == message);
    let found = lines.next().unwrap_or_else(|| panic!("no {message} in {log}"));
    assert!(lines.next().is_none(), "{message} twice in {log}");
    found
}

/// Whether the listeners for clients speak TLS, and whether the operators' does.
fn tls(service: &Service) -> [bool; 2] {
    let line = line(service, "listening");
    ["tls", "ops_tls"].map(|key| line[key].as_bool().unwrap())
}

#[tokio::test]
async fn a_service_says_its_version_database_and_addresses_and_how_to_let_somebody_in() {
    for database in Database::of_each_kind().await {
        let environment = [("ORGD_DATABASE_URL", database.url())];
        let service = Service::spawn(&SERVE, &environment);
        assert_eq!(line(&service, "orgd starts")["version"], env!("CARGO_PKG_VERSION"));
        let place = line(&service, "database");
        if database.is_sqlite() {
            let file = place["file"].as_str().unwrap();
            assert!(database.url().starts_with(&format!("sqlite://{file}?")), "{place}");
            assert_eq!((&place["kind"], &place["host"]), (&"SQLite".into(), &Value::Null));
        } else {
            let (host, port) = (place["host"].as_str().unwrap(), &place["port"]);
            assert_eq!(format!("{host}:{port}"), database.addr().to_string());
            assert_eq!((&place["kind"], &place["file"]), (&"PostgreSQL".into(), &Value::Null));
            let name = place["database"].as_str().unwrap();
            assert!(database.url().contains(&format!("/{name}")), "{place}");
        }
        assert_eq!(tls(&service), [false, false]);
        line(&service, NOBODY);
        drop(service);

        let issued = orgd(database.url(), "credential issue --role administrator --subject NAME");
        assert_eq!(issued.code, 0, "{}", issued.stderr);
        let again = Service::spawn(&SERVE, &environment);
        assert!(!again.log().contains("nobody has a credential"), "{}", again.log());
    }
}

/// Whoever reads the log may be in another folder.
#[tokio::test]
async fn a_service_names_its_file_by_the_whole_path() {
    let folder = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let whole = folder.path().join("orgd.db");
    let here = std::env::current_dir().unwrap();
    let relative = whole.strip_prefix(here).unwrap().display();
    let url = format!("sqlite://{relative}?mode=rwc");
    let service = Service::spawn(&SERVE, &[("ORGD_DATABASE_URL", url.as_str())]);
    assert_eq!(line(&service, "database")["file"], whole.to_str().unwrap());
}

#[tokio::test]
async fn a_service_says_nothing_of_its_database_but_the_place() {
    let url = "postgres://odd:StormPetrel@127.0.0.1:1/orgd";
    let refused = Service::try_spawn(&SERVE, &[("ORGD_DATABASE_URL", url)]);
    let log = refused.map(|_| ()).unwrap_err();
    assert!(log.contains("\"host\":\"127.0.0.1\",\"port\":1,\"database\":\"orgd\""), "{log}");
    assert!(!log.contains("StormPetrel") && !log.contains("odd"), "{log}");
}

#[tokio::test]
async fn a_gateway_says_its_version_its_service_and_its_addresses() {
    let upstream = "http://127.0.0.1:1";
    let words =
        ["gateway", "--upstream", upstream, "--http-addr", ANY_PORT, "--ops-addr", ANY_PORT];
    let gateway = Service::spawn(&words, &[]);
    assert_eq!(line(&gateway, "orgd starts")["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(line(&gateway, "upstream")["uri"], format!("{upstream}/"));
    assert_eq!(tls(&gateway), [false, false]);
}

#[tokio::test]
async fn where_there_is_a_certificate_the_operators_listener_still_says_that_it_has_none() {
    let folder = TempDir::new().unwrap();
    let signed = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let [cert, key] = [("cert", signed.cert.pem()), ("key", signed.signing_key.serialize_pem())]
        .map(|(name, pem)| {
            let file = folder.path().join(name);
            std::fs::write(&file, pem).unwrap();
            file.display().to_string()
        });
    let settings = [("ORGD_TLS_CERT", cert.as_str()), ("ORGD_TLS_KEY", key.as_str())];
    let service = Service::over_sqlite(&settings).await;
    assert_eq!(tls(&service), [true, false]);
    // In plain text.
    let ready = service.get_ops("/readyz").await;
    assert_eq!((ready.status(), ready.header("cache-control")), (200, Some("no-store")));
    let refused = service.get_ops("/nothing").await;
    assert_eq!((refused.status(), refused.header("cache-control")), (404, Some("no-store")));
}
