//! The table of credentials.

use sea_orm::entity::prelude::*;

use crate::domain;

/// A stored credential.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "credentials")]
pub struct Model {
    /// SHA-256 of the secret.
    #[sea_orm(primary_key, auto_increment = false)]
    pub digest: Vec<u8>,
    /// The secret's form.
    pub kind: Kind,
    /// The holder's own name.
    pub subject: String,
    /// What kind of caller the holder is.
    pub role: Role,
    /// The organization that a user belongs to.
    pub organization_id: Option<i64>,
    /// When it ends by itself, in whole seconds.
    pub expires_at: Option<TimeDateTimeWithTimeZone>,
    /// When it was revoked.
    pub revoked_at: Option<TimeDateTimeWithTimeZone>,
    /// What it is for.
    pub description: Option<String>,
    /// When it was issued.
    pub created_at: TimeDateTimeWithTimeZone,
}

/// No relation is ever followed.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

/// [`domain::CredentialKind`] as a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, DeriveActiveEnum)]
#[sea_orm(rs_type = "String", db_type = "Text")]
pub enum Kind {
    /// A lower-case UUID version 4.
    #[sea_orm(string_value = "bearer")]
    Bearer,
    /// A prefix, random characters and a checksum.
    #[sea_orm(string_value = "api-key")]
    ApiKey,
}

/// [`domain::Role`] as a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, DeriveActiveEnum)]
#[sea_orm(rs_type = "String", db_type = "Text")]
pub enum Role {
    /// A member of one organization.
    #[sea_orm(string_value = "user")]
    User,
    /// Support staff.
    #[sea_orm(string_value = "support")]
    Support,
    /// An administrator.
    #[sea_orm(string_value = "administrator")]
    Administrator,
}

impl From<domain::CredentialKind> for Kind {
    fn from(kind: domain::CredentialKind) -> Self {
        match kind {
            domain::CredentialKind::Bearer => Self::Bearer,
            domain::CredentialKind::ApiKey => Self::ApiKey,
        }
    }
}

impl From<Kind> for domain::CredentialKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Bearer => Self::Bearer,
            Kind::ApiKey => Self::ApiKey,
        }
    }
}

impl From<domain::Role> for Role {
    fn from(role: domain::Role) -> Self {
        match role {
            domain::Role::User => Self::User,
            domain::Role::Support => Self::Support,
            domain::Role::Administrator => Self::Administrator,
        }
    }
}

impl From<Role> for domain::Role {
    fn from(role: Role) -> Self {
        match role {
            Role::User => Self::User,
            Role::Support => Self::Support,
            Role::Administrator => Self::Administrator,
        }
    }
}

impl TryFrom<Model> for domain::StoredCredential {
    type Error = domain::Error;

    fn try_from(model: Model) -> Result<Self, domain::Error> {
        let corrupt = |what: &str| domain::Error::Internal(format!("stored {what}").into());
        let digest = model.digest.try_into().map_err(|_| corrupt("digest"))?;
        let organization = model
            .organization_id
            .map(|id| domain::OrganizationId::new(id).ok_or_else(|| corrupt("organization_id")))
            .transpose()?;
        Ok(Self {
            credential: domain::Credential {
                digest: domain::CredentialDigest(digest),
                kind: model.kind.into(),
                subject: model.subject,
                role: model.role.into(),
                organization,
                expires_at: model.expires_at,
                description: model.description,
            },
            created_at: model.created_at,
            revoked_at: model.revoked_at,
        })
    }
}
