//! The only room that knows SeaORM and SQL: one concrete [`Store`] over SQLite or PostgreSQL.
//!
//! Updates and look-ups by key wait in a queue while the lanes are busy and are then done together
//! (`queue`); all other statements take a connection of a pool each.
//!
//! Architecture invariant: no statement reads a row in order to write it back, and every write
//! goes through [`Store::write`], [`Store::write_logged`] or `update`, which report a failing commit.

mod changes;
mod clock;
mod credentials;
mod entity;
mod error;
mod lane;
mod migrate;
mod organizations;
mod postgres;
mod queue;
mod reader;
mod sqlite;
mod update;
mod writer;

use std::{io, sync::Arc, thread, time::Duration};

pub use clock::now;
pub use migrate::MigrationStep;
use sea_orm::{
    ConnectOptions, ConnectionTrait, Database, DatabaseConnection, DbBackend, DbErr, EntityTrait,
    QueryResult, QuerySelect, SqliteTransactionMode, StatementBuilder, TransactionOptions,
    TransactionTrait,
    sqlx::{
        postgres::PgConnectOptions,
        sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
    },
};
use secrecy::{ExposeSecret, SecretString};

use tokio::{
    runtime,
    time::{Instant, sleep},
};
use tokio_util::task::TaskTracker;

use self::{
    lane::Lane,
    postgres::Kept,
    queue::{Queue, QueueLimits},
    reader::Reads,
    writer::Updates,
};
use crate::domain::{self, CredentialDigest, OrganizationId, Result};

/// PostgreSQL connections at most, those that lanes keep not counted.
const POOL_CONNECTIONS_MAX: u32 = 6;
/// SQLite connections that read, beside the one that writes.
const SQLITE_READERS_MAX: u32 = 4;
/// Lanes that update on PostgreSQL: while one waits for its commit, the other works. On SQLite there
/// is one, as there is one writer.
const POSTGRES_WRITERS: usize = 2;
/// Connections of all lanes on PostgreSQL: beside those that write, one looks up organizations and
/// one credentials.
const POSTGRES_LANES: u32 = 4;
/// Pieces of work that wait for a lane: a second's worth where each needs a commit of its own.
const WAITING_MAX: usize = 1024;
/// Keys that are looked up in one statement.
const READ_BATCH_MAX: usize = 64;
/// How long a connection may have been quiet before it is asked for a sign of life: one that the
/// server has closed meanwhile is then replaced before a statement is lost on it.
const QUIET_MAX: Duration = Duration::from_millis(100);
/// How long a call waits for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long PostgreSQL lets a statement run and wait for a lock, and SQLite waits for another
/// process. Shorter than the time that a call has by default, so that a statement which waits is not
/// applied long after its caller was told that the deadline has passed.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(2);
const LOCK_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a lane waits for the answer to a batch: longer than the database works on it.
const BATCH_TIMEOUT: Duration = Duration::from_millis(2500);

/// How long a start waits for others that start on the same SQLite file, and how often it looks.
const STARTUP_LOCK_TIMEOUT: Duration = Duration::from_secs(15);
const STARTUP_LOCK_RETRY: Duration = Duration::from_millis(20);

/// How updates are put together.
#[derive(Clone, Copy, Debug)]
pub struct Batching {
    /// Updates in one batch at most; 1: each has a commit of its own.
    pub updates_max: usize,
    /// Updates that must wait before the first is done. More than one only in tests.
    pub hold: usize,
}

impl Default for Batching {
    fn default() -> Self {
        Self { updates_max: 64, hold: 1 }
    }
}

/// The database.
#[derive(Clone, Debug)]
pub struct Store {
    /// The connections that write: one on SQLite, where a second could only wait for it.
    writer: DatabaseConnection,
    /// The connections that read; on PostgreSQL the same pool.
    reader: DatabaseConnection,
    updates: Arc<Updates>,
    organizations: Arc<Reads<OrganizationId, entity::organizations::Model>>,
    credentials: Arc<Reads<CredentialDigest, entity::credentials::Model>>,
    /// The lanes, which end with [`Store::close`].
    lanes: TaskTracker,
}

