//! The rights table. Architecture invariant: only this file decides who may do what.

use super::{
    ChangeEntry, Error, Field, Organization, OrganizationId, Principal, Result,
    Role::{self, Administrator, Support, User},
};

/// What a caller wants to do with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Read,
    /// Name the field in an update.
    Write,
}

/// Whether a role has this access to a field of an organization that it has the right to.
#[must_use]
pub fn may_access(role: Role, access: Access, field: Field) -> bool {
    match (field, access, role) {
        (Field::Name | Field::SubscriptionId, Access::Read, User | Support | Administrator)
        | (Field::Name, Access::Write, User | Support | Administrator)
        | (Field::SubscriptionId, Access::Write, Support | Administrator)
        | (Field::Handshake, Access::Read | Access::Write, Administrator) => true,
        (Field::SubscriptionId, Access::Write, User)
        | (Field::Handshake, Access::Read | Access::Write, User | Support) => false,
    }
}

/// The right to an organization: a user has it to its own, support and administrators to all.
/// Decided without a look at what is stored, so that a refusal tells nothing of it (AIP-211).
pub fn authorize_organization(principal: &Principal, id: OrganizationId) -> Result<()> {
    match principal.role {
        Support | Administrator => Ok(()),
        User if principal.organization == Some(id) => Ok(()),
        User => Err(Error::ForbiddenOrganization),
    }
}

/// The organization that the principal's lists are limited to; none: they have all.
#[must_use]
pub fn list_scope(principal: &Principal) -> Scope {
    match (principal.role, principal.organization) {
        (Support | Administrator, _) => Scope::All,
        (User, Some(id)) => Scope::Only(id),
        // A user without an organization is not issued; it would see nothing.
        (User, None) => Scope::Nothing,
    }
}

/// Which organizations a list may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    All,
    Only(OrganizationId),
    Nothing,
}

pub fn authorize_creation(principal: &Principal) -> Result<()> {
    match principal.role {
        Administrator => Ok(()),
        User | Support => Err(Error::ForbiddenCreation),
    }
}

/// The fields that the principal may change, of an organization that it has the right to.
pub fn writable_fields(principal: &Principal) -> impl Iterator<Item = Field> {
    let role = principal.role;
    Field::ALL.into_iter().filter(move |field| may_access(role, Access::Write, *field))
}

/// The right to change each of these fields; a refusal names all that are forbidden.
pub fn authorize_fields(principal: &Principal, fields: impl Iterator<Item = Field>) -> Result<()> {
    let forbidden: Vec<Field> =
        fields.filter(|field| !may_access(principal.role, Access::Write, *field)).collect();
    if forbidden.is_empty() {
        Ok(())
    } else {
        Err(Error::ForbiddenFields { role: principal.role, fields: forbidden })
    }
}

/// The organization without the fields that the principal may not read.
#[must_use]
pub fn readable(principal: &Principal, mut organization: Organization) -> Organization {
    organization.values = organization
        .values
        .map(|field, value| value.filter(|_| may_access(principal.role, Access::Read, field)));
    organization
}

/// The entry of the change log without the fields that the principal may not read.
#[must_use]
pub fn readable_change(principal: &Principal, mut entry: ChangeEntry) -> ChangeEntry {
    entry.fields.retain(|change| may_access(principal.role, Access::Read, change.field));
    entry
}

#[cfg(test)]
mod tests {
    use Field::{Handshake, Name, SubscriptionId};

    use super::*;

    fn principal(role: Role, organization: Option<OrganizationId>) -> Principal {
        Principal { role, organization, ..Principal::operator() }
    }

    #[test]
    fn a_user_has_its_own_organization_and_others_have_all() {
        let [own, other] = [90, 91].map(|id| OrganizationId::new(id).unwrap());
        for (role, organization, scope, has_own) in [
            (User, Some(own), Scope::Only(own), true),
            (User, Some(other), Scope::Only(other), false),
            (User, None, Scope::Nothing, false),
            (Support, None, Scope::All, true),
            (Administrator, None, Scope::All, true),
        ] {
            let principal = principal(role, organization);
            assert_eq!(list_scope(&principal), scope);
            assert_eq!(authorize_organization(&principal, own).is_ok(), has_own, "{principal:?}");
        }
    }

    #[test]
    fn a_refusal_names_every_field_that_the_role_may_not_change() {
        for (role, writable, forbidden) in [
            (User, &[Name][..], &[SubscriptionId, Handshake][..]),
            (Support, &[Name, SubscriptionId], &[Handshake]),
            (Administrator, &[Name, SubscriptionId, Handshake], &[]),
        ] {
            let principal = principal(role, None);
            assert!(writable_fields(&principal).eq(writable.iter().copied()));
            assert!(authorize_fields(&principal, writable.iter().copied()).is_ok());
            let named = match authorize_fields(&principal, Field::ALL.into_iter()) {
                Err(Error::ForbiddenFields { fields, .. }) => fields,
                _ => Vec::new(),
            };
            assert_eq!(named, forbidden, "{role:?}");
            assert_eq!(authorize_creation(&principal).is_ok(), role == Administrator);
        }
    }
}
