//! The only room that knows SeaORM and SQL: one concrete [`Store`] over SQLite or PostgreSQL.
//!
//! Updates, creations and look-ups by key wait in a queue while the lanes are busy and are then done
//! together (`queue`); all other statements take a connection of a pool each.
//!
//! Architecture invariant: no statement reads a row in order to write it back, and every write
//! goes through [`Store::write`] or `writer`, which report a failing commit.

mod asked;
mod attempt;
mod changes;
mod clock;
mod create;
mod credentials;
mod entity;
mod error;
mod files;
mod health;
mod lane;
mod migrate;
mod options;
mod organizations;
mod page;
mod pools;
mod postgres;
mod queue;
mod reader;
mod renewal;
mod row;
mod sqlite;
mod update;
mod upkeep;
mod url;
mod writer;

use std::{io, sync::Arc, time::Duration};

pub use clock::now;
pub use migrate::MigrationStep;
pub use options::{STATEMENT_TIMEOUT_MAX, StoreOptions};
use sea_orm::{
    ConnectOptions, ConnectionTrait, Database, DatabaseConnection, DbBackend, DbErr, QueryResult,
    StatementBuilder, TransactionTrait,
};
use secrecy::{ExposeSecret, SecretString};

use tracing::Span;

use self::{
    asked::Write,
    attempt::RETRIES_MAX,
    files::Files,
    health::Health,
    lane::{Lane, Lanes},
    pools::{ADMINISTRATORS, Pools, UPKEEP},
    postgres::Kept,
    queue::{Queue, QueueLimits},
    reader::Reads,
    renewal::Renewal,
    sqlite::{connect_when_free, immediate},
    writer::Writes,
};
use crate::{
    domain::{self, CredentialDigest, OrganizationId, Principal, Result},
    telemetry::metrics::{self, QueueTelemetry},
};

/// Callers that read on SQLite at once: each is a thread at work, and processors are few.
const SQLITE_CALLERS: u32 = 3;
/// The lanes that look up on SQLite, which share a pool with callers.
const SQLITE_LOOK_UPS: u32 = 2;
/// Lanes that update on PostgreSQL: while one waits for its commit, the other works. On SQLite there
/// is one, as there is one writer.
const POSTGRES_WRITERS: usize = 2;
/// Connections of all lanes on PostgreSQL: beside those that update, one creates, one looks up
/// organizations and one credentials.
const POSTGRES_LANES: u32 = 5;
/// Keys that are looked up in one statement.
const READ_BATCH_MAX: usize = 64;

/// The table of organizations.
const ORGANIZATIONS: &str = "organizations";

/// The database.
#[derive(Clone, Debug)]
pub struct Store {
    pools: Pools,
    updates: Arc<Writes>,
    creations: Arc<Writes>,
    organizations: Arc<Reads<OrganizationId, entity::organizations::Model>>,
    credentials: Arc<Reads<CredentialDigest, entity::credentials::Model>>,
    /// What does the work of the queues, until [`Store::close`].
    lanes: Lanes,
    /// What each lane last found.
    health: Vec<Health>,
    files: Files,
    renewal: Renewal,
    options: StoreOptions,
}

