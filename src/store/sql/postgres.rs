//! PostgreSQL: the statements of batches, each one round trip on the worker's pinned connection.
//!
//! sqlx pings a connection when it returns to a pool, and again when it is taken out. With these two round
//! trips a statement costs the database twice as much as on a pinned connection.

use std::{sync::LazyLock, time::Duration};

use sea_orm::{
    DbErr, QueryResult, RuntimeErr,
    sqlx::{self, PgConnection, PgPool, Postgres, pool::PoolConnection},
};
use tokio::time::{Instant, timeout_at};

use super::{
    create,
    pending::{
        Cell, Dialect, PENDING_COLUMNS, PendingUpdate, Write, in_order, organization_columns,
        record,
    },
    row::{self, Keys},
    update,
};
use crate::{
    domain,
    store::{
        clock,
        entity::{credentials::CREDENTIAL, organizations},
        error::{is_broken, is_outlived},
        options::StoreOptions,
        renewal::Renewal,
        retry::no_answer,
        session::SessionSettings,
    },
};

/// The age at which a pinned connection is replaced.
const LIFETIME_MAX: Duration = Duration::from_mins(30);

static UPDATE: LazyLock<String> = LazyLock::new(|| logged(update::changes));
static CREATE: LazyLock<String> = LazyLock::new(|| logged(create::insert));
static TAKE_IDS: LazyLock<String> = LazyLock::new(|| {
    create::take_ids("$1::bigint", "$2::bigint", |a, b| format!("GREATEST({a}, {b})"))
});
static ORGANIZATIONS: LazyLock<String> = LazyLock::new(|| {
    let columns = organization_columns("");
    format!("SELECT {columns} FROM organizations WHERE id = ANY ($1)")
});
static CREDENTIALS: LazyLock<String> =
    LazyLock::new(|| format!("SELECT {CREDENTIAL} FROM credentials WHERE digest = ANY ($1)"));

/// Every statement of a worker.
pub(crate) fn texts() -> [&'static str; 5] {
    [&UPDATE, &CREATE, &TAKE_IDS, &ORGANIZATIONS, &CREDENTIALS].map(|text| text.as_str())
}

/// A connection that is pinned to one worker.
#[derive(Debug)]
pub(crate) struct PinnedConnection {
    pool: PgPool,
    renewal: Renewal,
    settings: SessionSettings,
    answer_timeout: Duration,
    connection: Option<PoolConnection<Postgres>>,
    since: Instant,
    used: Instant,
}

impl PinnedConnection {
    /// Of a pool whose sessions have these settings.
    pub(crate) fn new(
        pool: &PgPool,
        settings: SessionSettings,
        renewal: &Renewal,
        options: &StoreOptions,
    ) -> Self {
        let now = Instant::now();
        Self {
            pool: pool.clone(),
            renewal: renewal.clone(),
            settings,
            answer_timeout: options.answer_timeout(),
            connection: None,
            since: now,
            used: now,
        }
    }

    /// The same, beginning with a connection of the pool that was made just now.
    pub(crate) fn with(self, connection: PoolConnection<Postgres>) -> Self {
        Self { connection: Some(connection), ..self }
    }

