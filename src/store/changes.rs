//! The change log: written in the same statement or transaction as the change that it records.
//!
//! A row is what the organization was at a version, so a change of a field is the difference to the
//! row before, and a row is also the record by which a request that is sent again is answered.

use organization_changes::Column;
use sea_orm::{
    ActiveEnum, ColumnTrait, Condition, ConnectionTrait, DbBackend, DbErr, EntityTrait,
    FromQueryResult, Iterable, QueryFilter, QueryOrder, QuerySelect, QueryTrait, TransactionTrait,
    sea_query::{
        CommonTableExpression, Expr, ExprTrait, InsertStatement, Query, SelectStatement,
        SubQueryStatement, WithClause, WithQuery,
    },
};

use tracing::Instrument;

use super::{
    Store,
    entity::{credentials::Role, organization_changes, organizations},
    internal, only,
    sqlite::immediate,
};
use crate::domain::{
    Call, ChangeEntry, Error, Field, FieldChange, IdempotencyKey, OrganizationId, Result, Values,
};

/// The columns of a row that come from the organization as it is after the change.
const FROM_ORGANIZATION: [(Column, organizations::Column); 6] = [
    (Column::OrganizationId, organizations::Column::Id),
    (Column::Version, organizations::Column::Version),
    (Column::Date, organizations::Column::DateModified),
    (Column::Name, organizations::Column::Name),
    (Column::SubscriptionId, organizations::Column::SubscriptionId),
    (Column::HandshakeVersion, organizations::Column::HandshakeVersion),
];

impl Store {
    /// Runs an insert of one organization, which returns it, and records it: in one statement on
    /// PostgreSQL, in one transaction on SQLite. Nothing is recorded, and none answered, where the
    /// statement inserts no row.
    pub(super) async fn write_logged(
        &self,
        insert: InsertStatement,
        call: &Call,
        idempotency: Option<&IdempotencyKey>,
    ) -> std::result::Result<Option<organizations::Model>, DbErr> {
        if self.writer.get_database_backend() != DbBackend::Sqlite {
            let statement = logged(insert, call, idempotency);
            let rows = self.attempt(|| self.writer.query_all(&statement)).await?;
            return only(rows)
                .map(|row| organizations::Model::from_query_result(&row, ""))
                .transpose();
        }
        // SQLite has no changing statement in a WITH clause.
        let write = async {
            let transaction = self.writer.begin_with_options(immediate()).await?;
            let rows = transaction.query_all(&insert).await?;
            let Some(row) = only(rows) else { return Ok(None) };
            let row = organizations::Model::from_query_result(&row, "")?;
            let mut source = Query::select();
            source
                .from(organizations::Entity)
                .and_where(Expr::col(organizations::Column::Id).eq(row.id));
            transaction.execute(&record(source, call, idempotency)).await?;
            transaction.commit().await?;
            Ok(Some(row))
        };
        self.files.around(write).await
    }

    /// The entries of an organization's change log after a version, the oldest first.
    pub async fn list_changes(
        &self,
        id: OrganizationId,
        after_version: i64,
        limit: u64,
    ) -> Result<Vec<ChangeEntry>> {
        // From the version before on, by which the first entry tells what it changed.
        let query = organization_changes::Entity::find()
            .filter(Column::OrganizationId.eq(id.get()))
            .filter(Column::Version.gte(after_version))
            .order_by_asc(Column::Version)
            .limit(limit.saturating_add(1));
        let span = self.span("SELECT", "organization_changes");
        let rows = self.attempt(|| query.clone().all(&self.reader)).instrument(span).await?;
        let mut before: Option<organization_changes::Model> = None;
        let mut entries = Vec::new();
        for row in rows {
            if row.version > after_version {
                entries.push(entry(before.as_ref(), &row)?);
            }
            before = Some(row);
        }
        entries.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        Ok(entries)
    }

