//! What the change log keeps: dates that do not go backwards.

use sea_orm::ConnectionTrait;

use crate::harness::{Database, OWN, Service, USER, on_both_databases};

async fn execute(database: &Database, statement: &str) {
    let connection = database.connect().await;
    connection.execute_unprepared(statement).await.unwrap();
    connection.close().await.unwrap();
}

/// An instance whose clock is ahead has written, and others write after it.
#[tokio::test]
async fn the_dates_of_an_organizations_versions_do_not_go_backwards() {
    on_both_databases(async |service| {
        let second = Service::start_beside(service.shared_database()).await;
        let database = service.database();
        for ahead in ["2099-01-01T00:00:00Z", "2099-01-01T00:00:00.25Z"] {
            let set =
                format!("UPDATE organizations SET date_modified = '{ahead}' WHERE id = {OWN}");
            execute(database, &set).await;
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
        execute(database, &format!("UPDATE organizations SET date_modified = '{behind}'")).await;
        let before = orgd::store::now();
        assert_eq!(service.put(OWN, USER, r#"{"name": "Now"}"#).send().await.status(), 200);
        let date = database.organization(OWN).await.date_modified;
        assert!((before..=orgd::store::now()).contains(&date), "{date}");
    })
    .await;
}
