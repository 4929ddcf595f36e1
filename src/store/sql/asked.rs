//! What updates and creations have in common, for both databases: what a caller asks, the relation
//! that a batch is, the conditions under which anything is written, and the row of the change log.

use time::OffsetDateTime;

use super::row::OrganizationRow;
use crate::{
    domain::{self, Call, Change, Etag, Field, IdempotencyKey, OrganizationId, Patch, Text},
    store::{clock, entity::organizations},
};

/// What a batch does.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) enum Write {
    Update,
    Create,
}

/// One update or creation: who asks, for what, and under which key.
#[derive(Clone, Debug)]
pub(in crate::store) struct Asked {
    pub(in crate::store) call: Call,
    /// Which organization; none: one that is created under an id of the store's choice.
    pub(in crate::store) id: Option<OrganizationId>,
    pub(in crate::store) patch: Patch<Text>,
    /// The version that the organization must have.
    pub(in crate::store) etag: Option<Etag>,
    pub(in crate::store) idempotency: Option<IdempotencyKey>,
}

impl Asked {
    /// Whether the patch names a field, and the value that the field is to have.
    pub(in crate::store) fn field(&self, field: Field) -> (bool, Option<&str>) {
        match self.patch.change(field) {
            Change::Keep => (false, None),
            Change::Clear => (true, None),
            Change::Set(text) => (true, Some(text.as_str())),
        }
    }

    pub(in crate::store) fn version(&self) -> Option<i64> {
        self.etag.map(Etag::version)
    }

    pub(in crate::store) fn credential(&self) -> Option<&[u8]> {
        self.call.principal.credential.as_ref().map(|digest| digest.0.as_slice())
    }

    /// The organization that the caller must still be a member of.
    pub(in crate::store) fn member_of(&self) -> Option<i64> {
        self.call.principal.organization.map(OrganizationId::get)
    }

    pub(in crate::store) fn idempotency_key(&self) -> Option<&str> {
        self.idempotency.as_ref().map(|idempotency| idempotency.key.as_str())
    }

    /// About how many bytes the change log has of this once it is stored: those of the row's values, each
    /// number and date counted as eight. `touched` is the organization as it is then, where it is known.
    pub(in crate::store) fn recorded_bytes(&self, touched: Option<&organizations::Model>) -> usize {
        const NUMBERS_AND_DATE: usize = 4 * 8;
        let principal = &self.call.principal;
        let name = touched.map_or(0, |touched| touched.name.len());
        let subscription = touched.and_then(|touched| touched.subscription_id.as_ref());
        NUMBERS_AND_DATE
            + name
            + subscription.map_or(0, String::len)
            + principal.subject.len()
            + principal.role.as_str().len()
            + self.call.request_id.len()
            + self.idempotency_key().map_or(0, str::len)
            + self.request_digest().map_or(0, <[u8]>::len)
    }

    pub(in crate::store) fn request_digest(&self) -> Option<&[u8]> {
        self.idempotency.as_ref().map(|idempotency| idempotency.request_digest.as_slice())
    }
}

/// The times that a batch is done at: one for all its rows.
pub(in crate::store) struct Times {
    /// When the organizations change.
    pub(in crate::store) now: OffsetDateTime,
    /// What the end of a credential is compared with.
    pub(in crate::store) now_in_seconds: OffsetDateTime,
}

impl Times {
    pub(in crate::store) fn read() -> Self {
        Self { now: clock::now(), now_in_seconds: clock::now_in_seconds() }
    }
}

/// The columns of `asked`, the relation that has a row for each update or creation of a batch, with
/// their types.
pub(in crate::store) const ASKED: [(&str, &str); 15] = [
    ("id", "bigint"),
    ("sets_name", "bool"),
    ("name", "text"),
    ("sets_subscription_id", "bool"),
    ("subscription_id", "text"),
    ("sets_handshake", "bool"),
    ("handshake", "text"),
    // The version that the organization must have.
    ("version", "bigint"),
    ("credential", "bytea"),
    ("role", "text"),
    ("member_of", "bigint"),
    ("subject", "text"),
    ("request_id", "text"),
    ("idempotency_key", "text"),
    ("request_digest", "bytea"),
];

/// The columns of an organization.
pub(in crate::store) const ORGANIZATION: &str = "id, name, subscription_id, handshake, handshake_version, \
    version, date_created, date_modified";

/// What of a dialect stands inside the statements.
pub(in crate::store) struct Dialect {
    /// The relation `asked`.
    pub(in crate::store) asked: String,
    /// The placeholder of [`Times::now`].
    pub(in crate::store) now: &'static str,
    /// The later of that and `stored.date_modified`: the clocks of instances differ, and the dates of
    /// an organization's versions do not go backwards.
    pub(in crate::store) now_or_later: &'static str,
    /// The placeholder of [`Times::now_in_seconds`].
    pub(in crate::store) now_in_seconds: &'static str,
}

/// Records in the change log what the organizations of `source` are since. The source has the columns
/// of the organization as `stored`, and the caller's as `asked`.
pub(in crate::store) fn record(source: &str) -> String {
    format!(
        "INSERT INTO organization_changes (organization_id, version, date, name, subscription_id, \
           handshake_version, subject, role, request_id, idempotency_key, request_digest) \
         SELECT stored.id, stored.version, stored.date_modified, stored.name, \
           stored.subscription_id, stored.handshake_version, asked.subject, asked.role, \
           asked.request_id, asked.idempotency_key, asked.request_digest FROM {source}"
    )
}

/// What was touched, in the order of the rows' ids.
pub(in crate::store) fn in_order(
    ids: &[i64],
    mut touched: Vec<OrganizationRow>,
) -> Vec<Option<domain::Result<organizations::Model>>> {
    let take = |id: &i64| {
        let at = touched.iter().position(|(touched, _)| touched == id)?;
        Some(touched.swap_remove(at).1)
    };
    ids.iter().map(take).collect()
}
