//! Promise 14a: a credential whose writers never pause is revoked within two seconds, and
//! from the answer on nothing is written by it, on any instance. `pending_writes` has the single steps.

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, future::join_all, stream};
use orgd::{
    app::credentials,
    proto::v1::{CreateOrganizationRequest, Organization, UpdateOrganizationRequest},
    store::STATEMENT_TIMEOUT_MAX,
};
use sea_orm::{ConnectionTrait, Statement};
use tokio::time::sleep;

use crate::harness::{Cluster, Command, Database, OWN, Proxy, SERVE, Service, authorized, orgd};

/// Revocations of each database, of which so many are under way at once.
const REVOCATIONS: usize = 12;
const AT_ONCE: usize = 4;
/// The first of the organizations that they update, each its own: no credential has a rest while
/// another one's update has the row.
const FIRST: i64 = 1001;
/// Writers of one credential, each with a request under way at any time.
const WRITERS: usize = 8;
const UNTIL_ALL_WRITE: Duration = Duration::from_millis(500);
/// How long writers go on after the answer: longer than any statement lives.
const AFTERWARDS: Duration = Duration::from_secs(2);
/// What a statement and its commit may take, beside its limit, until its row is seen.
const UNTIL_SEEN: Duration = Duration::from_millis(400);
/// The promise is two seconds; a machine that does much else adds its own.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(15);

/// In place of the id of an organization: one that is created.
const NEW: i64 = 0;

