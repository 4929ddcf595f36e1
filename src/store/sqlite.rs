//! SQLite: the statements of batches. A batch comes as one JSON text, so that a statement's text is
//! the same for any number of rows, and costs one turn of the connection's thread.

use std::sync::LazyLock;

use data_encoding::HEXLOWER;
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DbBackend, DbErr, FromQueryResult, QueryResult, Statement,
    TransactionTrait, Value,
    sqlx::{Connection, Sqlite, pool::PoolOptions},
};
use serde::Serialize;

use super::{
    credentials::CREDENTIAL,
    entity::{credentials, organizations},
    immediate,
    update::{self, ASKED, Asked, Dialect, ORGANIZATION, Times},
};
use crate::domain::{CredentialDigest, Field, OrganizationId};

/// The columns of the caller's, which the change log has.
const LOGGED: [&str; 6] =
    ["id", "subject", "role", "request_id", "idempotency_key", "request_digest"];
/// Columns that JSON has in hexadecimal digits.
const BYTES: [&str; 2] = ["credential", "request_digest"];

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
) -> Result<Vec<organizations::Model>, DbErr> {
    static UPDATE: LazyLock<String> = LazyLock::new(|| {
        let update =
            update::changes(&Dialect { asked: asked(&ASKED), now: "?2", now_in_seconds: "?3" });
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
    let changed: Vec<organizations::Model> = models(&transaction.query_all_raw(update).await?)?;
    if changed.is_empty() {
        return Ok(changed);
    }
    let is_changed = |row: &&&Asked| changed.iter().any(|model| model.id == row.id().get());
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
) -> Result<Vec<organizations::Model>, DbErr> {
    static STATEMENT: LazyLock<String> = LazyLock::new(|| {
        format!(
            "SELECT {ORGANIZATION} FROM organizations WHERE id IN (SELECT value FROM json_each(?1))"
        )
    });
    let ids: Vec<i64> = ids.iter().map(|id| id.get()).collect();
    models(&database.query_all_raw(statement(STATEMENT.as_str(), [json(&ids)?])).await?)
}

/// The credentials that have these digests.
pub(super) async fn credentials(
    database: &DatabaseConnection,
    digests: &[CredentialDigest],
) -> Result<Vec<credentials::Model>, DbErr> {
    static STATEMENT: LazyLock<String> = LazyLock::new(|| {
        format!(
            "SELECT {CREDENTIAL} FROM credentials \
             WHERE digest IN (SELECT unhex(value) FROM json_each(?1))"
        )
    });
    let digests: Vec<_> = digests.iter().map(|digest| HEXLOWER.encode(&digest.0)).collect();
    models(&database.query_all_raw(statement(STATEMENT.as_str(), [json(&digests)?])).await?)
}

fn statement(text: &str, values: impl IntoIterator<Item = Value>) -> Statement {
    Statement::from_sql_and_values(DbBackend::Sqlite, text, values)
}

fn json(rows: &impl Serialize) -> Result<Value, DbErr> {
    let text = serde_json::to_string(rows).map_err(|error| DbErr::Custom(error.to_string()))?;
    Ok(text.into())
}

fn models<M: FromQueryResult>(rows: &[QueryResult]) -> Result<Vec<M>, DbErr> {
    rows.iter().map(|row| M::from_query_result(row, "")).collect()
}
