//! Promise 13a: a release runs beside the one after it. There is no release before this one: here this one is the
//! release before, on a schema that a later one has migrated.

use std::{collections::BTreeSet, fs, path::Path};

use orgd::proto::v1::{
    CreateOrganizationRequest, GetOrganizationRequest, Organization, UpdateOrganizationRequest,
    WatchRequest,
};
use sea_orm::ConnectionTrait;

use crate::harness::{
    ADMINISTRATOR, Database, OWN, SERVE, Service, assert_examples, authorized, on_both_databases,
    on_both_databases_with, orgd,
    strict::{self, StatementLog},
};

/// What the next release may do to the tables that this one uses: add.
const EXPAND: [&str; 6] = [
    "ALTER TABLE organizations ADD COLUMN region TEXT",
    "ALTER TABLE organization_changes ADD COLUMN region TEXT NOT NULL DEFAULT 'none'",
    "ALTER TABLE credentials ADD COLUMN region TEXT",
    // A name that another table has.
    "ALTER TABLE organizations ADD COLUMN subject TEXT",
    "CREATE TABLE regions (name TEXT PRIMARY KEY)",
    "CREATE INDEX organizations_region ON organizations (region)",
];
const EXPANDED: &str = "m29990101_000901_add_regions";
/// Takes away what versions use that do not know step 901, as this one.
const CONTRACTED: &str = "m29990201_000902_drop_names_needs_000901";
/// Takes away what only versions before this one use.
const CONTRACTED_BEFORE: &str = "m29990201_000903_drop_something_needs_000004";

async fn record(database: &Database, step: &str) {
    database.execute(&format!("INSERT INTO seaql_migrations VALUES ('{step}', 0)")).await;
}

