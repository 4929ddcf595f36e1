//! The mask of an update, held to a table of its paths.

use orgd::{
    domain::{Change, Field},
    grpc::convert,
    proto::v1,
};
use prost_types::FieldMask;

use super::refusal;

/// What each path names.
const PATHS: [(&str, &[Field]); 10] = [
    ("name", &[Field::Name]),
    ("subscription_id", &[Field::SubscriptionId]),
    ("subscriptionId", &[Field::SubscriptionId]),
    ("handshake", &[Field::Handshake]),
    ("*", &Field::ALL),
    ("id", &[]),
    ("date_created", &[]),
    ("date_modified", &[]),
    ("etag", &[]),
    ("writable_fields", &[]),
];

/// One byte, of which three bits say which fields have values, and paths with commas between them.
pub fn update_mask(bytes: &[u8]) {
    let Some((set, paths)) = bytes.split_first() else { return };
    let paths = String::from_utf8_lossy(paths);
    let paths: Vec<&str> = if paths.is_empty() { Vec::new() } else { paths.split(',').collect() };
    let value = |field: Field| {
        let bit = Field::ALL.iter().position(|one| *one == field).expect("a field of all");
        ((set >> bit) & 1 == 1).then(|| format!("a {}", field.path()))
    };
    let message = v1::UpdateOrganizationRequest {
        organization: Some(v1::Organization {
            id: 90,
            name: value(Field::Name),
            subscription_id: value(Field::SubscriptionId),
            handshake: value(Field::Handshake),
            ..v1::Organization::default()
        }),
        update_mask: Some(FieldMask { paths: paths.iter().map(ToString::to_string).collect() }),
        ..v1::UpdateOrganizationRequest::default()
    };
    let named: Option<Vec<&[Field]>> = paths
        .iter()
        .map(|path| PATHS.iter().find(|(known, _)| known == path).map(|(_, fields)| *fields))
        .collect();
    let has_wildcard = paths.contains(&"*");
    let expected = match named {
        _ if has_wildcard && paths.iter().any(|path| *path != "*") => {
            Err("MASK_WILDCARD_NOT_ALONE".to_owned())
        }
        None => Err("MASK_PATH_UNKNOWN".to_owned()),
        Some(named) => Ok(named.concat()),
    };
    match (convert::update(message), expected) {
        (Ok(update), Ok(named)) => {
            for field in Field::ALL {
                let expected = match value(field) {
                    Some(text) if paths.is_empty() || named.contains(&field) => Change::Set(text),
                    None if named.contains(&field) => Change::Clear,
                    _ => Change::Keep,
                };
                assert_eq!(*update.patch.get(field), expected, "{field:?} of {paths:?}");
            }
        }
        (Err(error), Err(reason)) => assert_eq!(refusal(error, bytes), reason, "{paths:?}"),
        (read, expected) => panic!("{paths:?}: {read:?}, not {expected:?}"),
    }
}