impl Store {
    /// Connects to the database that `url` names: `sqlite://FILE?mode=rwc` or `postgres://…`.
    /// The schema is not looked at; see [`Store::migrate`].
    pub async fn connect(
        url: &SecretString,
        batching: Batching,
    ) -> std::result::Result<Self, DbErr> {
        let mut writer = Self::options(url)?;
        if is_sqlite(url) {
            let mut reader = writer.clone();
            writer.max_connections(1);
            reader
                .max_connections(SQLITE_READERS_MAX)
                .map_sqlx_sqlite_opts(|options| durable(options).pragma("query_only", "ON"));
            // The writer first: it creates the file.
            let writer = connect_when_free(writer).await?;
            let reader = connect_when_free(reader).await?;
            let lanes = [Lane::Sqlite(writer.clone())];
            let readers = [Lane::Sqlite(reader.clone()), Lane::Sqlite(reader.clone())];
            return Self::start(writer, reader, batching, lanes, readers);
        }
        writer
            .max_connections(POOL_CONNECTIONS_MAX)
            .test_before_acquire_if_idle_for(QUIET_MAX)
            .statement_timeout(STATEMENT_TIMEOUT)
            .map_sqlx_postgres_opts(|options| {
                options.options([("lock_timeout", format!("{}ms", LOCK_TIMEOUT.as_millis()))])
            });
        let mut lanes = writer.clone();
        lanes
            .max_connections(POSTGRES_LANES)
            .connect_lazy(true)
            .map_sqlx_postgres_opts(postgres::for_batches);
        let lanes = Database::connect(lanes).await?;
        let pool = Database::connect(writer).await?;
        let lane = || Lane::Postgres(Kept::new(lanes.get_postgres_connection_pool().clone()));
        let writers = [(); POSTGRES_WRITERS].map(|()| lane());
        Self::start(pool.clone(), pool, batching, writers, [lane(), lane()])
    }

    fn start(
        writer: DatabaseConnection,
        reader: DatabaseConnection,
        batching: Batching,
        writers: impl IntoIterator<Item = Lane>,
        [organizations_lane, credentials_lane]: [Lane; 2],
    ) -> std::result::Result<Self, DbErr> {
        let waiting_max = WAITING_MAX;
        let updates = Queue::new(QueueLimits {
            waiting_max,
            batch_max: batching.updates_max.max(1),
            hold: batching.hold,
        });
        let reads = QueueLimits { waiting_max, batch_max: READ_BATCH_MAX, hold: 1 };
        let organizations = Queue::new(reads);
        let credentials = Queue::new(reads);
        // A thread of their own: among thousands of requests that are refused, each step of a batch
        // would wait for a turn of the runtime that has them.
        let runtime =
            runtime::Builder::new_current_thread().enable_all().build().map_err(no_lanes)?;
        let lanes = TaskTracker::new();
        for lane in writers {
            lanes.spawn_on(writer::serve(updates.clone(), lane), runtime.handle());
        }
        lanes.spawn_on(
            reader::serve(
                organizations.clone(),
                organizations_lane,
                Lane::organizations,
                |row: &entity::organizations::Model, id: OrganizationId| row.id == id.get(),
            ),
            runtime.handle(),
        );
        lanes.spawn_on(
            reader::serve(
                credentials.clone(),
                credentials_lane,
                Lane::credentials,
                |row: &entity::credentials::Model, digest: CredentialDigest| row.digest == digest.0,
            ),
            runtime.handle(),
        );
        let ended = lanes.clone();
        thread::Builder::new()
            .name("lanes".into())
            .spawn(move || runtime.block_on(ended.wait()))
            .map_err(no_lanes)?;
        Ok(Self { writer, reader, updates, organizations, credentials, lanes })
    }

