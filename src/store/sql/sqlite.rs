//! SQLite: how it is connected to, and the statements of batches. A batch is passed as one JSON text: the
//! statement is then the same for any number of rows, and is one call to the connection's thread.

use std::{
    path::PathBuf,
    sync::{Arc, LazyLock},
    time::Duration,
};

use data_encoding::HEXLOWER;
use sea_orm::{
    ConnAcquireErr, ConnectOptions, ConnectionTrait, Database, DatabaseConnection,
    DatabaseTransaction, DbBackend, DbErr, QueryResult, RuntimeErr, SqliteTransactionMode,
    Statement, TransactionOptions, TransactionTrait, Value,
    sqlx::{
        self, Connection, Sqlite,
        pool::PoolOptions,
        sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
    },
};
use serde::Serialize;
use tokio::time::{Instant, sleep};

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
        error::is_locked,
        files::Files,
    },
};

/// How long a start waits for others that start on the same file, and how often it looks.
pub(crate) const STARTUP_LOCK_TIMEOUT: Duration = Duration::from_secs(15);
const STARTUP_LOCK_RETRY: Duration = Duration::from_millis(20);

/// Pages of the write-ahead log from which on a commit copies them into the file: half a megabyte. Updates wait
/// meanwhile, so with many pages at once a few wait long: with SQLite's own 1000, and 5,000,000 organizations, the
/// p99 of an update is twice as long, and no more of them are done in a second (docs/PERFORMANCE.md).
const LOG_PAGES: &str = "128";
/// SQLite cuts its write-ahead log to this size when it starts to overwrite it, which it does when all of it is
/// copied and nobody reads it any more. Without this, the file stays as large as one long reader made it.
const LOG_BYTES_MAX: &str = "8388608";

/// Times are text, with as many digits of a second as they need. Within one second they compare correctly
/// without their `Z`. An import may have written another form, so whole seconds are compared by `unixepoch`.
const NOW_OR_LATER: &str = "CASE WHEN \
    (unixepoch(stored.date_modified), rtrim(stored.date_modified, 'Z')) \
      > (unixepoch(?2), rtrim(?2, 'Z')) \
    THEN stored.date_modified ELSE ?2 END";

static UPDATE: LazyLock<String> = LazyLock::new(|| returning(update::changes));
static CREATE: LazyLock<String> = LazyLock::new(|| returning(create::insert));
static RECORD: LazyLock<String> = LazyLock::new(|| {
    record(&format!("{} JOIN organizations AS stored ON stored.id = pending.id", pending()))
});
static TAKE_IDS: LazyLock<String> =
    LazyLock::new(|| create::take_ids("?1", "?2", |a, b| format!("MAX({a}, {b})")));
static ORGANIZATIONS: LazyLock<String> = LazyLock::new(|| {
    let columns = organization_columns("");
    format!("SELECT {columns} FROM organizations WHERE id IN (SELECT value FROM json_each(?1))")
});
static CREDENTIALS: LazyLock<String> = LazyLock::new(|| {
    let digests = "SELECT unhex(value) FROM json_each(?1)";
    format!("SELECT {CREDENTIAL} FROM credentials WHERE digest IN ({digests})")
});

/// Every statement of a worker.
pub(crate) fn texts() -> [&'static str; 6] {
    [&UPDATE, &CREATE, &RECORD, &TAKE_IDS, &ORGANIZATIONS, &CREDENTIALS].map(|text| text.as_str())
}

/// Connects, and waits while another process has the file for itself: the first of several that start
/// together turns it to WAL, during which SQLite refuses the others without waiting.
pub(crate) async fn connect_when_free(
    options: ConnectOptions,
) -> Result<DatabaseConnection, DbErr> {
    let give_up = Instant::now() + STARTUP_LOCK_TIMEOUT;
    loop {
        match Database::connect(options.clone()).await {
            Err(error) if is_locked(&error) && Instant::now() < give_up => {
                sleep(STARTUP_LOCK_RETRY).await;
            }
            connected => return connected,
        }
    }
}