impl Store {
    /// Connects to the database that `url` names: `sqlite://FILE?mode=rwc` or `postgres://…`.
    /// The schema is not looked at; see [`Store::migrate`].
    pub async fn connect(
        url: &SecretString,
        options: StoreOptions,
    ) -> std::result::Result<Self, DbErr> {
        let mut writer = Self::options(url, &options)?;
        if is_sqlite(url) {
            if !options.creates {
                sqlite::find(url.expose_secret())?;
            }
            let mut reader = sqlite::without_end(&mut writer).clone();
            writer.max_connections(1);
            let readers = SQLITE_CALLERS + ADMINISTRATORS + SQLITE_LOOK_UPS;
            reader.max_connections(readers).map_sqlx_sqlite_opts(move |sqlite| {
                sqlite::existing(sqlite, options.lock_timeout).pragma("query_only", "ON")
            });
            // The writer first: it creates the file.
            let writer = connect_when_free(writer).await?;
            let upkeep = connect_when_free(Self::upkeep(&reader)).await?;
            let reader = connect_when_free(reader).await?;
            let files = sqlite::opened(url.expose_secret(), [&writer, &reader]).await?;
            let lanes = vec![Lane::sqlite(&writer, &files)];
            let others = [&writer, &reader, &reader].map(|pool| Lane::sqlite(pool, &files));
            let pools = Pools::new([writer, reader, upkeep], SQLITE_CALLERS);
            return Self::start(pools, files, Renewal::new(), options, lanes, others);
        }
        let others = POSTGRES_LANES + UPKEEP + ADMINISTRATORS;
        let callers = options.connections_max.saturating_sub(others).max(1);
        let renewal = Renewal::new();
        let pooled = renewal.clone();
        writer
            .max_connections(callers + ADMINISTRATORS)
            .map_sqlx_postgres_pool_opts(move |pool| pooled.of_use(pool))
            .statement_timeout(options.statement_timeout)
            .map_sqlx_postgres_opts(move |postgres| {
                let lock_timeout = format!("{}ms", options.lock_timeout.as_millis());
                postgres::reachable(postgres).options([("lock_timeout", lock_timeout)])
            });
        let mut lanes = writer.clone();
        lanes
            .max_connections(POSTGRES_LANES)
            .connect_lazy(true)
            .map_sqlx_postgres_opts(postgres::for_batches);
        let lanes = Database::connect(lanes).await?;
        let upkeep = Database::connect(Self::upkeep(&writer)).await?;
        let pool = Database::connect(writer).await.map_err(|error| renewal.explain(error))?;
        let kept =
            || Lane::postgres(Kept::new(lanes.get_postgres_connection_pool(), &renewal, &options));
        let writers = (0..POSTGRES_WRITERS).map(|_| kept()).collect();
        let others = [kept(), kept(), kept()];
        let files = Files::default();
        let pools = Pools::new([pool.clone(), pool, upkeep], callers);
        Self::start(pools, files, renewal.clone(), options, writers, others)
    }

    fn start(
        pools: Pools,
        files: Files,
        renewal: Renewal,
        options: StoreOptions,
        writers: Vec<Lane>,
        [creations_lane, organizations_lane, credentials_lane]: [Lane; 3],
    ) -> std::result::Result<Self, DbErr> {
        let system = system(&pools.writer);
        let waiting_max = options.queue_max.max(1);
        let limits = QueueLimits {
            waiting_max,
            batch_max: options.batch_max.max(1),
            hold: options.batch_hold,
        };
        let updates =
            Queue::new(limits, QueueTelemetry::new("updates", system, "UPDATE", ORGANIZATIONS));
        let creations =
            Queue::new(limits, QueueTelemetry::new("creations", system, "INSERT", ORGANIZATIONS));
        let reads = QueueLimits { waiting_max, batch_max: READ_BATCH_MAX, hold: 1 };
        let select = |table| QueueTelemetry::new(table, system, "SELECT", table);
        let organizations = Queue::new(reads, select(ORGANIZATIONS));
        let credentials = Queue::new(reads, select("credentials"));
        let (organizations_queue, credentials_queue) = (organizations.clone(), credentials.clone());
        let (updates_queue, creations_queue) = (updates.clone(), creations.clone());
        let lanes = writers.iter().chain([&creations_lane, &organizations_lane, &credentials_lane]);
        let health = lanes.map(|lane| lane.health.clone()).collect();
        let lanes = Lanes::start(move |lanes| {
            for lane in writers {
                lanes.spawn(writer::serve(updates_queue.clone(), Write::Update, lane));
            }
            lanes.spawn(writer::serve(creations_queue, Write::Create, creations_lane));
            lanes.spawn(reader::serve(
                organizations_queue,
                organizations_lane,
                Lane::organizations,
                |row: &i64, id: OrganizationId| *row == id.get(),
            ));
            lanes.spawn(reader::serve(
                credentials_queue,
                credentials_lane,
                Lane::credentials,
                |row: &Vec<u8>, digest: CredentialDigest| *row == digest.0,
            ));
        });
        let lanes = lanes.map_err(no_lanes)?;
        Ok(Self {
            pools,
            updates,
            creations,
            organizations,
            credentials,
            lanes,
            health,
            files,
            renewal,
            options,
        })
    }

    /// The pool of upkeep, of one connection like the others; it is made when it is first needed.
    fn upkeep(like: &ConnectOptions) -> ConnectOptions {
        let mut options = like.clone();
        options.max_connections(UPKEEP).connect_lazy(true);
        options
    }

