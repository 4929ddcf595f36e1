//! A database of one test's own.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use orgd::{
    app::{
        credentials::{self, Grant},
        organizations,
    },
    auth::Secret,
    domain::{
        Call, Change, ChangeEntry, Creation, Error, Field, Organization, OrganizationId, PageSize,
        Patch, Principal, Role,
    },
    store::{Store, StoreOptions},
};
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, Statement, TransactionTrait,
};
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};

use super::{
    ADMINISTRATOR, FOREIGN, OWN, PATIENCE, SUPPORT, USER, faults::Proxy, postgres::Cluster, strict,
};

/// A page that has all of a list.
pub const WHOLE: PageSize = PageSize { entries: 10_000, bytes: usize::MAX };

/// The variable by which a test process is told to leave PostgreSQL out where SQLite does too: it then
/// takes half the time. Tests of PostgreSQL alone start one nevertheless.
const SQLITE_ALONE: &str = "TEST_SQLITE_ALONE";

/// An empty database, gone with the value (SQLite) or with the test process (PostgreSQL).
pub struct Database {
    /// The service's.
    url: String,
    /// That of a test which looks on, or does what only a test may do.
    observer_url: String,
    _folder: Option<TempDir>,
}

impl Database {
    pub fn sqlite() -> Self {
        Self::sqlite_of(TempDir::new().unwrap())
    }

    /// One of SQLite and one of PostgreSQL. Where the process was given a strict PostgreSQL, that alone is of interest;
    /// where it was told to leave PostgreSQL out (`make quick`), SQLite alone is.
    pub async fn of_each_kind() -> Vec<Self> {
        let mut databases = Vec::new();
        if strict::given().is_none() {
            databases.push(Self::sqlite());
        }
        if std::env::var_os(SQLITE_ALONE).is_none() {
            databases.push(Self::postgres().await);
        }
        databases
    }

    pub async fn postgres() -> Self {
        static CLUSTER: OnceLock<Cluster> = OnceLock::new();
        if let Some(superuser_url) = strict::given() {
            return Self::strict(&superuser_url).await;
        }
        let cluster = CLUSTER.get_or_init(|| Cluster::start(&["max_connections=300"]));
        Self::postgres_at(&cluster.url, &next_name()).await
    }

    /// A new database of a server.
    pub async fn postgres_at(server: &str, name: &str) -> Self {
        create(server, name, "").await;
        let url = format!("{server}/{name}");
        Self { observer_url: url.clone(), url, _folder: None }
    }

    /// One of a strict cluster, which the service's role owns.
    pub async fn strict(superuser_url: &str) -> Self {
        let name = next_name();
        create(superuser_url, &name, "OWNER orgd").await;
        let observer_url = format!("{superuser_url}/{name}");
        Self { url: strict::url_of_role(&observer_url), observer_url, _folder: None }
    }

    /// The SQLite file in a folder, which is gone with the value.
    pub fn sqlite_of(folder: TempDir) -> Self {
        let database = Self::sqlite_in(folder.path());
        Self { _folder: Some(folder), ..database }
    }

    /// The same in a folder that stays.
    pub fn sqlite_in(folder: &Path) -> Self {
        let url = format!("sqlite://{}?mode=rwc", folder.join("orgd.db").display());
        Self { observer_url: url.clone(), url, _folder: None }
    }

    /// The same database, by way of a proxy to its server.
    pub fn behind(&self, proxy: &Proxy) -> Self {
        self.by_way_of(proxy.addr())
    }

    pub fn by_way_of(&self, proxy: SocketAddr) -> Self {
        let [server, proxy] = [self.addr(), proxy].map(|addr| addr.to_string());
        let url = self.url.replacen(&server, &proxy, 1);
        Self { url, observer_url: self.observer_url.clone(), _folder: None }
    }

    /// Where the server of PostgreSQL listens.
    pub fn addr(&self) -> SocketAddr {
        let (_, server) = self.url.split_once('@').unwrap();
        server.split('/').next().unwrap().parse().unwrap()
    }

