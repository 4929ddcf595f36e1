//! What updates and creations have in common, for both databases: the pending update, the relation `pending`
//! (a row for each update of a batch), and the row of the change log. The conditions are in `predicates`.

use std::sync::LazyLock;

use sea_orm::{IdenStatic, Iterable};

use super::row::OrganizationRow;
use crate::{
    domain::{self, Call, Change, Etag, Field, IdempotencyKey, OrganizationId, Patch, Text},
    store::entity::organizations,
};

#[derive(Clone, Copy, Debug)]
pub(crate) enum Write {
    Update,
    Create,
}

/// One update or creation: who asks, for what, and under which key.
#[derive(Clone, Debug)]
pub(crate) struct PendingUpdate {
    pub(crate) call: Call,
    /// The organization; none: a creation whose id the store chooses.
    pub(crate) id: Option<OrganizationId>,
    pub(crate) patch: Patch<Text>,
    /// The version that the organization must have.
    pub(crate) etag: Option<Etag>,
    pub(crate) idempotency: Option<IdempotencyKey>,
}

impl PendingUpdate {
    /// Whether the patch names a field, and the value that the field is to have.
    pub(crate) fn field(&self, field: Field) -> (bool, Option<&str>) {
        match self.patch.get(field) {
            Change::Keep => (false, None),
            Change::Clear => (true, None),
            Change::Set(text) => (true, Some(text.as_str())),
        }
    }

    pub(crate) fn version(&self) -> Option<i64> {
        self.etag.map(Etag::version)
    }

    pub(crate) fn credential(&self) -> Option<&[u8]> {
        self.call.principal.credential.as_ref().map(|digest| digest.0.as_slice())
    }

    /// The organization that the caller must still be a member of.
    pub(crate) fn member_of(&self) -> Option<i64> {
        self.call.principal.organization.map(OrganizationId::get)
    }

    pub(crate) fn idempotency_key(&self) -> Option<&str> {
        self.idempotency.as_ref().map(|idempotency| idempotency.key.as_str())
    }

    /// About how many bytes the row of the change log has: its texts, and eight for each number and date.
    /// `touched` is the organization after the write, where it can be decoded.
    pub(crate) fn recorded_bytes(&self, touched: Option<&organizations::Model>) -> usize {
        const NUMBERS_AND_DATE: usize = 4 * 8;
        let principal = &self.call.principal;
        let logged = Field::ALL.into_iter().filter(|field| field.is_logged());
        let values = logged.filter_map(|field| touched?.field(field).0);
        NUMBERS_AND_DATE
            + values.map(String::len).sum::<usize>()
            + principal.subject.len()
            + principal.role.as_str().len()
            + self.call.request_id.len()
            + self.idempotency_key().map_or(0, str::len)
            + self.request_digest().map_or(0, <[u8]>::len)
    }

    pub(crate) fn request_digest(&self) -> Option<&[u8]> {
        self.idempotency.as_ref().map(|idempotency| idempotency.request_digest.as_slice())
    }
}

/// What a column of `pending` has.
#[derive(Clone, Copy)]
pub(crate) enum Cell {
    /// The id that is asked for, or was taken for a creation.
    Id,
    Sets(Field),
    Value(Field),
    Number(fn(&PendingUpdate) -> Option<i64>),
    Text(fn(&PendingUpdate) -> Option<&str>),
    Bytes(fn(&PendingUpdate) -> Option<&[u8]>),
}

/// The columns of `pending`, the relation that has a row for each update or creation of a batch.
pub(crate) static PENDING_COLUMNS: LazyLock<Vec<(String, Cell)>> = LazyLock::new(|| {
    let fields = Field::ALL.into_iter().flat_map(|field| {
        let column = field.path();
        [(format!("sets_{column}"), Cell::Sets(field)), (column.to_owned(), Cell::Value(field))]
    });
    let conditions_and_record = [
        ("version", Cell::Number(PendingUpdate::version)),
        ("credential", Cell::Bytes(PendingUpdate::credential)),
        ("role", Cell::Text(|pending| Some(pending.call.principal.role.as_str()))),
        ("member_of", Cell::Number(PendingUpdate::member_of)),
        ("subject", Cell::Text(|pending| Some(&pending.call.principal.subject))),
        ("request_id", Cell::Text(|pending| Some(&pending.call.request_id))),
        ("idempotency_key", Cell::Text(PendingUpdate::idempotency_key)),
        ("request_digest", Cell::Bytes(PendingUpdate::request_digest)),
    ];
    let others = conditions_and_record.map(|(column, cell)| (column.to_owned(), cell));
    [("id".to_owned(), Cell::Id)].into_iter().chain(fields).chain(others).collect()
});

/// The columns of an organization, each after `prefix`. They are named because `*` of a prepared statement
/// changes its meaning with a new column.
pub(crate) fn organization_columns(prefix: &str) -> String {
    let columns = organizations::Column::iter();
    columns.map(|column| format!("{prefix}{}", column.as_str())).collect::<Vec<_>>().join(", ")
}

/// A piece of a statement for each field. `piece` gets the field's column and, if the change log does not
/// keep its values, the column with the version of its last change.
pub(crate) fn for_each_field(
    separator: &str,
    piece: impl Fn(&str, Option<&str>) -> String,
) -> String {
    let pieces = Field::ALL.map(|field| {
        let version = (!field.is_logged()).then(|| format!("{}_version", field.path()));
        piece(field.path(), version.as_deref())
    });
    pieces.join(separator)
}

/// The parts of the statements that differ between the databases.
pub(crate) struct Dialect {
    pub(crate) pending: String,
    /// The placeholder of when the organizations change: one time for all of a batch.
    pub(crate) now: String,
    /// The later of that and `stored.date_modified`: the clocks of instances differ, and the dates of
    /// an organization's versions do not go backwards.
    pub(crate) now_or_later: String,
    /// The placeholder of what the end of a credential is compared with.
    pub(crate) now_in_seconds: String,
}

/// The statement that records in the change log what the organizations of `source` are after the write.
/// `source` has the organization's columns as `stored`, and the caller's as `pending`.
pub(crate) fn record(source: &str) -> String {
    let fields = for_each_field(", ", |column, version| version.unwrap_or(column).to_owned());
    let stored =
        for_each_field(", ", |column, version| format!("stored.{}", version.unwrap_or(column)));
    format!(
        "INSERT INTO organization_changes (organization_id, version, date, {fields}, subject, role, \
           request_id, idempotency_key, request_digest) \
         SELECT stored.id, stored.version, stored.date_modified, {stored}, pending.subject, pending.role, \
           pending.request_id, pending.idempotency_key, pending.request_digest FROM {source}"
    )
}

/// The touched organizations in the order of `ids`; None where a row was not touched.
pub(crate) fn in_order(
    ids: &[i64],
    mut touched: Vec<OrganizationRow>,
) -> Vec<Option<domain::Result<organizations::Model>>> {
    let take = |id: &i64| {
        let at = touched.iter().position(|(touched, _)| touched == id)?;
        Some(touched.swap_remove(at).1)
    };
    ids.iter().map(take).collect()
}
