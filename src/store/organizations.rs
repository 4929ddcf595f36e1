//! The statements on organizations.

use sea_orm::{
    ColumnTrait, Condition, DbErr, EntityTrait, ExprTrait, QueryFilter, QueryOrder, QuerySelect,
    QueryTrait, SqlErr,
    sea_query::{CaseStatement, Expr, InsertStatement, Query, UpdateStatement},
};

use super::{
    Store,
    changes::not_made_before,
    clock, credentials,
    entity::{organization_changes, organizations},
    internal, only,
};
use crate::domain::{
    Call, Change, Creation, Error, Field, IdempotencyKey, Organization, OrganizationId, Patch,
    Result, Text, Update,
};

/// How often an update is tried again that lost its row between its two statements, before the
/// caller is told to come back.
const UPDATE_ATTEMPTS_MAX: u32 = 5;
/// How often an id is chosen anew when another creation took it.
const CREATE_ATTEMPTS_MAX: u32 = 20;

impl Store {
    /// The organization with this id.
    pub async fn find_organization(&self, id: OrganizationId) -> Result<Option<Organization>> {
        // `.all()`: `.one()` binds a LIMIT, which halves SQLite's rate of reads by key.
        let rows = organizations::Entity::find_by_id(id.get()).all(&self.reader).await?;
        only(rows).map(Organization::try_from).transpose()
    }

    /// The organization with this id, or [`Error::NotFound`].
    pub async fn get_organization(&self, id: OrganizationId) -> Result<Organization> {
        self.find_organization(id).await?.ok_or(Error::NotFound(id))
    }

    /// The organizations after an id, by ascending id.
    pub async fn list_organizations(&self, after: i64, limit: u64) -> Result<Vec<Organization>> {
        let rows = organizations::Entity::find()
            .filter(organizations::Column::Id.gt(after))
            .order_by_asc(organizations::Column::Id)
            .limit(limit)
            .all(&self.reader)
            .await?;
        rows.into_iter().map(Organization::try_from).collect()
    }

