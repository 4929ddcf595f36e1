//! The roles that callers have. What each may do is in `policy`.

use std::str::FromStr;

/// What kind of caller a principal is. Rights do not grow along an order of roles; the rights
/// table in `policy` names each role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// A member of one organization.
    User,
    Support,
    Administrator,
}

impl Role {
    pub const ALL: [Self; 3] = [Self::User, Self::Support, Self::Administrator];

    /// The role's name, as people write it and as it is stored.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Support => "support",
            Self::Administrator => "administrator",
        }
    }
}

impl FromStr for Role {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|role| role.as_str() == name).ok_or("no role has this name")
    }
}
