//! The statement that updates a batch of organizations, for both databases.
//!
//! Architecture invariant: no row is read in order to be written back. One statement serves any mix of
//! patches: it sets the column of every field, to the new value where the patch names the field, else to what
//! is stored at that moment. It also decides whether the row is touched at all. No statement locks the row of
//! a credential: [`Store::outlast_older_writes`](crate::store::Store::outlast_older_writes) says how a
//! revocation waits for older writes instead.

use super::{
    pending::{Dialect, for_each_field},
    predicates::may_write,
};

/// Updates every organization of `pending` whose version is the one asked for, that would really
/// change, and whose caller may write it. Others are left alone.
pub(crate) fn changes(dialect: &Dialect) -> String {
    let Dialect { pending, now_or_later, .. } = dialect;
    let set = for_each_field(", ", |column, version| {
        let value = format!(
            "{column} = CASE WHEN pending.sets_{column} THEN pending.{column} ELSE stored.{column} END"
        );
        let Some(version) = version else { return value };
        format!(
            "{value}, {version} = CASE WHEN {} THEN stored.version + 1 ELSE stored.{version} END",
            changes_field(column)
        )
    });
    let changes = for_each_field(" OR ", |column, _| changes_field(column));
    let may_write = may_write(dialect);
    format!(
        "UPDATE organizations AS stored SET {set}, \
           version = stored.version + 1, date_modified = {now_or_later} \
         FROM {pending} \
         WHERE stored.id = pending.id \
           AND (pending.version IS NULL OR stored.version = pending.version) \
           AND ({changes}) AND {may_write}"
    )
}

/// Whether the update gives a column another value than is stored.
fn changes_field(column: &str) -> String {
    format!("pending.sets_{column} AND stored.{column} IS DISTINCT FROM pending.{column}")
}