    /// Applies a patch in one statement, which names the changed columns alone, compares the
    /// version where an etag is given, leaves a row alone that would not change, checks that the
    /// caller's credential still holds and that it made no change under the same key, and records
    /// the change. Answers the organization as it is then.
    ///
    /// Only when no row is touched a second statement tells missing, stale, made before and
    /// unchanged apart.
    pub async fn update_organization(
        &self,
        call: &Call,
        update: &Update<Text>,
        idempotency: Option<&IdempotencyKey>,
    ) -> Result<Organization> {
        let Update { id, patch, etag } = update;
        for _ in 0..UPDATE_ATTEMPTS_MAX {
            if !patch.is_empty() {
                let statement = update_statement(call, update, idempotency);
                match self.write_logged(statement.into(), call, idempotency).await {
                    Ok(Some(row)) => return row.try_into(),
                    Ok(None) => {}
                    // The same request at the same time was faster.
                    Err(error) if idempotency.is_some() && is_taken(&error) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            self.check_credential(call).await?;
            if let Some(made) = self.find_made(call, idempotency).await? {
                return Ok(made);
            }
            let current = self.get_organization(*id).await?;
            if etag.is_some_and(|etag| etag != current.etag) {
                return Err(Error::EtagMismatch { current: current.etag });
            }
            if patch.apply(current.clone()) == current {
                return Ok(current);
            }
            // Changed, or created, by somebody else between the two statements: apply it to that.
        }
        Err(Error::Unavailable("an update lost its row to others too often".into()))
    }

    /// Stores a new organization; where it names no id, under the one after the largest.
    pub async fn create_organization(
        &self,
        call: &Call,
        creation: &Creation<Text>,
        idempotency: Option<&IdempotencyKey>,
    ) -> Result<Organization> {
        let Creation { id, patch } = creation;
        for _ in 0..CREATE_ATTEMPTS_MAX {
            let next = match id {
                Some(id) => *id,
                None => self.next_organization_id().await?,
            };
            let insert = insert_statement(call, next, patch, idempotency)?;
            match self.write_logged(insert.into(), call, idempotency).await {
                Ok(Some(row)) => return row.try_into(),
                Ok(None) => {}
                Err(error) if is_taken(&error) => {}
                Err(error) => return Err(error.into()),
            }
            self.check_credential(call).await?;
            if let Some(made) = self.find_made(call, idempotency).await? {
                return Ok(made);
            }
            if let Some(id) = id
                && self.find_organization(*id).await?.is_some()
            {
                return Err(Error::AlreadyExists(*id));
            }
        }
        Err(Error::Unavailable("a creation lost its id to others too often".into()))
    }

    /// The id that the next organization gets which names none.
    pub async fn next_organization_id(&self) -> Result<OrganizationId> {
        let largest = organizations::Entity::find()
            .select_only()
            .column_as(organizations::Column::Id.max(), "id")
            .into_tuple::<Option<i64>>()
            .all(&self.reader)
            .await?;
        let next = only(largest).flatten().unwrap_or(0).saturating_add(1);
        OrganizationId::new(next).ok_or_else(|| internal("the largest organization id is taken"))
    }

    /// What the caller made under this key before, as it was answered then.
    pub async fn find_made(
        &self,
        call: &Call,
        idempotency: Option<&IdempotencyKey>,
    ) -> Result<Option<Organization>> {
        let Some(idempotency) = idempotency else { return Ok(None) };
        let Some(row) = self.find_recorded(call, idempotency).await? else { return Ok(None) };
        let rows = organizations::Entity::find_by_id(row.organization_id).all(&self.reader).await?;
        only(rows).map(|current| as_recorded(current, row)).transpose()
    }
}

/// The organization as a row of the change log has it. The log does not keep the handshake; where
/// it changed since, the answer has none.
fn as_recorded(
    current: organizations::Model,
    row: organization_changes::Model,
) -> Result<Organization> {
    let handshake = current.handshake.filter(|_| current.handshake_version <= row.version);
    organizations::Model {
        name: row.name,
        subscription_id: row.subscription_id,
        handshake,
        version: row.version,
        date_modified: row.date,
        ..current
    }
    .try_into()
}

fn is_taken(error: &DbErr) -> bool {
    matches!(error.sql_err(), Some(SqlErr::UniqueConstraintViolation(_)))
}

/// `INSERT … SELECT … WHERE` the credential still holds and no change was made under the key.
fn insert_statement(
    call: &Call,
    id: OrganizationId,
    patch: &Patch<Text>,
    idempotency: Option<&IdempotencyKey>,
) -> Result<InsertStatement> {
    let Patch { name, subscription_id, handshake } = patch;
    let now = clock::now();
    let handshake = handshake.apply(None);
    let handshake_version = i64::from(handshake.is_some());
    let columns = [
        (organizations::Column::Id, Expr::value(id.get())),
        (organizations::Column::Name, Expr::value(name.apply(None))),
        (organizations::Column::SubscriptionId, Expr::value(subscription_id.apply(None))),
        (organizations::Column::Handshake, Expr::value(handshake)),
        (organizations::Column::HandshakeVersion, Expr::value(handshake_version)),
        (organizations::Column::Version, Expr::value(1_i64)),
        (organizations::Column::DateCreated, Expr::value(now)),
        (organizations::Column::DateModified, Expr::value(now)),
    ];
    let mut source = Query::select();
    for (_, value) in &columns {
        source.expr(value.clone());
    }
    source.cond_where(credentials::still_proves(&call.principal));
    if let Some(idempotency) = idempotency {
        source.and_where(not_made_before(call, idempotency));
    }
    let mut insert = Query::insert();
    insert.into_table(organizations::Entity).columns(columns.map(|(column, _)| column));
    insert.select_from(source).map_err(|error| Error::Internal(error.into()))?;
    Ok(insert.returning_all().to_owned())
}

fn update_statement(
    call: &Call,
    update: &Update<Text>,
    idempotency: Option<&IdempotencyKey>,
) -> UpdateStatement {
    // Destructured without `..`, so that a new field cannot be forgotten here.
    let Update { id, patch: Patch { name, subscription_id, handshake }, etag } = update;
    let version = organizations::Column::Version;
    let mut update = organizations::Entity::update_many();
    let mut differs = Condition::any();
    for (field, change) in [
        (Field::Name, name),
        (Field::SubscriptionId, subscription_id),
        (Field::Handshake, handshake),
    ] {
        if matches!(change, Change::Keep) {
            continue;
        }
        let column = column(field);
        let field_differs = differs_from(column, change);
        if field == Field::Handshake {
            let handshake_version = organizations::Column::HandshakeVersion;
            let set = CaseStatement::new()
                .case(field_differs.clone(), Expr::col(version).add(1))
                .finally(Expr::col(handshake_version));
            update = update.col_expr(handshake_version, set.into());
        }
        differs = differs.add(field_differs);
        update = update.col_expr(column, Expr::value(change.apply(None)));
    }
    update
        .col_expr(version, Expr::col(version).add(1))
        .col_expr(organizations::Column::DateModified, Expr::value(clock::now()))
        .filter(organizations::Column::Id.eq(id.get()))
        .filter(differs)
        .filter(credentials::still_proves(&call.principal))
        .apply_if(etag.as_ref(), |update, etag| update.filter(version.eq(etag.version())))
        .apply_if(idempotency, |update, key| update.filter(not_made_before(call, key)))
        .into_query()
        .returning_all()
        .to_owned()
}

/// The condition that a change would really change the column.
fn differs_from(column: organizations::Column, change: &Change<Text>) -> Condition {
    match change {
        Change::Set(text) => Condition::any().add(column.is_null()).add(column.ne(text.as_str())),
        Change::Clear | Change::Keep => Condition::any().add(column.is_not_null()),
    }
}

fn column(field: Field) -> organizations::Column {
    match field {
        Field::Name => organizations::Column::Name,
        Field::SubscriptionId => organizations::Column::SubscriptionId,
        Field::Handshake => organizations::Column::Handshake,
    }
}
