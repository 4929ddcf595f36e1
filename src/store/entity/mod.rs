//! The tables as SeaORM sees them. Nothing outside the store names an entity.

#![allow(unreachable_pub, reason = "SeaORM's derives make public items")]

pub(super) const ORGANIZATIONS: &str = "organizations";

pub(super) mod credentials;
pub(super) mod organization_changes;
pub(super) mod organizations;