    /// Whom the service connects as. PostgreSQL alone.
    pub fn role(&self) -> &str {
        let (_, rest) = self.url.split_once("//").unwrap();
        rest.split_once('@').unwrap().0
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn kind(&self) -> &'static str {
        if self.is_sqlite() { "SQLite" } else { "PostgreSQL" }
    }

    pub fn is_sqlite(&self) -> bool {
        self.url.starts_with("sqlite:")
    }

    /// A connection past the service, for what only a test may do.
    pub async fn connect(&self) -> DatabaseConnection {
        sea_orm::Database::connect(&self.observer_url).await.unwrap()
    }

    pub async fn store(&self) -> Store {
        // What is looked at is not how soon, on a machine that does much else.
        let acquire_timeout = PATIENCE;
        let options = StoreOptions { acquire_timeout, ..StoreOptions::default() };
        Store::connect(&self.url.as_str().into(), options).await.unwrap()
    }

    /// Stores the two organizations and a credential of each role.
    pub async fn seed(&self) {
        Store::migrate(&self.url.as_str().into()).await.unwrap();
        let store = self.store().await;
        for id in [OWN, FOREIGN] {
            let patch = Patch::from([
                (Field::Name, Change::Set(format!("Organization {id}"))),
                (Field::SubscriptionId, Change::Set("free".to_owned())),
            ]);
            let creation = Creation { id: OrganizationId::new(id), patch };
            organizations::create(&store, &operator(), creation).await.unwrap();
        }
        for (secret, role, organization) in [
            (USER, Role::User, OrganizationId::new(OWN)),
            (SUPPORT, Role::Support, None),
            (ADMINISTRATOR, Role::Administrator, None),
        ] {
            let subject = Some(format!("test-{}", role.as_str()));
            let grant = Grant { role, organization, subject, description: None, expires_in: None };
            credentials::issue(&store, &Secret::parse(secret).unwrap(), grant).await.unwrap();
        }
        store.close().await.unwrap();
    }

    /// Stores organizations `first` to `last`, with a name alone.
    pub async fn add_organizations(&self, first: i64, last: i64) {
        let connection = self.connect().await;
        let date = "SELECT date_created FROM organizations LIMIT 1";
        for id in first..=last {
            let insert = format!(
                "INSERT INTO organizations (id, name, handshake_version, version, date_created, \
                 date_modified) VALUES ({id}, 'Organization {id}', 0, 1, ({date}), ({date}))"
            );
            connection.execute_unprepared(&insert).await.unwrap();
        }
        connection.close().await.unwrap();
    }

    /// Executes one statement past the service.
    pub async fn execute(&self, statement: &str) {
        let connection = self.connect().await;
        connection.execute_unprepared(statement).await.unwrap();
        connection.close().await.unwrap();
    }

    /// Holds the row of the user's organization until the transaction ends; on SQLite the whole file.
    pub async fn hold(&self) -> DatabaseTransaction {
        let transaction = self.connect().await.begin().await.unwrap();
        let touch = format!("UPDATE organizations SET version = version WHERE id = {OWN}");
        transaction.execute_unprepared(&touch).await.unwrap();
        transaction
    }

    /// Locks a table of PostgreSQL against every use until the transaction ends.
    pub async fn lock_table(&self, table: &str) -> DatabaseTransaction {
        let transaction = self.connect().await.begin().await.unwrap();
        transaction.execute_unprepared(&format!("LOCK TABLE {table}")).await.unwrap();
        transaction
    }

