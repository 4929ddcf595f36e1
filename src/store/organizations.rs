//! The statements on organizations.

use std::sync::Arc;

use sea_orm::{
    ColumnTrait, DbBackend, EntityTrait, QueryFilter, QueryOrder, QuerySelect, QueryTrait, Select,
};
use tracing::Instrument;

use super::{
    Store,
    batch::writes::Outcome,
    entity::{ORGANIZATIONS, organization_changes, organizations},
    error::{failure, internal, is_taken},
    page,
    pools::{Pools, holder},
    retry::{RETRIES_MAX, retried},
    sql::{
        create,
        pending::{PendingUpdate, Write},
        row::only,
    },
};
use crate::domain::{
    Call, Creation, Error, Etag, Fields, IdempotencyKey, Organization, OrganizationId, Page,
    PageSize, Principal, Result, Text, Update, policy,
};

/// Tries of an update or a creation that loses its row or its id to somebody else between two statements.
/// After the last one its caller gets UNAVAILABLE.
const LOST_ROW_TRIES_MAX: u32 = 5;

/// Organizations whose versions are asked for in one statement.
const VERSIONS_MAX: usize = 512;

impl Store {
    /// The organization with this id, looked up for a caller.
    pub async fn find_organization(
        &self,
        principal: &Principal,
        id: OrganizationId,
    ) -> Result<Option<Organization>> {
        let found = self.queues.organization(&holder(principal), id).await?;
        found.map(Organization::try_from).transpose()
    }

    /// The organization with this id, or [`Error::NotFound`].
    pub async fn get_organization(
        &self,
        principal: &Principal,
        id: OrganizationId,
    ) -> Result<Organization> {
        self.find_organization(principal, id).await?.ok_or(Error::NotFound(id))
    }

    /// A page of the organizations after an id, by ascending id, without the fields that the caller may not
    /// read. They are removed before the page is measured: its length would tell how long they are.
    pub async fn list_organizations(
        &self,
        principal: &Principal,
        after: i64,
        size: PageSize,
    ) -> Result<Page<Organization>> {
        let piece = |after, count| self.organizations_after(principal, after, count);
        page::read(size, after, piece, |entry| entry.id.get(), Organization::bytes).await
    }

    async fn organizations_after(
        &self,
        principal: &Principal,
        after: i64,
        count: usize,
    ) -> Result<Vec<Organization>> {
        let query = after_id(after, count);
        let span = self.span("SELECT", ORGANIZATIONS);
        let rows = self.retried_for(principal, || query.clone().all(&self.pools.reader));
        let rows = rows.instrument(span).await?.into_iter();
        rows.map(|row| Ok(policy::readable(principal, row.try_into()?))).collect()
    }

    /// The versions of those of these organizations that exist. Without a caller it is for the process
    /// itself, on the connection of upkeep, which no caller can take.
    pub async fn organization_versions(
        &self,
        caller: Option<&Principal>,
        ids: &[OrganizationId],
    ) -> Result<Vec<(OrganizationId, i64)>> {
        let mut found = Vec::with_capacity(ids.len());
        for ids in ids.chunks(VERSIONS_MAX) {
            let query = versions_of(ids);
            let span = self.span("SELECT", ORGANIZATIONS);
            let query = || query.clone().into_tuple::<(i64, i64)>();
            let rows = async {
                let Pools { reader, upkeep, .. } = &self.pools;
                match caller {
                    Some(caller) => self.retried_for(caller, || query().all(reader)).await,
                    None => self.retried(|| query().all(upkeep)).await.map_err(failure),
                }
            };
            let rows = rows.instrument(span).await?;
            found.extend(rows);
        }
        let known = |(id, version)| Some((OrganizationId::new(id)?, version));
        Ok(found.into_iter().filter_map(known).collect())
    }

    /// Applies a patch in one batch, alone or together with other waiting updates. Columns of fields that the
    /// patch does not name keep their values. Nothing is written if the etag is not the current one, if the
    /// row would not change, if the caller's credential is no longer valid, or if the caller made a change
    /// under the same key. Otherwise the change is recorded. Returns the organization after it.
    ///
    /// Only if no row was touched, a second look tells missing, stale, replay and unchanged apart. A caller's
    /// updates of one organization are done in the order in which they came.
    pub async fn update_organization(
        &self,
        call: &Call,
        update: Update<Text>,
        idempotency: Option<IdempotencyKey>,
    ) -> Result<Organization> {
        let Update { id, patch, etag } = update;
        let pending =
            Arc::new(PendingUpdate { call: call.clone(), id: Some(id), patch, etag, idempotency });
        for _ in 0..LOST_ROW_TRIES_MAX {
            if !pending.patch.is_empty()
                && let Some(row) = self.write_pending(Write::Update, &pending).await?
            {
                return row.try_into();
            }
            // Boxed: else the future of every update would have the size of this rare case.
            if let Some(unchanged) = Box::pin(self.find_unchanged(id, &pending)).await? {
                return Ok(unchanged);
            }
            // Somebody else changed or created the row between the two statements: try again.
        }
        Err(Error::Unavailable("an update lost its row to others too often".into()))
    }

    /// Why an update touched no row. The organization if that is no error: it is unchanged, or this is a
    /// replay. None if the update would change it now.
    async fn find_unchanged(
        &self,
        id: OrganizationId,
        pending: &PendingUpdate,
    ) -> Result<Option<Organization>> {
        let PendingUpdate { call, patch, etag, idempotency, .. } = pending;
        self.check_credential(call).await?;
        if let Some(replay) = self.find_replay(call, idempotency.as_ref()).await? {
            return Ok(Some(replay));
        }
        let current = self.get_organization(&call.principal, id).await?;
        if etag.is_some_and(|etag| etag != current.etag) {
            return Err(Error::EtagMismatch { current: current.etag });
        }
        Ok((patch.apply(current.clone()) == current).then_some(current))
    }

