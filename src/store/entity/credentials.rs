//! The table of credentials.

use sea_orm::entity::prelude::*;

use crate::domain;

/// The columns. By their names, as `*` would be others once a later version has added one, and a
/// statement that is kept prepared has those of before.
pub const CREDENTIAL: &str = "digest, kind, subject, role, organization_id, expires_at, \
    revoked_at, description, created_at, last_used_time";

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "credentials")]
pub struct Model {
    /// SHA-256 of the secret.
    #[sea_orm(primary_key, auto_increment = false)]
    pub digest: Vec<u8>,
    /// The name of a [`domain::CredentialKind`].
    pub kind: String,
    pub subject: String,
    /// The name of a [`domain::Role`].
    pub role: String,
    pub organization_id: Option<i64>,
    /// When it ends by itself, in whole seconds.
    pub expires_at: Option<TimeDateTimeWithTimeZone>,
    pub revoked_at: Option<TimeDateTimeWithTimeZone>,
    pub description: Option<String>,
    pub created_at: TimeDateTimeWithTimeZone,
    /// When it was used last, in whole seconds, to about a minute.
    pub last_used_time: Option<TimeDateTimeWithTimeZone>,
}

/// No relation is ever followed.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

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
                kind: model.kind.parse().map_err(|_| corrupt("kind"))?,
                subject: model.subject,
                role: model.role.parse().map_err(|_| corrupt("role"))?,
                organization,
                expires_at: model.expires_at,
                description: model.description,
            },
            created_at: model.created_at,
            revoked_at: model.revoked_at,
            last_used_at: model.last_used_time,
        })
    }
}
