//! Between messages and the domain: what a message's shape means, by AIP-134, AIP-161 and AIP-203.

use prost_types::{FieldMask, Timestamp};
use time::OffsetDateTime;

use crate::{
    domain::{
        Change, Error, Etag, Field, Organization, OrganizationId, Patch, Result, Update, Violation,
        reason,
    },
    proto::v1,
};

/// The mask that means every updatable field.
const WILDCARD: &str = "*";
/// Fields that an update may name and that it never changes.
const OUTPUT_ONLY: [&str; 4] = ["id", "date_created", "date_modified", "etag"];

/// The update that a message asks for.
pub(super) fn update(message: v1::UpdateOrganizationRequest) -> Result<Update> {
    let v1::UpdateOrganizationRequest { organization, update_mask, validate_only } = message;
    let organization = organization.ok_or_else(|| {
        let description = "organization is required: its id and the new values.";
        Error::invalid(Violation::new("organization", reason::FIELD_REQUIRED, description))
    })?;
    let id = organization_id(organization.id)?;
    let etag = etag(&organization.etag);
    let patch = patch(organization, update_mask)?;
    Ok(Update { id, patch, etag, validate_only })
}

fn organization_id(id: i64) -> Result<OrganizationId> {
    OrganizationId::new(id).ok_or_else(|| {
        let description = "organization.id must be a number from 1 to 9007199254740991.";
        Error::invalid(Violation::new("organization.id", reason::FIELD_OUT_OF_RANGE, description))
    })
}

/// The version that an `etag` names. Empty is none; a tag that we never issue matches no version.
fn etag(etag: &str) -> Option<Etag> {
    (!etag.is_empty()).then(|| Etag::parse(etag).unwrap_or(Etag::NONE))
}

/// The fields of the mask, cleared where they are unset; without a mask, the fields that are set.
fn patch(organization: v1::Organization, mask: Option<FieldMask>) -> Result<Patch<String>> {
    let paths = mask.map(|mask| mask.paths).unwrap_or_default();
    let all_set = paths.is_empty();
    let fields = masked_fields(&paths)?;
    let change = |field, value: Option<String>| match value {
        Some(value) if all_set || fields.contains(&field) => Change::Set(value),
        None if fields.contains(&field) => Change::Clear,
        _ => Change::Keep,
    };
    let v1::Organization { name, subscription_id, handshake, .. } = organization;
    Ok(Patch {
        name: change(Field::Name, name),
        subscription_id: change(Field::SubscriptionId, subscription_id),
        handshake: change(Field::Handshake, handshake),
    })
}

/// The updatable fields that the paths name, as a set; output-only paths name none.
fn masked_fields(paths: &[String]) -> Result<Vec<Field>> {
    if paths.iter().any(|path| path == WILDCARD) {
        return if paths.iter().all(|path| path == WILDCARD) {
            Ok(Field::ALL.to_vec())
        } else {
            let description = "* means every field and must be the only path.";
            Err(mask_error(vec![(reason::MASK_WILDCARD_NOT_ALONE, description.to_owned())]))
        };
    }
    let mut fields = Vec::new();
    let mut unknown = Vec::new();
    for path in paths {
        match updatable(path) {
            Some(field) => fields.push(field),
            None if OUTPUT_ONLY.contains(&path.as_str()) => {}
            None => unknown.push((reason::MASK_PATH_UNKNOWN, unknown_path(path))),
        }
    }
    if unknown.is_empty() { Ok(fields) } else { Err(mask_error(unknown)) }
}

fn updatable(path: &str) -> Option<Field> {
    // The JSON spelling is unambiguous and taken as well.
    let path = if path == "subscriptionId" { "subscription_id" } else { path };
    Field::ALL.into_iter().find(|field| field.path() == path)
}

fn unknown_path(path: &str) -> String {
    const SHOWN_CHARS_MAX: usize = 64;
    let shown: String = path.chars().take(SHOWN_CHARS_MAX).collect();
    format!("{shown:?} is not a field. The fields are name, subscription_id and handshake.")
}

fn mask_error(violations: Vec<(&'static str, String)>) -> Error {
    let violation = |(reason, description)| Violation::new("update_mask", reason, description);
    Error::Invalid(violations.into_iter().map(violation).collect())
}

/// The message of an organization.
pub(super) fn organization(organization: Organization) -> v1::Organization {
    // Destructured without `..`, so that a new field cannot be forgotten here.
    let Organization { id, name, subscription_id, handshake, date_created, date_modified, etag } =
        organization;
    v1::Organization {
        id: id.get(),
        name: Some(name),
        subscription_id,
        handshake,
        date_created: Some(timestamp(date_created)),
        date_modified: Some(timestamp(date_modified)),
        etag: etag.to_string(),
    }
}

fn timestamp(time: OffsetDateTime) -> Timestamp {
    Timestamp {
        seconds: time.unix_timestamp(),
        nanos: time.nanosecond().try_into().unwrap_or_default(),
    }
}
