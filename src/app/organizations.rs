//! The use cases of organizations. docs/API.md promises the order of checks: rights before values, values
//! before existence, existence before preconditions.

use super::{audit, idempotency};
use crate::{
    domain::{
        Call, ChangeEntry, Creation, Error, Etag, EtagCondition, Fields, IdempotencyKey,
        Organization, OrganizationId, Page, PageSize, Principal, Result, Text, Update,
        policy::{self, Scope},
    },
    store::{Store, now},
};

/// Changes an organization, all or nothing, and answers it as the caller may see it (AIP-134). A `condition`
/// replaces the etag of the update.
pub async fn update(
    store: &Store,
    call: &Call,
    update: Update<String>,
    condition: Option<EtagCondition>,
) -> Result<Organization> {
    let idempotency = idempotency::of_update(call, &update);
    let Update { id, patch, etag } = update;
    let principal = &call.principal;
    audit::checked(principal, Some(id), policy::authorize_organization(principal, id))?;
    audit::checked(principal, Some(id), policy::authorize_fields(principal, patch.fields()))?;
    let fields = audit::names(patch.fields());
    let mut update = Update { id, patch: patch.parse()?, etag };
    if let Some(condition) = condition {
        let current = Box::pin(store.get_organization(principal, id)).await?.etag;
        // If somebody changes it from here on, the etag differs, and the store refuses the update.
        update.etag = Some(condition.etag(current));
    }
    let organization = if call.validate_only {
        // Boxed: else the future of every update would have the size of this rare case.
        Box::pin(preview_update(store, call, &update, idempotency)).await?
    } else {
        let updated = store.update_organization(call, update, idempotency).await;
        let updated = updated.map_err(Error::of_change)?;
        audit::organization_event("organization.update", call, &fields, &updated);
        updated
    };
    Ok(policy::readable(principal, organization))
}

/// What the update would answer, with the etag and the date that are stored.
async fn preview_update(
    store: &Store,
    call: &Call,
    update: &Update<Text>,
    idempotency: Option<IdempotencyKey>,
) -> Result<Organization> {
    if let Some(replay) = store.find_replay(call, idempotency.as_ref()).await? {
        return Ok(replay);
    }
    let current = store.get_organization(&call.principal, update.id).await?;
    match update.etag {
        Some(etag) if etag != current.etag => Err(Error::EtagMismatch { current: current.etag }),
        _ => Ok(update.patch.apply(current)),
    }
}

pub async fn create(store: &Store, call: &Call, new: Creation<String>) -> Result<Organization> {
    let idempotency = idempotency::of_creation(call, &new);
    let principal = &call.principal;
    audit::checked(principal, None, policy::authorize_creation(principal))?;
    audit::checked(principal, None, policy::authorize_fields(principal, new.patch.fields()))?;
    let fields = audit::names(new.patch.fields());
    let new = Creation { id: new.id, patch: new.patch.parse_new()? };
    let organization = if call.validate_only {
        match store.find_replay(call, idempotency.as_ref()).await? {
            Some(replay) => replay,
            None => preview_creation(store, principal, &new).await?,
        }
    } else {
        let created = store.create_organization(call, new, idempotency).await;
        let created = created.map_err(Error::of_change)?;
        audit::organization_event("organization.create", call, &fields, &created);
        created
    };
    Ok(policy::readable(principal, organization))
}

/// What the creation would answer, as far as it can be known before.
async fn preview_creation(
    store: &Store,
    principal: &Principal,
    new: &Creation<Text>,
) -> Result<Organization> {
    let id = match new.id {
        Some(id) if store.find_organization(principal, id).await?.is_some() => {
            return Err(Error::AlreadyExists(id));
        }
        Some(id) => id,
        None => store.next_organization_id(principal).await?,
    };
    let date = now();
    let empty = Organization {
        id,
        values: Fields::default(),
        date_created: date,
        date_modified: date,
        etag: Etag::FIRST,
    };
    Ok(new.patch.apply(empty))
}

pub async fn get(store: &Store, principal: &Principal, id: OrganizationId) -> Result<Organization> {
    audit::checked(principal, Some(id), policy::authorize_organization(principal, id))?;
    Ok(policy::readable(principal, store.get_organization(principal, id).await?))
}

/// The organizations after an id that the caller has a right to, by ascending id (AIP-132).
pub async fn list(
    store: &Store,
    principal: &Principal,
    after: i64,
    size: PageSize,
) -> Result<Page<Organization>> {
    let one = match policy::list_scope(principal) {
        Scope::All => return store.list_organizations(principal, after, size).await,
        Scope::Only(id) if id.get() > after => store.find_organization(principal, id).await?,
        Scope::Only(_) | Scope::Nothing => None,
    };
    let entries = one.map(|one| policy::readable(principal, one)).into_iter().collect();
    Ok(Page { entries, has_more: false })
}

pub async fn list_changes(
    store: &Store,
    principal: &Principal,
    id: OrganizationId,
    after_version: i64,
    size: PageSize,
) -> Result<Page<ChangeEntry>> {
    audit::checked(principal, Some(id), policy::authorize_organization(principal, id))?;
    let page = store.list_changes(principal, id, after_version, size).await?;
    if page.entries.is_empty() {
        // No changes, or no organization: the second is an error.
        store.get_organization(principal, id).await?;
    }
    Ok(page.map(|entry| policy::readable_change(principal, entry)))
}
