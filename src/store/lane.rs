//! A way to the database on which one batch is done at a time, and its dialects.

use sea_orm::{DatabaseConnection, DbErr};

use super::{
    entity::{credentials, organizations},
    postgres::{self, Kept},
    sqlite,
    update::Asked,
};
use crate::domain::{CredentialDigest, OrganizationId};

pub(super) enum Lane {
    /// A connection of the lane's own.
    Postgres(Kept),
    /// A pool, for whose connection the lane waits as others do.
    Sqlite(DatabaseConnection),
}

impl Lane {
    /// Updates a batch, which has each organization once, and records the changes; all of it or
    /// nothing. Answers the rows that were touched.
    pub(super) async fn update(
        &mut self,
        rows: &[&Asked],
    ) -> Result<Vec<organizations::Model>, DbErr> {
        match self {
            Self::Postgres(kept) => {
                kept.run(async |connection| postgres::update(connection, rows).await).await
            }
            Self::Sqlite(pool) => sqlite::update(pool, rows).await,
        }
    }

    /// The organizations that have these ids.
    pub(super) async fn organizations(
        &mut self,
        ids: &[OrganizationId],
    ) -> Result<Vec<organizations::Model>, DbErr> {
        match self {
            Self::Postgres(kept) => {
                kept.run(async |connection| postgres::organizations(connection, ids).await).await
            }
            Self::Sqlite(pool) => sqlite::organizations(pool, ids).await,
        }
    }

    /// The credentials that have these digests.
    pub(super) async fn credentials(
        &mut self,
        digests: &[CredentialDigest],
    ) -> Result<Vec<credentials::Model>, DbErr> {
        match self {
            Self::Postgres(kept) => {
                kept.run(async |connection| postgres::credentials(connection, digests).await).await
            }
            Self::Sqlite(pool) => sqlite::credentials(pool, digests).await,
        }
    }
}
