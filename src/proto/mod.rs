//! What both ends of the wire share: the generated code, its descriptor set, and the grammar of the
//! metadata that travels beside a message. No behaviour of either end.

pub mod request_id;
pub mod rights;
pub mod timeout;

/// The package `organization.v1`: messages, client and server.
#[expect(
    unused_qualifications,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    clippy::as_conversions,
    reason = "generated code"
)]
pub mod v1 {
    tonic::include_proto!("organization.v1");
}

/// The descriptor set of `proto/`, custom options and comments included.
pub const FILE_DESCRIPTOR_SET: &[u8] =
    tonic::include_file_descriptor_set!("organization_descriptor");

/// The metadata key with which a `WhoAmI` costs its caller one call of the rate limit.
pub const COUNTED: &str = "orgd-counted";

/// A role as REST and the command line spell it.
#[must_use]
pub fn role_name(role: v1::Role) -> String {
    role.as_str_name().trim_start_matches("ROLE_").to_ascii_lowercase()
}

/// The `domain` of every ErrorInfo: whose reasons they are (AIP-193).
pub const ERROR_DOMAIN: &str = "orgd";
