//! A worker does one batch at a time, on PostgreSQL on its own connection. All workers share one thread.

use std::{io, panic::AssertUnwindSafe, thread};

use futures_util::FutureExt;
use sea_orm::{DatabaseConnection, DbErr, QueryResult};
use tokio::{runtime, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::health::Health;
use crate::{
    domain::{self, CredentialDigest, OrganizationId},
    store::{
        entity::organizations,
        error::is_outlived,
        files::Files,
        sql::{
            pending::{PendingUpdate, Write},
            postgres::{self, PinnedConnection},
            row::{self, CredentialRow, Keys, OrganizationRow},
            sqlite,
        },
    },
    telemetry::metrics,
};

/// For each row of a batch: the organization after the write, or None if the row was not touched.
pub(crate) type Written = Result<Vec<Option<domain::Result<organizations::Model>>>, DbErr>;

#[derive(Debug)]
pub(crate) struct Worker {
    connection: Connection,
    /// The outcome of its last batch.
    pub(crate) health: Health,
}

/// What a worker has of the database.
#[derive(Debug)]
enum Connection {
    /// A connection of the worker's own.
    Postgres(PinnedConnection),
    /// A pool. The worker waits for its connection like everybody else.
    Sqlite(DatabaseConnection, Files),
}

impl Worker {
    pub(crate) fn postgres(pinned: PinnedConnection) -> Self {
        Self { connection: Connection::Postgres(pinned), health: Health::new() }
    }

    pub(crate) fn sqlite(pool: &DatabaseConnection, files: &Files) -> Self {
        Self { connection: Connection::Sqlite(pool.clone(), files.clone()), health: Health::new() }
    }

    /// Writes a batch, in which each organization occurs once, and records the changes: all of it or nothing.
    pub(crate) async fn write(&mut self, write: Write, rows: &[&PendingUpdate]) -> Written {
        let written = match self.write_once(write, rows).await {
            // The session refused it and nothing was written: once more, on a new connection.
            Err(error) if is_outlived(&error) => self.write_once(write, rows).await?,
            done => done?,
        };
        let recorded = rows.iter().zip(&written).filter_map(|(row, touched)| {
            touched.as_ref().map(|touched| row.recorded_bytes(touched.as_ref().ok()))
        });
        let (entries, bytes) =
            recorded.fold((0, 0), |(entries, sum), bytes| (entries + 1, sum + bytes));
        metrics::change_log(entries, bytes);
        Ok(written)
    }

    async fn write_once(&mut self, write: Write, rows: &[&PendingUpdate]) -> Written {
        match &mut self.connection {
            Connection::Postgres(pinned) => {
                pinned.run(async |connection| postgres::write(connection, write, rows).await).await
            }
            Connection::Sqlite(pool, files) => files.around(sqlite::write(pool, write, rows)).await,
        }
    }

    pub(crate) async fn organizations(
        &mut self,
        ids: &[OrganizationId],
    ) -> Result<Vec<OrganizationRow>, DbErr> {
        row::organizations(self.look_up(Keys::Ids(ids)).await?)
    }

    pub(crate) async fn credentials(
        &mut self,
        digests: &[CredentialDigest],
    ) -> Result<Vec<CredentialRow>, DbErr> {
        row::credentials(self.look_up(Keys::Digests(digests)).await?)
    }

    async fn look_up(&mut self, keys: Keys<'_>) -> Result<Vec<QueryResult>, DbErr> {
        match &mut self.connection {
            Connection::Postgres(pinned) => {
                pinned.run(async |connection| postgres::look_up(connection, keys).await).await
            }
            Connection::Sqlite(pool, files) => files.around(sqlite::look_up(pool, keys)).await,
        }
    }
}

/// Turns a panic into an error. Otherwise it would end the worker, and the process with it.
pub(crate) async fn caught<T>(work: impl Future<Output = Result<T, DbErr>>) -> Result<T, DbErr> {
    let done = AssertUnwindSafe(work).catch_unwind().await;
    done.unwrap_or_else(|_| Err(DbErr::Custom("a panic, which is in the log".to_owned())))
}

/// The running workers. They have a thread of their own: on the requests' runtime each step of a batch would
/// wait behind thousands of requests.
#[derive(Clone, Debug)]
pub(crate) struct Workers(CancellationToken);

impl Workers {
    /// Starts the workers that `spawn` makes. They end when the queues are closed and empty, or all
    /// together when one of them fails.
    pub(crate) fn start(spawn: impl FnOnce(&mut JoinSet<()>) + Send + 'static) -> io::Result<Self> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let ended = CancellationToken::new();
        let guard = ended.clone().drop_guard();
        let work = async move {
            let _guard = guard;
            let mut workers = JoinSet::new();
            spawn(&mut workers);
            while let Some(Ok(())) = workers.join_next().await {}
        };
        thread::Builder::new().name("workers".into()).spawn(move || runtime.block_on(work))?;
        Ok(Self(ended))
    }

    /// Returns when one worker has failed, or when all have done their work.
    pub(crate) async fn ended(&self) {
        self.0.cancelled().await;
    }
}