    /// What every connection to a database has in common.
    fn options(
        url: &SecretString,
        store: &StoreOptions,
    ) -> std::result::Result<ConnectOptions, DbErr> {
        url::check(url)?;
        let mut options = ConnectOptions::new(url.expose_secret());
        let StoreOptions { lock_timeout, creates, .. } = *store;
        let sqlite_options = if creates { sqlite::durable } else { sqlite::existing };
        options
            .acquire_timeout(store.acquire_timeout)
            .sqlx_logging(false)
            .map_sqlx_postgres_opts(postgres::reachable)
            .map_sqlx_sqlite_opts(move |sqlite| sqlite_options(sqlite, lock_timeout))
            .map_sqlx_sqlite_pool_opts(sqlite::without_lost_transactions);
        Ok(options)
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
        if self.pools.writer.get_database_backend() != DbBackend::Sqlite {
            return self.attempt(|| self.pools.writer.query_all(statement)).await;
        }
        let write = async {
            let transaction = self.pools.writer.begin_with_options(immediate()).await?;
            let rows = transaction.query_all(statement).await?;
            transaction.commit().await?;
            Ok(rows)
        };
        self.files.around(write).await
    }

    /// Does a statement that does not wait in a queue, as often as it takes; once more on a new
    /// connection where that was of no use.
    async fn attempt<T, F: Future<Output = std::result::Result<T, DbErr>>>(
        &self,
        mut statement: impl FnMut() -> F,
    ) -> std::result::Result<T, DbErr> {
        let attempt =
            async { attempt::attempt(self.answer_timeout(), RETRIES_MAX, &mut statement).await };
        match self.files.around(attempt).await {
            Err(error) if error::is_outlived(&error) => {
                self.renewal.renew();
                attempt::attempt(self.answer_timeout(), RETRIES_MAX, statement).await
            }
            done => done,
        }
    }

    /// The same for a caller, which waits for its place first.
    async fn attempt_for<T, F: Future<Output = std::result::Result<T, DbErr>>>(
        &self,
        principal: &Principal,
        statement: impl FnMut() -> F,
    ) -> Result<T> {
        let _place = self.pools.place(principal).await?;
        Ok(self.attempt(statement).await?)
    }

    /// How long the answer to a statement is waited for, a connection included.
    fn answer_timeout(&self) -> Duration {
        match self.pools.writer.get_database_backend() {
            // Its answers are made in this process.
            DbBackend::Sqlite => Duration::MAX,
            _ => self.options.answer_timeout(),
        }
    }

    /// The span of a statement that does not wait in a queue.
    fn span(&self, operation: &'static str, collection: &'static str) -> Span {
        metrics::db_span(system(&self.pools.writer), operation, collection)
    }

    /// A lane of one's own for a moment.
    fn lane(&self) -> Lane {
        if self.pools.writer.get_database_backend() == DbBackend::Sqlite {
            return Lane::sqlite(&self.pools.writer, &self.files);
        }
        let pool = self.pools.writer.get_postgres_connection_pool();
        Lane::postgres(Kept::new(pool, &self.renewal, &self.options))
    }

    /// Waits until a lane has failed, without which updates or look-ups would wait for ever; it
    /// never does unless there is a fault.
    pub async fn failed(&self) -> domain::Error {
        self.lanes.ended().await;
        internal("the lanes to the database have ended")
    }

    /// Ends the lanes once they have done what waits, and every connection once its statement is
    /// done.
    pub async fn close(self) -> Result<()> {
        self.updates.close();
        self.creations.close();
        self.organizations.close();
        self.credentials.close();
        self.lanes.ended().await;
        Ok(self.pools.close().await?)
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the signature is map_err's")]
fn no_lanes(error: io::Error) -> DbErr {
    DbErr::Custom(format!("cannot start the thread of the lanes: {error}"))
}

/// The database system as OpenTelemetry names it.
fn system(pool: &DatabaseConnection) -> &'static str {
    match pool.get_database_backend() {
        DbBackend::Sqlite => "sqlite",
        _ => "postgresql",
    }
}

fn is_sqlite(url: &SecretString) -> bool {
    url.expose_secret().starts_with("sqlite:")
}

/// The one row, where there is one.
fn only<T>(rows: Vec<T>) -> Option<T> {
    rows.into_iter().next()
}

fn internal(text: &'static str) -> domain::Error {
    domain::Error::Internal(text.into())
}
