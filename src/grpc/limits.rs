//! What the gRPC API may spend on a call, and how often callers may call.

use std::{net::IpAddr, sync::Arc, time::Duration};

use crate::{app::watch::Watches, domain::Role, rate_limit::RateLimit};

#[derive(Clone, Debug)]
pub struct CallLimits {
    /// The time of a call whose caller brings no deadline, and the longest that one may bring.
    pub deadline: Duration,
    pub message_bytes_max: usize,
    /// How often calls may come from one source; none where a gateway in the same process counts.
    pub sources: Option<Arc<RateLimit<IpAddr>>>,
    pub principals: PrincipalLimits,
    pub watches: Watches,
}

#[derive(Clone, Debug, Default)]
pub struct PrincipalLimits {
    pub user: Option<Arc<RateLimit<Arc<str>>>>,
    pub support: Option<Arc<RateLimit<Arc<str>>>>,
    pub administrator: Option<Arc<RateLimit<Arc<str>>>>,
}

impl PrincipalLimits {
    pub(super) fn of(&self, role: Role) -> Option<&RateLimit<Arc<str>>> {
        let limit = match role {
            Role::User => &self.user,
            Role::Support => &self.support,
            Role::Administrator => &self.administrator,
        };
        limit.as_deref()
    }

    /// Forgets callers who have all their calls again.
    pub fn forget_quiet(&self) {
        for limit in [&self.user, &self.support, &self.administrator].into_iter().flatten() {
            limit.forget_quiet();
        }
    }
}
