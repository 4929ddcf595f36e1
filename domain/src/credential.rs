//! What a credential is, apart from its secret: the store knows the digest only.

use std::{fmt, str::FromStr};

use time::OffsetDateTime;

use super::{OrganizationId, Role};

/// The SHA-256 digest of a credential's secret, which stands for the credential wherever the secret
/// must not be.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CredentialDigest(pub [u8; 32]);

/// Enough of an id to tell a company's credentials apart.
pub const SHORT_ID_LETTERS: usize = 12;

fn hexadecimal(bytes: &[u8]) -> String {
    let digit = |half| char::from_digit(u32::from(half), 16);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 0xf)]).flatten().collect()
}

impl CredentialDigest {
    /// The id of the credential, by which people name it: the hexadecimal digits of the digest.
    #[must_use]
    pub fn id(&self) -> String {
        hexadecimal(&self.0)
    }

    /// The start of the id, as people see it.
    #[must_use]
    pub fn short_id(&self) -> String {
        hexadecimal(self.0.get(..SHORT_ID_LETTERS / 2).unwrap_or_default())
    }
}

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
    pub const ALL: [Self; 2] = [Self::Bearer, Self::ApiKey];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bearer => "bearer",
            Self::ApiKey => "api-key",
        }
    }
}

impl FromStr for CredentialKind {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name).ok_or("no kind has this name")
    }
}

/// Whether a credential holds, and why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialState {
    Valid,
    /// It has ended by itself.
    Expired,
    Revoked,
}

impl CredentialState {
    /// The state at a time. Statements decide the same in the database (`holds` of the store's
    /// predicates).
    #[must_use]
    pub fn at(
        now: OffsetDateTime,
        expires_at: Option<OffsetDateTime>,
        revoked_at: Option<OffsetDateTime>,
    ) -> Self {
        if revoked_at.is_some() {
            Self::Revoked
        } else if expires_at.is_some_and(|end| end <= now) {
            Self::Expired
        } else {
            Self::Valid
        }
    }

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }
}

/// A credential as it is issued: everything but its end.
#[derive(Clone, Debug)]
pub struct Credential {
    pub digest: CredentialDigest,
    pub kind: CredentialKind,
    pub subject: String,
    pub role: Role,
    /// The organization that a user belongs to; none for the other roles.
    pub organization: Option<OrganizationId>,
    /// When it ends by itself, in whole seconds.
    pub expires_at: Option<OffsetDateTime>,
    pub description: Option<String>,
}

#[derive(Clone, Debug)]
pub struct StoredCredential {
    pub credential: Credential,
    pub created_at: OffsetDateTime,
    pub revoked_at: Option<OffsetDateTime>,
    /// To about a minute; none: never.
    pub last_used_at: Option<OffsetDateTime>,
}

impl StoredCredential {
    #[must_use]
    pub fn state(&self, now: OffsetDateTime) -> CredentialState {
        CredentialState::at(now, self.credential.expires_at, self.revoked_at)
    }
}

#[cfg(test)]
mod tests {
    use time::{Duration, OffsetDateTime};

    use super::CredentialState::{self, Expired, Revoked, Valid};

    #[test]
    fn a_credential_holds_until_its_end_or_its_revocation() {
        let now = OffsetDateTime::UNIX_EPOCH;
        let in_seconds = |seconds| now + Duration::seconds(seconds);
        for (expires, revoked, expected) in [
            (None, None, Valid),
            (Some(1), None, Valid),
            (Some(0), None, Expired),
            (Some(-1), None, Expired),
            (None, Some(-1), Revoked),
            // By another instance, whose clock is ahead.
            (None, Some(1), Revoked),
            (Some(-1), Some(-2), Revoked),
        ] {
            let [expires_at, revoked_at] = [expires, revoked].map(|at| at.map(in_seconds));
            assert_eq!(CredentialState::at(now, expires_at, revoked_at), expected);
        }
    }
}
