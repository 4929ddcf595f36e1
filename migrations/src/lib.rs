//! The schema of orgd: one numbered, idempotent DDL statement each, for SQLite and PostgreSQL.
//!
//! Append-only: a step that has been released is never edited. Several instances may migrate at
//! once; [`Migrator::up`] holds a lease, which sea-orm-migration does not do by itself.

#![forbid(unsafe_code)]

mod lease;
mod m20261123_000001_create_organizations;
mod m20261123_000002_create_credentials;
mod m20261123_000003_create_organization_changes;
mod m20261123_000004_index_organization_changes_idempotency;

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

/// The steps that a database has and this version does not know, because a later one applied them.
/// Writes nothing.
pub async fn unknown_steps(db: &DatabaseConnection) -> Result<Vec<String>, DbErr> {
    if !SchemaManager::new(db).has_table("seaql_migrations").await? {
        return Ok(Vec::new());
    }
    let known: Vec<_> = Migrator::migrations().iter().map(|step| step.name().to_owned()).collect();
    let applied = seaql_migrations::Entity::find().all(db).await?;
    let applied = applied.into_iter().map(|step| step.version);
    Ok(applied.filter(|step| !known.contains(step)).collect())
}

/// The same steps as sea-orm-migration applies them, without the lease.
struct Unleased;

#[async_trait::async_trait]
impl MigratorTrait for Unleased {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        Migrator::migrations()
    }
}
