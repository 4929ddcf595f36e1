//! `sslmode` and `sslrootcert` of a PostgreSQL URL: who is connected to, over what, and what is said of a server that is
//! not trusted. The words are those of `docs/OPERATIONS.md`.

use std::fs;

use crate::harness::{
    Cluster, Command, IN_PLAIN_TEXT, OVER_TLS, SERVE, Service, TlsCluster, orgd, orgd_with,
};

const NO_CA: &str = "its certificate is not signed by a CA that is trusted; set sslrootcert in the URL to the file of \
                     the CA that signed it";
const NO_NAME: &str = "its certificate is for another host name; name the host in the URL as the certificate does, or \
                       give the server one for this name";
const NO_TLS: &str = "it offers no TLS, which sslmode in the URL asks for; let the server offer it (ssl = on), or set \
                      sslmode=disable where nobody can listen";
const NO_FILE: &str = "name the file with the certificate of the CA that signed the server's, or leave sslrootcert out \
                       where a public CA did";

fn check(url: &str) -> Command {
    orgd(url, "database check")
}

#[tokio::test]
async fn who_is_trusted_is_connected_to_and_others_are_refused_with_what_to_do() {
    let server = TlsCluster::start().await;
    let migrated =
        orgd(&server.url(OVER_TLS, "localhost", "sslmode=verify-full&sslrootcert=CA"), "migrate");
    assert_eq!(migrated.code, 0, "{}", migrated.stderr);
    for (role, host, query) in [
        (OVER_TLS, "localhost", "sslmode=verify-full&sslrootcert=CA"),
        (OVER_TLS, "localhost", "sslmode=verify-ca&sslrootcert=CA"),
        (OVER_TLS, "127.0.0.1", "sslmode=verify-ca&sslrootcert=CA"),
        (OVER_TLS, "127.0.0.1", "sslmode=require&sslrootcert=CA"),
        // Encrypted, and whoever the server is.
        (OVER_TLS, "127.0.0.1", "sslmode=require"),
        (OVER_TLS, "127.0.0.1", "sslmode=prefer"),
        (OVER_TLS, "127.0.0.1", "sslmode=prefer&sslrootcert=STRANGER"),
        (OVER_TLS, "127.0.0.1", ""),
        (IN_PLAIN_TEXT, "127.0.0.1", "sslmode=disable"),
        (IN_PLAIN_TEXT, "127.0.0.1", "sslmode=allow"),
        (IN_PLAIN_TEXT, "127.0.0.1", "sslmode=disable&sslrootcert=NONE"),
    ] {
        let found = check(&server.url(role, host, query));
        assert_eq!(found.code, 0, "{role} {host} {query}: {}{}", found.stdout, found.stderr);
    }
    for (role, host, query, said) in [
        (OVER_TLS, "127.0.0.1", "sslmode=verify-full&sslrootcert=CA", NO_NAME),
        (OVER_TLS, "localhost", "sslmode=verify-full&sslrootcert=STRANGER", NO_CA),
        (OVER_TLS, "localhost", "sslmode=verify-ca&sslrootcert=STRANGER", NO_CA),
        (OVER_TLS, "localhost", "sslmode=require&sslrootcert=STRANGER", NO_CA),
        // No public CA has signed it.
        (OVER_TLS, "localhost", "sslmode=verify-full", NO_CA),
        (OVER_TLS, "localhost", "sslmode=verify-full&sslrootcert=NONE", NO_FILE),
        (OVER_TLS, "localhost", "sslmode=verify-ca&ssl-root-cert=EMPTY", NO_FILE),
        (OVER_TLS, "localhost", "sslmode=disable", "no encryption"),
        (OVER_TLS, "localhost", "sslmode=allow", "no encryption"),
        (IN_PLAIN_TEXT, "localhost", "sslmode=require", "SSL encryption"),
        (IN_PLAIN_TEXT, "localhost", "", "SSL encryption"),
    ] {
        let url = server.url(role, host, query);
        let found = check(&url);
        assert_eq!(found.code, 1, "{role} {host} {query}: {}", found.stdout);
        assert!(found.stdout.contains(said), "{role} {host} {query}: {}", found.stdout);
        let started = orgd_with(&[("ORGD_DATABASE_URL", &url)], "credential list");
        assert_eq!(started.code, 1, "{role} {host} {query}: {}", started.stdout);
        assert!(started.stderr.contains(said), "{role} {host} {query}: {}", started.stderr);
    }
}

#[tokio::test]
async fn a_service_works_over_tls() {
    let server = TlsCluster::start().await;
    let url = server.url(OVER_TLS, "localhost", "sslmode=verify-full&sslrootcert=CA");
    let issued = orgd(&url, "credential issue --role administrator --subject ada");
    assert_eq!(issued.code, 0, "{}", issued.stderr);
    let service = Service::spawn(&SERVE, &[("ORGD_DATABASE_URL", &url)]);
    service.until_ready().await;
    let answer = service.put(90, issued.stdout.trim(), r#"{"name": "N"}"#).send().await;
    assert_eq!(answer.reason(), "ORGANIZATION_NOT_FOUND", "{}", answer.text());
}

#[tokio::test]
async fn a_server_without_tls_is_connected_to_only_where_that_is_allowed() {
    let cluster = Cluster::start(&[]);
    let url = |query: &str| format!("{}/postgres?{query}", cluster.url);
    assert_eq!(orgd(&url("sslmode=disable"), "migrate").code, 0);
    for query in ["sslmode=prefer", "sslmode=allow", "sslmode=disable", ""] {
        assert_eq!(check(&url(query)).code, 0, "{query}");
    }
    for query in ["sslmode=require", "sslmode=verify-ca", "sslmode=verify-full"] {
        let found = check(&url(query));
        assert_eq!(found.code, 1, "{query}: {}", found.stdout);
        assert!(found.stdout.contains(NO_TLS), "{query}: {}", found.stdout);
    }
}

#[test]
fn the_page_says_what_each_sslmode_does() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/OPERATIONS.md");
    let page = fs::read_to_string(page).unwrap();
    for mode in ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"] {
        assert!(page.lines().any(|line| line.starts_with(&format!("  | `{mode}`"))), "{mode}");
    }
    for said in [NO_CA, NO_NAME, NO_TLS] {
        let (what, _) = said.split_once(';').unwrap();
        assert!(page.contains(what), "{what}");
    }
}
