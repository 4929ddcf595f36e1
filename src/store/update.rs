//! The statement that updates a batch of organizations, for both databases: what an update asks, the
//! text that both dialects share, and the columns that they bring to it.
//!
//! Architecture invariant: no row is read in order to be written back. What a column becomes, and
//! whether the row is touched at all, is decided inside the statement. No statement locks the row of
//! a credential: [`Store::outlast_older_writes`](super::Store::outlast_older_writes) says what a
//! revocation does in place of waiting for such locks.

use time::OffsetDateTime;

use super::clock;
use crate::domain::{Call, Change, Etag, Field, IdempotencyKey, OrganizationId, Text, Update};

/// One update: who asks, for what, and under which key.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) call: Call,
    pub(super) update: Update<Text>,
    pub(super) idempotency: Option<IdempotencyKey>,
}

impl Asked {
    pub(super) fn id(&self) -> OrganizationId {
        self.update.id
    }

    /// Whether the update names a field, and the value that the field is to have.
    pub(super) fn field(&self, field: Field) -> (bool, Option<&str>) {
        match self.update.patch.change(field) {
            Change::Keep => (false, None),
            Change::Clear => (true, None),
            Change::Set(text) => (true, Some(text.as_str())),
        }
    }

    /// The version that the organization must have.
    pub(super) fn version(&self) -> Option<i64> {
        self.update.etag.map(Etag::version)
    }

    pub(super) fn credential(&self) -> Option<&[u8]> {
        self.call.principal.credential.as_ref().map(|digest| digest.0.as_slice())
    }

    /// The organization that the caller must still be a member of.
    pub(super) fn member_of(&self) -> Option<i64> {
        self.call.principal.organization.map(OrganizationId::get)
    }

    pub(super) fn idempotency_key(&self) -> Option<&str> {
        self.idempotency.as_ref().map(|idempotency| idempotency.key.as_str())
    }

    pub(super) fn request_digest(&self) -> Option<&[u8]> {
        self.idempotency.as_ref().map(|idempotency| idempotency.request_digest.as_slice())
    }
}

/// The times that a batch is done at: one for all its rows.
pub(super) struct Times {
    /// When the organizations change.
    pub(super) now: OffsetDateTime,
    /// What the end of a credential is compared with.
    pub(super) now_in_seconds: OffsetDateTime,
}

impl Times {
    pub(super) fn read() -> Self {
        Self { now: clock::now(), now_in_seconds: clock::now_in_seconds() }
    }
}

/// The columns of `asked`, the relation that has a row for each update of the batch.
pub(super) const ASKED: [&str; 15] = [
    "id",
    "sets_name",
    "name",
    "sets_subscription_id",
    "subscription_id",
    "sets_handshake",
    "handshake",
    // The version that the organization must have.
    "version",
    "credential",
    "role",
    "member_of",
    "subject",
    "request_id",
    "idempotency_key",
    "request_digest",
];

/// The columns of an organization.
pub(super) const ORGANIZATION: &str = "id, name, subscription_id, handshake, handshake_version, \
    version, date_created, date_modified";

/// What of a dialect stands inside the statement.
pub(super) struct Dialect {
    /// The relation `asked`.
    pub(super) asked: String,
    /// The placeholder of [`Times::now`].
    pub(super) now: &'static str,
    /// The placeholder of [`Times::now_in_seconds`].
    pub(super) now_in_seconds: &'static str,
}

/// Updates every organization of `asked` whose version is the one asked for, that would really
/// change, whose caller's credential still proves what it proved when the call was authenticated,
/// and whose caller made no change under the same key. Others are left alone.
pub(super) fn changes(dialect: &Dialect) -> String {
    let Dialect { asked, now, now_in_seconds } = dialect;
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
           date_modified = {now} \
         FROM {asked} \
         WHERE stored.id = asked.id \
           AND (asked.version IS NULL OR stored.version = asked.version) \
           AND (asked.sets_name AND stored.name IS DISTINCT FROM asked.name \
             OR asked.sets_subscription_id \
               AND stored.subscription_id IS DISTINCT FROM asked.subscription_id \
             OR asked.sets_handshake AND stored.handshake IS DISTINCT FROM asked.handshake) \
           AND (asked.credential IS NULL OR EXISTS ( \
             SELECT 1 FROM credentials AS held WHERE held.digest = asked.credential \
               AND held.role = asked.role \
               AND held.organization_id IS NOT DISTINCT FROM asked.member_of \
               AND held.revoked_at IS NULL \
               AND (held.expires_at IS NULL OR held.expires_at > {now_in_seconds}))) \
           AND (asked.idempotency_key IS NULL OR NOT EXISTS ( \
             SELECT 1 FROM organization_changes AS made \
             WHERE made.subject = asked.subject AND made.idempotency_key = asked.idempotency_key))"
    )
}

/// Records in the change log what the organizations of `source` are after the update. The source
/// has the columns of the organization as `stored`, and the caller's as `asked`.
pub(super) fn record(source: &str) -> String {
    format!(
        "INSERT INTO organization_changes (organization_id, version, date, name, subscription_id, \
           handshake_version, subject, role, request_id, idempotency_key, request_digest) \
         SELECT {source}"
    )
}
