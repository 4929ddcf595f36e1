//! The tables as SeaORM sees them. Nothing outside the store names an entity.

pub(super) mod credentials;
pub(super) mod organizations;
