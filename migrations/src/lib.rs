//! The schema of orgd: one numbered, idempotent DDL statement each, for SQLite and PostgreSQL.
//!
//! Append-only: a step that has been released is never edited, and one that takes something away says
//! so by its name ([`works_with`]). Several instances may migrate at
//! once; [`Migrator::up`] holds a lease, which sea-orm-migration does not do by itself.

#![forbid(unsafe_code)]

mod lease;
mod m20261123_000001_create_organizations;
mod m20261123_000002_create_credentials;
mod m20261123_000003_create_organization_changes;
mod m20261123_000004_index_organization_changes_idempotency;
mod m20261126_000005_create_organization_ids;

pub use sea_orm_migration::{Migration, MigrationStatus, MigratorTrait};
use sea_orm_migration::{
    prelude::*,
    sea_orm::{DatabaseConnection, EntityTrait},
    seaql_migrations,
};

/// Brings a database to the schema of this version, whoever else tries to at the same time.
pub struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m20261123_000001_create_organizations::Migration),
            Box::new(m20261123_000002_create_credentials::Migration),
            Box::new(m20261123_000003_create_organization_changes::Migration),
            Box::new(m20261123_000004_index_organization_changes_idempotency::Migration),
            Box::new(m20261126_000005_create_organization_ids::Migration),
        ]
    }

    async fn up<'c, C>(db: C, steps: Option<u32>) -> Result<(), DbErr>
    where
        C: IntoSchemaManagerConnection<'c>,
    {
        let db = db.into_database_executor();
        if Self::get_pending_migrations_read_only(&db).await?.is_empty() {
            return Ok(());
        }
        let borrowed = match &db {
            SchemaManagerConnection::Connection(connection) => (*connection).into(),
            SchemaManagerConnection::Transaction(transaction) => (*transaction).into(),
            SchemaManagerConnection::OwnedTransaction(transaction) => transaction.into(),
        };
        lease::while_held(&db, Unleased::up::<SchemaManagerConnection<'_>>(borrowed, steps)).await
    }
}

/// The steps of this version, in order.
#[must_use]
pub fn known_steps() -> Vec<String> {
    Migrator::migrations().iter().map(|step| step.name().to_owned()).collect()
}

/// The steps that a database has, in the order of their names. Writes nothing.
pub async fn applied_steps(db: &DatabaseConnection) -> Result<Vec<String>, DbErr> {
    if !SchemaManager::new(db).has_table("seaql_migrations").await? {
        return Ok(Vec::new());
    }
    let applied = seaql_migrations::Entity::find().all(db).await?;
    let mut applied: Vec<_> = applied.into_iter().map(|step| step.version).collect();
    applied.sort();
    Ok(applied)
}

/// Whether this version works on a database that has a step of a later version. It does, as steps only
/// add, but for those whose names end in `_needs_` and the number of a step: they take away what is
/// used by versions that do not know that step.
#[must_use]
pub fn works_with(step: &str) -> bool {
    step.rsplit_once("_needs_").is_none_or(|(_, needed)| {
        known_steps().iter().any(|known| known.split('_').nth(1) == Some(needed))
    })
}

/// The same steps as sea-orm-migration applies them, without the lease.
struct Unleased;

#[async_trait::async_trait]
impl MigratorTrait for Unleased {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        Migrator::migrations()
    }
}
