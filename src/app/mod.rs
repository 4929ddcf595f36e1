//! The use cases, which both APIs call: authorize, validate, decide, write. No wire and no SQL.

mod audit;
pub mod credentials;
mod followed;
mod idempotency;
pub mod organizations;
pub mod watch;
