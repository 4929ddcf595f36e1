//! SQLite: the statements of batches. A batch comes as one JSON text, so that a statement's text is
//! the same for any number of rows, and costs one turn of the connection's thread.

use std::sync::LazyLock;

use data_encoding::HEXLOWER;
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, FromQueryResult,
    QueryResult, Statement, TransactionTrait, Value,
    sqlx::{Connection, Sqlite, pool::PoolOptions},
};
use serde::Serialize;

use super::{
    asked::{ASKED, Asked, Dialect, ORGANIZATION, Times, Write, in_order, record},
    create,
    credentials::CREDENTIAL,
    entity::{credentials, organizations},
    immediate, update,
};
use crate::domain::{CredentialDigest, Field, OrganizationId};

/// Times are text here, with as many digits of a second as they need: without their `Z` those of one
/// second compare as times do. What an import brought may have another form, but for its second.
const NOW_OR_LATER: &str = "CASE WHEN \
    (unixepoch(stored.date_modified), rtrim(stored.date_modified, 'Z')) \
      > (unixepoch(?2), rtrim(?2, 'Z')) \
    THEN stored.date_modified ELSE ?2 END";

/// The relation `asked` of rows that the first parameter has as JSON arrays.
fn asked() -> String {
    let columns = ASKED.iter().enumerate().map(|(index, (column, kind))| {
        // JSON has bytes in hexadecimal digits.
        if *kind == "bytea" {
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

/// Does a batch, which has each organization once, and records the changes, in one transaction.
/// Answers for each row what its organization is since, where it was touched, once it is committed.
pub(super) async fn write(
    database: &DatabaseConnection,
    write: Write,
    rows: &[&Asked],
) -> Result<Vec<Option<organizations::Model>>, DbErr> {
    static UPDATE: LazyLock<String> = LazyLock::new(|| returning(update::changes));
    static CREATE: LazyLock<String> = LazyLock::new(|| returning(create::insert));
    static RECORD: LazyLock<String> = LazyLock::new(|| {
        record(&format!("{} JOIN organizations AS stored ON stored.id = asked.id", asked()))
    });
    let change = match write {
        Write::Update => UPDATE.as_str(),
        Write::Create => CREATE.as_str(),
    };
    let Times { now, now_in_seconds } = Times::read();
    let transaction = database.begin_with_options(immediate()).await?;
    let (count, least) = create::needs(rows);
    let end = if count > 0 { take_ids(&transaction, count, least).await? } else { 0 };
    let ids = create::ids(rows, count, end);
    let all: Vec<_> = rows.iter().zip(&ids).map(|(row, id)| as_array(*id, row)).collect();
    let change = statement(change, [json(&all)?, now.into(), now_in_seconds.into()]);
    let changed: Vec<organizations::Model> = models(&transaction.query_all_raw(change).await?)?;
    let is_changed = |id: i64| changed.iter().any(|model| model.id == id);
    let logged = all.iter().zip(&ids).filter_map(|(row, id)| is_changed(*id).then_some(row));
    let logged: Vec<_> = logged.collect();
    if logged.is_empty() && count == 0 {
        return Ok(in_order(&ids, changed));
    }
    transaction.execute_raw(statement(RECORD.as_str(), [json(&logged)?])).await?;
    transaction.commit().await?;
    Ok(in_order(&ids, changed))
}

fn returning(change: fn(&Dialect) -> String) -> String {
    let change = change(&Dialect {
        asked: asked(),
        now: "?2",
        now_or_later: NOW_OR_LATER,
        now_in_seconds: "?3",
    });
    format!("{change} RETURNING {ORGANIZATION}")
}

/// Takes ids for new organizations, and answers the one after the last.
async fn take_ids(transaction: &DatabaseTransaction, count: i64, least: i64) -> Result<i64, DbErr> {
    static STATEMENT: LazyLock<String> =
        LazyLock::new(|| create::take_ids("?1", "?2", |a, b| format!("MAX({a}, {b})")));
    let take = statement(STATEMENT.as_str(), [count.into(), least.into()]);
    let rows = transaction.query_all_raw(take).await?;
    rows.first().map_or(Ok(0), |row| row.try_get("", "next_id"))
}

/// A row of the batch, in the order of [`ASKED`].
fn as_array(id: i64, row: &Asked) -> impl Serialize {
    let [(sets_name, name), (sets_subscription_id, subscription_id), (sets_handshake, handshake)] =
        Field::ALL.map(|field| row.field(field));
    let principal = &row.call.principal;
    (
        id,
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

#[cfg(test)]
mod tests {
    use sea_orm::{ConnectionTrait, Database};

    use super::{NOW_OR_LATER, statement};

    #[tokio::test]
    async fn the_later_of_two_times_is_found_whatever_their_digits() {
        let database = Database::connect("sqlite::memory:").await.unwrap();
        let ascending = [
            "2026-11-26T09:59:59.999999Z",
            "2026-11-26T10:00:00Z",
            "2026-11-26T10:00:00.000001Z",
            "2026-11-26T10:00:00.1Z",
            "2026-11-26T10:00:00.12Z",
            "2026-11-26T10:00:00.2Z",
            "2026-11-26 10:00:01+00:00",
            "2026-11-26T10:00:02Z",
            "2026-11-26T12:00:03+02:00",
            "2026-11-26T10:00:04.5Z",
        ];
        let query =
            format!("SELECT {NOW_OR_LATER} AS later FROM (SELECT ?1 AS date_modified) AS stored");
        for (at, stored) in ascending.iter().enumerate() {
            for (other_at, now) in ascending.iter().enumerate() {
                let ask = statement(&query, [(*stored).into(), (*now).into()]);
                let row = database.query_one_raw(ask).await.unwrap().unwrap();
                let later: String = row.try_get("", "later").unwrap();
                assert_eq!(later, ascending[at.max(other_at)], "{stored}, {now}");
            }
        }
        // What is no time does not stay for ever.
        let ask = statement(&query, ["soon".into(), ascending[0].into()]);
        let row = database.query_one_raw(ask).await.unwrap().unwrap();
        assert_eq!(row.try_get::<String>("", "later").unwrap(), ascending[0]);
    }
}
