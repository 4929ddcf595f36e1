//! A commit that fails is never reported as success.

use orgd::proto::v1::{Organization, UpdateOrganizationRequest};
use tonic::Code;

use crate::harness::{ADMINISTRATOR, Database, OWN, USER, authorized, on_both_databases, orgd};

/// Makes every change of an organization or a credential fail at its commit, and only there: a foreign key that is
/// checked when the transaction ends.
pub(super) async fn poison(database: &Database) {
    let child = "CREATE TABLE poison (organization_id BIGINT \
        REFERENCES organizations (id) DEFERRABLE INITIALLY DEFERRED)";
    let mut statements = vec![child.to_owned()];
    if !database.is_sqlite() {
        statements.push(
            "CREATE FUNCTION poison() RETURNS trigger LANGUAGE plpgsql AS \
             $$ BEGIN INSERT INTO poison VALUES (-1); RETURN NULL; END $$"
                .to_owned(),
        );
    }
    for (event, table) in
        [("INSERT", "organizations"), ("UPDATE", "organizations"), ("UPDATE", "credentials")]
    {
        let action = if database.is_sqlite() {
            "BEGIN INSERT INTO poison VALUES (-1); END"
        } else {
            "FOR EACH ROW EXECUTE FUNCTION poison()"
        };
        let name = format!("poisoned_{event}_{table}");
        statements.push(format!("CREATE TRIGGER {name} AFTER {event} ON {table} {action}"));
    }
    for statement in statements {
        database.execute(&statement).await;
    }
}

#[tokio::test]
async fn a_creation_and_a_revocation_whose_commits_fail_are_errors_too() {
    on_both_databases(async |service| {
        let url = service.database().url().to_owned();
        let issued = orgd(&url, "credential issue --role support --json").json();
        let (id, secret) = (issued["id"].as_str().unwrap(), issued["secret"].as_str().unwrap());
        poison(service.database()).await;
        let create = || {
            let request = service.request("POST", "/v1/organizations").body(r#"{"name":"Lost"}"#);
            request.bearer(ADMINISTRATOR)
        };
        let answer = create().send().await;
        assert_eq!((answer.status(), answer.reason().as_str()), (500, "INTERNAL"));
        let list = || service.request("GET", "/v1/organizations").bearer(secret);
        let listed = list().send().await.json();
        assert_eq!(listed["organizations"].as_array().unwrap().len(), 2, "nothing is stored");

        let revoked = orgd(&url, &format!("credential revoke {id}"));
        assert_ne!(revoked.code, 0, "{}", revoked.stdout);
        let credentials = orgd(&url, "credential list --json").json();
        let credentials = credentials.as_array().unwrap();
        assert!(credentials.iter().all(|credential| credential["state"] == "valid"));
    })
    .await;
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
