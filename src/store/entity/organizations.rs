//! The table of organizations.

use sea_orm::entity::prelude::*;

use crate::domain::{Error, Etag, Field, Fields, Organization, OrganizationId};

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "organizations")]
pub struct Model {
    /// As [`OrganizationId`] has it.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: i64,
    pub name: String,
    pub subscription_id: Option<String>,
    pub handshake: Option<String>,
    /// The version at which the handshake changed last, 0 before it had one.
    pub handshake_version: i64,
    /// 1 when created, one more with each change.
    pub version: i64,
    pub date_created: TimeDateTimeWithTimeZone,
    pub date_modified: TimeDateTimeWithTimeZone,
}

/// No relation is ever followed.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

impl Model {
    /// The value of a field; and the version at which it changed last, where the change log keeps no
    /// values of the field.
    pub fn field(&self, field: Field) -> (Option<&String>, Option<i64>) {
        match field {
            Field::Name => (Some(&self.name), None),
            Field::SubscriptionId => (self.subscription_id.as_ref(), None),
            Field::Handshake => (self.handshake.as_ref(), Some(self.handshake_version)),
        }
    }
}

impl TryFrom<Model> for Organization {
    type Error = Error;

    fn try_from(model: Model) -> Result<Self, Error> {
        Ok(Self {
            id: OrganizationId::new(model.id)
                .ok_or_else(|| Error::Internal(format!("stored id {}", model.id).into()))?,
            values: Fields::from_fn(|field| model.field(field).0.cloned()),
            date_created: model.date_created,
            date_modified: model.date_modified,
            etag: Etag::from_version(model.version),
        })
    }
}
