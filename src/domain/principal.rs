//! Who a caller proved to be.

use super::{CredentialDigest, OrganizationId};

/// What kind of caller a principal is. Rights do not grow along an order of roles; the rights
/// table in `policy` names each role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// A member of one organization.
    User,
    /// Support staff.
    Support,
    /// An administrator.
    Administrator,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 3] = [Self::User, Self::Support, Self::Administrator];

    /// The role's name, as people write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Support => "support",
            Self::Administrator => "administrator",
        }
    }
}

/// Who a caller proved to be, and by which credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// The caller's own name, for logs and records.
    pub subject: String,
    /// What kind of caller.
    pub role: Role,
    /// The organization that a user belongs to.
    pub organization: Option<OrganizationId>,
    /// The credential that proved it; a write checks that it is still valid.
    pub credential: CredentialDigest,
}
