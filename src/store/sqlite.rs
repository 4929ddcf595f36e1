//! SQLite: how it is connected to, and the statements of batches. A batch comes as one JSON text, so that a statement's text is
//! the same for any number of rows, and costs one turn of the connection's thread.

use std::{
    path::PathBuf,
    sync::{Arc, LazyLock},
    time::Duration,
};

use data_encoding::HEXLOWER;
use sea_orm::{
    ConnectOptions, ConnectionTrait, Database, DatabaseConnection, DbBackend, DbErr, RuntimeErr,
    SqliteTransactionMode, Statement, TransactionOptions, TransactionTrait, Value,
    sqlx::{
        Connection, Sqlite,
        pool::PoolOptions,
        sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
    },
};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::{
    credentials::CREDENTIAL,
    error::is_locked,
    files::Files,
    row::{self, CredentialRow, OrganizationRow},
    update::{self, ASKED, Asked, Dialect, ORGANIZATION, Times},
};
use crate::domain::{CredentialDigest, Field, OrganizationId};

/// The columns of the caller's, which the change log has.
const LOGGED: [&str; 6] =
    ["id", "subject", "role", "request_id", "idempotency_key", "request_digest"];
/// Columns that JSON has in hexadecimal digits.
const BYTES: [&str; 2] = ["credential", "request_digest"];

/// How long a start waits for others that start on the same file, and how often it looks.
pub(super) const STARTUP_LOCK_TIMEOUT: Duration = Duration::from_secs(15);
const STARTUP_LOCK_RETRY: Duration = Duration::from_millis(20);

/// Bytes that the log keeps on the disk once it is written from the start again, which SQLite does when
/// it has about 4 MB that nobody reads any more. One long reader can make it grow without bound.
const LOG_BYTES_MAX: &str = "8388608";

