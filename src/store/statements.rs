//! How a statement is done that does not wait in a queue.

use std::time::Duration;

use sea_orm::{ConnectionTrait, DbBackend, DbErr, QueryResult, StatementBuilder, TransactionTrait};
use tracing::Span;

use super::{
    Store,
    batch::worker::Worker,
    error,
    retry::{self, RETRIES_MAX},
    session::SessionSettings,
    sql::{postgres::PinnedConnection, sqlite::immediate},
};
use crate::{
    domain::{Principal, Result},
    telemetry::metrics,
};

impl Store {
    /// Runs one writing statement and answers the rows that it returns, once they are committed.
    ///
    /// sqlx-sqlite's `fetch_one` and `fetch_optional` drop a `RETURNING` statement at its first row
    /// and with it a failing commit: the caller would see success and nothing would be stored. On
    /// SQLite the commit is therefore explicit. On PostgreSQL it is part of the statement, whose
    /// answer `query_all` reads to its end; a transaction block would cost three times as much.
    pub(super) async fn write(
        &self,
        statement: &impl StatementBuilder,
    ) -> std::result::Result<Vec<QueryResult>, DbErr> {
        if self.pools.backend() != DbBackend::Sqlite {
            return self.retried(|| self.pools.writer.query_all(statement)).await;
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
    pub(super) async fn retried<T, F: Future<Output = std::result::Result<T, DbErr>>>(
        &self,
        mut statement: impl FnMut() -> F,
    ) -> std::result::Result<T, DbErr> {
        let retried =
            async { retry::retried(self.answer_timeout(), RETRIES_MAX, &mut statement).await };
        match self.files.around(retried).await {
            Err(error) if error::is_outlived(&error) => {
                self.renewal.renew();
                retry::retried(self.answer_timeout(), RETRIES_MAX, statement).await
            }
            done => done,
        }
    }

    /// The same for a caller, which waits for its place first.
    pub(super) async fn retried_for<T, F: Future<Output = std::result::Result<T, DbErr>>>(
        &self,
        principal: &Principal,
        statement: impl FnMut() -> F,
    ) -> Result<T> {
        let _place = self.pools.place(principal).await?;
        self.retried(statement).await.map_err(error::failure)
    }

    /// How long the answer to a statement is waited for, a connection included.
    pub(super) fn answer_timeout(&self) -> Duration {
        match self.pools.backend() {
            // Its answers are made in this process.
            DbBackend::Sqlite => Duration::MAX,
            _ => self.options.answer_timeout(),
        }
    }

    /// The span of a statement that does not wait in a queue.
    pub(super) fn span(&self, operation: &'static str, collection: &'static str) -> Span {
        metrics::db_span(self.pools.system(), operation, collection)
    }

    /// A worker of one's own for a moment.
    pub(super) fn worker(&self) -> Worker {
        if self.pools.backend() == DbBackend::Sqlite {
            return Worker::sqlite(&self.pools.writer, &self.files);
        }
        let pool = self.pools.writer.get_postgres_connection_pool();
        let settings = SessionSettings::of_calls(&self.options);
        Worker::postgres(PinnedConnection::new(pool, settings, &self.renewal, &self.options))
    }
}
