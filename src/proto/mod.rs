//! What both ends of the wire share: the generated code, and the grammar of metadata. No behaviour.

pub mod code;
pub mod request_id;
pub mod rights;
pub mod timeout;

use futures_util::stream::BoxStream;
use tonic::Status;

use crate::domain::fields::Field;

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

/// The changes that `Watch` sends, heartbeats among them. It ends by an error that says when to come back.
pub type ChangeStream = BoxStream<'static, Result<v1::Change, Status>>;

impl v1::Role {
    #[must_use]
    pub fn name(self) -> String {
        self.as_str_name().trim_start_matches("ROLE_").to_ascii_lowercase()
    }
}

impl v1::Organization {
    /// Where the message has this field: the one place that binds the table of fields to the message.
    pub fn text_mut(&mut self, field: Field) -> &mut Option<String> {
        match field {
            Field::Name => &mut self.name,
            Field::SubscriptionId => &mut self.subscription_id,
            Field::Handshake => &mut self.handshake,
        }
    }
}

/// The descriptor set of `proto/`, custom options and comments included.
pub const FILE_DESCRIPTOR_SET: &[u8] =
    tonic::include_file_descriptor_set!("organization_descriptor");

/// The metadata key with which a `WhoAmI` costs its caller one call of the rate limit.
pub const COUNTED: &str = "orgd-counted";

/// The `domain` of every ErrorInfo: whose reasons they are (AIP-193).
pub const ERROR_DOMAIN: &str = "orgd";
