//! The schema: brought up to date under a lease, and its state.

use orgd_migrations::{Migrator, MigratorTrait, applied_steps, known_steps, works_with};
use sea_orm::{ConnectOptions, DatabaseConnection, DbErr, sqlx};

use super::sql::sqlite::{STARTUP_LOCK_TIMEOUT, connect_when_free, durable};

/// How long a step waits for its lock before it lets those pass that wait behind it: less than the
/// `lock_timeout` of the workers. It may run for as long as it takes, whatever the role is set to.
const BRIEF_LOCKS: &str = "SET statement_timeout = 0; SET lock_timeout = '100ms'";

#[derive(Clone, Debug)]
pub struct MigrationStep {
    /// The step's name, which begins with its date and number.
    pub name: String,
    pub applied: bool,
    /// Whether this version has it; else a later version has applied it.
    pub known: bool,
}

/// Applies every step that the database does not have.
pub(super) async fn up(mut options: ConnectOptions) -> Result<(), DbErr> {
    options
        // Two, so that the lease is renewed while a step runs.
        .max_connections(2)
        .map_sqlx_sqlite_opts(|sqlite| durable(sqlite, STARTUP_LOCK_TIMEOUT))
        .map_sqlx_postgres_pool_opts(|pool| {
            pool.after_connect(|connection, _| {
                let brief = sqlx::raw_sql(BRIEF_LOCKS).execute(connection);
                Box::pin(async { brief.await.map(drop) })
            })
        });
    let connection = connect_when_free(options).await?;
    let steps = steps(&applied_steps(&connection).await?);
    if steps.iter().all(|step| step.known) {
        Migrator::up(&connection, None).await?;
    } else {
        check_newer(&steps)?;
    }
    connection.close().await
}

/// Every step in order, those of later versions last, and whether a database has it; writes nothing.
pub(super) async fn find(database: &DatabaseConnection) -> Result<Vec<MigrationStep>, DbErr> {
    Ok(steps(&applied_steps(database).await?))
}

/// Fails where this version cannot work with a schema that has these steps.
pub(super) fn check(steps: &[MigrationStep]) -> Result<(), DbErr> {
    if steps.iter().any(|step| !step.known) {
        return check_newer(steps);
    }
    if steps.iter().all(|step| step.applied) {
        return Ok(());
    }
    let text = "the database lacks steps of the schema; `orgd migrate` applies them";
    Err(DbErr::Migration(text.to_owned()))
}

fn steps(applied: &[String]) -> Vec<MigrationStep> {
    let ours = known_steps();
    let later = applied.iter().filter(|name| !ours.contains(name)).cloned();
    let later: Vec<_> =
        later.map(|name| MigrationStep { name, applied: true, known: false }).collect();
    let step = |name: String| MigrationStep { applied: applied.contains(&name), name, known: true };
    ours.into_iter().map(step).chain(later).collect()
}

/// Whether this version works on a database that a later one has migrated.
fn check_newer(steps: &[MigrationStep]) -> Result<(), DbErr> {
    let named = |is_named: fn(&MigrationStep) -> bool| {
        let names = steps.iter().filter(|step| is_named(step)).map(|step| step.name.as_str());
        names.collect::<Vec<_>>().join(", ")
    };
    let refused = named(|step| {
        let lacks_ours = step.known && !step.applied;
        lacks_ours || !step.known && !works_with(&step.name)
    });
    if refused.is_empty() {
        let steps = named(|step| !step.known);
        tracing::info!(
            steps,
            "the database's schema is of a later version, which this one can use"
        );
        return Ok(());
    }
    Err(DbErr::Migration(format!(
        "the database is newer than this version of orgd, which cannot work with it: see the steps \
         {refused}. Start the version that applied them, or restore a backup from before them"
    )))
}