/// The options for a file that must exist. Its journal mode is not changed.
pub(crate) fn existing(
    options: SqliteConnectOptions,
    lock_timeout: Duration,
) -> SqliteConnectOptions {
    options.busy_timeout(lock_timeout).create_if_missing(false)
}

/// What every connection has.
pub(crate) fn durable(
    options: SqliteConnectOptions,
    lock_timeout: Duration,
) -> SqliteConnectOptions {
    options
        .journal_mode(SqliteJournalMode::Wal)
        // WAL with NORMAL loses acknowledged writes at a power cut.
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(lock_timeout)
        .foreign_keys(true)
        .pragma("wal_autocheckpoint", LOG_PAGES)
        .pragma("journal_size_limit", LOG_BYTES_MAX)
}

/// Closes no idle or old connection: when the last one closes, SQLite removes its log, one of the files that
/// must stay.
pub(crate) fn without_end(options: &mut ConnectOptions) -> &mut ConnectOptions {
    options.idle_timeout(None).max_lifetime(None)
}

/// Notes the files of a database that these pools have open.
pub(crate) async fn opened(url: &str, pools: [&DatabaseConnection; 2]) -> Result<Files, DbErr> {
    for pool in pools {
        // SQLite opens the log at the first look into the file.
        pool.execute_unprepared("SELECT name FROM sqlite_schema LIMIT 1").await?;
    }
    let unknown = |error| DbErr::Custom(format!("cannot find the database's file: {error}"));
    Files::opened(&path(url)?).map_err(unknown)
}

/// Fails where there is no file.
pub(crate) fn find(url: &str) -> Result<(), DbErr> {
    let path = path(url)?;
    if path.exists() {
        return Ok(());
    }
    let path = path.display();
    Err(DbErr::Custom(format!("there is no file {path}; `orgd migrate` creates the database")))
}

fn path(url: &str) -> Result<PathBuf, DbErr> {
    let options: SqliteConnectOptions =
        url.parse().map_err(|error| DbErr::Conn(RuntimeErr::SqlxError(Arc::new(error))))?;
    Ok(options.get_filename().to_owned())
}

/// The options of a transaction that writes. It takes the write lock at its start, where SQLite can wait for
/// another process; later it cannot.
pub(crate) fn immediate() -> TransactionOptions {
    TransactionOptions {
        sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
        ..TransactionOptions::default()
    }
}

/// The SQL of the relation `pending`. The first parameter is a JSON array with an array for each row.
fn pending() -> String {
    let columns = PENDING_COLUMNS.iter().enumerate().map(|(index, (column, cell))| match cell {
        // JSON has no bytes, so they come as hexadecimal digits.
        Cell::Bytes(_) => format!("unhex(value ->> {index}) AS {column}"),
        _ => format!("value ->> {index} AS {column}"),
    });
    format!("(SELECT {} FROM json_each(?1)) AS pending", columns.collect::<Vec<_>>().join(", "))
}

/// Closes a connection that returns to its pool while sqlx still counts a transaction as open.
///
/// A full or failing disk makes SQLite end the transaction by itself. sqlx, whose COMMIT and then ROLLBACK
/// failed, still counts it as open, and would do all that follows in savepoints of a transaction that
/// nobody commits: success would be reported, and nothing stored.
pub(crate) fn without_lost_transactions(options: PoolOptions<Sqlite>) -> PoolOptions<Sqlite> {
    options.after_release(|connection, _| {
        Box::pin(async {
            if connection.is_in_transaction() {
                // A rollback may only have been started. The ping waits until it is done.
                connection.ping().await?;
            }
            Ok(!connection.is_in_transaction())
        })
    })
}

