//! One file a resource: from a request to a call and back.

pub(super) mod incoming;
pub(super) mod organizations;
pub(super) mod watch;
pub(super) mod whoami;
