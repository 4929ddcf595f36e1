//! Who a caller is. What it may do is not decided here.

mod authenticate;
#[doc(hidden)] // Public for the fuzzing.
pub mod header;
mod secret;

pub use authenticate::Authenticator;
pub use secret::Secret;
