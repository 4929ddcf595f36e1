//! The statements that store a batch of new organizations, for both databases: one that takes ids, and
//! one that inserts.
//!
//! Ids come from a row that counts (`organization_ids`), as engines that shard have no sequence or a costly
//! one. On PostgreSQL this row is locked for one short statement, never while organizations are stored.

use sea_orm::{ConnectionTrait, DbErr, Statement};

use super::{
    pending::{Dialect, PendingUpdate, for_each_field},
    predicates::may_write,
};
use crate::domain::OrganizationId;

/// The counter gives only ids below this. Larger ones are chosen by operators, and do not use up the others.
const CHOSEN_ID_END: i64 = 1 << 52;

/// The statement that takes `count` ids and answers the id after the last. They are not below `least`, and
/// larger than all stored ids below [`CHOSEN_ID_END`]: an import, or an older version without the counter,
/// may have stored larger ids than the counter has.
pub(crate) fn take_ids(count: &str, least: &str, greatest: fn(&str, &str) -> String) -> String {
    let largest =
        format!("COALESCE((SELECT MAX(id) FROM organizations WHERE id < {CHOSEN_ID_END}), 0) + 1");
    let first = greatest(least, &largest);
    let counted = greatest(&format!("counted.next_id + {count}"), "excluded.next_id");
    format!(
        "INSERT INTO organization_ids AS counted (id, next_id) VALUES (1, {first} + {count}) \
         ON CONFLICT (id) DO UPDATE SET next_id = {counted} RETURNING next_id"
    )
}

/// How many ids a batch needs, and the smallest that it may get: larger than those that its callers named.
pub(crate) fn needs(rows: &[&PendingUpdate]) -> (i64, i64) {
    let named = rows.iter().filter_map(|row| row.id).map(OrganizationId::get);
    let largest = named.filter(|id| *id < CHOSEN_ID_END).max().unwrap_or(0);
    let count = rows.iter().filter(|row| row.id.is_none()).count();
    (count.try_into().unwrap_or(i64::MAX), largest + 1)
}

/// The id of each row, in order: the one that it names, or the next of the `count` taken ids before `end`.
pub(crate) fn ids(rows: &[&PendingUpdate], count: i64, end: i64) -> Vec<i64> {
    let mut taken = end.saturating_sub(count)..end;
    let id = |row: &&PendingUpdate| row.id.map(OrganizationId::get).or_else(|| taken.next());
    rows.iter().map(id).map(Option::unwrap_or_default).collect()
}

/// The statement that stores every organization of `pending` whose caller may write it and whose id is free.
/// It leaves out the others.
pub(crate) fn insert(dialect: &Dialect) -> String {
    let Dialect { pending, now, .. } = dialect;
    let columns = for_each_field(", ", |column, version| match version {
        None => column.to_owned(),
        Some(version) => format!("{column}, {version}"),
    });
    let values = for_each_field(", ", |column, version| match version {
        None => format!("pending.{column}"),
        Some(_) => {
            format!("pending.{column}, CASE WHEN pending.{column} IS NULL THEN 0 ELSE 1 END")
        }
    });
    let may_write = may_write(dialect);
    format!(
        "INSERT INTO organizations AS stored (id, {columns}, version, date_created, date_modified) \
         SELECT pending.id, {values}, 1, {now}, {now} \
         FROM {pending} WHERE {may_write} ON CONFLICT (id) DO NOTHING"
    )
}

/// The id that the next creation without one would get. Takes no id.
pub(crate) async fn next_id(database: &impl ConnectionTrait) -> Result<i64, DbErr> {
    let ask = Statement::from_string(database.get_database_backend(), next_id_text());
    let rows = database.query_all_raw(ask).await?;
    let Some(row) = rows.first() else { return Ok(1) };
    let counted: Option<i64> = row.try_get("", "counted")?;
    let largest: Option<i64> = row.try_get("", "largest")?;
    Ok(counted.unwrap_or(1).max(largest.unwrap_or(0) + 1))
}

pub(crate) fn next_id_text() -> String {
    format!(
        "SELECT (SELECT next_id FROM organization_ids WHERE id = 1) AS counted, \
         (SELECT MAX(id) FROM organizations WHERE id < {CHOSEN_ID_END}) AS largest"
    )
}

#[cfg(test)]
mod tests {
    use super::{CHOSEN_ID_END, ids, needs};
    use crate::{
        domain::{Call, OrganizationId, Patch, Principal},
        store::sql::pending::PendingUpdate,
    };

    #[test]
    fn each_row_has_an_id_of_its_own() {
        let end = CHOSEN_ID_END;
        for (named, needed, end, expected) in [
            (&[None, None][..], (2, 1), 9, vec![7, 8]),
            (&[Some(5), None, Some(3), None], (2, 6), 8, vec![5, 6, 3, 7]),
            (&[Some(5)], (0, 6), 0, vec![5]),
            // What is named beyond the end does not push the others there.
            (&[None, Some(end), Some(end - 1)], (1, end), 10, vec![9, end, end - 1]),
            (&[], (0, 1), 0, vec![]),
        ] {
            let rows: Vec<PendingUpdate> = named.iter().map(|id| pending(*id)).collect();
            let rows: Vec<&PendingUpdate> = rows.iter().collect();
            assert_eq!(needs(&rows), needed, "{named:?}");
            assert_eq!(ids(&rows, needed.0, end), expected, "{named:?}");
        }
    }

    fn pending(id: Option<i64>) -> PendingUpdate {
        let principal = Principal::operator().into();
        let request_id = String::new();
        PendingUpdate {
            call: Call { principal, request_id, idempotency_key: None, validate_only: false },
            id: id.and_then(OrganizationId::new),
            patch: Patch::default(),
            etag: None,
            idempotency: None,
        }
    }
}