    /// Does `work` on the connection. A connection that broke, or whose answer did not come in time, is
    /// dropped. If the session refuses the statement because of its own state, all connections as old are
    /// replaced.
    pub(crate) async fn run<T>(
        &mut self,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, DbErr> {
        let give_up = Instant::now() + self.answer_timeout;
        let mut connection = timeout_at(give_up, self.whole())
            .await
            .map_err(|_| no_answer())?
            .map_err(|error| DbErr::Conn(RuntimeErr::SqlxError(error.into())))
            .map_err(|error| self.renewal.explain(error))?;
        let Ok(done) = timeout_at(give_up, work(&mut connection)).await else {
            drop(connection.detach());
            return Err(no_answer());
        };
        match &done {
            Err(error) if is_broken(error) => drop(connection.detach()),
            _ => {
                self.used = Instant::now();
                self.connection = Some(connection);
            }
        }
        let done = done.map_err(|error| DbErr::Query(RuntimeErr::SqlxError(error.into())));
        if done.as_ref().is_err_and(is_outlived) {
            self.renewal.renew();
        }
        done
    }

    async fn whole(&mut self) -> Result<PoolConnection<Postgres>, sqlx::Error> {
        if let Some(mut connection) = self.connection.take() {
            let (made, quiet) = (self.since.into_std(), self.used.elapsed());
            if self.since.elapsed() > LIFETIME_MAX {
                connection.close_on_drop();
            } else if self.renewal.is_whole(&mut connection, self.settings, made, quiet).await {
                return Ok(connection);
            } else {
                drop(connection.detach());
            }
        }
        let connection = self.pool.acquire().await?;
        self.since = Instant::now();
        Ok(connection)
    }
}

/// Writes a batch, in which each organization occurs once, and records the changes. For each row: the
/// organization after the write, or None if the row was not touched.
///
/// Rows are locked in the order of `rows`, everywhere by ascending id, so two batches cannot deadlock.
pub(crate) async fn write(
    connection: &mut PgConnection,
    write: Write,
    rows: &[&PendingUpdate],
) -> Result<Vec<Option<domain::Result<organizations::Model>>>, sqlx::Error> {
    let (count, least) = create::needs(rows);
    let end = if count > 0 { take_ids(connection, count, least).await? } else { 0 };
    let ids = create::ids(rows, count, end);
    let statement = match write {
        Write::Update => UPDATE.as_str(),
        Write::Create => CREATE.as_str(),
    };
    let (now, now_in_seconds) = (clock::now(), clock::now_in_seconds());
    let mut query = sqlx::query(statement);
    for (_, cell) in PENDING_COLUMNS.iter() {
        query = match *cell {
            Cell::Id => query.bind(&ids),
            Cell::Sets(field) => query.bind(column(rows, |row| row.field(field).0)),
            Cell::Value(field) => query.bind(column(rows, |row| row.field(field).1)),
            Cell::Number(of) => query.bind(column(rows, of)),
            Cell::Text(of) => query.bind(column(rows, of)),
            Cell::Bytes(of) => query.bind(column(rows, of)),
        };
    }
    let query = query.bind(now).bind(now_in_seconds);
    let touched = query.fetch_all(connection).await?.into_iter().map(QueryResult::from);
    Ok(in_order(&ids, row::organizations(touched).map_err(sqlx::Error::decode)?))
}

fn column<'a, T>(rows: &[&'a PendingUpdate], of: impl Fn(&'a PendingUpdate) -> T) -> Vec<T> {
    rows.iter().map(|row| of(row)).collect()
}

/// The statement that makes a change and records it: `WITH pending AS (…), changed AS (…), logged AS (…)
/// SELECT …`.
fn logged(change: fn(&Dialect) -> String) -> String {
    let names: Vec<_> = PENDING_COLUMNS.iter().map(|(name, _)| name.as_str()).collect();
    let names = names.join(", ");
    let given = (1..).zip(PENDING_COLUMNS.iter()).map(|(at, (_, cell))| {
        let kind = match cell {
            Cell::Id | Cell::Number(_) => "bigint",
            Cell::Sets(_) => "bool",
            Cell::Value(_) | Cell::Text(_) => "text",
            Cell::Bytes(_) => "bytea",
        };
        format!("${at}::{kind}[]")
    });
    let given = given.collect::<Vec<_>>().join(", ");
    let now = format!("${}", PENDING_COLUMNS.len() + 1);
    let change = change(&Dialect {
        pending: "pending".to_owned(),
        now_or_later: format!("GREATEST({now}, stored.date_modified)"),
        now,
        now_in_seconds: format!("${}", PENDING_COLUMNS.len() + 2),
    });
    let record = record("changed AS stored JOIN pending ON pending.id = stored.id");
    // With a prefix, as the columns of `pending` have the same names.
    let stored = organization_columns("stored.");
    let changed = organization_columns("");
    format!(
        "WITH pending AS (SELECT {names} FROM unnest({given}) AS given ({names})), \
         changed AS ({change} RETURNING {stored}), logged AS ({record}) \
         SELECT {changed} FROM changed"
    )
}

/// Takes ids for new organizations, and answers the one after the last.
async fn take_ids(
    connection: &mut PgConnection,
    count: i64,
    least: i64,
) -> Result<i64, sqlx::Error> {
    let taken = sqlx::query_scalar(TAKE_IDS.as_str()).bind(count).bind(least);
    taken.fetch_one(connection).await
}

/// The rows that have these keys.
pub(crate) async fn look_up(
    connection: &mut PgConnection,
    keys: Keys<'_>,
) -> Result<Vec<QueryResult>, sqlx::Error> {
    let query = match keys {
        Keys::Ids(ids) => {
            let ids: Vec<i64> = ids.iter().map(|id| id.get()).collect();
            sqlx::query(ORGANIZATIONS.as_str()).bind(ids)
        }
        Keys::Digests(digests) => {
            let digests: Vec<&[u8]> = digests.iter().map(|digest| digest.0.as_slice()).collect();
            sqlx::query(CREDENTIALS.as_str()).bind(digests)
        }
    };
    let rows = query.fetch_all(connection).await?;
    Ok(rows.into_iter().map(QueryResult::from).collect())
}
