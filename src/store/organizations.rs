//! The statements on organizations.

use std::sync::Arc;

use sea_orm::{
    ColumnTrait, EntityTrait, Iterable, QueryFilter, QueryOrder, QuerySelect,
    sea_query::{Expr, InsertStatement, Query},
};

use tracing::Instrument;

use super::{
    ORGANIZATIONS, Store,
    attempt::{RETRIES_MAX, attempt},
    changes::not_made_before,
    clock, credentials,
    entity::{organization_changes, organizations},
    error::is_taken,
    internal, only, reader,
    update::Asked,
    writer::Outcome,
};
use crate::domain::{
    Call, Creation, Error, IdempotencyKey, Organization, OrganizationId, Patch, Result, Text,
    Update,
};

/// How often an update is tried again that lost its row between its two statements, before the
/// caller is told to come back.
const UPDATE_ATTEMPTS_MAX: u32 = 5;
/// How often an id is chosen anew when another creation took it.
const CREATE_ATTEMPTS_MAX: u32 = 20;

impl Store {
    /// The organization with this id.
    pub async fn find_organization(&self, id: OrganizationId) -> Result<Option<Organization>> {
        reader::find(&self.organizations, id).await?.map(Organization::try_from).transpose()
    }

    /// The organization with this id, or [`Error::NotFound`].
    pub async fn get_organization(&self, id: OrganizationId) -> Result<Organization> {
        self.find_organization(id).await?.ok_or(Error::NotFound(id))
    }

    /// The organizations after an id, by ascending id.
    pub async fn list_organizations(&self, after: i64, limit: u64) -> Result<Vec<Organization>> {
        let query = organizations::Entity::find()
            .filter(organizations::Column::Id.gt(after))
            .order_by_asc(organizations::Column::Id)
            .limit(limit);
        let span = self.span("SELECT", ORGANIZATIONS);
        let rows = self.attempt(|| query.clone().all(&self.reader)).instrument(span).await?;
        rows.into_iter().map(Organization::try_from).collect()
    }

    /// Applies a patch in one statement, alone or together with what else waits. It names the
    /// changed columns alone, compares the version where an etag is given, leaves a row alone that
    /// would not change, checks that the caller's credential still holds and that it made no change
    /// under the same key, and records the change. Answers the organization as it is then.
    ///
    /// Only when no row is touched a second look tells missing, stale, made before and unchanged
    /// apart. Updates of one organization are done in the order in which they came.
    pub async fn update_organization(
        &self,
        call: &Call,
        update: Update<Text>,
        idempotency: Option<IdempotencyKey>,
    ) -> Result<Organization> {
        let asked = Arc::new(Asked { call: call.clone(), update, idempotency });
        for _ in 0..UPDATE_ATTEMPTS_MAX {
            if !asked.update.patch.is_empty()
                && let Some(row) = self.write_update(&asked).await?
            {
                return row.try_into();
            }
            // Boxed, as the rare case: every update would carry its size.
            if let Some(unchanged) = Box::pin(self.find_unchanged(&asked)).await? {
                return Ok(unchanged);
            }
            // Changed, or created, by somebody else between the two statements: apply it to that.
        }
        Err(Error::Unavailable("an update lost its row to others too often".into()))
    }

    /// Why an update touches no row: the organization where that is no error, because it would not
    /// change or was changed by the same request before. None where the update would change it now.
    async fn find_unchanged(&self, asked: &Asked) -> Result<Option<Organization>> {
        let Asked { call, update: Update { id, patch, etag }, idempotency } = asked;
        self.check_credential(call).await?;
        if let Some(made) = self.find_made(call, idempotency.as_ref()).await? {
            return Ok(Some(made));
        }
        let current = self.get_organization(*id).await?;
        if etag.is_some_and(|etag| etag != current.etag) {
            return Err(Error::EtagMismatch { current: current.etag });
        }
        Ok((patch.apply(current.clone()) == current).then_some(current))
    }

    /// Writes an update as soon as it is its organization's turn; none where no row was touched.
    async fn write_update(&self, asked: &Arc<Asked>) -> Result<Option<organizations::Model>> {
        let id = asked.update.id;
        let (outcome, _turn) = self.updates.ask(Some(id), asked.clone()).await?;
        match outcome {
            Outcome::Changed(row) => Ok(Some(row)),
            Outcome::Untouched => Ok(None),
            Outcome::Failed(error) => Err(error),
            Outcome::Refused => Box::pin(self.write_alone(asked)).await,
        }
    }

    async fn write_alone(&self, asked: &Asked) -> Result<Option<organizations::Model>> {
        let update = || async { self.lane().update(&[asked]).await };
        // The batch was the first attempt, and this is the second.
        let retries_max = RETRIES_MAX - 1;
        match attempt(self.answer_timeout(), retries_max, update).await {
            Ok(rows) => only(rows).map(|(_, row)| row).transpose(),
            // By the same request under the same key, which was faster.
            Err(error) if is_taken(&error) => Ok(None),
            Err(error) => Err(error.into()),
        }
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
            let span = self.span("INSERT", ORGANIZATIONS);
            match self.write_logged(insert, call, idempotency).instrument(span).await {
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
        let query = organizations::Entity::find()
            .select_only()
            .column_as(organizations::Column::Id.max(), "id");
        let tuple = || query.clone().into_tuple::<Option<i64>>();
        let largest = self.attempt(|| tuple().all(&self.reader)).await?;
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
        let id = OrganizationId::new(row.organization_id)
            .ok_or_else(|| internal("a stored organization_id is out of range"))?;
        let current = reader::find(&self.organizations, id).await?;
        current.map(|current| as_recorded(current, row)).transpose()
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
    Ok(insert.returning(Query::returning().columns(organizations::Column::iter())).to_owned())
}
