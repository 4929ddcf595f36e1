//! The databases: made, seeded in bulk, and asked what a window did to them.

use std::path::Path;

use orgd::store::{Store, now};
use sea_orm::{
    ConnectOptions, ConnectionTrait, DatabaseConnection, DbBackend, QueryResult, Statement,
    TransactionTrait, Value,
};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;

use crate::{postgres::Cluster, random::tokens, usage};

/// A database with orgd's schema.
pub struct Database {
    pub url: String,
    connection: DatabaseConnection,
    /// The process whose children serve it; none for SQLite.
    postmaster: Option<u32>,
}

impl Database {
    /// A new database of a cluster, seeded.
    pub async fn postgres(cluster: &Cluster, name: &str, organizations: u64) -> Self {
        let admin = connect(&format!("{}/postgres", cluster.url)).await;
        admin.execute_unprepared(&format!("CREATE DATABASE {name}")).await.unwrap();
        admin.close().await.unwrap();
        let mut database = Self::seeded(format!("{}/{name}", cluster.url), organizations).await;
        let backend: i32 = database.ask("SELECT pg_backend_pid()", []).await.try_get_by(0).unwrap();
        database.postmaster = Some(usage::parent(backend.cast_unsigned()));
        database
    }

    /// A new SQLite file, seeded.
    pub async fn sqlite(folder: &Path, name: &str, organizations: u64) -> Self {
        let file = folder.join(format!("{name}.db"));
        Self::seeded(format!("sqlite://{}?mode=rwc", file.display()), organizations).await
    }

    async fn seeded(url: String, organizations: u64) -> Self {
        eprintln!("seeding {organizations} organizations in {url}");
        Store::migrate(&url.as_str().into()).await.unwrap();
        let database = Self { connection: connect(&url).await, url, postmaster: None };
        database.seed(organizations).await;
        database
    }

    /// Organizations from 1 on, a first version of each in the change log, and the credentials.
    async fn seed(&self, organizations: u64) {
        let rows = match self.backend() {
            DbBackend::Sqlite => {
                "WITH RECURSIVE series(id) AS \
                 (SELECT 1 UNION ALL SELECT id + 1 FROM series WHERE id < $2)"
            }
            _ => "WITH series AS (SELECT id FROM generate_series(1, $2) AS id)",
        };
        let insert = format!(
            "{rows} INSERT INTO organizations (id, name, subscription_id, handshake_version, \
             version, date_created, date_modified) \
             SELECT id, 'Organization ' || id, 'free', 0, 1, $1, $1 FROM series"
        );
        let record = "INSERT INTO organization_changes (organization_id, version, date, subject, \
            role, request_id, name, subscription_id, handshake_version) \
            SELECT id, 1, date_created, 'operator', 'administrator', 'seed', name, \
            subscription_id, 0 FROM organizations";
        let issue = "INSERT INTO credentials (digest, kind, subject, role, created_at) \
            VALUES ($1, 'bearer', $2, 'support', $3)";
        let organizations = i64::try_from(organizations).unwrap();
        let mut statements = vec![
            self.statement(&insert, [now().into(), organizations.into()]),
            self.statement(record, []),
        ];
        for (number, token) in tokens().into_iter().enumerate() {
            let digest = Sha256::digest(token).to_vec();
            let subject = format!("load-{number}");
            statements.push(self.statement(issue, [digest.into(), subject.into(), now().into()]));
        }
        let transaction = self.connection.begin().await.unwrap();
        for statement in statements {
            transaction.execute_raw(statement).await.unwrap();
        }
        transaction.commit().await.unwrap();

        let settle: &[&str] = match self.backend() {
            DbBackend::Sqlite => &["ANALYZE", "PRAGMA wal_checkpoint(TRUNCATE)"],
            _ => &["VACUUM ANALYZE", "CHECKPOINT"],
        };
        for statement in settle {
            self.connection.execute_unprepared(statement).await.unwrap();
        }
    }

    fn backend(&self) -> DbBackend {
        self.connection.get_database_backend()
    }

    fn statement<const N: usize>(&self, sql: &str, values: [Value; N]) -> Statement {
        Statement::from_sql_and_values(self.backend(), sql, values)
    }

    async fn ask<const N: usize>(&self, sql: &str, values: [Value; N]) -> QueryResult {
        let row = self.connection.query_one_raw(self.statement(sql, values)).await.unwrap();
        row.expect("a row")
    }

    /// Processor time of the database's own processes, in seconds; none for SQLite, which has none.
    pub fn cpu(&self) -> Option<f64> {
        self.postmaster.map(usage::cpu_of_family)
    }

    /// How often the cluster has made its log durable; none for SQLite, which does not count it.
    pub async fn wal_syncs(&self) -> Option<i64> {
        self.postmaster?;
        let row = self.ask("SELECT wal_sync FROM pg_stat_wal", []).await;
        Some(row.try_get_by(0).unwrap())
    }

    /// How many changes came at one time on average between two times: the service gives all
    /// changes that it commits together one time. None where nothing changed.
    pub async fn batch_size(&self, from: OffsetDateTime, to: OffsetDateTime) -> Option<f64> {
        let count = "SELECT count(*), count(DISTINCT date) FROM organization_changes \
            WHERE date >= $1 AND date < $2";
        let row = self.ask(count, [from.into(), to.into()]).await;
        let changes: i64 = row.try_get_by(0).unwrap();
        let times: i64 = row.try_get_by(1).unwrap();
        (times > 0).then(|| changes as f64 / times as f64)
    }

    pub async fn version(&self) -> String {
        let sql = match self.backend() {
            DbBackend::Sqlite => "SELECT 'SQLite ' || sqlite_version()",
            _ => "SELECT 'PostgreSQL ' || current_setting('server_version')",
        };
        self.ask(sql, []).await.try_get_by(0).unwrap()
    }
}

async fn connect(url: &str) -> DatabaseConnection {
    let mut options = ConnectOptions::new(url);
    options.max_connections(1).sqlx_logging(false);
    sea_orm::Database::connect(options).await.unwrap()
}
