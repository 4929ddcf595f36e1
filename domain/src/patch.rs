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
    pub id: OrganizationId,
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

#[cfg(test)]
mod tests {
    use Change::{Clear, Keep, Set};
    use Field::{Handshake, Name, SubscriptionId};
    use time::OffsetDateTime;

    use super::*;

    /// Of the name, the subscription and the handshake; `-` keeps a field and an empty text clears it.
    fn patch(values: [&str; 3]) -> Patch<String> {
        let change = |value: &str| match value {
            "-" => Keep,
            "" => Clear,
            value => Set(value.to_owned()),
        };
        let [name, subscription_id, handshake] = values.map(change);
        [(Name, name), (SubscriptionId, subscription_id), (Handshake, handshake)].into()
    }

    #[test]
    fn every_rule_that_a_patch_breaks_is_told() {
        const REQUIRED: &str = reason::FIELD_REQUIRED;
        const BLANK: &str = reason::FIELD_BLANK;
        // What an update breaks, and what a new organization of the same patch does.
        for (values, of_update, of_new) in [
            (["a", "b", "c"], &[][..], &[][..]),
            (["a", "", "-"], &[], &[]),
            (["-", "-", "-"], &[], &[(Name, REQUIRED)][..]),
            (["", "-", ""], &[(Name, REQUIRED)], &[(Name, REQUIRED)]),
            (
                ["-", " ", "-"],
                &[(SubscriptionId, BLANK)],
                &[(SubscriptionId, BLANK), (Name, REQUIRED)],
            ),
            (
                ["", " ", " "],
                &[(Name, REQUIRED), (SubscriptionId, BLANK), (Handshake, BLANK)],
                &[(Name, REQUIRED), (SubscriptionId, BLANK), (Handshake, BLANK)],
            ),
        ] {
            for (parsed, expected) in
                [(patch(values).parse(), of_update), (patch(values).parse_new(), of_new)]
            {
                let broken = match parsed {
                    Err(Error::Invalid(violations)) => violations,
                    _ => Vec::new(),
                };
                let told = broken.iter().map(|one| (one.path.clone().into_owned(), one.reason));
                let path = |(field, reason): &(Field, _)| {
                    (format!("organization.{}", field.path()), *reason)
                };
                assert!(told.eq(expected.iter().map(path)), "{values:?}: {broken:?}");
            }
        }
    }

    #[test]
    fn a_patch_changes_the_fields_that_it_names_and_no_other() {
        let stored = Organization {
            id: OrganizationId::new(90).unwrap(),
            values: Fields::from_fn(|field| Some(field.path().to_owned())),
            date_created: OffsetDateTime::UNIX_EPOCH,
            date_modified: OffsetDateTime::UNIX_EPOCH,
            etag: Etag::FIRST,
        };
        for (values, named, expected) in [
            (["-", "-", "-"], &[][..], [Some("name"), Some("subscription_id"), Some("handshake")]),
            (["a", "-", "-"], &[Name], [Some("a"), Some("subscription_id"), Some("handshake")]),
            (["name", "", "-"], &[Name, SubscriptionId], [Some("name"), None, Some("handshake")]),
            (["-", "b", ""], &[SubscriptionId, Handshake], [Some("name"), Some("b"), None]),
        ] {
            let patch = patch(values).parse().unwrap();
            assert!(patch.fields().eq(named.iter().copied()), "{values:?}");
            assert_eq!(patch.is_empty(), named.is_empty());
            let changed = patch.apply(stored.clone());
            assert_eq!(Field::ALL.map(|field| changed.value(field)), expected, "{values:?}");
            assert_eq!(Organization { values: stored.values.clone(), ..changed }, stored);
        }
    }
}
