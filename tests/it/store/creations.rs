//! Many creations at once: each gets an id of its own, one that fails fails no other, and a full queue is refused.

use std::{collections::BTreeSet, pin::pin};

use futures_util::{FutureExt, future::join_all};
use orgd::{
    app::organizations,
    domain::{
        Call, Change, Creation, Error, Field, Organization as Stored, OrganizationId, Patch,
        Principal,
    },
    proto::v1::{CreateOrganizationRequest, Organization},
    store::{Store, StoreOptions},
};
use tokio::task::{JoinSet, yield_now};

use crate::harness::{
    ADMINISTRATOR, Answer, Database, FOREIGN, OWN, PATIENCE, PRIMER, Request, Service, Spoiled,
    WHOLE, authorized, hold_creations, hold_primers, on_both_databases, orgd,
    unspoiled_on_both_databases,
};

const AT_ONCE: usize = 128;
/// The largest id that there is.
const LARGEST: i64 = 9_007_199_254_740_991;
const KEY: &str = "5a3c9d52-7f0b-4d4e-9a53-0c1f8c8f8a12";

fn post(service: &Service, name: &str) -> Request {
    service
        .request("POST", "/v1/organizations")
        .bearer(ADMINISTRATOR)
        .body(format!(r#"{{"name": "{name}"}}"#))
}

/// Creates over REST, or over gRPC; the new id.
async fn create(service: &Service, number: usize, key: Option<&str>) -> i64 {
    let name = key.map_or(format!("Organization {number}"), |_| "Once".to_owned());
    if number.is_multiple_of(2) {
        let mut request = post(service, &name);
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let answer = request.send().await;
        assert_eq!(answer.status(), 201, "{}", answer.text());
        return answer.json()["id"].as_i64().unwrap();
    }
    let create = CreateOrganizationRequest {
        organization: Some(Organization { name: Some(name), ..Organization::default() }),
        request_id: key.unwrap_or_default().to_owned(),
        ..CreateOrganizationRequest::default()
    };
    service.grpc().create(authorized(ADMINISTRATOR, create)).await.unwrap().into_inner().id
}

/// Creates under an id by the command line.
async fn create_under(service: &Service, id: i64) -> i32 {
    let url = service.database().url().to_owned();
    let create =
        move || orgd(&url, &format!("database create-organization --id {id} --name Named")).code;
    tokio::task::spawn_blocking(create).await.unwrap()
}

/// How many organizations there are.
async fn count(database: &Database) -> usize {
    let store = database.store().await;
    store.list_organizations(&Principal::operator(), 0, WHOLE).await.unwrap().entries.len()
}

/// A service over SQLite, and two over PostgreSQL.
async fn instances() -> [Vec<Service>; 2] {
    let sqlite = Database::sqlite();
    sqlite.seed().await;
    let postgres = Database::postgres().await;
    postgres.seed().await;
    let first = Service::start(postgres).await;
    let second = Service::start_beside(first.shared_database()).await;
    [vec![Service::start(sqlite).await], vec![first, second]]
}

#[tokio::test]
async fn concurrent_creations_each_get_their_own_id() {
    for services in instances().await {
        let database = services[0].database();
        // Neither the largest id, nor what others store past the counter, costs anybody anything.
        assert_eq!(create_under(&services[0], LARGEST).await, 0);
        assert_eq!(create(&services[0], 0, None).await, 95, "the one after the largest");
        database.add_organizations(96, 99).await;
        let created =
            (0..AT_ONCE).map(|number| create(&services[number % services.len()], number, None));
        let named = [120, 130, 5000].map(|id| create_under(&services[0], id));
        let (created, named) = tokio::join!(join_all(created), join_all(named));
        let ids: BTreeSet<i64> = created.iter().copied().collect();
        assert_eq!(ids.len(), AT_ONCE, "{created:?}");
        assert!(ids.iter().all(|id| (100..LARGEST).contains(id)), "{ids:?}");
        // Of an id that two want, one is told that it is taken.
        for (id, code) in [120, 130, 5000].into_iter().zip(named) {
            assert_eq!(code != 0, ids.contains(&id), "{id}");
        }
        for id in &ids {
            assert_eq!(database.changes(*id).await.len(), 1, "{id}");
        }
        // After an import past the counter, and not before it.
        database.add_organizations(7000, 7000).await;
        assert_eq!(create(&services[0], 1, None).await, 7001);
    }
}

#[tokio::test]
async fn one_key_sent_many_times_at_once_creates_one_organization() {
    for services in instances().await {
        let sent =
            (0..16).map(|number| create(&services[number / 2 % services.len()], number, Some(KEY)));
        let ids: BTreeSet<i64> = join_all(sent).await.into_iter().collect();
        assert_eq!(ids.len(), 1, "{ids:?}");
        assert_eq!(count(services[0].database()).await, 3);
    }
}

#[tokio::test]
async fn a_creation_that_fails_does_not_fail_the_others_of_its_batch() {
    unspoiled_on_both_databases(&[], async |service| {
        service.database().refuse_poison("INSERT").await;
        let held = hold_creations(&service).await;
        let names = (0..8).map(|number| if number == 3 { "poison" } else { "fine" });
        let answers = join_all(names.map(|name| post(&service, name).send()));
        let answers = held.batch(8, answers).await?;
        let statuses: Vec<_> = answers.iter().map(Answer::status).collect();
        assert_eq!(statuses, [201, 201, 201, 500, 201, 201, 201, 201]);
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_taken_id_fails_only_its_own_caller() {
    unspoiled_on_both_databases(&[], async |service| {
        let options = StoreOptions { lock_timeout: PATIENCE, ..StoreOptions::default() };
        let store = Store::connect(&service.database().url().into(), options).await.unwrap();
        let ids = [Some(OWN), None, Some(1), Some(95), None];
        let created = create_at_once(service.database(), &store, ids).await?;
        let taken = created[0].as_ref().unwrap_err();
        assert!(matches!(taken, Error::AlreadyExists(id) if id.get() == OWN), "{taken}");
        let created: Vec<_> =
            created[1..].iter().map(|created| created.as_ref().unwrap()).collect();
        let ids: Vec<i64> = created.iter().map(|created| created.id.get()).collect();
        assert_eq!(ids, [96, 1, 95, 97], "those that name none come after those that do");
        let dates: BTreeSet<_> = created.iter().map(|created| created.date_created).collect();
        assert_eq!(dates.len(), 1, "one batch");
        store.close().await.unwrap();
        Ok(())
    })
    .await;
}

/// Creates in one batch, past the service.
async fn create_at_once(
    database: &Database,
    store: &Store,
    ids: [Option<i64>; 5],
) -> Result<Vec<Result<Stored, Error>>, Spoiled> {
    let hold = hold_primers(database).await;
    // On PostgreSQL the first is done beside the queue, and the second by the worker that creates.
    let primers = if database.is_sqlite() { 1 } else { 2 };
    let mut primed = JoinSet::new();
    for (count, id) in (1..=primers).zip([FOREIGN, FOREIGN - 1]) {
        let store = store.clone();
        primed.spawn(async move { create_in(&store, Some(id), PRIMER).await });
        // What is polled once is in the queue.
        yield_now().await;
        if !database.is_sqlite() {
            hold.until_waiting(count).await;
        }
    }
    // On SQLite the worker that looks up has one thread with that which creates: with its answer the latter has the primer.
    let id = OrganizationId::new(OWN).unwrap();
    store.get_organization(&Principal::operator(), id).await.map_err(|_| Spoiled)?;
    let mut created = pin!(join_all(ids.map(|id| create_in(store, id, "In a batch"))));
    assert!(created.as_mut().now_or_never().is_none());
    hold.check()?;
    hold.release().await;
    let created = created.await;
    for primer in primed.join_all().await {
        assert!(matches!(primer, Err(Error::Internal(_))), "{primer:?}");
    }
    Ok(created)
}

async fn create_in(store: &Store, id: Option<i64>, name: &str) -> Result<Stored, Error> {
    let call = Call {
        principal: Principal::operator().into(),
        request_id: "batch".to_owned(),
        idempotency_key: None,
        validate_only: false,
    };
    let patch = Patch::from([(Field::Name, Change::Set(name.to_owned()))]);
    organizations::create(store, &call, Creation { id: id.and_then(OrganizationId::new), patch })
        .await
}

#[tokio::test]
async fn creations_over_the_queue_are_refused_and_abandoned_ones_are_cancelled() {
    unspoiled_on_both_databases(&[], async |service| {
        let held = hold_creations(&service).await;
        let hasty = |name: &str| post(&service, name).header("grpc-timeout", "300m").send();
        let answers = join_all(["a", "b", "c"].map(hasty)).await;
        held.check()?;
        assert!(answers.iter().all(|answer| answer.reason() == "DEADLINE_EXCEEDED"));
        if held.waiting().await < 3 {
            // The time of one was over before it was in the queue.
            return Err(Spoiled);
        }
        // With the fourth all may go on that are still wanted, which is it alone.
        let patient = held.batch(4, post(&service, "Patient").send()).await?;
        assert_eq!(patient.status(), 201);
        assert_eq!(count(service.database()).await, 3);
        Ok(())
    })
    .await;
    unspoiled_on_both_databases(&[("ORGD_WRITE_QUEUE_MAX", "8")], async |service| {
        let held = hold_creations(&service).await;
        let create = |_| post(&service, "Waits").header("grpc-timeout", "500m").send();
        let mut answers = join_all((0..6).map(create)).await;
        held.check()?;
        answers.sort_by_key(Answer::status);
        let statuses: Vec<_> = answers.iter().map(Answer::status).collect();
        assert_eq!(statuses, [429, 429, 504, 504, 504, 504]);
        assert_eq!(answers[0].reason(), "SHARE_EXHAUSTED");
        assert_eq!(answers[0].header("retry-after"), Some("1"));
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_dry_run_tells_the_next_id_and_takes_none() {
    on_both_databases(async |service| {
        let dry = || async {
            let request = service.request("POST", "/v1/organizations?validateOnly=true");
            let request = request.bearer(ADMINISTRATOR);
            request.body(r#"{"name": "Dry"}"#).send().await.json()["id"].as_i64().unwrap()
        };
        for next in [95, 96] {
            assert_eq!([dry().await, dry().await], [next, next]);
            assert_eq!(create(&service, 0, None).await, next);
        }
        assert_eq!(create_under(&service, LARGEST).await, 0);
        assert_eq!(create_under(&service, 1000).await, 0);
        assert_eq!(dry().await, 1001);
    })
    .await;
}
