//! The statement that updates a batch of organizations, for both databases.
//!
//! Architecture invariant: no row is read in order to be written back. What a column becomes, and
//! whether the row is touched at all, is decided inside the statement. No statement locks the row of
//! a credential: [`Store::outlast_older_writes`](crate::store::Store::outlast_older_writes) says what a
//! revocation does in place of waiting for such locks.

use super::{asked::Dialect, predicates::may_write};

/// Updates every organization of `asked` whose version is the one asked for, that would really
/// change, and whose caller may write it. Others are left alone.
pub(in crate::store) fn changes(dialect: &Dialect) -> String {
    let Dialect { asked, now_or_later, .. } = dialect;
    let may_write = may_write(dialect);
    format!(
        "UPDATE organizations AS stored SET \
           name = CASE WHEN asked.sets_name THEN asked.name ELSE stored.name END, \
           subscription_id = CASE WHEN asked.sets_subscription_id \
             THEN asked.subscription_id ELSE stored.subscription_id END, \
           handshake = CASE WHEN asked.sets_handshake \
             THEN asked.handshake ELSE stored.handshake END, \
           handshake_version = CASE WHEN asked.sets_handshake \
             AND stored.handshake IS DISTINCT FROM asked.handshake \
             THEN stored.version + 1 ELSE stored.handshake_version END, \
           version = stored.version + 1, \
           date_modified = {now_or_later} \
         FROM {asked} \
         WHERE stored.id = asked.id \
           AND (asked.version IS NULL OR stored.version = asked.version) \
           AND (asked.sets_name AND stored.name IS DISTINCT FROM asked.name \
             OR asked.sets_subscription_id \
               AND stored.subscription_id IS DISTINCT FROM asked.subscription_id \
             OR asked.sets_handshake AND stored.handshake IS DISTINCT FROM asked.handshake) \
           AND {may_write}"
    )
}