    /// Stores a new organization, alone or together with other waiting creations. Without an id it gets one
    /// that is larger than all below 2^52. Checks the caller's credential and key as an update does.
    pub async fn create_organization(
        &self,
        call: &Call,
        creation: Creation<Text>,
        idempotency: Option<IdempotencyKey>,
    ) -> Result<Organization> {
        let Creation { id, patch } = creation;
        let pending =
            Arc::new(PendingUpdate { call: call.clone(), id, patch, etag: None, idempotency });
        for _ in 0..LOST_ROW_TRIES_MAX {
            if let Some(row) = self.write_pending(Write::Create, &pending).await? {
                return row.try_into();
            }
            self.check_credential(call).await?;
            if let Some(replay) = self.find_replay(call, pending.idempotency.as_ref()).await? {
                return Ok(replay);
            }
            if let Some(id) = id
                && self.find_organization(&call.principal, id).await?.is_some()
            {
                return Err(Error::AlreadyExists(id));
            }
            // Somebody else stored an organization under the id that the counter gave us: try again with the
            // next.
        }
        Err(Error::Unavailable("a creation lost its id to others too often".into()))
    }

    /// Queues the write and waits for its outcome. None: no row was touched.
    async fn write_pending(
        &self,
        write: Write,
        pending: &Arc<PendingUpdate>,
    ) -> Result<Option<organizations::Model>> {
        let (outcome, _lock) =
            self.queues.write(&holder(&pending.call.principal), write, pending).await?;
        match outcome {
            Outcome::Changed(row) => Ok(Some(row)),
            Outcome::Untouched => Ok(None),
            Outcome::Failed(error) => Err(error),
            Outcome::RolledBack { tries } => {
                Box::pin(self.write_alone(write, pending, tries)).await
            }
        }
    }

    /// Writes a row whose batch was rolled back after so many tries.
    async fn write_alone(
        &self,
        write: Write,
        pending: &PendingUpdate,
        tries: usize,
    ) -> Result<Option<organizations::Model>> {
        let alone = || async { self.worker().write(write, &[pending]).await };
        let _place = self.pools.place_of_queued(&pending.call.principal).await;
        // The batch was tried as well, and this is a retry.
        let retries_max = RETRIES_MAX.saturating_sub(tries);
        match retried(self.answer_timeout(), retries_max, alone).await {
            Ok(rows) => only(rows).flatten().transpose(),
            // The same request came twice under one key, and the other was faster: the second look finds its
            // row.
            Err(error) if is_taken(&error) => Ok(None),
            Err(error) => Err(failure(error)),
        }
    }

    /// The id that the next creation without one will get, if no other comes before it.
    pub async fn next_organization_id(&self, principal: &Principal) -> Result<OrganizationId> {
        let next = self.retried_for(principal, || create::next_id(&self.pools.reader)).await?;
        OrganizationId::new(next).ok_or_else(|| internal("every organization id is taken"))
    }

    /// The replay: what the caller's earlier request under this key was answered. None if there was none.
    pub async fn find_replay(
        &self,
        call: &Call,
        idempotency: Option<&IdempotencyKey>,
    ) -> Result<Option<Organization>> {
        let Some(idempotency) = idempotency else { return Ok(None) };
        let Some(row) = self.find_recorded(call, idempotency).await? else { return Ok(None) };
        let id = OrganizationId::new(row.organization_id)
            .ok_or_else(|| internal("a stored organization_id is out of range"))?;
        let current = self.queues.organization(&holder(&call.principal), id).await?;
        current.map(|current| as_recorded(current, &row)).transpose()
    }
}

fn after_id(after: i64, count: usize) -> Select<organizations::Entity> {
    organizations::Entity::find()
        .filter(organizations::Column::Id.gt(after))
        .order_by_asc(organizations::Column::Id)
        .limit(u64::try_from(count).unwrap_or(u64::MAX))
}

/// Padded to a power of two: each length is another statement, which each connection keeps prepared.
fn versions_of(ids: &[OrganizationId]) -> Select<organizations::Entity> {
    use organizations::Column;
    let length = ids.len().next_power_of_two();
    let padded = ids.iter().chain(ids.last().into_iter().cycle()).take(length);
    organizations::Entity::find()
        .select_only()
        .columns([Column::Id, Column::Version])
        .filter(Column::Id.is_in(padded.map(|id| id.get())))
}

/// Every statement on organizations that no worker does.
pub(super) fn texts(backend: DbBackend) -> Vec<String> {
    let lengths = (0..=VERSIONS_MAX.ilog2()).map(|power| 1_usize << power);
    let versions = lengths.filter_map(|length| {
        let ids = vec![OrganizationId::new(1)?; length];
        Some(versions_of(&ids).build(backend).sql)
    });
    [after_id(0, 1).build(backend).sql, create::next_id_text()]
        .into_iter()
        .chain(versions)
        .collect()
}

/// The organization as a row of the change log recorded it. A field whose values are not logged has its
/// current value, or none if it has changed since.
fn as_recorded(
    current: organizations::Model,
    row: &organization_changes::Model,
) -> Result<Organization> {
    let values = Fields::from_fn(|field| {
        let (value, changed_at) = match row.field(field) {
            (_, Some(_)) => current.field(field),
            logged => logged,
        };
        value.filter(|_| changed_at.is_none_or(|at| at <= row.version)).cloned()
    });
    let (date_modified, etag) = (row.date, Etag::from_version(row.version));
    Ok(Organization { values, date_modified, etag, ..current.try_into()? })
}