    /// Waits until so many statements wait for locks. PostgreSQL alone: SQLite cannot say it.
    pub async fn until_locks_are_waited_for(&self, by: usize) {
        let observer = self.connect().await;
        let ask = "SELECT 1 FROM pg_stat_activity \
            WHERE datname = current_database() AND wait_event_type = 'Lock'";
        let ask = || Statement::from_string(observer.get_database_backend(), ask);
        let waiting = async {
            while observer.query_all_raw(ask()).await.unwrap().len() < by {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, waiting).await.expect("so many wait for locks");
        observer.close().await.unwrap();
    }

    /// Makes every `UPDATE`, or every `INSERT`, that sets the name `poison` fail by itself.
    pub async fn refuse_poison(&self, event: &str) {
        let refuse = if self.is_sqlite() {
            format!(
                "CREATE TRIGGER refuse BEFORE {event} ON organizations WHEN NEW.name = 'poison' \
                 BEGIN SELECT RAISE(ABORT, 'poison'); END"
            )
        } else {
            "ALTER TABLE organizations ADD CONSTRAINT refuse CHECK (name <> 'poison')".to_owned()
        };
        self.execute(&refuse).await;
    }

    /// Makes the seeded organizations what they were, and forgets all others.
    pub async fn reset(&self) {
        let connection = self.connect().await;
        for statement in
            ["DELETE FROM organization_changes", "UPDATE credentials SET revoked_at = NULL"]
        {
            connection.execute_unprepared(statement).await.unwrap();
        }
        let delete = format!("DELETE FROM organizations WHERE id NOT IN ({OWN}, {FOREIGN})");
        connection.execute_unprepared(&delete).await.unwrap();
        for id in [OWN, FOREIGN] {
            let restore = format!(
                "UPDATE organizations SET name = 'Organization {id}', subscription_id = 'free', \
                 handshake = NULL, handshake_version = 0, version = 1 WHERE id = {id}"
            );
            connection.execute_unprepared(&restore).await.unwrap();
            let record = format!(
                "INSERT INTO organization_changes (organization_id, version, date, subject, \
                 role, request_id, name, subscription_id, handshake_version) \
                 SELECT id, 1, date_created, 'operator', 'administrator', 'seed', name, \
                 subscription_id, 0 FROM organizations WHERE id = {id}"
            );
            connection.execute_unprepared(&record).await.unwrap();
        }
        connection.close().await.unwrap();
    }

    /// The name of an organization, read past the service.
    pub async fn name(&self, id: i64) -> String {
        self.organization(id).await.value(Field::Name).unwrap().to_owned()
    }

    /// The organization as it is stored.
    pub async fn organization(&self, id: i64) -> Organization {
        let store = self.store().await;
        let id = OrganizationId::new(id).unwrap();
        let found = patiently(async || store.get_organization(&Principal::operator(), id).await);
        let organization = found.await.unwrap();
        store.close().await.unwrap();
        organization
    }

    /// The organization's whole change log.
    pub async fn changes(&self, id: i64) -> Vec<ChangeEntry> {
        let store = self.store().await;
        let id = OrganizationId::new(id).unwrap();
        let listed =
            patiently(async || store.list_changes(&Principal::operator(), id, 0, WHOLE).await);
        let changes = listed.await.unwrap();
        store.close().await.unwrap();
        changes.entries
    }
}

/// A look at what is stored. Beside other load it may take longer than a call may, and is then made again.
async fn patiently<T>(look: impl AsyncFn() -> Result<T, Error>) -> Result<T, Error> {
    let give_up = Instant::now() + PATIENCE;
    loop {
        match look().await {
            Err(Error::Unavailable(_)) if Instant::now() < give_up => {}
            done => return done,
        }
    }
}

/// Creates a database, and answers its name.
async fn create(superuser_url: &str, name: &str, options: &str) {
    let admin = sea_orm::Database::connect(format!("{superuser_url}/postgres")).await.unwrap();
    admin.execute_unprepared(&format!("CREATE DATABASE {name} {options}")).await.unwrap();
    admin.close().await.unwrap();
}

/// A name that no other database has.
fn next_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

fn operator() -> Call {
    Call {
        principal: Principal::operator().into(),
        request_id: "seed".to_owned(),
        idempotency_key: None,
        validate_only: false,
    }
}