    /// The change that a caller made under a key, where it made one.
    pub(super) async fn find_recorded(
        &self,
        call: &Call,
        idempotency: &IdempotencyKey,
    ) -> Result<Option<organization_changes::Model>> {
        let query = organization_changes::Entity::find().filter(made_under(call, idempotency));
        let rows = self.attempt(|| query.clone().all(&self.reader)).await?;
        let Some(row) = only(rows) else { return Ok(None) };
        if row.request_digest.as_deref() == Some(&idempotency.request_digest) {
            Ok(Some(row))
        } else {
            Err(Error::IdempotencyKeyReused)
        }
    }
}

/// The condition that a change was made by the caller under this key.
fn made_under(call: &Call, idempotency: &IdempotencyKey) -> Condition {
    Condition::all()
        .add(Column::Subject.eq(&call.principal.subject))
        .add(Column::IdempotencyKey.eq(&idempotency.key))
}

/// The condition that the caller made no change under its key yet.
pub(super) fn not_made_before(call: &Call, idempotency: &IdempotencyKey) -> Expr {
    let made = organization_changes::Entity::find()
        .filter(made_under(call, idempotency))
        .select_only()
        .expr(Expr::value(1))
        .into_query();
    Expr::not_exists(made)
}

/// `WITH changed AS (…), logged AS (INSERT … FROM changed) SELECT … FROM changed`.
fn logged(change: InsertStatement, call: &Call, idempotency: Option<&IdempotencyKey>) -> WithQuery {
    let mut source = Query::select();
    source.from("changed");
    let named = |name: &'static str, query: SubQueryStatement| {
        CommonTableExpression::new().table_name(name).query(query).to_owned()
    };
    let record = record(source, call, idempotency).into();
    WithClause::new()
        .cte(named("changed", change.into()))
        .cte(named("logged", record))
        .to_owned()
        .query(Query::select().columns(organizations::Column::iter()).from("changed").to_owned())
}

/// The insert of the log's row for the organization that `source` selects.
fn record(
    mut source: SelectStatement,
    call: &Call,
    idempotency: Option<&IdempotencyKey>,
) -> InsertStatement {
    let mut insert = Query::insert();
    let Call { principal, request_id, .. } = call;
    let digest = idempotency.map(|idempotency| idempotency.request_digest.to_vec());
    let from_call = [
        (Column::Subject, Expr::value(&principal.subject)),
        (Column::Role, Expr::value(Role::from(principal.role).to_value())),
        (Column::RequestId, Expr::value(request_id)),
        (
            Column::IdempotencyKey,
            Expr::value(idempotency.map(|idempotency| idempotency.key.as_str())),
        ),
        (Column::RequestDigest, Expr::value(digest)),
    ];
    let from_organization = FROM_ORGANIZATION.map(|(to, from)| (to, Expr::col(from)));
    let mut columns = Vec::new();
    for (column, value) in from_organization.into_iter().chain(from_call) {
        columns.push(column);
        source.expr(value);
    }
    insert.into_table(organization_changes::Entity).columns(columns);
    // Fails only where the two lists have different lengths, which they have not.
    let _ = insert.select_from(source);
    insert
}

fn entry(
    before: Option<&organization_changes::Model>,
    row: &organization_changes::Model,
) -> Result<ChangeEntry> {
    let organization = OrganizationId::new(row.organization_id)
        .ok_or_else(|| internal("a stored organization_id is out of range"))?;
    let mut fields = Vec::new();
    let mut compare = |field, old: Option<&String>, new: Option<&String>| {
        if old != new {
            let values = Some(Values { old: old.cloned(), new: new.cloned() });
            fields.push(FieldChange { field, values });
        }
    };
    compare(Field::Name, before.map(|before| &before.name), Some(&row.name));
    let old = before.and_then(|before| before.subscription_id.as_ref());
    compare(Field::SubscriptionId, old, row.subscription_id.as_ref());
    if row.handshake_version == row.version {
        fields.push(FieldChange { field: Field::Handshake, values: None });
    }
    Ok(ChangeEntry {
        organization,
        version: row.version,
        date: row.date,
        subject: row.subject.clone(),
        role: row.role.into(),
        request_id: row.request_id.clone(),
        fields,
    })
}
