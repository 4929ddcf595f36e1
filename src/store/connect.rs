//! How a store comes to be: its pools, and the connections of its workers.

use sea_orm::{ConnectOptions, Database, DbErr};
use secrecy::{ExposeSecret, SecretString};

use super::{
    Store,
    batch::{queues::Queues, worker::Worker},
    files::Files,
    migrate,
    options::StoreOptions,
    pools::{ADMINISTRATORS, Pools, UPKEEP},
    renewal::Renewal,
    session::SessionSettings,
    sql::{
        postgres::PinnedConnection,
        sqlite::{self, connect_when_free},
    },
    tls,
    trouble::Trouble,
    url::{self, Place, reachable},
    uses::Uses,
};

/// Callers that read on SQLite at once: each is a thread at work, and processors are few.
const SQLITE_CALLERS: u32 = 3;
/// The workers that look up on SQLite, which share a pool with callers.
const SQLITE_LOOK_UPS: u32 = 2;
/// Workers that update on PostgreSQL: while one waits for its commit, the other works. On SQLite there
/// is one, as there is one writer.
const POSTGRES_WRITERS: usize = 2;
/// Connections of all workers on PostgreSQL: beside those that update, one creates, one looks up
/// organizations, one credentials, and one is for whoever finds nobody before it.
const POSTGRES_WORKERS: u32 = 6;

/// All workers of a store.
struct StoreWorkers {
    writers: Vec<Worker>,
    /// Those that create, look up organizations, and look up credentials.
    others: [Worker; 3],
    alone: Option<Worker>,
}

impl Store {
    /// Connects to the database that `url` names: `sqlite://FILE?mode=rwc` or `postgres://…`.
    /// The schema is not looked at; see [`Store::migrate`].
    pub async fn connect(url: &SecretString, options: StoreOptions) -> Result<Self, Trouble> {
        match Self::open(url, options).await {
            Ok(store) => Ok(store),
            Err(error) => Err(Trouble::at(&error, url).await),
        }
    }

    async fn open(url: &SecretString, options: StoreOptions) -> Result<Self, DbErr> {
        let place = Place::of(url).unwrap_or_default();
        let connect = Self::options(url, &options)?;
        if url.expose_secret().starts_with("sqlite:") {
            Self::open_sqlite(url.expose_secret(), connect, options, place).await
        } else {
            Self::open_postgres(connect, options, place).await
        }
    }

    async fn open_sqlite(
        url: &str,
        mut writer: ConnectOptions,
        options: StoreOptions,
        place: Place,
    ) -> Result<Self, DbErr> {
        if !options.creates {
            sqlite::find(url)?;
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
        let files = sqlite::opened(url, [&writer, &reader]).await?;
        let workers = vec![Worker::sqlite(&writer, &files)];
        let others = [&writer, &reader, &reader].map(|pool| Worker::sqlite(pool, &files));
        let pools = Pools::new([writer, reader, upkeep], SQLITE_CALLERS);
        let workers = StoreWorkers { writers: workers, others, alone: None };
        Self::start(pools, files, Renewal::new(), (options, place), workers)
    }

    async fn open_postgres(
        mut writer: ConnectOptions,
        options: StoreOptions,
        place: Place,
    ) -> Result<Self, DbErr> {
        let others = POSTGRES_WORKERS + UPKEEP + ADMINISTRATORS;
        let callers = options.connections_max.saturating_sub(others).max(1);
        let renewal = Renewal::new();
        let of_calls = SessionSettings::of_calls(&options);
        let of_batches = SessionSettings::of_batches(&options);
        let of_use = |settings| {
            let renewal = renewal.clone();
            move |pool| renewal.of_use(pool, settings)
        };
        writer
            .max_connections(callers + ADMINISTRATORS)
            .map_sqlx_postgres_pool_opts(of_use(of_calls));
        let mut workers = writer.clone();
        workers
            .max_connections(POSTGRES_WORKERS)
            .connect_lazy(true)
            .map_sqlx_postgres_pool_opts(of_use(of_batches));
        let workers = Database::connect(workers).await?;
        let workers = workers.get_postgres_connection_pool();
        let upkeep = Database::connect(Self::upkeep(&writer)).await?;
        let pool = Database::connect(writer).await.map_err(|error| renewal.explain(error))?;
        let both = [pool.get_postgres_connection_pool(), workers];
        let first = renewal.own_sessions(both, of_calls).await?;
        let connection = || PinnedConnection::new(workers, of_batches, &renewal, &options);
        let pinned = || Worker::postgres(connection());
        let writers = (0..POSTGRES_WRITERS).map(|_| pinned()).collect();
        let others = [pinned(), pinned(), pinned()];
        // Its socket is this runtime's, where this worker works. On the workers' thread each answer would come by way of
        // another thread.
        let alone = Worker::postgres(connection().with(first));
        let files = Files::default();
        let pools = Pools::new([pool.clone(), pool, upkeep], callers);
        let workers = StoreWorkers { writers, others, alone: Some(alone) };
        Self::start(pools, files, renewal.clone(), (options, place), workers)
    }

    fn start(
        pools: Pools,
        files: Files,
        renewal: Renewal,
        (options, place): (StoreOptions, Place),
        StoreWorkers { writers, others, alone }: StoreWorkers,
    ) -> Result<Self, DbErr> {
        let queues = Queues::new(&options, pools.system(), alone);
        let health = writers.iter().chain(&others).map(|worker| worker.health.clone()).collect();
        let workers = queues.clone().serve(writers, others).map_err(|error| {
            DbErr::Custom(format!("cannot start the thread of the workers: {error}"))
        })?;
        let uses = Uses::default();
        Ok(Self { pools, queues, workers, health, files, renewal, options, place, uses })
    }

    /// The pool of upkeep, of one connection like the others; it is made when it is first needed.
    fn upkeep(like: &ConnectOptions) -> ConnectOptions {
        let mut options = like.clone();
        options.max_connections(UPKEEP).connect_lazy(true);
        options
    }

    /// What every connection to a database has in common.
    pub(super) fn options(
        url: &SecretString,
        store: &StoreOptions,
    ) -> Result<ConnectOptions, DbErr> {
        url::check(url)?;
        tls::check_cas(url)?;
        let mut options = ConnectOptions::new(url.expose_secret());
        let StoreOptions { lock_timeout, creates, .. } = *store;
        let sqlite_options = if creates { sqlite::durable } else { sqlite::existing };
        options
            .acquire_timeout(store.acquire_timeout)
            .sqlx_logging(false)
            .map_sqlx_postgres_opts(reachable)
            .map_sqlx_sqlite_opts(move |sqlite| sqlite_options(sqlite, lock_timeout))
            .map_sqlx_sqlite_pool_opts(sqlite::without_lost_transactions);
        Ok(options)
    }

    /// Applies every step that the database does not have, whoever else does so at the same time.
    /// A database with steps of a later version is left as it is; fails where one of them, or the
    /// lack of one of ours, means that this version cannot work with it.
    ///
    /// Over connections of its own, without the time limits of calls but for locks: an index on a large
    /// table takes its time.
    pub async fn migrate(url: &SecretString) -> Result<(), Trouble> {
        let migrate = async { migrate::up(Self::options(url, &StoreOptions::default())?).await };
        match migrate.await {
            Ok(()) => Ok(()),
            Err(error) => Err(Trouble::at(&error, url).await),
        }
    }
}
