//! Updates that share a statement or a commit: each has its own outcome, and none spoils another.

mod commit;

use std::collections::BTreeSet;

use futures_util::future::join_all;
use orgd::domain::Field;
use tokio::task::JoinSet;

use crate::{
    harness::{
        ADMINISTRATOR, Answer, Database, OWN, PRIMED, Request, SUPPORT, Service, Spoiled, UNKNOWN,
        USER, hold_updates, on_both_databases_with, orgd, unspoiled_on,
        unspoiled_on_both_databases,
    },
    store::batches::commit::poison,
};

/// The first of the organizations that these tests add.
pub const FIRST: i64 = 1001;

const KEY: &str = "5a3c9d52-7f0b-4d4e-9a53-0c1f8c8f8a11";

pub fn rename(service: &Service, id: i64, name: &str) -> Request {
    service.put(id, SUPPORT, &format!(r#"{{"name": "{name}"}}"#))
}

/// The date of the last change of an organization: one for all that one batch changed.
async fn last_date(service: &Service, id: i64) -> time::OffsetDateTime {
    service.database().changes(id).await.last().unwrap().date
}

#[tokio::test]
async fn each_update_of_a_batch_has_its_own_outcome() {
    unspoiled_on_both_databases(&[("ORGD_AUTH_CACHE_TTL", "1h")], async |service| {
        mixed_batch(&service, false).await
    })
    .await;
}

#[tokio::test]
async fn an_update_that_fails_does_not_fail_the_others_of_its_batch() {
    unspoiled_on_both_databases(&[("ORGD_AUTH_CACHE_TTL", "1h")], async |service| {
        service.database().refuse_poison("UPDATE").await;
        mixed_batch(&service, true).await
    })
    .await;
}

/// Nine updates in one batch, or ten with one that the database refuses.
async fn mixed_batch(service: &Service, with_poison: bool) -> Result<(), Spoiled> {
    let database = service.database();
    database.add_organizations(FIRST, FIRST + 9).await;
    let words = "credential issue --role support --json";
    let issued = orgd(database.url(), words).json();
    let (id, secret) = (issued["id"].as_str().unwrap(), issued["secret"].as_str().unwrap());
    let remembered = service.request("GET", "/v1/organizations/90");
    let remembered = remembered.bearer(secret).send().await;
    assert_eq!(remembered.status(), 200);
    assert_eq!(orgd(database.url(), &format!("credential revoke {id}")).code, 0);

    let mut requests = vec![
        rename(service, FIRST, "Changed"),
        rename(service, FIRST + 1, "Stale").header("if-match", "\"7\""),
        rename(service, UNKNOWN, "Missing"),
        rename(service, FIRST + 2, &format!("Organization {}", FIRST + 2)),
        service.put(FIRST + 3, secret, r#"{"name": "Revoked"}"#),
        service.put(FIRST + 4, SUPPORT, r#"{"subscriptionId": "pro"}"#),
        service.put(OWN, USER, r#"{"name": "Mine"}"#),
        service.put(FIRST + 5, ADMINISTRATOR, r#"{"handshake": "h", "subscriptionId": null}"#),
        rename(service, FIRST + 6, "Once").header("idempotency-key", KEY),
    ];
    let mut expected = vec![
        "",
        "ETAG_MISMATCH",
        "ORGANIZATION_NOT_FOUND",
        "",
        "CREDENTIAL_INVALID",
        "",
        "",
        "",
        "",
    ];
    if with_poison {
        requests.push(rename(service, FIRST + 7, "poison"));
        expected.push("INTERNAL");
    }
    let held = hold_updates(service).await;
    let (count, sent) = (requests.len(), requests.into_iter().map(Request::send));
    let answers = held.batch(count, join_all(sent)).await?;
    let reasons: Vec<String> = answers.iter().map(Answer::reason).collect();
    assert_eq!(reasons, expected);

    let versions = async |id: i64| database.organization(id).await.etag.version();
    for (id, version) in [(0, 2), (1, 1), (2, 1), (3, 1), (4, 2), (5, 2), (6, 2), (7, 1)] {
        assert_eq!(versions(FIRST + id).await, version, "{id}");
    }
    let stored = database.organization(FIRST + 5).await;
    assert_eq!(
        (stored.value(Field::Handshake), stored.value(Field::Name)),
        (Some("h"), Some("Organization 1006"))
    );
    let mut dates = BTreeSet::new();
    for id in [FIRST, FIRST + 4, OWN, FIRST + 5, FIRST + 6] {
        dates.insert(last_date(service, id).await);
        assert_eq!(database.changes(id).await.last().unwrap().version, 2);
    }
    // Together, or each alone after their batch was rolled back.
    assert_eq!(dates.len(), if with_poison { 5 } else { 1 });
    Ok(())
}

/// Else many callers would each need a connection at once, of which one caller has a share.
#[tokio::test]
async fn a_batch_that_loses_to_another_transaction_is_done_again_as_one() {
    for (losses, batches) in [(1, 1), (2, 1), (3, 6)] {
        unspoiled_on(Database::postgres().await, &[], async |service| {
            service.database().add_organizations(FIRST, FIRST + 5).await;
            service.database().execute(&losing(losses)).await;
            let held = hold_updates(&service).await;
            let updates = (FIRST..=FIRST + 5).map(|id| rename(&service, id, "Loses").send());
            let answers = held.batch(6, join_all(updates)).await?;
            assert!(answers.iter().all(|answer| answer.status() == 200), "{losses} losses");
            let mut dates = BTreeSet::new();
            for id in FIRST..=FIRST + 5 {
                dates.insert(last_date(&service, id).await);
            }
            assert_eq!(dates.len(), batches, "{losses} losses");
            Ok(())
        })
        .await;
    }
}

/// Makes so many statements lose, as if another transaction had won. A sequence counts them, as it is not rolled back.
fn losing(losses: usize) -> String {
    format!(
        "CREATE SEQUENCE losses; \
         CREATE FUNCTION loses() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN \
           IF nextval('losses') <= {losses} THEN RAISE EXCEPTION USING ERRCODE = '40001'; END IF; \
           RETURN NEW; END $$; \
         CREATE TRIGGER loses BEFORE UPDATE ON organizations FOR EACH ROW \
           WHEN (NEW.name = 'Loses') EXECUTE FUNCTION loses()"
    )
}

/// Each is done alone then. The caller has had its share of the queue, so it is not told that it has too much.
#[tokio::test]
async fn a_batch_that_takes_too_long_is_done_one_by_one_and_nobody_is_refused() {
    const SLOW: i64 = 30;
    unspoiled_on(Database::postgres().await, &[], async |service| {
        service.database().add_organizations(FIRST, FIRST + SLOW).await;
        let slow = "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS \
                      $$ BEGIN PERFORM pg_sleep(0.1); RETURN NEW; END $$; \
                    CREATE TRIGGER slow BEFORE UPDATE ON organizations FOR EACH ROW \
                      WHEN (NEW.name = 'Slow') EXECUTE FUNCTION slow()";
        service.database().execute(slow).await;
        let held = hold_updates(&service).await;
        let updates = (FIRST..FIRST + SLOW).map(|id| rename(&service, id, "Slow").send());
        let answers = held.batch(30, join_all(updates)).await?;
        let reasons: BTreeSet<String> = answers.iter().map(Answer::reason).collect();
        assert_eq!(reasons, BTreeSet::from([String::new()]));
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn one_key_twice_in_a_batch_makes_one_change() {
    unspoiled_on_both_databases(&[], async |service| {
        service.database().add_organizations(FIRST, FIRST + 2).await;
        let held = hold_updates(&service).await;
        let keyed = |id| rename(&service, id, "Keyed").header("idempotency-key", KEY).send();
        let beside = rename(&service, FIRST + 2, "Beside").send();
        let all = Box::pin(async { tokio::join!(keyed(FIRST), keyed(FIRST + 1), beside) });
        let (first, second, beside) = held.batch(3, all).await?;
        assert_eq!(beside.status(), 200);
        let mut statuses = [first.status(), second.status()];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 422], "another organization is another request");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_batch_has_no_more_than_its_limit() {
    unspoiled_on_both_databases(&[("ORGD_WRITE_BATCH_MAX", "2")], async |service| {
        service.database().add_organizations(FIRST, FIRST + 5).await;
        let held = hold_updates(&service).await;
        let updates = (FIRST..=FIRST + 5).map(|id| rename(&service, id, "In a batch").send());
        let answers = held.batch(6, join_all(updates)).await?;
        assert!(answers.iter().all(|answer| answer.status() == 200));
        let mut dates = BTreeSet::new();
        for id in FIRST..=FIRST + 5 {
            dates.insert(service.database().organization(id).await.date_modified);
        }
        assert_eq!(dates.len(), 3, "six updates, two in a batch");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_callers_updates_of_one_organization_keep_their_order() {
    unspoiled_on_both_databases(&[], async |service| {
        // Remembers the credential, so that none waits for it.
        assert_eq!(service.put(OWN, SUPPORT, "{}").send().await.status(), 200);
        let held = hold_updates(&service).await;
        let names: Vec<String> = (0..10).map(|number| format!("Name {number}")).collect();
        let sending = async {
            let mut sent = JoinSet::new();
            for (number, name) in names.iter().enumerate() {
                // Each is sent when the one before it waits.
                held.until_waiting(number).await?;
                sent.spawn(rename(&service, OWN, name).send());
            }
            Ok(sent.join_all().await)
        };
        let answers = held.batch(10, sending).await??;
        assert!(answers.iter().all(|answer| answer.status() == 200));
        let changes = service.database().changes(OWN).await;
        let logged = changes
            .iter()
            .skip(1)
            .map(|change| change.fields[0].values.as_ref().unwrap().new.clone().unwrap());
        assert_eq!(logged.collect::<Vec<_>>(), names);
        let dates: BTreeSet<_> = changes.iter().map(|change| change.date).collect();
        assert_eq!(dates.len(), 11, "no two of them in one batch");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_commit_that_fails_is_an_error_for_every_update_of_the_batch() {
    unspoiled_on_both_databases(&[], async |service| {
        service.database().add_organizations(FIRST, FIRST + 3).await;
        service.database().add_organizations(PRIMED[0], PRIMED[2]).await;
        poison(service.database()).await;
        let held = hold_updates(&service).await;
        let answers = join_all((FIRST..FIRST + 4).map(|id| rename(&service, id, "Lost").send()));
        for answer in held.batch(4, answers).await? {
            assert_eq!((answer.status(), answer.reason().as_str()), (500, "INTERNAL"));
        }
        for id in FIRST..FIRST + 4 {
            assert_eq!(service.database().organization(id).await.etag.version(), 1);
            assert!(service.database().changes(id).await.is_empty());
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_caller_that_gives_up_cancels_its_pending_update() {
    unspoiled_on_both_databases(&[], async |service| {
        service.database().add_organizations(FIRST, FIRST + 2).await;
        let held = hold_updates(&service).await;
        // Until it has been in the queue when its time was over: the service may be slower.
        for deadline in ["300m", "1S", "5S", "20S"] {
            let hasty = rename(&service, FIRST, "Hasty").header("grpc-timeout", deadline);
            let hasty = hasty.send().await.reason();
            held.check()?;
            assert_eq!(hasty, "DEADLINE_EXCEEDED");
            if held.waiting().await == 1 {
                break;
            }
        }
        let patient = |id| rename(&service, id, "Patient").send();
        let both = async { tokio::join!(patient(FIRST + 1), patient(FIRST + 2)) };
        let (first, second) = held.batch(3, both).await?;
        assert_eq!((first.status(), second.status()), (200, 200));
        assert_eq!(service.database().organization(FIRST).await.etag.version(), 1);
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn an_update_without_fields_does_not_wait_for_a_batch() {
    unspoiled_on_both_databases(&[], async |service| {
        let held = hold_updates(&service).await;
        let answer = service.put(OWN, SUPPORT, "{}").send().await;
        // The others wait as before.
        held.check()?;
        assert_eq!(answer.status(), 200);
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_locked_row_does_not_hold_up_the_others_of_its_batch() {
    // SQLite has no locks of rows: a writer locks the whole file.
    let database = Database::postgres().await;
    // Rows are tried alone after the batch, one after the other, as they are one caller's, and a place at the pool is
    // waited for for a second at least.
    let lock_timeout = [("ORGD_DATABASE_LOCK_TIMEOUT", "500ms")];
    unspoiled_on(database, &lock_timeout, async |service| {
        service.database().add_organizations(FIRST, FIRST + 2).await;
        let held = hold_updates(&service).await;
        let holder = service.database().hold().await;

        let locked = rename(&service, OWN, "Locked").send();
        let others = join_all((FIRST..FIRST + 3).map(|id| rename(&service, id, "Free").send()));
        let all = async { tokio::join!(locked, others) };
        let (locked, others) = held.batch(4, all).await?;
        assert_eq!((locked.status(), locked.reason().as_str()), (503, "STORE_UNAVAILABLE"));
        for other in others {
            assert_eq!(other.status(), 200, "{}", other.text());
        }
        holder.rollback().await.unwrap();
        assert_eq!(service.database().organization(OWN).await.etag.version(), 1);
        Ok(())
    })
    .await;
}

/// Times that a database keeps and that no calendar of ours has.
fn unreadable_times(database: &Database) -> [&'static str; 4] {
    if database.is_sqlite() {
        ["infinity", "12000-01-01 00:00:00+00:00", "2024-02-30 00:00:00+00:00", ""]
    } else {
        ["infinity", "-infinity", "12000-01-01", "294276-12-31"]
    }
}

async fn set_time(service: &Service, table: &str, column: &str, time: &str, condition: &str) {
    let spoil = format!("UPDATE {table} SET {column} = '{time}' WHERE {condition}");
    service.database().execute(&spoil).await;
}

#[tokio::test]
async fn a_row_that_cannot_be_decoded_fails_its_own_caller_alone() {
    unspoiled_on_both_databases(&[("ORGD_AUTH_CACHE_TTL", "60s")], async |service| {
        service.database().add_organizations(FIRST, FIRST + 11).await;
        // Every third.
        let times = unreadable_times(service.database());
        for (id, time) in (FIRST..).step_by(3).zip(times) {
            set_time(&service, "organizations", "date_created", time, &format!("id = {id}")).await;
        }
        let is_readable = |id: i64| (id - FIRST) % 3 != 0;
        for round in 0..3 {
            let name = format!("Round {round}");
            let updates =
                (FIRST..FIRST + 12).map(async |id| (id, rename(&service, id, &name).send().await));
            let held = hold_updates(&service).await;
            for (id, answer) in held.batch(12, join_all(updates)).await? {
                let expected = if is_readable(id) { (200, "") } else { (500, "INTERNAL") };
                let told = (answer.status(), answer.reason());
                assert_eq!(told, (expected.0, expected.1.to_owned()), "{id}");
                if !is_readable(id) {
                    service.until_logged(&format!("organization {id} cannot be decoded")).await;
                }
            }
            let lookups = (0..60).map(async |number| {
                let id = FIRST + number % 12;
                let get = service.request("GET", &format!("/v1/organizations/{id}"));
                let get = get.bearer(SUPPORT);
                (id, get.send().await.status())
            });
            for (id, status) in join_all(lookups).await {
                assert_eq!(status, if is_readable(id) { 200 } else { 500 }, "{id}");
            }
        }
        for id in (FIRST..FIRST + 12).filter(|id| is_readable(*id)) {
            assert_eq!(service.database().changes(id).await.len(), 3, "each was stored once");
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_credential_that_cannot_be_decoded_fails_its_own_holder_alone() {
    // Each call looks its credential up.
    on_both_databases_with(&[("ORGD_AUTH_CACHE_TTL", "0s")], async |service| {
        for time in unreadable_times(service.database()) {
            set_time(&service, "credentials", "created_at", time, "subject = 'test-support'").await;
            let calls = (0..60).map(async |number| {
                let token = [USER, SUPPORT, ADMINISTRATOR][number % 3];
                let get = service.request("GET", &format!("/v1/organizations/{OWN}"));
                let get = get.bearer(token);
                (token, get.send().await.status())
            });
            for (token, status) in join_all(calls).await {
                assert_eq!(status, if token == SUPPORT { 500 } else { 200 }, "{time}");
            }
        }
        assert_eq!(service.get_ops("/readyz").await.status(), 200);
    })
    .await;
}
