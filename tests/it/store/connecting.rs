//! Which databases a URL may name, and how they are reached.

use sea_orm::ConnectionTrait;

use crate::harness::{ADMINISTRATOR, Cluster, Database, OWN, Service, orgd};

#[tokio::test]
async fn a_server_is_reached_by_its_address_of_ipv6() {
    let cluster = Cluster::start(&["max_connections=50", "listen_addresses=127.0.0.1,::1"]);
    let [bracketed, named] =
        ["[::1]", "localhost"].map(|host| cluster.url.replace("127.0.0.1", host));
    let database = Database::postgres_at(&cluster.url, "ipv6").await;
    database.seed().await;
    let port = cluster.url.rsplit(':').next().unwrap();
    let parameters = format!("postgres://postgres@localhost/ipv6?host=[::1]&port={port}");
    for url in [format!("{bracketed}/ipv6"), format!("{named}/ipv6"), parameters] {
        for words in ["migrate", "database get-organization 90"] {
            let done = orgd(&url, words);
            assert_eq!(done.code, 0, "{url} {words}: {}", done.stderr);
        }
        // Over the connections of workers, too.
        let serve = ["serve", "--grpc-addr", "[::1]:0", "--http-addr", "[::1]:0"];
        let service = Service::spawn(
            &[&serve[..], &["--ops-addr", "127.0.0.1:0"]].concat(),
            &[("ORGD_DATABASE_URL", &url)],
        );
        service.until_ready().await;
        let answer = service.put(OWN, ADMINISTRATOR, r#"{"name": "By IPv6"}"#).send().await;
        assert_eq!(answer.status(), 200, "{url}");
    }
}

#[tokio::test]
async fn a_database_that_cannot_keep_every_text_is_refused_at_the_start() {
    let cluster = Cluster::start(&["max_connections=50"]);
    let admin = sea_orm::Database::connect(format!("{}/postgres", cluster.url)).await.unwrap();
    for encoding in ["SQL_ASCII", "LATIN1", "EUC_JP"] {
        let name = encoding.to_lowercase();
        let create = format!("CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0");
        admin.execute_unprepared(&create).await.unwrap();
        let url = format!("{}/{name}", cluster.url);
        for words in [
            "serve --grpc-addr 127.0.0.1:0 --http-addr 127.0.0.1:0 --ops-addr 127.0.0.1:0",
            "migrate",
            "credential list",
        ] {
            let refused = orgd(&url, words);
            assert_eq!(refused.code, 1, "{encoding} {words}");
            let told = "the encoding of the database is not UTF8";
            assert!(refused.stderr.contains(told), "{encoding} {words}: {}", refused.stderr);
        }
    }
}
