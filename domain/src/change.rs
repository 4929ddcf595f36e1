//! The change log: one entry for each version of an organization.

use time::OffsetDateTime;

use super::{Field, OrganizationId, Role};

/// One effective change: the creation of an organization, or an update that changed something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeEntry {
    pub organization: OrganizationId,
    /// The version that the change made.
    pub version: i64,
    pub date: OffsetDateTime,
    /// The name of who changed it.
    pub subject: String,
    pub role: Role,
    /// The id of the request that changed it.
    pub request_id: String,
    /// The fields that really changed.
    pub fields: Vec<FieldChange>,
}

impl ChangeEntry {
    /// Bytes of its texts, as pages and watches count them.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let values = self.fields.iter().filter_map(|field| field.values.as_ref());
        let texts = values.flat_map(|values| [&values.old, &values.new]).flatten();
        let values: usize = texts.map(String::len).sum();
        values + self.subject.len() + self.request_id.len()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldChange {
    pub field: Field,
    /// Its values; none where they are not kept, only that they changed.
    pub values: Option<Values>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Values {
    pub old: Option<String>,
    pub new: Option<String>,
}