    /// What every connection to a database has in common.
    fn options(url: &SecretString) -> std::result::Result<ConnectOptions, DbErr> {
        let text = url.expose_secret();
        // Read here first: SeaORM repeats a URL that it cannot read, password and all, in its error.
        let is_readable = if is_sqlite(url) {
            text.parse::<SqliteConnectOptions>().is_ok()
        } else {
            text.starts_with("postgres") && text.parse::<PgConnectOptions>().is_ok()
        };
        if !is_readable {
            let text = "the URL is neither sqlite://FILE?mode=rwc nor \
                postgres://USER:PASSWORD@HOST/NAME";
            return Err(DbErr::Custom(text.to_owned()));
        }
        if is_sqlite(url) && (text.contains(":memory:") || text.contains("mode=memory")) {
            let text = "a database in memory cannot be shared by connections; name a file";
            return Err(DbErr::Custom(text.to_owned()));
        }
        let mut options = ConnectOptions::new(text);
        options.acquire_timeout(ACQUIRE_TIMEOUT).sqlx_logging(false).map_sqlx_sqlite_opts(durable);
        Ok(options)
    }

    /// Whether the database answers a question about our own table.
    pub async fn check(&self) -> Result<()> {
        let probe = entity::organizations::Entity::find().limit(1);
        probe.all(&self.reader).await?;
        Ok(())
    }

    /// Runs one writing statement and answers the rows that it returns, once they are committed.
    ///
    /// sqlx-sqlite's `fetch_one` and `fetch_optional` drop a `RETURNING` statement at its first row
    /// and with it a failing commit: the caller would see success and nothing would be stored. On
    /// SQLite the commit is therefore explicit. On PostgreSQL it is part of the statement, whose
    /// answer `query_all` reads to its end; a transaction block would cost three times as much.
    async fn write(
        &self,
        statement: &impl StatementBuilder,
    ) -> std::result::Result<Vec<QueryResult>, DbErr> {
        if self.writer.get_database_backend() != DbBackend::Sqlite {
            return self.writer.query_all(statement).await;
        }
        let transaction = self.writer.begin_with_options(immediate()).await?;
        let rows = transaction.query_all(statement).await?;
        transaction.commit().await?;
        Ok(rows)
    }

    /// A lane of one's own for a moment.
    fn lane(&self) -> Lane {
        match self.writer.get_database_backend() {
            DbBackend::Sqlite => Lane::Sqlite(self.writer.clone()),
            _ => Lane::Postgres(Kept::new(self.writer.get_postgres_connection_pool().clone())),
        }
    }

    /// Ends the lanes once they have done what waits, and every connection once its statement is
    /// done.
    pub async fn close(self) -> Result<()> {
        self.updates.close();
        self.organizations.close();
        self.credentials.close();
        self.lanes.close();
        self.lanes.wait().await;
        self.reader.close().await?;
        Ok(self.writer.close().await?)
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the signature is map_err's")]
fn no_lanes(error: io::Error) -> DbErr {
    DbErr::Custom(format!("cannot start the thread of the lanes: {error}"))
}

fn is_sqlite(url: &SecretString) -> bool {
    url.expose_secret().starts_with("sqlite:")
}

/// Connects, and waits while another process has a SQLite file for itself: the first of several
/// that start together turns it to WAL, during which SQLite refuses the others without waiting.
async fn connect_when_free(
    options: ConnectOptions,
) -> std::result::Result<DatabaseConnection, DbErr> {
    let give_up = Instant::now() + STARTUP_LOCK_TIMEOUT;
    loop {
        match Database::connect(options.clone()).await {
            Err(error) if error::is_locked(&error) && Instant::now() < give_up => {
                sleep(STARTUP_LOCK_RETRY).await;
            }
            connected => return connected,
        }
    }
}

/// What every connection to SQLite has.
fn durable(options: SqliteConnectOptions) -> SqliteConnectOptions {
    options
        .journal_mode(SqliteJournalMode::Wal)
        // WAL with NORMAL loses acknowledged writes at a power cut.
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(LOCK_TIMEOUT)
        .foreign_keys(true)
}

/// A transaction of SQLite's that writes: it waits for another process's lock where it begins,
/// where waiting is possible.
fn immediate() -> TransactionOptions {
    TransactionOptions {
        sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
        ..TransactionOptions::default()
    }
}

/// The one row, where there is one.
fn only<T>(rows: Vec<T>) -> Option<T> {
    rows.into_iter().next()
}

fn internal(text: &'static str) -> domain::Error {
    domain::Error::Internal(text.into())
}