/// How a credential ends.
#[derive(Clone, Copy, Debug)]
enum End {
    Command,
    Sql(&'static str),
}

const CHANGES: [End; 3] = [
    End::Sql("expires_at = '2020-01-01T00:00:00+00:00'"),
    End::Sql(
        "role = CASE role WHEN 'support' THEN 'administrator' ELSE 'support' END, \
         organization_id = NULL",
    ),
    End::Sql("revoked_at = created_at"),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_credential_writes_nothing_after_its_revocation_is_answered() {
    for (settings, database) in [
        ("", Database::sqlite()),
        // Commits of 50 ms, as with a standby far away.
        ("commit_delay = 50000, commit_siblings = 0", Database::postgres().await),
        ("synchronous_commit = off", Database::postgres().await),
    ] {
        database.seed().await;
        database.add_organizations(FIRST, FIRST + 150).await;
        for setting in settings.split(", ").filter(|setting| !setting.is_empty()) {
            let name = database.url().rsplit('/').next().unwrap();
            database.execute(&format!("ALTER DATABASE {name} SET {setting}")).await;
        }
        let database = Arc::new(database);
        let remember = [("ORGD_AUTH_CACHE_TTL", "60s")];
        let services = [
            Service::start_with(database.clone(), &remember).await,
            Service::start_with(database.clone(), &remember).await,
        ];
        // One instance is what a file is for.
        let services = if database.is_sqlite() { &services[..1] } else { &services[..] };
        let ends = [End::Command; REVOCATIONS].into_iter().chain(CHANGES).enumerate();
        let times: Vec<Duration> =
            stream::iter(ends.map(|(number, end)| end_in_use(services, number, end)))
                .buffer_unordered(AT_ONCE)
                .collect()
                .await;
        let longest = times.iter().max().unwrap();
        eprintln!("over {} {settings}: answers within {longest:?}", database.kind());
        assert!(*longest < ANSWER_TIME_MAX, "{times:?}");
    }
}

/// Ends a credential that its writers use, and checks that they write nothing more; answers how long
/// the answer took.
async fn end_in_use(services: &[Service], number: usize, end: End) -> Duration {
    let database = services[0].database();
    // A user's writers wait for each other; those of the others have an organization each, and two
    // of an administrator's create.
    let first = FIRST + i64::try_from(number * WRITERS).unwrap();
    let role = match number % 3 {
        0 => format!("user --organization {first}"),
        1 => "support".to_owned(),
        _ => "administrator".to_owned(),
    };
    let subject = format!("busy-{number}");
    let words = format!("credential issue --role {role} --subject {subject} --json");
    let issued = command(database, &words).await.json();
    let [id, secret] = ["id", "secret"].map(|key| issued[key].as_str().unwrap().to_owned());
    let writers = (0..WRITERS).map(|writer| {
        let service = &services[writer % services.len()];
        let id = match number % 3 {
            0 => first,
            2 if writer < 2 => NEW,
            _ => first + i64::try_from(writer).unwrap(),
        };
        write_without_rest(service, &secret, writer, id)
    });
    let ending = async {
        sleep(UNTIL_ALL_WRITE).await;
        let begin = Instant::now();
        match end {
            End::Command => {
                let revoked = command(database, &format!("credential revoke {id}")).await;
                assert_eq!(revoked.code, 0, "{}", revoked.stderr);
            }
            End::Sql(change) => {
                let update = format!("UPDATE credentials SET {change} WHERE subject = '{subject}'");
                database.execute(&update).await;
            }
        }
        let answered = begin.elapsed();
        if !matches!(end, End::Command) && !database.is_sqlite() {
            sleep(STATEMENT_TIMEOUT_MAX + UNTIL_SEEN).await;
        }
        let then = changes_by(database, &subject).await;
        sleep(AFTERWARDS).await;
        assert_eq!(changes_by(database, &subject).await, then, "{subject}, {end:?}: a late write");
        // Creations over SQLite wait for updates, so that there may be none.
        assert!(then > 0, "{subject} was not busy");
        answered
    };
    tokio::select! {
        answered = ending => answered,
        _ = join_all(writers) => unreachable!("writers never rest"),
    }
}

/// Writes again and again, whatever is answered: over REST and over gRPC in turns.
async fn write_without_rest(service: &Service, secret: &str, writer: usize, id: i64) -> Infallible {
    let mut client = service.grpc();
    for round in 0_u64.. {
        let name = format!("Writer {writer} in round {round}");
        let body = format!(r#"{{"name": "{name}"}}"#);
        let organization = Some(Organization { id, name: Some(name), ..Organization::default() });
        let is_done = match (round.is_multiple_of(2), id == NEW) {
            (true, false) => service.put(id, secret, &body).send().await.status() == 200,
            (true, true) => {
                let create = service.request("POST", "/v1/organizations").body(body);
                let create = create.bearer(secret);
                create.send().await.status() == 201
            }
            (false, false) => {
                let update = UpdateOrganizationRequest { organization, ..Default::default() };
                client.update(authorized(secret, update)).await.is_ok()
            }
            (false, true) => {
                let create = CreateOrganizationRequest { organization, ..Default::default() };
                client.create(authorized(secret, create)).await.is_ok()
            }
        };
        if !is_done {
            sleep(Duration::from_millis(20)).await;
        }
    }
    unreachable!("rounds do not end")
}

async fn command(database: &Database, words: &str) -> Command {
    let (url, words) = (database.url().to_owned(), words.to_owned());
    tokio::task::spawn_blocking(move || orgd(&url, &words)).await.unwrap()
}

/// How many changes the log has of a subject.
async fn changes_by(database: &Database, subject: &str) -> i64 {
    let connection = database.connect().await;
    let count = format!("SELECT count(*) FROM organization_changes WHERE subject = '{subject}'");
    let count = Statement::from_string(connection.get_database_backend(), count);
    let row = connection.query_one_raw(count).await.unwrap().unwrap();
    connection.close().await.unwrap();
    row.try_get_by_index(0).unwrap()
}

/// A write whose statement is over within its limit, and whose commit a standby holds for longer.
#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_is_not_answered_while_the_commit_of_an_older_write_is_held() {
    let cluster = Cluster::start(&[]);
    let database = Database::postgres_at(&cluster.url, "held").await;
    database.seed().await;
    for statement in [
        "CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS \
         $$ BEGIN PERFORM pg_sleep(0.8); RETURN NEW; END $$",
        "CREATE TRIGGER dawdle BEFORE UPDATE ON organizations FOR EACH ROW EXECUTE FUNCTION dawdle()",
    ] {
        database.execute(statement).await;
    }
    let service = Service::start(database).await;
    let database = service.database();
    let words = "credential issue --role user --organization 90 --subject held --json";
    let issued = command(database, words).await.json();
    let [id, secret] = ["id", "secret"].map(|key| issued[key].as_str().unwrap().to_owned());
    assert_eq!(service.put(OWN, &secret, "{}").send().await.status(), 200);

    let store = database.store().await;
    let writing = service.put(OWN, &secret, r#"{"name": "Held"}"#).send();
    let revoking = async {
        sleep(Duration::from_millis(100)).await;
        credentials::revoke(&store, &id).await
    };
    let holding = async {
        let revoked = "SELECT 1 / (count(*) - 3) FROM credentials WHERE revoked_at IS NULL";
        let connection = database.connect().await;
        // An error while the three of the seed are not all.
        while connection.execute_unprepared(revoked).await.is_ok() {
            sleep(Duration::from_millis(5)).await;
        }
        // From here on no commit ends: this standby never comes.
        set_standby(&connection, "absent").await;
        connection
    };
    let (revoked, connection, _) = tokio::join!(revoking, holding, writing);
    let at_answer = changes_by(database, "held").await;
    set_standby(&connection, "").await;
    sleep(AFTERWARDS).await;
    let in_the_end = changes_by(database, "held").await;
    eprintln!("the write was {}", if in_the_end > at_answer { "held" } else { "not held" });
    assert!(revoked.is_err() || in_the_end == at_answer, "a write after the answer");
    assert!(revoked.is_err(), "answered while no commit ends");
    // Said again, it is answered, and holds.
    credentials::revoke(&store, &id).await.unwrap();
    assert_eq!(service.put(OWN, &secret, r#"{"name": "Late"}"#).send().await.status(), 401);
    assert_eq!(changes_by(database, "held").await, in_the_end);
    connection.close().await.unwrap();
    store.close().await.unwrap();
}

async fn set_standby(connection: &sea_orm::DatabaseConnection, name: &str) {
    let set = format!("ALTER SYSTEM SET synchronous_standby_names = '{name}'");
    connection.execute_unprepared(&set).await.unwrap();
    connection.execute_unprepared("SELECT pg_reload_conf()").await.unwrap();
}

/// What loses the settings of a connection loses the limits with them.
#[tokio::test]
async fn a_connection_whose_statements_have_no_limit_is_refused() {
    const STATEMENTS: [&str; 2] = ["statement_timeout is", "a revocation waits"];
    // The limit of statements would do, and may be another session's.
    const LOCKS: [&str; 2] = ["lock_timeout is", "one session to several connections"];
    let database = Database::postgres().await;
    database.seed().await;
    let proxy = Proxy::start_losing_settings(database.addr()).await;
    let behind = database.behind(&proxy);
    let name = database.url().rsplit('/').next().unwrap();
    for (limit, sentences) in [
        ("0", STATEMENTS),
        ("4s", STATEMENTS),
        ("1001ms", STATEMENTS),
        ("1s", LOCKS),
        ("300ms", LOCKS),
    ] {
        let set = format!("ALTER DATABASE {name} SET statement_timeout = '{limit}'");
        database.execute(&set).await;
        for words in ["credential list", &SERVE.join(" ")] {
            let refused = command(&behind, words).await;
            assert_eq!(refused.code, 1, "{limit} {words}");
            for sentence in sentences.into_iter().chain(["use session pooling"]) {
                assert!(refused.stderr.contains(sentence), "{limit}: {}", refused.stderr);
            }
        }
        // It is set on each connection, so what the database is set to makes no difference.
        let direct = command(&database, "credential list").await;
        assert_eq!(direct.code, 0, "{limit}: {}", direct.stderr);
    }
}
