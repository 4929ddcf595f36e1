//! What a credential is, apart from its secret: the store knows the digest only.

use std::fmt;

use time::OffsetDateTime;

use super::{OrganizationId, Role};

/// The SHA-256 digest of a credential's secret, which stands for the credential wherever the secret
/// must not be.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CredentialDigest(pub [u8; 32]);

impl fmt::Debug for CredentialDigest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("CredentialDigest(…)")
    }
}

/// The form of a credential's secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialKind {
    /// A lower-case UUID version 4.
    Bearer,
    /// A prefix, random characters and a checksum, so that secret scanners find it.
    ApiKey,
}

impl CredentialKind {
    /// The kind's name, as people write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bearer => "bearer",
            Self::ApiKey => "api-key",
        }
    }
}

/// A credential as it is issued: everything but its end.
#[derive(Clone, Debug)]
pub struct Credential {
    /// Stands for the secret.
    pub digest: CredentialDigest,
    /// The secret's form.
    pub kind: CredentialKind,
    /// The holder's own name, for logs and records.
    pub subject: String,
    /// What kind of caller the holder is.
    pub role: Role,
    /// The organization that a user belongs to; none for the other roles.
    pub organization: Option<OrganizationId>,
    /// When it ends by itself, in whole seconds.
    pub expires_at: Option<OffsetDateTime>,
    /// What it is for, in the words of who issued it.
    pub description: Option<String>,
}

/// A credential as it is stored.
#[derive(Clone, Debug)]
pub struct StoredCredential {
    /// What was issued.
    pub credential: Credential,
    /// When it was issued.
    pub created_at: OffsetDateTime,
    /// When it was revoked.
    pub revoked_at: Option<OffsetDateTime>,
}
