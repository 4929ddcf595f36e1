//! The table of organizations.

use sea_orm::entity::prelude::*;

use crate::domain::{Error, Etag, Organization, OrganizationId};

/// A stored organization.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "organizations")]
pub struct Model {
    /// From 1 to 2^53-1.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: i64,
    /// The display name.
    pub name: String,
    /// The subscription, where there is one.
    pub subscription_id: Option<String>,
    /// The handshake, where there is one.
    pub handshake: Option<String>,
    /// The version at which the handshake changed last, 0 before it had one.
    pub handshake_version: i64,
    /// 1 when created, one more with each change.
    pub version: i64,
    /// When the row was stored first.
    pub date_created: TimeDateTimeWithTimeZone,
    /// When a field changed last.
    pub date_modified: TimeDateTimeWithTimeZone,
}

/// No relation is ever followed.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

impl TryFrom<Model> for Organization {
    type Error = Error;

    fn try_from(model: Model) -> Result<Self, Error> {
        Ok(Self {
            id: OrganizationId::new(model.id)
                .ok_or_else(|| Error::Internal(format!("stored id {}", model.id).into()))?,
            name: model.name,
            subscription_id: model.subscription_id,
            handshake: model.handshake,
            date_created: model.date_created,
            date_modified: model.date_modified,
            etag: Etag::from_version(model.version),
        })
    }
}
