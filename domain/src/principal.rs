//! Who a caller proved to be.

use std::sync::Arc;

use time::OffsetDateTime;

use super::{CredentialDigest, CredentialState, OrganizationId, Role};

/// Who a caller proved to be, and by which credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// The caller's own name, for logs and records, and by which its shares are counted.
    pub subject: Arc<str>,
    pub role: Role,
    /// The organization that a user belongs to.
    pub organization: Option<OrganizationId>,
    /// The credential that proved it, which every write checks again. None for the operator of the
    /// database itself.
    pub credential: Option<CredentialDigest>,
    /// When the credential ends by itself, in whole seconds.
    pub expires_at: Option<OffsetDateTime>,
}

impl Principal {
    /// Whoever works on the database itself, by the command line.
    #[must_use]
    pub fn operator() -> Self {
        Self {
            subject: "operator".into(),
            role: Role::Administrator,
            organization: None,
            credential: None,
            expires_at: None,
        }
    }

    /// Whether the credential has not ended by itself. A revocation is known to the database alone.
    #[must_use]
    pub fn holds(&self, now: OffsetDateTime) -> bool {
        CredentialState::at(now, self.expires_at, None) == CredentialState::Valid
    }
}

/// A call: who makes it, under which id, and how it is meant.
#[derive(Clone, Debug)]
pub struct Call {
    pub principal: Arc<Principal>,
    /// The request's id, as in logs.
    pub request_id: String,
    /// The caller's own key for a request that changes something, in the lower-case spelling of a
    /// UUID: sending the request again changes nothing more (AIP-155).
    pub idempotency_key: Option<String>,
    /// Whether to check everything and write nothing (AIP-163).
    pub validate_only: bool,
}

/// A caller's key for a request, bound to what the request asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey {
    pub key: String,
    /// SHA-256 of what was asked, but for the values of fields that the change log does not keep:
    /// another request under the same key is refused.
    pub request_digest: [u8; 32],
    /// What releases before stored for such a request.
    pub former_digests: Vec<[u8; 32]>,
}

impl IdempotencyKey {
    /// Whether a digest that was stored is of this request.
    #[must_use]
    pub fn is_of(&self, stored: &[u8]) -> bool {
        stored == self.request_digest || self.former_digests.iter().any(|former| stored == former)
    }
}
