//! Request messages of the gRPC API: bytes, decoded as tonic does and made a domain's value.

use std::collections::BTreeSet;

use orgd::{
    domain::{
        Change, Etag, Field, Organization, OrganizationId, Patch, TEXT_CODE_POINTS_MAX, Text,
        Update,
    },
    grpc::convert,
    proto::v1,
};
use prost::Message;
use prost_types::FieldMask;
use time::OffsetDateTime;

use super::refusal;

/// Bytes that are each request message which is more than numbers.
pub fn message(bytes: &[u8]) {
    if let Some(message) = decoded::<v1::UpdateOrganizationRequest>(bytes) {
        idempotency_key(&message.request_id);
        match convert::update(message) {
            Ok(update) => check_update(&update),
            Err(error) => drop(refusal(error, bytes)),
        }
    }
    if let Some(message) = decoded::<v1::CreateOrganizationRequest>(bytes) {
        match convert::creation(message) {
            Ok(creation) => check_values(&creation.patch, true),
            Err(error) => assert_eq!(refusal(error, b""), "FIELD_REQUIRED"),
        }
    }
    if let Some(message) = decoded::<v1::WatchRequest>(bytes) {
        check_watch(message);
    }
}

/// The message that the bytes are; encoded and decoded it is the same.
fn decoded<M: Message + Default + PartialEq + std::fmt::Debug>(bytes: &[u8]) -> Option<M> {
    let message = M::decode(bytes).ok()?;
    assert_eq!(M::decode(&*message.encode_to_vec()).as_ref(), Ok(&message));
    Some(message)
}

/// An update, sent again as a message of its own, is the same; and its values decide.
fn check_update(update: &Update<String>) {
    assert!((1..=OrganizationId::MAX).contains(&update.id.get()));
    let value = |field| match update.patch.get(field) {
        Change::Set(value) => Some(value.clone()),
        Change::Clear | Change::Keep => None,
    };
    let message = v1::UpdateOrganizationRequest {
        organization: Some(v1::Organization {
            id: update.id.get(),
            name: value(Field::Name),
            subscription_id: value(Field::SubscriptionId),
            handshake: value(Field::Handshake),
            etag: update.etag.map(|etag| etag.to_string()).unwrap_or_default(),
            ..v1::Organization::default()
        }),
        update_mask: Some(FieldMask {
            paths: update.patch.fields().map(|field| field.path().to_owned()).collect(),
        }),
        ..v1::UpdateOrganizationRequest::default()
    };
    let again = convert::update(message).expect("an update can be sent again");
    assert_eq!((again.id, &again.patch, again.etag), (update.id, &update.patch, update.etag));
    check_values(&update.patch, false);
}

/// A patch is taken exactly where each of its values keeps the rules, and then does what it says.
fn check_values(patch: &Patch<String>, is_new: bool) {
    let is_good = |field: Field| match patch.get(field) {
        Change::Set(text) => is_text(text),
        Change::Clear => !field.facts().is_required,
        Change::Keep => !is_new || !field.facts().is_required,
    };
    let is_kept = |field: Field| *patch.get(field) == Change::Keep;
    assert_eq!(patch.is_empty(), Field::ALL.into_iter().all(is_kept));
    let parsed = if is_new { patch.clone().parse_new() } else { patch.clone().parse() };
    match parsed {
        Ok(parsed) => {
            assert!(Field::ALL.into_iter().all(is_good), "{patch:?} was taken");
            assert_eq!(parsed.is_empty(), patch.is_empty());
            assert!(parsed.fields().eq(patch.fields()));
            check_applied(&parsed);
        }
        Err(error) => {
            assert!(!Field::ALL.into_iter().all(is_good), "{patch:?} was refused");
            // Nothing of a value is in its refusal.
            refusal(error, b"");
        }
    }
}

fn is_text(text: &str) -> bool {
    let is_blank = text.trim().is_empty();
    !is_blank && !text.contains(char::is_control) && text.chars().count() <= TEXT_CODE_POINTS_MAX
}

fn check_applied(patch: &Patch<Text>) {
    let before = Organization {
        id: OrganizationId::new(90).expect("an id"),
        values: [
            (Field::Name, Some("before".to_owned())),
            (Field::SubscriptionId, Some("before".to_owned())),
        ]
        .into(),
        date_created: OffsetDateTime::UNIX_EPOCH,
        date_modified: OffsetDateTime::UNIX_EPOCH,
        etag: Etag::FIRST,
    };
    let after = patch.apply(before.clone());
    for field in Field::ALL {
        let expected = match patch.get(field) {
            Change::Keep => before.value(field),
            Change::Clear => None,
            Change::Set(text) => Some(text.as_str()),
        };
        assert_eq!(after.value(field), expected);
    }
    assert_eq!(Organization { values: before.values.clone(), ..after }, before);
}

fn check_watch(message: v1::WatchRequest) {
    let ids: BTreeSet<i64> = message.organization_ids.iter().copied().collect();
    let from = message.from_versions.clone();
    let is_good = message.organization_ids.len() <= 100
        && ids.iter().all(|id| (1..=OrganizationId::MAX).contains(id))
        && from.iter().all(|(id, version)| ids.contains(id) && *version >= 0);
    match convert::watch(message) {
        Ok(followed) => {
            assert!(is_good, "{ids:?} from {from:?} was taken");
            let expected = ids.iter().map(|id| (*id, from.get(id).copied()));
            assert!(followed.iter().map(|(id, from)| (id.get(), *from)).eq(expected));
        }
        Err(error) => {
            assert!(!is_good, "{ids:?} from {from:?} was refused");
            assert_eq!(refusal(error, b""), "FIELD_OUT_OF_RANGE");
        }
    }
}

fn idempotency_key(request_id: &str) {
    match convert::idempotency_key(request_id) {
        Ok(None) => assert!(request_id.is_empty()),
        Ok(Some(key)) => {
            assert_eq!(key, request_id.to_ascii_lowercase());
            assert_eq!(key.len(), 36);
        }
        Err(error) => assert_eq!(refusal(error, b""), "IDEMPOTENCY_KEY_MALFORMED"),
    }
}
