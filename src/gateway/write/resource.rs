//! Organizations, changes and callers as JSON. Members that have no value are left out.

use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use crate::{
    domain::fields::{Field, Fields},
    proto::v1,
};

/// An organization, with the fields that the caller may read.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Organization)]
pub(crate) struct Organization {
    /// Identifies the organization.
    #[schema(example = 90)]
    id: i64,
    /// The schema's members of these are made from the table of fields (`openapi`).
    #[serde(flatten, serialize_with = "texts")]
    #[schema(ignore)]
    texts: Fields<Option<String>>,
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
    pub(crate) fn new(mut organization: v1::Organization, with_writable: bool) -> Self {
        let texts = Fields::from_fn(|field| organization.text_mut(field).take());
        Self {
            id: organization.id,
            texts,
            writable_fields: with_writable.then(|| members(&organization.writable_fields)),
            date_created: date(organization.date_created),
            date_modified: date(organization.date_modified),
            etag: organization.etag,
        }
    }
}

fn texts<S: Serializer>(texts: &Fields<Option<String>>, serializer: S) -> Result<S::Ok, S::Error> {
    let members = texts.each().filter_map(|(field, text)| Some((field.member(), text.as_ref()?)));
    serializer.collect_map(members)
}

/// A page of organizations, by ascending id.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OrganizationPage {
    pub(crate) organizations: Vec<Organization>,
    /// For the next page; not there: this was the last one.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schema(required = false)]
    pub(crate) next_page_token: String,
}

/// One effective change of an organization.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Change {
    /// The organization that changed.
    organization_id: i64,
    /// The version that the change made: 1 for the creation.
    version: i64,
    /// When the change was made.
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
pub(crate) struct FieldChange {
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
        let role = change.role().name();
        let field = |change: v1::FieldChange| FieldChange {
            field: member(&change.field).to_owned(),
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
pub(crate) struct ChangePage {
    pub(crate) changes: Vec<Change>,
    /// For the next page; not there: this was the last one.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schema(required = false)]
    pub(crate) next_page_token: String,
}

/// A caller, as its credential proves it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(example = json!({
    "subject": "acme",
    "role": "user",
    "organizationId": 90,
    "credentialId": "c4f5d6ae3f0b7a9e8f1d2c3b4a5968778695a4b3c2d1e0f90817263544536271",
    "expireTime": "2027-01-01T00:00:00Z",
    "writableFields": ["name"]
}))]
pub(crate) struct Caller {
    /// Its name, as in the change log.
    subject: String,
    /// What kind of caller it is: user, support or administrator.
    role: String,
    /// The organization that a user belongs to; not there for the other roles.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 9_007_199_254_740_991_i64, nullable = false)]
    organization_id: Option<i64>,
    /// Names the credential, as operators see it; it is no secret.
    credential_id: String,
    /// When the credential ends by itself; not there: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime, nullable = false)]
    expire_time: Option<String>,
    /// The names of the fields that the caller may update on an organization that it has a right to.
    writable_fields: Vec<String>,
}

impl From<v1::Caller> for Caller {
    fn from(caller: v1::Caller) -> Self {
        let role = caller.role().name();
        Self {
            subject: caller.subject,
            role,
            organization_id: caller.organization_id,
            credential_id: caller.credential_id,
            expire_time: caller.expire_time.map(|time| date(Some(time))),
            writable_fields: members(&caller.writable_fields),
        }
    }
}

fn members(fields: &[String]) -> Vec<String> {
    fields.iter().map(|field| member(field).to_owned()).collect()
}

/// The JSON member of the field that a message names. That of a newer service keeps its name.
pub(crate) fn member(field: &str) -> &str {
    Field::named(field).map_or(field, |field| field.member())
}

/// RFC 3339, which is what prost prints.
fn date(date: Option<prost_types::Timestamp>) -> String {
    date.map(|date| date.to_string()).unwrap_or_default()
}
