//! The organization and its values, parsed once where a call comes in, and trusted after.
//!
//! Holds what a stored organization is; what a change to one is stands in `patch`.

use std::fmt;

use time::OffsetDateTime;

use super::fields::{Field, Fields, ID_MAX};

/// Identifies an organization: a number from 1 to [`ID_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OrganizationId(i64);

impl OrganizationId {
    pub const MAX: i64 = ID_MAX;

    #[must_use]
    pub fn new(id: i64) -> Option<Self> {
        (1..=Self::MAX).contains(&id).then_some(Self(id))
    }

    #[must_use]
    pub fn get(self) -> i64 {
        self.0
    }
}

impl fmt::Display for OrganizationId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// The version of a stored organization: 1 when created, one more with each change. It is the
/// `etag` on the wire, quoted as a strong entity tag (RFC 9110 §8.8.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Etag(i64);

impl Etag {
    #[must_use]
    pub fn from_version(version: i64) -> Self {
        Self(version)
    }

    /// The tag of an organization that was just stored.
    pub const FIRST: Self = Self(1);
    /// A tag that no organization has: a precondition on it fails.
    pub const NONE: Self = Self(0);

    /// The version that a tag names, or none where we never issued such a tag.
    #[must_use]
    pub fn parse(tag: &str) -> Option<Self> {
        let version = tag.strip_prefix('"')?.strip_suffix('"')?.parse().ok()?;
        // Only the one spelling that we issue: `"03"` and `"+3"` are tags of nothing.
        (version >= 1 && Self(version).to_string() == tag).then_some(Self(version))
    }

    #[must_use]
    pub fn version(self) -> i64 {
        self.0
    }
}

impl fmt::Display for Etag {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "\"{}\"", self.0)
    }
}

/// An organization as it is stored, with the fields that its reader may see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Organization {
    pub id: OrganizationId,
    pub values: Fields<Option<String>>,
    /// When the organization was stored first.
    pub date_created: OffsetDateTime,
    /// When a field changed last.
    pub date_modified: OffsetDateTime,
    pub etag: Etag,
}

impl Organization {
    #[must_use]
    pub fn value(&self, field: Field) -> Option<&str> {
        self.values.get(field).as_deref()
    }

    /// Bytes of its texts, as pages count them.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.values.each().filter_map(|(_, value)| value.as_ref()).map(String::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::{Etag, ID_MAX, OrganizationId};

    #[test]
    fn a_tag_has_the_one_spelling_in_which_it_was_issued() {
        for (tag, version) in [
            ("\"1\"", Some(1)),
            ("\"9223372036854775807\"", Some(i64::MAX)),
            ("\"9223372036854775808\"", None),
            ("\"0\"", None),
            ("\"-1\"", None),
            ("\"03\"", None),
            ("\"+3\"", None),
            ("\" 3\"", None),
            ("\"\"", None),
            ("\"", None),
            ("3", None),
            ("\"3", None),
            ("W/\"3\"", None),
            ("", None),
        ] {
            assert_eq!(Etag::parse(tag).map(Etag::version), version, "{tag}");
        }
    }

    #[test]
    fn an_id_is_in_its_range() {
        for (id, is_one) in
            [(i64::MIN, false), (0, false), (1, true), (ID_MAX, true), (ID_MAX + 1, false)]
        {
            assert_eq!(OrganizationId::new(id).map(OrganizationId::get), is_one.then_some(id));
        }
    }
}
