//! The schema: brought up to date under a lease, and its state.

use orgd_migrations::{Migrator, MigratorTrait};
use sea_orm::DbErr;

use super::Store;

/// A step of the schema.
#[derive(Clone, Debug)]
pub struct MigrationStep {
    /// The step's name, which begins with its date and number.
    pub name: String,
    /// Whether the database has it.
    pub applied: bool,
}

impl Store {
    /// Applies every step that the database does not have, whoever else does so at the same time.
    /// Fails where the database has a step that this version does not know.
    pub async fn migrate(&self) -> Result<(), DbErr> {
        Migrator::up(&self.writer, None).await
    }

    /// Every step in order, and whether the database has it; writes nothing.
    pub async fn migration_steps(&self) -> Result<Vec<MigrationStep>, DbErr> {
        use orgd_migrations::MigrationStatus;

        let steps = Migrator::get_migration_with_status_read_only(&self.reader).await?;
        let step = |step: &orgd_migrations::Migration| MigrationStep {
            name: step.name().to_owned(),
            applied: step.status() == MigrationStatus::Applied,
        };
        Ok(steps.iter().map(step).collect())
    }
}