/// Writes a batch, in which each organization occurs once, and records the changes, in one transaction. After
/// the commit, for each row: the organization, or None if the row was not touched.
pub(crate) async fn write(
    database: &DatabaseConnection,
    write: Write,
    rows: &[&PendingUpdate],
) -> Result<Vec<Option<domain::Result<organizations::Model>>>, DbErr> {
    let change = match write {
        Write::Update => UPDATE.as_str(),
        Write::Create => CREATE.as_str(),
    };
    let (now, now_in_seconds) = (clock::now(), clock::now_in_seconds());
    let transaction = database.begin_with_options(immediate()).await?;
    let (count, least) = create::needs(rows);
    let end = if count > 0 { take_ids(&transaction, count, least).await? } else { 0 };
    let ids = create::ids(rows, count, end);
    let all: Vec<_> = rows.iter().zip(&ids).map(|(row, id)| as_array(*id, row)).collect();
    let change = statement(change, [json(&all)?.into(), now.into(), now_in_seconds.into()]);
    let changed = row::organizations(transaction.query_all_raw(change).await?)?;
    let is_changed = |id: i64| changed.iter().any(|(changed, _)| *changed == id);
    let logged = all.iter().zip(&ids).filter_map(|(row, id)| is_changed(*id).then_some(row));
    let logged: Vec<_> = logged.collect();
    if logged.is_empty() && count == 0 {
        return Ok(in_order(&ids, changed));
    }
    transaction.execute_raw(statement(RECORD.as_str(), [json(&logged)?.into()])).await?;
    transaction.commit().await?;
    Ok(in_order(&ids, changed))
}

fn returning(change: fn(&Dialect) -> String) -> String {
    let change = change(&Dialect {
        pending: pending(),
        now: "?2".to_owned(),
        now_or_later: NOW_OR_LATER.to_owned(),
        now_in_seconds: "?3".to_owned(),
    });
    format!("{change} RETURNING {}", organization_columns(""))
}

/// Takes ids for new organizations, and answers the one after the last.
async fn take_ids(transaction: &DatabaseTransaction, count: i64, least: i64) -> Result<i64, DbErr> {
    let take = statement(TAKE_IDS.as_str(), [count.into(), least.into()]);
    let rows = transaction.query_all_raw(take).await?;
    rows.first().map_or(Ok(0), |row| row.try_get("", "next_id"))
}

/// A row of the batch, in the order of [`PENDING_COLUMNS`].
fn as_array(id: i64, row: &PendingUpdate) -> Vec<serde_json::Value> {
    let cell = |(_, cell): &(String, Cell)| match *cell {
        Cell::Id => id.into(),
        Cell::Sets(field) => row.field(field).0.into(),
        Cell::Value(field) => row.field(field).1.into(),
        Cell::Number(of) => of(row).into(),
        Cell::Text(of) => of(row).into(),
        Cell::Bytes(of) => of(row).map(|bytes| HEXLOWER.encode(bytes)).into(),
    };
    PENDING_COLUMNS.iter().map(cell).collect()
}

/// The rows that have these keys. sqlx is asked itself: SeaORM moves 30 KB of futures for each statement, which
/// took a twelfth of a GET's instructions.
pub(crate) async fn look_up(
    database: &DatabaseConnection,
    keys: Keys<'_>,
) -> Result<Vec<QueryResult>, DbErr> {
    let (text, keys) = match keys {
        Keys::Ids(ids) => {
            let ids: Vec<i64> = ids.iter().map(|id| id.get()).collect();
            (ORGANIZATIONS.as_str(), json(&ids)?)
        }
        Keys::Digests(digests) => {
            let digests: Vec<_> = digests.iter().map(|digest| HEXLOWER.encode(&digest.0)).collect();
            (CREDENTIALS.as_str(), json(&digests)?)
        }
    };
    let mut connection =
        database.get_sqlite_connection_pool().acquire().await.map_err(|error| match error {
            sqlx::Error::PoolTimedOut => DbErr::ConnectionAcquire(ConnAcquireErr::Timeout),
            error => DbErr::Conn(RuntimeErr::SqlxError(error.into())),
        })?;
    let rows = sqlx::query(text)
        .bind(keys)
        .fetch_all(&mut *connection)
        .await
        .map_err(|error| DbErr::Query(RuntimeErr::SqlxError(error.into())))?;
    Ok(rows.into_iter().map(QueryResult::from).collect())
}

fn statement(text: &str, values: impl IntoIterator<Item = Value>) -> Statement {
    Statement::from_sql_and_values(DbBackend::Sqlite, text, values)
}

fn json(rows: &impl Serialize) -> Result<String, DbErr> {
    serde_json::to_string(rows).map_err(|error| DbErr::Custom(error.to_string()))
}
