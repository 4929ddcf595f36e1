//! The schema: brought up to date under a lease, and its state.

use orgd_migrations::{Migrator, MigratorTrait, unknown_steps};
use sea_orm::{DatabaseConnection, DbErr};
use secrecy::SecretString;

use super::{STARTUP_LOCK_TIMEOUT, Store, StoreOptions, connect_when_free, durable};

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
    ///
    /// Over connections of its own, without the time limits of calls: an index on a large table takes
    /// its time. Two of them, so that the lease is renewed while a step runs.
    pub async fn migrate(url: &SecretString) -> Result<(), DbErr> {
        let mut options = Self::options(url, &StoreOptions::default())?;
        options
            .max_connections(2)
            .map_sqlx_sqlite_opts(|sqlite| durable(sqlite, STARTUP_LOCK_TIMEOUT));
        let connection = connect_when_free(options).await?;
        refuse_newer(&connection).await?;
        Migrator::up(&connection, None).await?;
        connection.close().await
    }

    /// Every step in order, and whether the database has it; writes nothing.
    pub async fn migration_steps(&self) -> Result<Vec<MigrationStep>, DbErr> {
        use orgd_migrations::MigrationStatus;

        refuse_newer(&self.reader).await?;
        let steps = Migrator::get_migration_with_status_read_only(&self.reader).await?;
        let step = |step: &orgd_migrations::Migration| MigrationStep {
            name: step.name().to_owned(),
            applied: step.status() == MigrationStatus::Applied,
        };
        Ok(steps.iter().map(step).collect())
    }
}

/// What a later version's steps mean, this version cannot know.
async fn refuse_newer(connection: &DatabaseConnection) -> Result<(), DbErr> {
    let unknown = unknown_steps(connection).await?;
    if unknown.is_empty() {
        return Ok(());
    }
    Err(DbErr::Migration(format!(
        "the database is newer than this version of orgd: it has steps that this version does not \
         know ({}). Start the version that applied them, or restore a backup from before them",
        unknown.join(", ")
    )))
}
