//! The schema of orgd: numbered steps for SQLite and PostgreSQL. Each can be run again wherever it was cut.
//!
//! Append-only: a released step is never edited, and one that removes something says so by its name ([`works_with`]).
//! Several instances may migrate at once, under the lease of [`Migrator::up`].

#![forbid(unsafe_code)]

mod lease;
mod m20261123_000001_create_organizations;
mod m20261123_000002_create_credentials;
mod m20261123_000003_create_organization_changes;
mod m20261123_000004_index_organization_changes_idempotency;
mod m20261126_000005_create_organization_ids;
mod m20261127_000006_add_credentials_last_used_time;
mod refusal;

use std::time::Duration;

pub use sea_orm_migration::{Migration, MigrationStatus, MigratorTrait};
use sea_orm_migration::{
    prelude::*,
    sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, EntityTrait, Statement},
    seaql_migrations,
};
use tokio::time::sleep;

use self::refusal::is_lost_to_another;

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
            Box::new(m20261127_000006_add_credentials_last_used_time::Migration),
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
        lease::while_held(&db, apply(&db, steps)).await
    }
}

/// How long a step that lost to another transaction rests before it is tried again.
const STEP_REST: Duration = Duration::from_secs(1);

/// A step waits for its lock only as long as `lock_timeout` says, and then asks again after a rest: all
/// other work on the table waits behind it meanwhile.
async fn apply(db: &SchemaManagerConnection<'_>, steps: Option<u32>) -> Result<(), DbErr> {
    let mut left = steps.unwrap_or(u32::MAX);
    let mut is_told = false;
    while left > 0 {
        match apply_next(db).await {
            Ok(true) => left -= 1,
            Ok(false) => break,
            Err(error) if is_lost_to_another(&error) => {
                if !is_told {
                    tracing::warn!(
                        "a step of the schema waits for a transaction that is in its way; it is \
                         tried again every second"
                    );
                    is_told = true;
                }
                sleep(STEP_REST).await;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Whether there was a step to apply.
async fn apply_next(db: &SchemaManagerConnection<'_>) -> Result<bool, DbErr> {
    if Migrator::get_pending_migrations_read_only(db).await?.is_empty() {
        return Ok(false);
    }
    Unleased::up::<SchemaManagerConnection<'_>>(borrowed(db), Some(1)).await?;
    Ok(true)
}

fn borrowed<'a>(db: &'a SchemaManagerConnection<'_>) -> SchemaManagerConnection<'a> {
    match db {
        SchemaManagerConnection::Connection(connection) => (*connection).into(),
        SchemaManagerConnection::Transaction(transaction) => (*transaction).into(),
        SchemaManagerConnection::OwnedTransaction(transaction) => transaction.into(),
    }
}

#[must_use]
pub fn known_steps() -> Vec<String> {
    Migrator::migrations().iter().map(|step| step.name().to_owned()).collect()
}

/// The steps that a database has, in the order of their names. Writes nothing.
pub async fn applied_steps(db: &DatabaseConnection) -> Result<Vec<String>, DbErr> {
    if !SchemaManager::new(db).has_table("seaql_migrations").await? && !is_hidden(db).await? {
        return Ok(Vec::new());
    }
    let applied = seaql_migrations::Entity::find().all(db).await?;
    let mut applied: Vec<_> = applied.into_iter().map(|step| step.version).collect();
    applied.sort();
    Ok(applied)
}

/// Whether the table of steps is there and this role has no right to it: the question of
/// sea-orm-migration, to `information_schema`, finds only what a role may use.
async fn is_hidden(db: &DatabaseConnection) -> Result<bool, DbErr> {
    if db.get_database_backend() != DbBackend::Postgres {
        return Ok(false);
    }
    let seen = "SELECT relname FROM pg_catalog.pg_class \
        WHERE relname = 'seaql_migrations' AND pg_catalog.pg_table_is_visible(oid)";
    let seen = Statement::from_string(DbBackend::Postgres, seen);
    Ok(!db.query_all_raw(seen).await?.is_empty())
}

/// Whether this version works on a database with a later version's step. Steps are additive, except those
/// named `…_needs_<number>`: versions that do not know that step cannot do without what they remove.
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
