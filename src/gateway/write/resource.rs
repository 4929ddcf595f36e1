//! Organizations and changes as JSON. Members that have no value are left out.

use serde::Serialize;
use utoipa::ToSchema;

use crate::proto::{role_name, v1};

/// An organization, with the fields that the caller may read.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Organization)]
pub(in crate::gateway) struct Organization {
    /// Identifies the organization.
    #[schema(minimum = 1, maximum = 9_007_199_254_740_991_i64, example = 90)]
    id: i64,
    /// The display name.
    #[schema(min_length = 1, max_length = 255, example = "Custom Name")]
    name: String,
    /// The subscription that the organization has.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 255, nullable = false)]
    subscription_id: Option<String>,
    /// An opaque string that only administrators write and read.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 255, nullable = false)]
    handshake: Option<String>,
    /// When the organization was stored first.
    #[schema(format = DateTime)]
    date_created: String,
    /// When a field changed last.
    #[schema(format = DateTime)]
    date_modified: String,
    /// The version, as a strong entity tag.
    #[schema(example = "\"3\"")]
    etag: String,
    /// The names of the fields that this caller may update; only where `writableFields=true`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    writable_fields: Option<Vec<String>>,
}

impl Organization {
    /// The JSON of a message; the fields that the caller may update are in it where it asked.
    pub(in crate::gateway) fn new(organization: v1::Organization, with_writable: bool) -> Self {
        let names = organization.writable_fields.iter().map(|name| member(name));
        Self {
            id: organization.id,
            writable_fields: with_writable.then(|| names.collect()),
            name: organization.name.unwrap_or_default(),
            subscription_id: organization.subscription_id,
            handshake: organization.handshake,
            date_created: date(organization.date_created),
            date_modified: date(organization.date_modified),
            etag: organization.etag,
        }
    }
}

/// A page of organizations, by ascending id.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::gateway) struct OrganizationPage {
    pub(in crate::gateway) organizations: Vec<Organization>,
    /// For the next page; not there: this was the last one.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schema(required = false)]
    pub(in crate::gateway) next_page_token: String,
}

/// One effective change of an organization.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::gateway) struct Change {
    /// The organization that changed.
    organization_id: i64,
    /// The version that the change made: 1 for the creation.
    version: i64,
    /// When.
    #[schema(format = DateTime)]
    date: String,
    /// The name of who changed it.
    subject: String,
    /// What kind of caller that was.
    #[schema(example = "user")]
    role: String,
    /// The id of the request that changed it.
    request_id: String,
    /// The fields that really changed.
    fields: Vec<FieldChange>,
}

/// What happened to one field.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::gateway) struct FieldChange {
    /// The field's name.
    field: String,
    /// Its value before, where it had one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    old_value: Option<String>,
    /// Its value since, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    new_value: Option<String>,
    /// The values are not kept, only that they changed.
    redacted: bool,
}

impl From<v1::Change> for Change {
    fn from(change: v1::Change) -> Self {
        let role = role_name(change.role());
        let field = |change: v1::FieldChange| FieldChange {
            field: member(&change.field),
            old_value: change.old_value,
            new_value: change.new_value,
            redacted: change.redacted,
        };
        Self {
            organization_id: change.organization_id,
            version: change.version,
            date: date(change.date),
            subject: change.subject,
            role,
            request_id: change.request_id,
            fields: change.fields.into_iter().map(field).collect(),
        }
    }
}

/// A page of changes, the oldest first.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::gateway) struct ChangePage {
    pub(in crate::gateway) changes: Vec<Change>,
    /// For the next page; not there: this was the last one.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schema(required = false)]
    pub(in crate::gateway) next_page_token: String,
}

/// The JSON member of a field of the message, as ProtoJSON names it.
pub(in crate::gateway) fn member(field: &str) -> String {
    let mut member = String::with_capacity(field.len());
    for (index, word) in field.split('_').enumerate() {
        let mut letters = word.chars();
        match letters.next() {
            Some(first) if index > 0 => member.push(first.to_ascii_uppercase()),
            first => member.extend(first),
        }
        member.push_str(letters.as_str());
    }
    member
}

/// RFC 3339, which is what prost prints.
pub(in crate::gateway) fn date(date: Option<prost_types::Timestamp>) -> String {
    date.map(|date| date.to_string()).unwrap_or_default()
}
