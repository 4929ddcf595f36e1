//! What makes two requests the same: the digest that binds a caller's key to what was asked.
//!
//! Taken of the domain's form, so that one request through two doors has one digest. The digest is stored
//! with the change, so it must not give away what the change log keeps out: of a handshake it has that it
//! is set, not to what. A short one could be guessed from a digest by trying.

use sha2::{Digest, Sha256};

use crate::domain::{Call, Change, Creation, Field, IdempotencyKey, OrganizationId, Patch, Update};

/// The key of an update.
pub(super) fn of_update(call: &Call, update: &Update<String>) -> Option<IdempotencyKey> {
    // Not the etag: it guards the first time, after which it is stale by the change itself.
    let Update { id, patch, etag: _ } = update;
    bind(call, "update", id.get(), patch)
}

/// The key of a creation.
pub(super) fn of_creation(call: &Call, new: &Creation<String>) -> Option<IdempotencyKey> {
    let Creation { id, patch } = new;
    bind(call, "create", id.map_or(0, OrganizationId::get), patch)
}

fn bind(call: &Call, operation: &str, id: i64, patch: &Patch<String>) -> Option<IdempotencyKey> {
    let key = call.idempotency_key.clone()?;
    let hides_a_value =
        |field: Field| !field.is_logged() && matches!(patch.change(field), Change::Set(_));
    let former_digest =
        Field::ALL.into_iter().any(hides_a_value).then(|| digest(operation, id, patch, |_| true));
    let request_digest = digest(operation, id, patch, Field::is_logged);
    Some(IdempotencyKey { key, request_digest, former_digest })
}

/// The digest of a request, with the values of some fields.
fn digest(
    operation: &str,
    id: i64,
    patch: &Patch<String>,
    has_value: fn(Field) -> bool,
) -> [u8; 32] {
    let mut digest = Sha256::new();
    digest.update(operation);
    digest.update(id.to_be_bytes());
    for field in Field::ALL {
        match patch.change(field) {
            Change::Keep => digest.update([0]),
            Change::Clear => digest.update([1]),
            Change::Set(value) if has_value(field) => {
                digest.update([2]);
                // The length first: two fields never run into each other.
                digest.update(value.len().to_be_bytes());
                digest.update(value);
            }
            Change::Set(_) => digest.update([3]),
        }
    }
    digest.finalize().into()
}

#[cfg(test)]
mod tests {
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
        let patch =
            Patch { name: owned(name), subscription_id: Change::Keep, handshake: owned(handshake) };
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

    /// What the release before stored, which had the value in it.
    #[test]
    fn a_digest_of_the_release_before_is_known() {
        let former = Sha256::new()
            .chain_update(b"update")
            .chain_update(90_i64.to_be_bytes())
            .chain_update([0, 0, 2])
            .chain_update(1_usize.to_be_bytes())
            .chain_update(b"a")
            .finalize();
        let with = |value| key(Change::Keep, Change::Set(value));
        assert!(with("a").is_of(&former));
        assert!(!with("b").is_of(&former), "another value is another request, as it was then");
        assert!(with("b").is_of(&with("a").request_digest));
        assert_eq!(key(Change::Set("n"), Change::Keep).former_digest, None);
    }
}
