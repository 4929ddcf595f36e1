//! The change log.

use sea_orm::entity::prelude::*;

use crate::domain::Field;

/// What an organization was at one version, and who made it so.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "organization_changes")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub organization_id: i64,
    /// The version that the change made.
    #[sea_orm(primary_key, auto_increment = false)]
    pub version: i64,
    pub date: TimeDateTimeWithTimeZone,
    pub subject: String,
    /// What kind of caller that was, by its name.
    pub role: String,
    pub request_id: String,
    /// The name at this version.
    pub name: String,
    /// The subscription at this version.
    pub subscription_id: Option<String>,
    /// The version at which the handshake had changed last.
    pub handshake_version: i64,
    /// The caller's key for the request.
    pub idempotency_key: Option<String>,
    /// SHA-256 of what the request asked, without the values that the log does not keep.
    pub request_digest: Option<Vec<u8>>,
}

/// No relation is ever followed.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

impl Model {
    /// The value of a field at this version; or, where the log keeps no values of the field, the
    /// version at which it had changed last.
    pub fn field(&self, field: Field) -> (Option<&String>, Option<i64>) {
        match field {
            Field::Name => (Some(&self.name), None),
            Field::SubscriptionId => (self.subscription_id.as_ref(), None),
            Field::Handshake => (None, Some(self.handshake_version)),
        }
    }
}
