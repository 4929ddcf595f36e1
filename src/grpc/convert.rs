//! Between messages and the domain: what a message's shape means, by AIP-134, AIP-161 and AIP-203.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use prost_types::{FieldMask, Timestamp};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    app::watch::News,
    domain::{
        Change, ChangeEntry, Creation, Error, Etag, Field, FieldChange, Organization,
        OrganizationId, Patch, Principal, Result, Role, Update, Violation, policy, reason,
    },
    proto::v1,
};

const WILDCARD: &str = "*";
const WATCHED_MAX: usize = 100;
/// Fields that an update may name and that it never changes.
const OUTPUT_ONLY: [&str; 5] = ["id", "date_created", "date_modified", "etag", "writable_fields"];

pub fn update(message: v1::UpdateOrganizationRequest) -> Result<Update<String>> {
    let organization = required(message.organization)?;
    let id = organization_id("organization.id", organization.id)?;
    let etag = etag(&organization.etag);
    let patch = patch(organization, message.update_mask)?;
    Ok(Update { id, patch, etag })
}

/// The organization that a message asks to store: what is set in it.
pub fn creation(message: v1::CreateOrganizationRequest) -> Result<Creation<String>> {
    let organization = required(message.organization)?;
    Ok(Creation { id: None, patch: patch(organization, None)? })
}

pub fn watch(message: v1::WatchRequest) -> Result<Vec<(OrganizationId, Option<i64>)>> {
    let v1::WatchRequest { organization_ids: ids, from_versions: mut from } = message;
    if ids.len() > WATCHED_MAX {
        let description = format!("organization_ids may name {WATCHED_MAX} organizations at most.");
        return Err(Error::invalid("organization_ids", reason::FIELD_OUT_OF_RANGE, description));
    }
    if from.iter().any(|(id, version)| !ids.contains(id) || *version < 0) {
        let description = "from_versions must name organizations of organization_ids, each with a \
            version that is not negative.";
        return Err(Error::invalid("from_versions", reason::FIELD_OUT_OF_RANGE, description));
    }
    let ids: BTreeSet<i64> = ids.into_iter().collect();
    let followed = |id| Ok((organization_id("organization_ids", id)?, from.remove(&id)));
    ids.into_iter().map(followed).collect()
}

fn required(organization: Option<v1::Organization>) -> Result<v1::Organization> {
    organization.ok_or_else(|| {
        let description = "organization is required: its id and the new values.";
        Error::invalid("organization", reason::FIELD_REQUIRED, description)
    })
}

pub(super) fn organization_id(path: &'static str, id: i64) -> Result<OrganizationId> {
    OrganizationId::new(id).ok_or_else(|| {
        let description = format!("{path} must be a number from 1 to {}.", OrganizationId::MAX);
        Error::invalid(path, reason::FIELD_OUT_OF_RANGE, description)
    })
}

/// The key that a `request_id` is: a UUID, in any spelling of its letters. Empty is none.
pub fn idempotency_key(request_id: &str) -> Result<Option<String>> {
    if request_id.is_empty() {
        return Ok(None);
    }
    let is_hyphenated = request_id.len() == uuid::fmt::Hyphenated::LENGTH;
    match Uuid::try_parse(request_id) {
        Ok(key) if is_hyphenated => Ok(Some(key.to_string())),
        _ => {
            let description = "request_id (Idempotency-Key over REST) must be a UUID.";
            Err(Error::invalid("request_id", reason::IDEMPOTENCY_KEY_MALFORMED, description))
        }
    }
}

/// The version that an `etag` names. Empty is none; a tag that we never issue matches no version.
fn etag(etag: &str) -> Option<Etag> {
    (!etag.is_empty()).then(|| Etag::parse(etag.trim()).unwrap_or(Etag::NONE))
}

/// Why an update was refused. Tags that never match are told as what they are: nothing need have changed.
pub(super) fn refusal(etag: &str, error: Error) -> Error {
    let Error::EtagMismatch { current } = error else { return error };
    let is_quoted = |tag: &str| {
        let opaque = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
        opaque.is_some_and(|opaque| !opaque.contains('"'))
    };
    let is_weak = |tag: &str| tag.strip_prefix("W/").is_some_and(is_quoted);
    // With `!` the organization has one of the tags, which is no fault of theirs.
    let is_excluding = etag.starts_with('!');
    let tags = || etag.split(',').map(str::trim).filter(|_| !is_excluding);
    if tags().any(|tag| !is_weak(tag) && !is_quoted(tag)) {
        Error::EtagMalformed { current }
    } else if tags().any(is_weak) {
        Error::EtagWeak { current }
    } else {
        Error::EtagMismatch { current }
    }
}

