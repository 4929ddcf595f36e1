//! A commit that fails is never reported as success.

use orgd::proto::v1::{Organization, UpdateOrganizationRequest};
use sea_orm::ConnectionTrait;
use tonic::Code;

use crate::harness::{ADMINISTRATOR, Database, OWN, USER, authorized, on_both_databases};

/// Makes every change of an organization fail at its commit, and only there: a foreign key that is
/// checked when the transaction ends.
async fn poison(database: &Database) {
    let child = "CREATE TABLE poison (organization_id BIGINT \
        REFERENCES organizations (id) DEFERRABLE INITIALLY DEFERRED)";
    let statements: &[&str] = if database.is_sqlite() {
        &[
            child,
            "CREATE TRIGGER poisoned AFTER UPDATE ON organizations \
             BEGIN INSERT INTO poison VALUES (-1); END",
        ]
    } else {
        &[
            child,
            "CREATE FUNCTION poison() RETURNS trigger LANGUAGE plpgsql AS \
             $$ BEGIN INSERT INTO poison VALUES (-1); RETURN NULL; END $$",
            "CREATE TRIGGER poisoned AFTER UPDATE ON organizations \
             FOR EACH ROW EXECUTE FUNCTION poison()",
        ]
    };
    let connection = database.connect().await;
    for statement in statements {
        connection.execute_unprepared(statement).await.unwrap();
    }
    connection.close().await.unwrap();
}

#[tokio::test]
async fn an_update_whose_commit_fails_is_an_error_and_stores_nothing() {
    on_both_databases(async |service| {
        poison(service.database()).await;
        let before = service.database().organization(OWN).await;

        let answer = service.put(OWN, USER, r#"{"name": "Lost"}"#).send().await;
        assert_eq!((answer.status(), answer.reason().as_str()), (500, "INTERNAL"));
        for internal in ["FOREIGN", "foreign", "sqlite", "constraint", "commit"] {
            assert!(!answer.text().contains(internal), "{}", answer.text());
        }

        let update = UpdateOrganizationRequest {
            organization: Some(Organization {
                id: OWN,
                name: Some("Lost".to_owned()),
                ..Organization::default()
            }),
            ..UpdateOrganizationRequest::default()
        };
        let refused = service.grpc().update(authorized(ADMINISTRATOR, update)).await.unwrap_err();
        assert_eq!(refused.code(), Code::Internal);

        assert_eq!(service.database().organization(OWN).await, before);
        // The connection is whole again: what changes nothing commits.
        assert_eq!(service.put(OWN, USER, "{}").send().await.status(), 200);
        service.until_logged("foreign key").await;
    })
    .await;
}
