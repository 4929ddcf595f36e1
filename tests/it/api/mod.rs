//! What clients see of both APIs.

mod client_examples;
mod deadlines;
mod examples;
mod grpc;
mod outcomes;
pub mod pages;
pub mod parity;
mod properties;
mod rate_limits;
mod refusals;
mod refusals_of_limits;
mod resources;
