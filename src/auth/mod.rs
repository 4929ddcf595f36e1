//! Who a caller is: secrets and their forms, the Authorization header, and the look-up.
//!
//! What a principal may do is not decided here.

mod authenticate;
#[doc(hidden)] // Public for the fuzzing.
pub mod header;
mod secret;

pub use authenticate::Authenticator;
pub use secret::Secret;
