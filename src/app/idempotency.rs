//! The digest that binds a caller's idempotency key to what it asked, the same through both APIs.
//!
//! It is stored with the change. Of a handshake it covers only whether it is set, as a short value could be
//! guessed.

use sha2::{Digest, Sha256};

use crate::domain::{Call, Change, Creation, Field, IdempotencyKey, OrganizationId, Patch, Update};

/// The version of a digest, in front of what is hashed.
const VERSION: u8 = 2;
/// The fields that the first digests, which have no version, cover.
const FIRST_FIELDS: [Field; 3] = [Field::Name, Field::SubscriptionId, Field::Handshake];

pub(super) fn of_update(call: &Call, update: &Update<String>) -> Option<IdempotencyKey> {
    // Without the etag: the change itself makes it stale, and a replay must have the same digest.
    let Update { id, patch, etag: _ } = update;
    bind(call, "update", id.get(), patch)
}

pub(super) fn of_creation(call: &Call, new: &Creation<String>) -> Option<IdempotencyKey> {
    let Creation { id, patch } = new;
    bind(call, "create", id.map_or(0, OrganizationId::get), patch)
}

fn bind(call: &Call, operation: &str, id: i64, patch: &Patch<String>) -> Option<IdempotencyKey> {
    let key = call.idempotency_key.clone()?;
    let request_digest = digest(operation, id, patch);
    // No release before knew a field beyond these, so none stored such a request.
    let was_known = patch.fields().all(|field| FIRST_FIELDS.contains(&field));
    let former: &[fn(Field) -> bool] = if was_known { &[Field::is_logged, |_| true] } else { &[] };
    let former = former.iter().map(|has_value| first_digest(operation, id, patch, *has_value));
    Some(IdempotencyKey { key, request_digest, former_digests: former.collect() })
}

/// Only the fields that a request names count, so a release with one more field has the same digest.
fn digest(operation: &str, id: i64, patch: &Patch<String>) -> [u8; 32] {
    let mut digest = Sha256::new_with_prefix([VERSION]);
    digest.update(operation);
    digest.update(id.to_be_bytes());
    for field in patch.fields() {
        // The length first: a name and a value never run into each other.
        digest.update(field.path().len().to_be_bytes());
        digest.update(field.path());
        add(&mut digest, patch.get(field), field.is_logged());
    }
    digest.finalize().into()
}

/// Earlier releases hashed three fields, named or not: the first release every value, the next only logged
/// ones.
fn first_digest(
    operation: &str,
    id: i64,
    patch: &Patch<String>,
    has_value: fn(Field) -> bool,
) -> [u8; 32] {
    let mut digest = Sha256::new();
    digest.update(operation);
    digest.update(id.to_be_bytes());
    for field in FIRST_FIELDS {
        add(&mut digest, patch.get(field), has_value(field));
    }
    digest.finalize().into()
}

fn add(digest: &mut Sha256, change: &Change<String>, has_value: bool) {
    match change {
        Change::Keep => digest.update([0]),
        Change::Clear => digest.update([1]),
        Change::Set(value) if has_value => {
            digest.update([2]);
            digest.update(value.len().to_be_bytes());
            digest.update(value);
        }
        Change::Set(_) => digest.update([3]),
    }
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;

    use super::*;
    use crate::domain::Principal;

    fn key(name: Change<&str>, handshake: Change<&str>) -> IdempotencyKey {
        let owned = |change| match change {
            Change::Keep => Change::Keep,
            Change::Clear => Change::Clear,
            Change::Set(value) => Change::Set(str::to_owned(value)),
        };
        let call = Call {
            principal: Principal::operator().into(),
            request_id: String::new(),
            idempotency_key: Some("key".to_owned()),
            validate_only: false,
        };
        let patch = Patch::from([(Field::Name, owned(name)), (Field::Handshake, owned(handshake))]);
        let id = OrganizationId::new(90).unwrap();
        of_update(&call, &Update { id, patch, etag: None }).unwrap()
    }

    #[test]
    fn a_digest_tells_requests_apart_but_for_the_values_of_handshakes() {
        use Change::{Clear, Keep, Set};
        for (one, other, are_the_same) in [
            (key(Set("a"), Keep), key(Set("a"), Keep), true),
            (key(Set("a"), Keep), key(Set("b"), Keep), false),
            (key(Set("a"), Keep), key(Keep, Set("a")), false),
            (key(Keep, Set("a")), key(Keep, Set("b")), true),
            (key(Keep, Set("a")), key(Keep, Clear), false),
            (key(Keep, Set("a")), key(Keep, Keep), false),
            (key(Keep, Clear), key(Keep, Keep), false),
            (key(Set("n"), Set("a")), key(Set("n"), Set("b")), true),
            (key(Set("n"), Set("a")), key(Set("m"), Set("a")), false),
        ] {
            assert_eq!(
                one.request_digest == other.request_digest,
                are_the_same,
                "{one:?} {other:?}"
            );
        }
    }

    /// What is stored must be known by every later release.
    #[test]
    fn digests_stay_as_they_are() {
        use Change::{Clear, Keep, Set};
        for (key, golden) in [
            (key(Keep, Keep), "8f91adbbfa1fc4702503c75d3c307c0b8a3d64d894fc90304152a9b128220825"),
            (
                key(Set("a"), Keep),
                "aaebb8229ae078bc6966fe3321806462309203ac672660f6f4a01c5d03e7969a",
            ),
            (
                key(Set("a"), Clear),
                "31ca1072408af35ae631d1d5f70521194846ee41f90c80b34344d0f94250aa54",
            ),
            (
                key(Keep, Set("a")),
                "f5679668633ea7c6493aa796b074d859cd968420ecb61c6744356363c8570154",
            ),
        ] {
            assert_eq!(HEXLOWER.encode(&key.request_digest), golden, "{key:?}");
        }
    }

    /// The first release had the value of a handshake in a digest, and the next one that it is set.
    #[test]
    fn digests_of_releases_before_are_known() {
        let former = |change: &[u8]| {
            let digest = Sha256::new().chain_update(b"update").chain_update(90_i64.to_be_bytes());
            digest.chain_update([0, 0]).chain_update(change).finalize()
        };
        let first = former(&[&[2][..], &1_usize.to_be_bytes(), b"a"].concat());
        let with = |value| key(Change::Keep, Change::Set(value));
        assert!(with("a").is_of(&first));
        assert!(!with("b").is_of(&first), "another value is another request, as it was then");
        assert!(with("a").is_of(&former(&[3])) && with("b").is_of(&former(&[3])));
        assert!(!key(Change::Keep, Change::Clear).is_of(&former(&[3])));
        assert!(with("b").is_of(&with("a").request_digest));
    }
}
