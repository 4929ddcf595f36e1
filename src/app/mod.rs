//! The use cases: one function each, which reads like its sentence. Here is the order of things:
//! authorize, validate, decide, write.
//!
//! Architecture invariant: no wire and no SQL; every door calls these functions.

mod audit;
pub mod credentials;
mod followed;
mod idempotency;
pub mod organizations;
pub mod watch;
