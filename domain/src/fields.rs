//! The table of an organization's fields, and values by field.
//!
//! Everything that is done for each field is made from this table: patches, masks, JSON members,
//! statements, flags. Who may do what with a field is decided in `policy` alone. This file needs
//! nothing else of the domain, so that both ends of the wire can use it.

use std::array;

/// The largest id of an organization: up to here every JSON reader keeps integers exact (RFC 7493 §2.2).
pub const ID_MAX: i64 = (1 << 53) - 1;
/// Code points that a text field may have at most.
pub const TEXT_CODE_POINTS_MAX: usize = 255;

/// A field that an update may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Field {
    Name,
    SubscriptionId,
    Handshake,
}

pub struct Facts {
    /// Its path in an `update_mask`, which is its name in the proto and its column.
    pub path: &'static str,
    /// Its JSON member, as ProtoJSON names it.
    pub member: &'static str,
    /// What people call it, such as `subscription`.
    pub noun: &'static str,
    /// What it is: a sentence without its full stop.
    pub about: &'static str,
    /// Whether every organization has a value, so that it cannot be cleared.
    pub is_required: bool,
    /// Whether the change log keeps its values, and not only that they changed. Values of other
    /// fields are in no digest and in no table that the command line prints.
    pub is_logged: bool,
}

impl Field {
    /// Every field that an update may name, in the order of their field numbers.
    pub const ALL: [Self; 3] = [Self::Name, Self::SubscriptionId, Self::Handshake];

    #[must_use]
    pub const fn facts(self) -> Facts {
        match self {
            Self::Name => Facts {
                path: "name",
                member: "name",
                noun: "name",
                about: "The display name",
                is_required: true,
                is_logged: true,
            },
            Self::SubscriptionId => Facts {
                path: "subscription_id",
                member: "subscriptionId",
                noun: "subscription",
                about: "The subscription that the organization has",
                is_required: false,
                is_logged: true,
            },
            Self::Handshake => Facts {
                path: "handshake",
                member: "handshake",
                noun: "handshake",
                about: "An opaque string that only administrators write and read",
                is_required: false,
                is_logged: false,
            },
        }
    }

    /// The item of this field, where there is one for each in the order of [`Field::ALL`].
    fn of<T>(self, [name, subscription_id, handshake]: [T; Self::ALL.len()]) -> T {
        match self {
            Self::Name => name,
            Self::SubscriptionId => subscription_id,
            Self::Handshake => handshake,
        }
    }

    /// The field with this path or JSON member: a mask and a body may have either spelling.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|field| name == field.path() || name == field.member())
    }

    #[must_use]
    pub const fn path(self) -> &'static str {
        self.facts().path
    }

    #[must_use]
    pub const fn member(self) -> &'static str {
        self.facts().member
    }

    #[must_use]
    pub const fn is_logged(self) -> bool {
        self.facts().is_logged
    }
}

/// One `T` for each field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fields<T>([(Field, T); Field::ALL.len()]);

impl<T> Fields<T> {
    pub fn from_fn(mut make: impl FnMut(Field) -> T) -> Self {
        Self(Field::ALL.map(|field| (field, make(field))))
    }

    #[must_use]
    pub fn get(&self, field: Field) -> &T {
        &field.of(self.0.each_ref()).1
    }

    pub fn get_mut(&mut self, field: Field) -> &mut T {
        &mut field.of(self.0.each_mut()).1
    }

    pub fn each(&self) -> impl Iterator<Item = (Field, &T)> {
        self.0.iter().map(|(field, value)| (*field, value))
    }

    pub fn map<U>(self, mut make: impl FnMut(Field, T) -> U) -> Fields<U> {
        Fields(self.0.map(|(field, value)| (field, make(field, value))))
    }
}

impl<T> IntoIterator for Fields<T> {
    type Item = (Field, T);
    type IntoIter = array::IntoIter<(Field, T), { Field::ALL.len() }>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<T: Default> Default for Fields<T> {
    fn default() -> Self {
        Self::from_fn(|_| T::default())
    }
}

/// Those of some fields; the others have the default.
impl<T: Default, const N: usize> From<[(Field, T); N]> for Fields<T> {
    fn from(given: [(Field, T); N]) -> Self {
        let mut fields = Self::default();
        for (field, value) in given {
            *fields.get_mut(field) = value;
        }
        fields
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Change<T> {
    #[default]
    Keep,
    Clear,
    Set(T),
}

#[cfg(test)]
mod tests {
    use super::{Field, Fields};

    #[test]
    fn each_field_has_its_own_names_and_its_own_value() {
        let positions = Fields::from_fn(|field| Field::ALL.iter().position(|one| *one == field));
        for (at, field) in Field::ALL.into_iter().enumerate() {
            assert_eq!(*positions.get(field), Some(at));
            assert_eq!(Field::named(field.path()), Some(field));
            assert_eq!(Field::named(field.member()), Some(field));
        }
        assert_eq!(Field::named("id"), None);
    }
}
