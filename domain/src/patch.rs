//! A change to an organization: for each updatable field keep, clear or set. Both APIs lower a request
//! to this type, and rights, validation, preconditions and the write are decided on it.

use super::{
    error::{Error, Result, Violation, reason},
    fields::{Change, Field, Fields},
    organization::{Etag, Organization, OrganizationId},
    text::Text,
};

/// A change of every updatable field: of raw strings as they arrived, or of [`Text`] once valid.
pub type Patch<T> = Fields<Change<T>>;

impl<T> Patch<T> {
    /// The fields that the patch names, whether or not their values differ from the stored ones.
    pub fn fields(&self) -> impl Iterator<Item = Field> {
        let named = self.each().filter(|(_, change)| !matches!(change, Change::Keep));
        named.map(|(field, _)| field)
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
        self.check(Vec::new())
    }

    /// The same for an organization that is to be stored: it must have the required fields.
    pub fn parse_new(self) -> Result<Patch<Text>> {
        let missing =
            |field: &Field| field.facts().is_required && matches!(self.get(*field), Change::Keep);
        let missing = Field::ALL.into_iter().filter(missing);
        let missing = missing.map(|field| required(field, " is required.")).collect();
        self.check(missing)
    }

    fn check(self, missing: Vec<Violation>) -> Result<Patch<Text>> {
        let mut violations = Vec::new();
        let patch = self.map(|field, change| {
            check(field, change).unwrap_or_else(|violation| {
                violations.push(violation);
                Change::Keep
            })
        });
        violations.extend(missing);
        if violations.is_empty() { Ok(patch) } else { Err(Error::Invalid(violations)) }
    }
}

fn check(field: Field, change: Change<String>) -> std::result::Result<Change<Text>, Violation> {
    match change {
        Change::Keep => Ok(Change::Keep),
        Change::Clear if field.facts().is_required => {
            Err(required(field, " is required; it can be changed but not cleared."))
        }
        Change::Clear => Ok(Change::Clear),
        Change::Set(value) => Text::parse(field, value).map(Change::Set),
    }
}

fn required(field: Field, rule: &str) -> Violation {
    Violation::of_field(field, reason::FIELD_REQUIRED, format!("{}{rule}", field.path()))
}

impl Patch<Text> {
    /// The organization as it would be after the patch; etag and date are the stored ones.
    #[must_use]
    pub fn apply(&self, organization: Organization) -> Organization {
        let values = organization.values.map(|field, current| match self.get(field) {
            Change::Keep => current,
            Change::Clear => None,
            Change::Set(value) => Some(value.as_str().to_owned()),
        });
        Organization { values, ..organization }
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