/// The fields of the mask, cleared where they are unset; without a mask, the fields that are set.
fn patch(mut organization: v1::Organization, mask: Option<FieldMask>) -> Result<Patch<String>> {
    let paths = mask.map(|mask| mask.paths).unwrap_or_default();
    let all_set = paths.is_empty();
    let fields = masked_fields(&paths)?;
    Ok(Patch::from_fn(|field| match organization.text_mut(field).take() {
        Some(value) if all_set || fields.contains(&field) => Change::Set(value),
        None if fields.contains(&field) => Change::Clear,
        _ => Change::Keep,
    }))
}

/// The updatable fields that the paths name, as a set; output-only paths name none.
fn masked_fields(paths: &[String]) -> Result<Vec<Field>> {
    if paths.iter().any(|path| path == WILDCARD) {
        return if paths.iter().all(|path| path == WILDCARD) {
            Ok(Field::ALL.to_vec())
        } else {
            let description = "* means every field and must be the only path.";
            Err(Error::invalid("update_mask", reason::MASK_WILDCARD_NOT_ALONE, description))
        };
    }
    let mut fields = Vec::new();
    let mut unknown = Vec::new();
    for path in paths {
        match Field::named(path) {
            Some(field) => fields.push(field),
            None if OUTPUT_ONLY.contains(&path.as_str()) => {}
            None => unknown.push(Violation::new(
                "update_mask",
                reason::MASK_PATH_UNKNOWN,
                unknown_path(path),
            )),
        }
    }
    if unknown.is_empty() { Ok(fields) } else { Err(Error::Invalid(unknown)) }
}

fn unknown_path(path: &str) -> String {
    // Short and in ASCII: a status with many of them must stay small.
    const SHOWN_CHARS_MAX: usize = 48;
    let shown: String = path.escape_default().take(SHOWN_CHARS_MAX).collect();
    let [fields @ .., last] = Field::ALL.map(Field::path);
    format!("\"{shown}\" is not a field. The fields are {} and {last}.", fields.join(", "))
}

#[must_use]
pub fn organization(organization: Organization) -> v1::Organization {
    let Organization { id, values, date_created, date_modified, etag } = organization;
    let mut message = v1::Organization {
        id: id.get(),
        date_created: Some(timestamp(date_created)),
        date_modified: Some(timestamp(date_modified)),
        etag: etag.to_string(),
        ..v1::Organization::default()
    };
    for (field, value) in values {
        *message.text_mut(field) = value;
    }
    message
}

pub(super) fn writable_fields(principal: &Principal) -> Vec<String> {
    policy::writable_fields(principal).map(|field| field.path().to_owned()).collect()
}

pub(super) fn caller(principal: &Principal) -> v1::Caller {
    let Principal { subject, role, organization, credential, expires_at } = principal;
    v1::Caller {
        subject: subject.to_string(),
        role: self::role(*role).into(),
        organization_id: organization.map(OrganizationId::get),
        credential_id: credential.map(|digest| digest.id()).unwrap_or_default(),
        expire_time: expires_at.map(timestamp),
        writable_fields: writable_fields(principal),
    }
}

pub(super) fn news(news: News) -> v1::Change {
    let heartbeat = || v1::Change { heartbeat: true, ..v1::Change::default() };
    news.map_or_else(heartbeat, change)
}

pub(super) fn change(entry: ChangeEntry) -> v1::Change {
    let ChangeEntry { organization, version, date, subject, role, request_id, fields } = entry;
    v1::Change {
        organization_id: organization.get(),
        version,
        date: Some(timestamp(date)),
        subject,
        role: self::role(role).into(),
        request_id,
        fields: fields.into_iter().map(field_change).collect(),
        heartbeat: false,
    }
}

fn field_change(FieldChange { field, values }: FieldChange) -> v1::FieldChange {
    let redacted = values.is_none();
    let (old_value, new_value) = values.map_or((None, None), |values| (values.old, values.new));
    v1::FieldChange { field: field.path().to_owned(), old_value, new_value, redacted }
}

fn role(role: Role) -> v1::Role {
    match role {
        Role::User => v1::Role::User,
        Role::Support => v1::Role::Support,
        Role::Administrator => v1::Role::Administrator,
    }
}

fn timestamp(time: OffsetDateTime) -> Timestamp {
    Timestamp {
        seconds: time.unix_timestamp(),
        nanos: time.nanosecond().try_into().unwrap_or_default(),
    }
}
