//! Promise 14: rights are checked on the state that is written, so a credential that ends or changes while its write
//! waits writes nothing.

use std::{sync::Arc, time::Duration};

use orgd::proto::v1::{CreateOrganizationRequest, Organization, UpdateOrganizationRequest};
use sea_orm::{ConnectionTrait, DatabaseConnection, Statement, TransactionTrait};
use tokio::time::{sleep, timeout};

use crate::harness::{
    Database, Fault, OWN, PATIENCE, PATIENT, Proxy, SUPPORT, Service, authorized, hold_updates,
    orgd, reason, unspoiled_on_both_databases,
};

/// Long enough for a request to be known as authenticated and to wait for the database.
const ON_ITS_WAY: Duration = Duration::from_millis(200);

/// Who writes, and how.
#[derive(Clone, Copy, Debug)]
enum Writer {
    UserOverRest,
    AdministratorOverGrpc,
    CreatorOverRest,
    CreatorOverGrpc,
}
use Writer::{AdministratorOverGrpc, CreatorOverGrpc, CreatorOverRest, UserOverRest};

impl Writer {
    /// The words that issue its credential.
    fn role(self) -> &'static str {
        match self {
            UserOverRest => "user --organization 90",
            AdministratorOverGrpc | CreatorOverRest | CreatorOverGrpc => "administrator",
        }
    }

    /// Writes; the error is the reason of the refusal.
    async fn write(self, service: &Service, secret: &str) -> Result<(), String> {
        let organization =
            |id| Organization { id, name: Some("Late".to_owned()), ..Organization::default() };
        let rest = match self {
            UserOverRest => service.put(OWN, secret, r#"{"name": "Late"}"#).send().await,
            CreatorOverRest => {
                let create = service.request("POST", "/v1/organizations");
                let create = create.bearer(secret);
                create.body(r#"{"name": "Late"}"#).send().await
            }
            AdministratorOverGrpc => {
                let message = UpdateOrganizationRequest {
                    organization: Some(organization(OWN)),
                    ..UpdateOrganizationRequest::default()
                };
                return of_grpc(service.grpc().update(authorized(secret, message)).await);
            }
            CreatorOverGrpc => {
                let message = CreateOrganizationRequest {
                    organization: Some(organization(0)),
                    ..CreateOrganizationRequest::default()
                };
                return of_grpc(service.grpc().create(authorized(secret, message)).await);
            }
        };
        if rest.status() < 300 { Ok(()) } else { Err(rest.reason()) }
    }
}

fn of_grpc<T>(answer: Result<tonic::Response<T>, tonic::Status>) -> Result<(), String> {
    answer.map(|_| ()).map_err(|status| reason(&status))
}

/// What becomes of a credential while its holder's write waits.
const CHANGES: [(&str, &[Writer]); 6] = [
    ("UPDATE credentials SET revoked_at = created_at", &ALL),
    ("UPDATE credentials SET expires_at = '2020-01-01T00:00:00+00:00'", &ALL),
    ("DELETE FROM credentials", &ALL),
    ("UPDATE credentials SET organization_id = 94", &[UserOverRest]),
    // More rights are other rights: nothing is done by a right that was not checked.
    ("UPDATE credentials SET role = 'support', organization_id = NULL", &[UserOverRest]),
    (
        "UPDATE credentials SET role = 'support'",
        &[AdministratorOverGrpc, CreatorOverRest, CreatorOverGrpc],
    ),
];
const ALL: [Writer; 4] = [UserOverRest, AdministratorOverGrpc, CreatorOverRest, CreatorOverGrpc];

// The proxy must go on while a process is waited for.
#[tokio::test(flavor = "multi_thread")]
async fn a_credential_that_changes_between_check_and_write_writes_nothing() {
    let settings = [&PATIENT[..], &[("ORGD_AUTH_CACHE_TTL", "1h")]].concat();
    let postgres = Database::postgres().await;
    let proxy = Proxy::start(postgres.addr()).await;
    for (database, proxy) in [(Database::sqlite(), None), (postgres.behind(&proxy), Some(&proxy))] {
        database.seed().await;
        let service = Service::start_with(Arc::new(database), &settings).await;
        for (change, writers) in CHANGES {
            for writer in writers {
                let before = everything(&service).await;
                let written = write_while(&service, proxy, *writer, change).await;
                assert_eq!(written, Err("CREDENTIAL_INVALID".to_owned()), "{writer:?}: {change}");
                assert_eq!(everything(&service).await, before, "{writer:?}: {change}");
            }
        }
        // It is not the waiting that is refused.
        for writer in ALL {
            let before = everything(&service).await;
            let harmless = "UPDATE credentials SET description = 'still the same'";
            assert_eq!(write_while(&service, proxy, writer, harmless).await, Ok(()), "{writer:?}");
            assert_ne!(everything(&service).await, before, "{writer:?}");
            service.database().reset().await;
        }
    }
}

/// Begins a write, changes its credential after the write was authenticated and before its statement
/// reaches the database, and lets it go on.
async fn write_while(
    service: &Service,
    proxy: Option<&Proxy>,
    writer: Writer,
    change: &str,
) -> Result<(), String> {
    let subject = uuid::Uuid::new_v4();
    let words = format!("credential issue --role {} --subject {subject} --json", writer.role());
    let issued = orgd(service.database().url(), &words).json();
    let secret = issued["secret"].as_str().unwrap().to_owned();
    // From here on the service remembers the credential.
    let get = service.request("GET", "/v1/organizations/90");
    let get = get.bearer(&secret).send().await;
    assert_eq!(get.status(), 200);

    let connection = service.database().connect().await;
    let holder = connection.begin().await.unwrap();
    let change = format!("{change} WHERE subject = '{subject}'");
    holder.execute_unprepared(&change).await.unwrap();
    let changing = async {
        match proxy {
            Some(proxy) => timeout(PATIENCE, proxy.until_held()).await.expect("a statement comes"),
            // The write waits for SQLite's one writer. SQLite cannot say that it waits.
            None => sleep(ON_ITS_WAY).await,
        }
        holder.commit().await.unwrap();
        if let Some(proxy) = proxy {
            proxy.set(Fault::Pass);
        }
    };
    if let Some(proxy) = proxy {
        proxy.set_for("Late", Fault::HoldStatements);
    }
    // The proxy waits for the statement before the statement is sent.
    let ((), written) = tokio::join!(biased; changing, writer.write(service, &secret));
    connection.close().await.unwrap();
    written
}

async fn rows(connection: &DatabaseConnection, query: &str) -> usize {
    let statement = Statement::from_string(connection.get_database_backend(), query);
    connection.query_all_raw(statement).await.unwrap().len()
}

/// Whatever a write would change.
async fn everything(service: &Service) -> (orgd::domain::Organization, usize, usize) {
    let connection = service.database().connect().await;
    let organizations = rows(&connection, "SELECT id FROM organizations").await;
    let changes = rows(&connection, "SELECT version FROM organization_changes").await;
    connection.close().await.unwrap();
    (service.database().organization(OWN).await, organizations, changes)
}

#[tokio::test]
async fn a_credential_that_ends_while_its_update_waits_writes_nothing() {
    // The first update waits until a second one comes, which is after the credential's end.
    unspoiled_on_both_databases(&[("ORGD_AUTH_CACHE_TTL", "1h")], async |service| {
        for seconds in [2, 4, 8, 16] {
            let words =
                format!("credential issue --role administrator --expires-in {seconds}s --json");
            let issued = orgd(service.database().url(), &words).json();
            let text = |key: &str| issued[key].as_str().unwrap().to_owned();
            let secret = text("secret");
            let format = &time::format_description::well_known::Rfc3339;
            let end = time::OffsetDateTime::parse(&text("expiresAt"), format).unwrap();
            let until = async |time: time::OffsetDateTime| {
                sleep((time - orgd::store::now()).try_into().unwrap_or_default()).await;
            };
            // Workers are not held for longer than a second.
            until(end - time::Duration::milliseconds(500)).await;
            let held = hold_updates(&service).await;
            let mut writing = Box::pin(AdministratorOverGrpc.write(&service, &secret));
            tokio::select! {
                early = &mut writing => {
                    held.check()?;
                    // Its end was before that.
                    assert_eq!(early, Err("CREDENTIAL_INVALID".to_owned()));
                    held.release().await;
                    continue;
                }
                waits = held.until_waiting(1) => waits?,
            }
            let company = async {
                until(end + time::Duration::milliseconds(100)).await;
                service.put(94, SUPPORT, r#"{"name": "Company"}"#).send().await.status()
            };
            let both = async { tokio::join!(writing, company) };
            let (written, company) = held.batch(2, both).await?;
            assert_eq!(written, Err("CREDENTIAL_INVALID".to_owned()));
            assert_eq!(company, 200, "the rest of the batch is done");
            assert_eq!(service.database().organization(OWN).await.etag.version(), 1);
            return Ok(());
        }
        panic!("no update waits before its credential's end");
    })
    .await;
}
