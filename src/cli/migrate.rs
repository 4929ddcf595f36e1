//! `orgd migrate`: the database's schema.

use anyhow::Result;
use clap::{Args, ValueEnum};
use serde_json::json;

use super::{
    database::{StoreArgs, connect, existing, open},
    output,
};
use crate::store::{MigrationStep, Store};

#[derive(Args, Debug)]
pub(super) struct MigrateArgs {
    /// What to do
    #[arg(value_enum, default_value_t = Action::Up)]
    action: Action,
    #[command(flatten)]
    store: StoreArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Action {
    /// Apply every step that the database does not have
    Up,
    /// Show every step and whether the database has it; writes nothing
    Status,
}

pub(super) async fn run(args: MigrateArgs) -> Result<()> {
    let store: Store = match args.action {
        Action::Up => open(&args.store.database).await?,
        Action::Status => connect(&args.store.database, existing()).await?,
    };
    let steps = store.migration_steps().await?;
    let value = |step: &MigrationStep| json!({"name": step.name, "applied": step.applied, "known": step.known});
    let value: Vec<_> = steps.iter().map(value).collect();
    output::value(args.store.json, &value.into(), || {
        let state = |step: &MigrationStep| match (step.applied, step.known) {
            (true, true) => "applied",
            (true, false) => "applied by a later version",
            (false, _) => "pending",
        };
        let row = |step: &MigrationStep| vec![step.name.clone(), state(step).to_owned()];
        let rows: Vec<_> = steps.iter().map(row).collect();
        output::table(&["STEP", "STATE"], &rows)
    })?;
    Ok(store.close().await?)
}