/// Connects, and waits while another process has the file for itself: the first of several that start
/// together turns it to WAL, during which SQLite refuses the others without waiting.
pub(super) async fn connect_when_free(
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

/// The same for a file that is there; it is left as it is.
pub(super) fn existing(
    options: SqliteConnectOptions,
    lock_timeout: Duration,
) -> SqliteConnectOptions {
    options.busy_timeout(lock_timeout).create_if_missing(false)
}

/// What every connection has.
pub(super) fn durable(
    options: SqliteConnectOptions,
    lock_timeout: Duration,
) -> SqliteConnectOptions {
    options
        .journal_mode(SqliteJournalMode::Wal)
        // WAL with NORMAL loses acknowledged writes at a power cut.
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(lock_timeout)
        .foreign_keys(true)
        .pragma("journal_size_limit", LOG_BYTES_MAX)
}

/// Keeps connections until the end: SQLite removes its log, which is one of the files that must stay,
/// when the last is closed.
pub(super) fn without_end(options: &mut ConnectOptions) -> &mut ConnectOptions {
    options.idle_timeout(None).max_lifetime(None)
}

/// Notes the files of a database that these pools have open.
pub(super) async fn opened(url: &str, pools: [&DatabaseConnection; 2]) -> Result<Files, DbErr> {
    for pool in pools {
        // SQLite opens the log at the first look into the file.
        pool.execute_unprepared("SELECT name FROM sqlite_schema LIMIT 1").await?;
    }
    let unknown = |error| DbErr::Custom(format!("cannot find the database's file: {error}"));
    Files::opened(&path(url)?).map_err(unknown)
}

/// Fails where there is no file.
pub(super) fn find(url: &str) -> Result<(), DbErr> {
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

/// A transaction that writes: it waits for another process's lock where it begins, where waiting is
/// possible.
pub(super) fn immediate() -> TransactionOptions {
    TransactionOptions {
        sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
        ..TransactionOptions::default()
    }
}

/// The relation `asked` of rows that the first parameter has as JSON arrays.
fn asked(columns: &[&str]) -> String {
    let columns = columns.iter().enumerate().map(|(index, column)| {
        if BYTES.contains(column) {
            format!("unhex(value ->> {index}) AS {column}")
        } else {
            format!("value ->> {index} AS {column}")
        }
    });
    format!("(SELECT {} FROM json_each(?1)) AS asked", columns.collect::<Vec<_>>().join(", "))
}

/// Closes a connection that comes back to its pool within a transaction, as sqlx sees it.
///
/// A full or failing disk makes SQLite end the transaction by itself. sqlx, whose COMMIT and then ROLLBACK
/// failed, still counts it as open, and would do all that follows in savepoints of a transaction that
/// nobody commits: success would be reported, and nothing stored.
pub(super) fn without_lost_transactions(options: PoolOptions<Sqlite>) -> PoolOptions<Sqlite> {
    options.after_release(|connection, _| {
        Box::pin(async {
            if connection.is_in_transaction() {
                // Until a rollback is done that was only begun.
                connection.ping().await?;
            }
            Ok(!connection.is_in_transaction())
        })
    })
}

/// Updates a batch, which has each organization once, and records the changes, in one transaction.
/// Answers the rows that were touched, once they are committed.
pub(super) async fn update(
    database: &DatabaseConnection,
    rows: &[&Asked],
) -> Result<Vec<OrganizationRow>, DbErr> {
    static UPDATE: LazyLock<String> = LazyLock::new(|| {
        let update = update::changes(&Dialect {
            asked: asked(&ASKED),
            now: "?2",
            now_in_seconds: "?3",
            // There is one writer, which looks at the credential once it is alone.
            lock: "",
        });
        format!("{update} RETURNING {ORGANIZATION}")
    });
    static RECORD: LazyLock<String> = LazyLock::new(|| {
        update::record(&format!(
            "stored.id, stored.version, stored.date_modified, stored.name, \
             stored.subscription_id, stored.handshake_version, asked.subject, asked.role, \
             asked.request_id, asked.idempotency_key, asked.request_digest \
             FROM {} JOIN organizations AS stored ON stored.id = asked.id",
            asked(&LOGGED)
        ))
    });
    let Times { now, now_in_seconds } = Times::read();
    let all: Vec<_> = rows.iter().map(|row| as_array(row)).collect();
    let transaction = database.begin_with_options(immediate()).await?;
    let update = statement(UPDATE.as_str(), [json(&all)?, now.into(), now_in_seconds.into()]);
    let changed = row::organizations(transaction.query_all_raw(update).await?)?;
    if changed.is_empty() {
        return Ok(changed);
    }
    let is_changed = |row: &&&Asked| changed.iter().any(|(id, _)| *id == row.id().get());
    let logged: Vec<_> = rows.iter().filter(is_changed).map(|row| as_logged(row)).collect();
    transaction.execute_raw(statement(RECORD.as_str(), [json(&logged)?])).await?;
    transaction.commit().await?;
    Ok(changed)
}

/// An update, in the order of [`ASKED`].
fn as_array(row: &Asked) -> impl Serialize {
    let [(sets_name, name), (sets_subscription_id, subscription_id), (sets_handshake, handshake)] =
        Field::ALL.map(|field| row.field(field));
    let principal = &row.call.principal;
    (
        row.id().get(),
        sets_name,
        name,
        sets_subscription_id,
        subscription_id,
        sets_handshake,
        handshake,
        row.version(),
        row.credential().map(|digest| HEXLOWER.encode(digest)),
        principal.role.as_str(),
        row.member_of(),
        principal.subject.as_str(),
        row.call.request_id.as_str(),
        row.idempotency_key(),
        row.request_digest().map(|digest| HEXLOWER.encode(digest)),
    )
}

/// Whose an update was, in the order of [`LOGGED`].
fn as_logged(row: &Asked) -> impl Serialize {
    let principal = &row.call.principal;
    (
        row.id().get(),
        principal.subject.as_str(),
        principal.role.as_str(),
        row.call.request_id.as_str(),
        row.idempotency_key(),
        row.request_digest().map(|digest| HEXLOWER.encode(digest)),
    )
}

/// The organizations that have these ids.
pub(super) async fn organizations(
    database: &DatabaseConnection,
    ids: &[OrganizationId],
) -> Result<Vec<OrganizationRow>, DbErr> {
    static STATEMENT: LazyLock<String> = LazyLock::new(|| {
        format!(
            "SELECT {ORGANIZATION} FROM organizations WHERE id IN (SELECT value FROM json_each(?1))"
        )
    });
    let ids: Vec<i64> = ids.iter().map(|id| id.get()).collect();
    let found = database.query_all_raw(statement(STATEMENT.as_str(), [json(&ids)?])).await?;
    row::organizations(found)
}

/// The credentials that have these digests.
pub(super) async fn credentials(
    database: &DatabaseConnection,
    digests: &[CredentialDigest],
) -> Result<Vec<CredentialRow>, DbErr> {
    static STATEMENT: LazyLock<String> = LazyLock::new(|| {
        format!(
            "SELECT {CREDENTIAL} FROM credentials \
             WHERE digest IN (SELECT unhex(value) FROM json_each(?1))"
        )
    });
    let digests: Vec<_> = digests.iter().map(|digest| HEXLOWER.encode(&digest.0)).collect();
    let found = database.query_all_raw(statement(STATEMENT.as_str(), [json(&digests)?])).await?;
    row::credentials(found)
}

fn statement(text: &str, values: impl IntoIterator<Item = Value>) -> Statement {
    Statement::from_sql_and_values(DbBackend::Sqlite, text, values)
}

fn json(rows: &impl Serialize) -> Result<Value, DbErr> {
    let text = serde_json::to_string(rows).map_err(|error| DbErr::Custom(error.to_string()))?;
    Ok(text.into())
}
