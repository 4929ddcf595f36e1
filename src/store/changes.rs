//! The change log, as it is read. It is written in the same statement or transaction as the change that
//! it records (`pending`).
//!
//! A row is what the organization was at a version, so a change of a field is the difference to the
//! row before, and a row is also the record by which a request that is sent again is answered.

use organization_changes::Column;
use sea_orm::{
    ColumnTrait, DbBackend, EntityTrait, QueryFilter, QueryOrder, QuerySelect, QueryTrait, Select,
};
use tracing::Instrument;

use super::{
    Store,
    entity::organization_changes,
    error::internal,
    page,
    sql::{predicates::is_recorded_under, row::only},
};
use crate::domain::{
    Call, ChangeEntry, Error, Field, FieldChange, IdempotencyKey, OrganizationId, Page, PageSize,
    Principal, Result, Values,
};

impl Store {
    /// A page of the entries of an organization's change log after a version, the oldest first.
    pub async fn list_changes(
        &self,
        principal: &Principal,
        id: OrganizationId,
        after_version: i64,
        size: PageSize,
    ) -> Result<Page<ChangeEntry>> {
        let piece = |after, count| self.changes_after(principal, id, after, count);
        page::read(size, after_version, piece, |entry| entry.version, ChangeEntry::bytes).await
    }

    async fn changes_after(
        &self,
        principal: &Principal,
        id: OrganizationId,
        after: i64,
        count: usize,
    ) -> Result<Vec<ChangeEntry>> {
        let query = from_version(id.get(), after, count);
        let span = self.span("SELECT", "organization_changes");
        let rows = self.retried_for(principal, || query.clone().all(&self.pools.reader));
        let mut entries = entries(rows.instrument(span).await?, after)?;
        entries.truncate(count);
        Ok(entries)
    }

    /// The change that a caller made under a key, where it made one.
    pub(super) async fn find_recorded(
        &self,
        call: &Call,
        idempotency: &IdempotencyKey,
    ) -> Result<Option<organization_changes::Model>> {
        let query = recorded(self.pools.backend(), &call.principal.subject, &idempotency.key);
        let rows =
            self.retried_for(&call.principal, || query.clone().all(&self.pools.reader)).await?;
        let Some(row) = only(rows) else { return Ok(None) };
        if row.request_digest.as_deref().is_some_and(|stored| idempotency.is_of(stored)) {
            Ok(Some(row))
        } else {
            Err(Error::IdempotencyKeyReused)
        }
    }
}

/// From the version before on, by which the first entry tells what it changed.
fn from_version(id: i64, after: i64, count: usize) -> Select<organization_changes::Entity> {
    organization_changes::Entity::find()
        .filter(Column::OrganizationId.eq(id))
        .filter(Column::Version.gte(after))
        .order_by_asc(Column::Version)
        .limit(u64::try_from(count).unwrap_or(u64::MAX).saturating_add(1))
}

fn recorded(backend: DbBackend, subject: &str, key: &str) -> Select<organization_changes::Entity> {
    organization_changes::Entity::find().filter(is_recorded_under(backend, subject, key))
}

/// Every statement that reads the change log.
pub(super) fn texts(backend: DbBackend) -> [String; 2] {
    [from_version(1, 1, 1).build(backend).sql, recorded(backend, "", "").build(backend).sql]
}

/// The entries after a version, of rows which begin with that version where it is there.
fn entries(rows: Vec<organization_changes::Model>, after: i64) -> Result<Vec<ChangeEntry>> {
    let mut before: Option<organization_changes::Model> = None;
    let mut entries = Vec::new();
    for row in rows {
        if row.version > after {
            entries.push(entry(before.as_ref(), &row)?);
        }
        before = Some(row);
    }
    Ok(entries)
}

fn entry(
    before: Option<&organization_changes::Model>,
    row: &organization_changes::Model,
) -> Result<ChangeEntry> {
    let organization = OrganizationId::new(row.organization_id)
        .ok_or_else(|| internal("a stored organization_id is out of range"))?;
    let fields = Field::ALL.into_iter().filter_map(|field| field_change(field, before, row));
    Ok(ChangeEntry {
        organization,
        version: row.version,
        date: row.date,
        subject: row.subject.clone(),
        role: row.role.parse().map_err(|_| internal("a stored role is unknown"))?,
        request_id: row.request_id.clone(),
        fields: fields.collect(),
    })
}

fn field_change(
    field: Field,
    before: Option<&organization_changes::Model>,
    row: &organization_changes::Model,
) -> Option<FieldChange> {
    let (new, changed_at) = row.field(field);
    if let Some(version) = changed_at {
        return (version == row.version).then_some(FieldChange { field, values: None });
    }
    let old = before.and_then(|before| before.field(field).0);
    let values = Some(Values { old: old.cloned(), new: new.cloned() });
    (old != new).then_some(FieldChange { field, values })
}
