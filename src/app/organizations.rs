//! What can be done with organizations.

use crate::{
    domain::{Error, Organization, Principal, Result, Update, policy},
    store::Store,
};

/// Changes an organization, all or nothing, and answers it as the caller may see it (AIP-134).
///
/// The order of checks is part of the contract (AIP-211): rights before values, values before
/// existence, existence before preconditions.
pub async fn update(store: &Store, principal: &Principal, update: Update) -> Result<Organization> {
    let Update { id, patch, etag, validate_only } = update;
    policy::authorize_organization(principal, id)?;
    policy::authorize_fields(principal, patch.fields())?;
    let patch = patch.parse()?;
    let organization = if validate_only {
        let current = store.get_organization(id).await?;
        match etag {
            Some(etag) if etag != current.etag => {
                return Err(Error::EtagMismatch { current: current.etag });
            }
            _ => patch.apply(current),
        }
    } else {
        store.update_organization(principal, id, &patch, etag).await?
    };
    Ok(policy::readable(principal, organization))
}
