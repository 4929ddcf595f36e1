//! A change to an organization, as every door lowers it: for each updatable field keep, clear or
//! set. Rights, validation, preconditions and the write are decided on this one type.

use super::{
    error::{Error, Result, Violation, reason},
    organization::{Etag, Field, Organization, OrganizationId, Text},
};

/// What happens to one field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Change<T> {
    /// The field is not touched.
    #[default]
    Keep,
    /// The field loses its value.
    Clear,
    /// The field gets this value.
    Set(T),
}

impl<T> Change<T> {
    fn is_keep(&self) -> bool {
        matches!(self, Self::Keep)
    }
}

impl Change<Text> {
    /// The field's value after the change, where it was `current` before.
    #[must_use]
    pub fn apply(&self, current: Option<String>) -> Option<String> {
        match self {
            Self::Keep => current,
            Self::Clear => None,
            Self::Set(value) => Some(value.as_str().to_owned()),
        }
    }
}

/// A change of every updatable field: of raw strings as they arrived, or of [`Text`] once valid.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patch<T> {
    /// The change of the name.
    pub name: Change<T>,
    /// The change of the subscription.
    pub subscription_id: Change<T>,
    /// The change of the handshake.
    pub handshake: Change<T>,
}

impl<T> Patch<T> {
    /// The fields that the patch names, whether or not their values differ from the stored ones.
    pub fn fields(&self) -> impl Iterator<Item = Field> {
        // Destructured without `..`, so that a new field cannot be forgotten here.
        let Self { name, subscription_id, handshake } = self;
        [
            (Field::Name, name.is_keep()),
            (Field::SubscriptionId, subscription_id.is_keep()),
            (Field::Handshake, handshake.is_keep()),
        ]
        .into_iter()
        .filter_map(|(field, keep)| (!keep).then_some(field))
    }

    /// The change of one field.
    #[must_use]
    pub fn change(&self, field: Field) -> &Change<T> {
        match field {
            Field::Name => &self.name,
            Field::SubscriptionId => &self.subscription_id,
            Field::Handshake => &self.handshake,
        }
    }

    /// Whether the patch names no field.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fields().next().is_none()
    }
}

impl Patch<String> {
    /// The patch with every value checked, or all rules that its values break.
    pub fn parse(self) -> Result<Patch<Text>> {
        let (patch, violations) = self.check();
        if violations.is_empty() { Ok(patch) } else { Err(Error::Invalid(violations)) }
    }

    /// The same for an organization that is to be stored: a name is required.
    pub fn parse_new(self) -> Result<Patch<Text>> {
        let has_name = !self.name.is_keep();
        let (patch, mut violations) = self.check();
        if !has_name {
            let description = "name is required.";
            violations.push(Violation::of_field(Field::Name, reason::FIELD_REQUIRED, description));
        }
        if violations.is_empty() { Ok(patch) } else { Err(Error::Invalid(violations)) }
    }

    fn check(self) -> (Patch<Text>, Vec<Violation>) {
        let mut violations = Vec::new();
        let mut parse = |field, change| match change {
            Change::Keep => Change::Keep,
            Change::Clear if field == Field::Name => {
                let description = "name is required; it can be changed but not cleared.";
                violations.push(Violation::of_field(field, reason::FIELD_REQUIRED, description));
                Change::Keep
            }
            Change::Clear => Change::Clear,
            Change::Set(value) => match Text::parse(field, value) {
                Ok(text) => Change::Set(text),
                Err(violation) => {
                    violations.push(violation);
                    Change::Keep
                }
            },
        };
        let patch = Patch {
            name: parse(Field::Name, self.name),
            subscription_id: parse(Field::SubscriptionId, self.subscription_id),
            handshake: parse(Field::Handshake, self.handshake),
        };
        (patch, violations)
    }
}

impl Patch<Text> {
    /// The organization as it would be after the patch; etag and date are the stored ones.
    #[must_use]
    pub fn apply(&self, organization: Organization) -> Organization {
        let Self { name, subscription_id, handshake } = self;
        Organization {
            // Never cleared: `parse` refuses it.
            name: name.apply(None).unwrap_or(organization.name),
            subscription_id: subscription_id.apply(organization.subscription_id),
            handshake: handshake.apply(organization.handshake),
            ..organization
        }
    }
}

/// A partial update of one organization: of raw strings as a caller asked for it, or of [`Text`]
/// once valid.
#[derive(Clone, Debug)]
pub struct Update<T> {
    /// Which organization.
    pub id: OrganizationId,
    /// What to change.
    pub patch: Patch<T>,
    /// The version that the organization must still have, where the caller gave one.
    pub etag: Option<Etag>,
}

/// A new organization: of raw strings as a caller asked for it, or of [`Text`] once valid.
#[derive(Clone, Debug)]
pub struct Creation<T> {
    /// Its id; none: one that is larger than all before.
    pub id: Option<OrganizationId>,
    /// Its fields: a patch of an organization that has none yet.
    pub patch: Patch<T>,
}
