//! What the change log keeps: dates that do not go backwards, and nothing that tells a handshake.

use orgd::domain::Field;
use orgd::proto::v1::{Organization, UpdateOrganizationRequest};
use sea_orm::{ConnectionTrait, Statement};
use sha2::{Digest, Sha256};

use crate::harness::{ADMINISTRATOR, Database, OWN, Service, USER, authorized, on_both_databases};

/// An instance whose clock is ahead has written, and others write after it.
#[tokio::test]
async fn the_dates_of_an_organizations_versions_do_not_go_backwards() {
    on_both_databases(async |service| {
        let second = Service::start_beside(service.shared_database()).await;
        let database = service.database();
        for ahead in ["2099-01-01T00:00:00Z", "2099-01-01T00:00:00.25Z"] {
            let set =
                format!("UPDATE organizations SET date_modified = '{ahead}' WHERE id = {OWN}");
            database.execute(&set).await;
            let ahead = database.organization(OWN).await.date_modified;
            for instance in [&service, &second] {
                let name = uuid::Uuid::new_v4();
                let body = format!(r#"{{"name": "{name}"}}"#);
                assert_eq!(instance.put(OWN, USER, &body).send().await.status(), 200);
                assert_eq!(database.organization(OWN).await.date_modified, ahead);
                assert_eq!(database.changes(OWN).await.last().unwrap().date, ahead);
            }
        }
        // Where the clock is right, it is what counts.
        let behind = "2020-01-01T00:00:00Z";
        database.execute(&format!("UPDATE organizations SET date_modified = '{behind}'")).await;
        let before = orgd::store::now();
        assert_eq!(service.put(OWN, USER, r#"{"name": "Now"}"#).send().await.status(), 200);
        let date = database.organization(OWN).await.date_modified;
        assert!((before..=orgd::store::now()).contains(&date), "{date}");
    })
    .await;
}

/// The digest that is stored under a key.
async fn digest(service: &Service, key: &str) -> Vec<u8> {
    let connection = service.database().connect().await;
    let ask =
        format!("SELECT request_digest FROM organization_changes WHERE idempotency_key = '{key}'");
    let ask = Statement::from_string(connection.get_database_backend(), ask);
    let rows = connection.query_all_raw(ask).await.unwrap();
    assert_eq!(rows.len(), 1, "one change under {key}");
    let digest = rows[0].try_get("", "request_digest").unwrap();
    connection.close().await.unwrap();
    digest
}

/// Sets a handshake under a key, over REST or over gRPC.
async fn shake(service: &Service, key: &str, handshake: &str, over_rest: bool) {
    if over_rest {
        let put = service.put(OWN, ADMINISTRATOR, &format!(r#"{{"handshake": "{handshake}"}}"#));
        let answer = put.header("idempotency-key", key).send().await;
        assert_eq!(answer.status(), 200, "{}", answer.text());
        return;
    }
    let handshake = Some(handshake.to_owned());
    let update = UpdateOrganizationRequest {
        organization: Some(Organization { id: OWN, handshake, ..Organization::default() }),
        request_id: key.to_owned(),
        ..UpdateOrganizationRequest::default()
    };
    service.grpc().update(authorized(ADMINISTRATOR, update)).await.unwrap();
}

#[tokio::test]
async fn nothing_stored_with_an_idempotency_key_reveals_a_handshake() {
    on_both_databases(async |service| {
        let keys: Vec<String> = (0..3).map(|_| uuid::Uuid::new_v4().to_string()).collect();
        shake(&service, &keys[0], "one", true).await;
        shake(&service, &keys[1], "two", false).await;
        assert_eq!(digest(&service, &keys[0]).await, digest(&service, &keys[1]).await);
        // Whatever its handshake, the same request again is answered as the first time.
        for (handshake, over_rest) in [("one", true), ("three", true), ("three", false)] {
            shake(&service, &keys[0], handshake, over_rest).await;
        }
        let stored = service.database().organization(OWN).await;
        assert_eq!((stored.value(Field::Handshake), stored.etag.version()), (Some("two"), 3));
        // Whether there is one is told apart.
        for body in [r#"{"handshake": null}"#, r#"{"handshake": "one", "name": "New"}"#, "{}"] {
            let put = service.put(OWN, ADMINISTRATOR, body).header("idempotency-key", &keys[0]);
            assert_eq!(put.send().await.reason(), "IDEMPOTENCY_KEY_REUSED", "{body}");
        }

        // A row of a release before is still known as the same request. The digest of the first one had
        // the value, and that of the next one has that there is a value.
        shake(&service, &keys[2], "three", true).await;
        let value = [&[2][..], &"three".len().to_be_bytes(), b"three"].concat();
        for handshake in [&value[..], &[3]] {
            let digest = Sha256::new().chain_update(b"update").chain_update(OWN.to_be_bytes());
            let digest = digest.chain_update([0, 0]).chain_update(handshake).finalize();
            store_digest(service.database(), &keys[2], &digest).await;
            shake(&service, &keys[2], "three", true).await;
            shake(&service, &keys[2], "three", false).await;
            assert_eq!(service.database().organization(OWN).await.etag.version(), 4);
        }
    })
    .await;
}

async fn store_digest(database: &Database, key: &str, digest: &[u8]) {
    let digest = data_encoding::HEXLOWER.encode(digest);
    let bytes =
        if database.is_sqlite() { format!("x'{digest}'") } else { format!("'\\x{digest}'") };
    let set = format!(
        "UPDATE organization_changes SET request_digest = {bytes} WHERE idempotency_key = '{key}'"
    );
    database.execute(&set).await;
}
