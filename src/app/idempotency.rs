//! What makes two requests the same: the digest that binds a caller's key to what was asked.
//!
//! Taken of the domain's form, so that one request through two doors has one digest.

use sha2::{Digest, Sha256};

use crate::domain::{Call, Change, Creation, IdempotencyKey, OrganizationId, Patch, Update};

/// The key of an update.
pub(super) fn of_update(call: &Call, update: &Update<String>) -> Option<IdempotencyKey> {
    bind(call, |digest| {
        // Not the etag: it guards the first time, after which it is stale by the change itself.
        let Update { id, patch, etag: _ } = update;
        digest.update(b"update");
        digest.update(id.get().to_be_bytes());
        add_patch(digest, patch);
    })
}

/// The key of a creation.
pub(super) fn of_creation(call: &Call, new: &Creation<String>) -> Option<IdempotencyKey> {
    bind(call, |digest| {
        let Creation { id, patch } = new;
        digest.update(b"create");
        digest.update(id.map_or(0, OrganizationId::get).to_be_bytes());
        add_patch(digest, patch);
    })
}

fn bind(call: &Call, add: impl FnOnce(&mut Sha256)) -> Option<IdempotencyKey> {
    let key = call.idempotency_key.clone()?;
    let mut digest = Sha256::new();
    add(&mut digest);
    Some(IdempotencyKey { key, request_digest: digest.finalize().into() })
}

fn add_patch(digest: &mut Sha256, patch: &Patch<String>) {
    let Patch { name, subscription_id, handshake } = patch;
    for change in [name, subscription_id, handshake] {
        match change {
            Change::Keep => digest.update([0]),
            Change::Clear => digest.update([1]),
            Change::Set(value) => {
                digest.update([2]);
                // The length first: two fields never run into each other.
                digest.update(value.len().to_be_bytes());
                digest.update(value);
            }
        }
    }
}
