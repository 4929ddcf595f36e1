//! The cache of credentials: what it remembers and for how long, and that a revocation leaves no gap for writes.

use std::{sync::Arc, time::Duration};

use orgd::proto::v1::GetOrganizationRequest;

use crate::harness::{
    Database, OWN, PATIENCE, PATIENT, Request, SERVE, Service, authorized, ending_soon,
    on_both_databases, orgd,
};

fn get(service: &Service, secret: &str) -> Request {
    service.request("GET", "/v1/organizations/90").bearer(secret)
}

/// A new credential of the user of organization 90: its id and its secret.
fn issue(database: &Database) -> (String, String) {
    let words = "credential issue --role user --organization 90 --json";
    let issued = orgd(database.url(), words).json();
    let text = |key: &str| issued[key].as_str().unwrap().to_owned();
    (text("id"), text("secret"))
}

fn revoke(database: &Database, id: &str) {
    assert_eq!(orgd(database.url(), &format!("credential revoke {id}")).code, 0);
}

#[tokio::test]
async fn a_revoked_credential_writes_nothing_and_reads_only_until_the_cache_forgets_it() {
    on_both_databases(async |service| {
        let second = Service::start_beside(service.shared_database()).await;
        let (id, secret) = issue(service.database());
        for instance in [&service, &second] {
            assert_eq!(get(instance, &secret).send().await.status(), 200);
        }
        revoke(service.database(), &id);
        let before = service.database().organization(OWN).await;
        for instance in [&service, &second] {
            // Remembered by both, and refused by the statement that would write.
            for body in [r#"{"name":"Late"}"#, "{}"] {
                let refused = instance.put(OWN, &secret, body).send().await;
                assert_eq!(refused.reason(), "CREDENTIAL_INVALID", "{body}");
            }
        }
        assert_eq!(service.database().organization(OWN).await, before);
        let forgotten = async {
            while get(&service, &secret).send().await.status() != 401 {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        // After five seconds.
        tokio::time::timeout(PATIENCE, forgotten).await.expect("forgotten");
    })
    .await;
}

#[tokio::test]
async fn no_pending_write_is_stored_after_a_revocation_is_answered() {
    use sea_orm::{ConnectionTrait, Statement};

    // SQLite has one writer, which looks at the credential once it is alone.
    let database = Database::postgres().await;
    database.seed().await;
    let service = Service::start_with(Arc::new(database), &PATIENT).await;
    let observer = service.database().connect().await;
    for round in 0..5 {
        let (id, secret) = issue(service.database());
        let holder = service.database().hold().await;
        let body = format!(r#"{{"name":"Round {round}"}}"#);
        let writing = async { service.put(OWN, &secret, &body).send().await.status() };
        let revoking = async {
            // The write waits for the holder.
            service.database().until_locks_are_waited_for(1).await;
            let ask = format!(
                "SELECT 1 FROM credentials \
                 WHERE revoked_at IS NOT NULL AND encode(digest, 'hex') LIKE '{id}%'"
            );
            let database = service.shared_database();
            let answer = tokio::task::spawn_blocking(move || revoke(&database, &id));
            let ask = Statement::from_string(observer.get_database_backend(), ask);
            while observer.query_all_raw(ask.clone()).await.unwrap().is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            // It was committed without waiting for the write, which is let go.
            holder.rollback().await.unwrap();
            answer.await.unwrap();
            // From the answer on nothing more may be written.
            service.database().changes(OWN).await.len()
        };
        let (status, at_answer) = tokio::join!(writing, revoking);
        // 503: beside load a statement may reach its limit while it waits for the lock.
        assert!([200, 401, 503].contains(&status), "{status}");
        assert_eq!(service.database().changes(OWN).await.len(), at_answer, "round {round}");
    }
    observer.close().await.unwrap();
}

#[tokio::test]
async fn without_the_cache_a_revocation_holds_for_reads_at_once() {
    for database in Database::of_each_kind().await {
        database.seed().await;
        let (id, secret) = issue(&database);
        let environment = [("ORGD_DATABASE_URL", database.url()), ("ORGD_AUTH_CACHE_TTL", "0s")];
        let service = Service::spawn(&SERVE, &environment);
        assert_eq!(get(&service, &secret).send().await.status(), 200);
        revoke(&database, &id);
        assert_eq!(get(&service, &secret).send().await.status(), 401);
        drop(service);
    }
}

#[tokio::test]
async fn an_unknown_credential_is_known_soon_after_it_is_stored() {
    on_both_databases(async |service| {
        let secret = uuid::Uuid::new_v4().to_string();
        assert_eq!(get(&service, &secret).send().await.status(), 401);
        let import = "credential issue --role user --organization 90 --secret-stdin";
        let url = service.database().url();
        assert_eq!(crate::harness::orgd_with_input(url, import, &secret).code, 0);
        let known = async {
            while get(&service, &secret).send().await.status() != 200 {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, known).await.expect("known");
    })
    .await;
}

#[tokio::test]
async fn an_expiry_is_exact_inside_the_cache() {
    on_both_databases(async |service| {
        let (url, words) = (service.database().url(), "--role user --organization 90");
        let status = async |secret: &str| get(&service, secret).send().await.status();
        let (secret, end, before) = ending_soon(url, words, status).await;
        assert_eq!(before, 200);
        let left = end - orgd::store::now();
        tokio::time::sleep(left.try_into().unwrap_or_default()).await;
        assert_eq!(status(&secret).await, 401, "remembered, and over");
    })
    .await;
}

#[tokio::test]
async fn many_callers_of_one_credential_at_once_are_all_answered() {
    on_both_databases(async |service| {
        let (_, secret) = issue(service.database());
        let service = Arc::new(service);
        let answers = (0..50).map(|_| get(&service, &secret).send());
        for answer in futures_util::future::join_all(answers).await {
            assert_eq!(answer.status(), 200, "{}", answer.text());
        }
    })
    .await;
}

#[tokio::test]
async fn concurrent_callers_of_an_uncached_credential_share_one_query() {
    use sea_orm::{ConnectionTrait, Statement};

    // SQLite cannot say which statements run.
    let database = Database::postgres().await;
    database.seed().await;
    let service = Service::start_with(Arc::new(database), &PATIENT).await;
    let (_, secret) = issue(service.database());
    let holder = service.database().lock_table("credentials").await;
    let observer = service.database().connect().await;
    let asking = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
        AND wait_event_type = 'Lock' AND query LIKE '%FROM credentials%'";
    let watching = async {
        // Every caller has come and found nothing that is remembered.
        let misses = "\norgd_auth_cache_lookups_total{result=\"miss\"} 50\n";
        while !service.get_ops("/metrics").await.text().contains(misses) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        service.database().until_locks_are_waited_for(1).await;
        let statement = Statement::from_string(observer.get_database_backend(), asking);
        let row = observer.query_one_raw(statement).await.unwrap().unwrap();
        holder.rollback().await.unwrap();
        row.try_get_by::<i64, _>(0).unwrap()
    };
    let watching = async { tokio::time::timeout(PATIENCE, watching).await.expect("all come") };
    let answers = futures_util::future::join_all((0..50).map(|_| get(&service, &secret).send()));
    let (queries, answers) = tokio::join!(watching, answers);
    assert_eq!(queries, 1);
    assert!(answers.iter().all(|answer| answer.status() == 200));
}

#[tokio::test]
async fn guesses_do_not_evict_a_valid_credential_from_the_cache() {
    use sea_orm::ConnectionTrait;

    let settings = [("ORGD_AUTH_CACHE_TTL", "1h")];
    // What is remembered does not depend on the database.
    let service = Service::over_sqlite(&settings).await;
    let (_, secret) = issue(service.database());
    let (_, other) = issue(service.database());
    assert_eq!(get(&service, &secret).send().await.status(), 200);
    // More than are remembered of either kind.
    let channel = service.grpc();
    for _ in 0..110 {
        let guesses = (0..100).map(|_| {
            let mut client = channel.clone();
            let request = GetOrganizationRequest { id: OWN, ..Default::default() };
            let request = authorized(&uuid::Uuid::new_v4().to_string(), request);
            async move { client.get(request).await.unwrap_err() }
        });
        for refusal in futures_util::future::join_all(guesses).await {
            assert_eq!(refusal.code(), tonic::Code::Unauthenticated, "{refusal:?}");
        }
    }
    // From here on only what is remembered can be known.
    let connection = service.database().connect().await;
    connection.execute_unprepared("ALTER TABLE credentials RENAME TO gone").await.unwrap();
    assert_eq!(get(&service, &other).send().await.status(), 500, "never asked for before");
    assert_eq!(get(&service, &secret).send().await.status(), 200);
}