/// Everything that a service and its commands do, over the tables as they are.
async fn assert_works(service: &Service) {
    let database = service.database();
    database.reset().await;
    assert_examples(service).await;
    let before = database.organization(OWN).await.etag.version();
    let mut grpc = service.grpc();
    let organization =
        Organization { id: OWN, name: Some("By gRPC".to_owned()), ..Default::default() };
    let update = UpdateOrganizationRequest {
        organization: Some(organization),
        request_id: uuid::Uuid::new_v4().to_string(),
        ..Default::default()
    };
    let first = grpc.update(authorized(ADMINISTRATOR, update.clone())).await.unwrap();
    let again = grpc.update(authorized(ADMINISTRATOR, update)).await.unwrap();
    assert_eq!(first.get_ref().etag, again.get_ref().etag, "sent again under its key");
    let get = GetOrganizationRequest { id: OWN, ..Default::default() };
    let got = grpc.get(authorized(ADMINISTRATOR, get)).await.unwrap().into_inner();
    assert_eq!(got.name.as_deref(), Some("By gRPC"));

    for path in ["/v1/organizations", "/v1/organizations/90", "/v1/organizations/90/changes"] {
        let answer = service.request("GET", path).bearer(ADMINISTRATOR).send().await;
        assert_eq!(answer.status(), 200, "{path}: {}", answer.text());
    }
    // Created through both APIs, twice under one key.
    let key = uuid::Uuid::new_v4().to_string();
    for _ in 0..2 {
        let post = service.request("POST", "/v1/organizations").bearer(ADMINISTRATOR);
        let post = post.header("content-type", "application/json").header("idempotency-key", &key);
        let answer = post.body(r#"{"name": "New", "handshake": "h"}"#.to_owned()).send().await;
        assert_eq!(answer.status(), 201, "{}", answer.text());
    }
    let organization = Organization { name: Some("New".to_owned()), ..Default::default() };
    let create =
        CreateOrganizationRequest { organization: Some(organization), ..Default::default() };
    let created = grpc.create(authorized(ADMINISTRATOR, create)).await.unwrap().into_inner();
    let watch = WatchRequest { organization_ids: vec![OWN], from_versions: [(OWN, 0)].into() };
    let mut watch = grpc.watch(authorized(ADMINISTRATOR, watch)).await.unwrap().into_inner();
    assert!(watch.message().await.unwrap().is_some());

    let id = 1000 + before;
    let issue = "credential issue --role support --subject new --json";
    let issued = orgd(database.url(), issue).json();
    for words in [
        format!("database create-organization --id {id} --name New"),
        format!("database get-organization {id}"),
        "credential issue --role support --subject new --if-absent".to_owned(),
        "credential list".to_owned(),
        format!("credential revoke {}", issued["id"].as_str().unwrap()),
        "migrate".to_owned(),
        "migrate status".to_owned(),
    ] {
        let done = orgd(database.url(), &words);
        assert_eq!(done.code, 0, "{words}: {}", done.stderr);
    }
    for id in [id, created.id] {
        assert_eq!(database.changes(id).await.len(), 1, "created and recorded");
    }
}

async fn unknown_steps(service: &Service) -> String {
    let metrics = service.get_ops("/metrics").await;
    let line = |line: &&str| line.starts_with("orgd_migrations{state=\"unknown\"}");
    metrics.text().lines().find(line).expect("the metric is there").to_owned()
}

#[tokio::test]
async fn a_release_works_and_starts_on_the_schema_of_the_next() {
    // So that every call looks into every table.
    let settings = [("ORGD_AUTH_CACHE_TTL", "0s")];
    on_both_databases_with(&settings, async |running| {
        let database = running.shared_database();
        // Statements are kept prepared from now on.
        assert_works(&running).await;
        for statement in EXPAND {
            database.execute(statement).await;
        }
        record(&database, EXPANDED).await;
        record(&database, CONTRACTED_BEFORE).await;

        assert_works(&running).await;
        assert!(unknown_steps(&running).await.ends_with(" 2"));
        // One that crashed while the others are replaced, or to which a deployment goes back.
        let started = Service::start_beside(database.clone()).await;
        started.until_logged("of a later version, which this one can use").await;
        assert_works(&started).await;
        assert!(unknown_steps(&started).await.ends_with(" 2"));
        let status = orgd(database.url(), "migrate status");
        assert!(status.stdout.contains("applied by a later version"), "{}", status.stdout);
        assert!(!status.stdout.contains("pending"), "{}", status.stdout);
    })
    .await;
}

/// What may happen to a column under statements that are kept prepared, beside being added: its type
/// becomes another one that holds the same.
fn retyped(database: &Database) -> Vec<String> {
    if database.is_sqlite() {
        // It has no types to speak of, and no way to change them.
        return Vec::new();
    }
    let columns = [
        ("organizations", vec!["name", "subscription_id", "handshake"]),
        ("organization_changes", vec!["subject", "request_id", "name", "idempotency_key"]),
        ("credentials", vec!["subject", "description"]),
    ];
    let retype = |table: &str, column: &str| {
        format!("ALTER TABLE {table} ALTER COLUMN {column} TYPE varchar(4000)")
    };
    let columns = columns
        .iter()
        .flat_map(|(table, columns)| columns.iter().map(move |column| retype(table, column)));
    columns.collect()
}

#[tokio::test]
async fn tables_may_change_under_a_running_instance() {
    let settings = [("ORGD_AUTH_CACHE_TTL", "0s"), ("ORGD_DATABASE_CONNECTIONS", "9")];
    on_both_databases_with(&settings, async |running| {
        let database = running.shared_database();
        for round in 0..3 {
            // Prepared on every connection.
            for _ in 0..3 {
                assert_works(&running).await;
            }
            let added = ["organizations", "organization_changes", "credentials"]
                .map(|table| format!("ALTER TABLE {table} ADD COLUMN added_{round} TEXT"));
            for statement in added.into_iter().chain(retyped(&database)) {
                database.execute(&statement).await;
                let put = running.put(OWN, ADMINISTRATOR, &format!(r#"{{"name": "{statement}"}}"#));
                let put = put.header("idempotency-key", &uuid::Uuid::new_v4().to_string());
                assert_eq!(put.send().await.status(), 200, "{statement}");
                let post = running.request("POST", "/v1/organizations");
                let post = post.bearer(ADMINISTRATOR);
                let post = post.header("content-type", "application/json");
                let answer = post.body(r#"{"name": "New"}"#.to_owned()).send().await;
                assert_eq!(answer.status(), 201, "{statement}: {}", answer.text());
            }
            for statement in retyped(&database) {
                database.execute(&statement.replace("varchar(4000)", "text")).await;
            }
            assert_works(&running).await;
        }
        running.until_ready().await;
    })
    .await;
}

#[tokio::test]
async fn every_statement_names_the_columns_that_it_answers() {
    let cluster = strict::start().await;
    let database = Database::strict(&cluster.url).await;
    database.seed().await;
    let service = Service::start_with(database.into(), &[("ORGD_AUTH_CACHE_TTL", "0s")]).await;
    assert_works(&service).await;
    let observer = service.database().connect().await;
    let log = StatementLog::read(&observer).await;
    assert_eq!(log.without_names(), BTreeSet::new(), "of {:#?}", log.distinct());
    // The search finds what it searches for.
    let role = sea_orm::Database::connect(service.database().url()).await.unwrap();
    for statement in ["SELECT * FROM credentials", "DELETE FROM credentials RETURNING *"] {
        role.execute_unprepared(statement).await.unwrap();
    }
    assert_eq!(StatementLog::read(&observer).await.without_names().len(), 2);
}

#[tokio::test]
async fn a_release_does_not_start_on_a_schema_that_lacks_what_it_uses() {
    let newer = "the database is newer than this version of orgd";
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/OPERATIONS.md");
    assert!(fs::read_to_string(page).unwrap().contains(newer));
    on_both_databases(async |running| {
        let database = running.database();
        record(database, EXPANDED).await;
        record(database, CONTRACTED).await;
        let serve = SERVE.join(" ");
        for words in [serve.as_str(), "migrate", "credential list"] {
            let refused = orgd(database.url(), words);
            assert_eq!(refused.code, 1, "{words}");
            for text in [newer, CONTRACTED, "restore a backup"] {
                assert!(refused.stderr.contains(text), "{words}, {text}: {}", refused.stderr);
            }
            assert!(!refused.stderr.contains(EXPANDED), "is no reason: {}", refused.stderr);
        }
        let status = orgd(database.url(), "migrate status");
        assert_eq!(status.code, 0, "{}", status.stderr);
        assert!(status.stdout.contains(CONTRACTED), "{}", status.stdout);
        // One that runs already goes on as long as it can.
        let answer = running.put(OWN, ADMINISTRATOR, r#"{"name": "Still served"}"#).send().await;
        assert_eq!(answer.status(), 200);
        assert!(unknown_steps(&running).await.ends_with(" 2"));
    })
    .await;
}

#[test]
fn destructive_migrations_have_needs_in_their_names() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations/src");
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(&path).unwrap().to_lowercase();
        if !text.contains("derivemigrationname") {
            continue;
        }
        numbers.push(name.split('_').nth(1).unwrap().to_owned());
        let up = text.split("fn down").next().unwrap();
        let takes_away = ["drop", "rename", "modify", "delete", "truncate"];
        let takes_away = takes_away.iter().any(|word| up.contains(word));
        assert_eq!(takes_away, name.contains("_needs_"), "{name}");
    }
    let all = numbers.len();
    numbers.sort();
    numbers.dedup();
    assert_eq!((numbers.len(), orgd_steps()), (all, all), "each step has a number of its own");
}

fn orgd_steps() -> usize {
    let database = Database::sqlite();
    orgd(database.url(), "migrate --json").json().as_array().unwrap().len()
}
