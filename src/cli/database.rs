//! The database, for the commands that work on it.

use std::path::{self, Path};

use anyhow::{Context, Result};
use clap::Args;
use uuid::Uuid;

use super::output;
use crate::{
    config::{DatabaseArgs, PoolArgs},
    domain::{Call, OrganizationId, Principal},
    store::{Place, Store, StoreOptions},
};

/// Which database, and how to print what is in it.
#[derive(Args, Debug)]
pub(super) struct StoreArgs {
    #[command(flatten)]
    pub(super) database: DatabaseArgs,
    /// Print JSON, one value: a list is one array
    #[arg(long, help_heading = None)]
    pub(super) json: bool,
}

pub(super) fn organization_id(text: &str) -> Result<OrganizationId, String> {
    let id = text.parse().ok().and_then(OrganizationId::new);
    id.ok_or_else(|| format!("an id is a number from 1 to {}", OrganizationId::MAX))
}

pub(super) fn operator_call() -> Call {
    Call {
        principal: Principal::operator().into(),
        request_id: Uuid::now_v7().to_string(),
        idempotency_key: None,
        validate_only: false,
    }
}

pub(super) async fn connect(database: &DatabaseArgs, options: StoreOptions) -> Result<Store> {
    let store = Store::connect(&database.url()?, options).await;
    store.context("cannot connect to the database")
}

/// The database with its schema up to date, for a command that does one thing.
pub(super) async fn open(database: &DatabaseArgs) -> Result<Store> {
    up_to_date(database, StoreOptions::default()).await
}

/// The same for a command that stores something. A new file of SQLite is told of: where a service runs, it is
/// probably over another.
pub(super) async fn open_to_store(database: &DatabaseArgs) -> Result<Store> {
    let file = Place::of(&database.url()?).and_then(|place| place.file);
    let missing = file.filter(|file| !Path::new(file).exists());
    let store = open(database).await?;
    if let Some(file) = missing {
        let file = path::absolute(file)?.display().to_string();
        output::note(&format!(
            "There was no database: {file} is new. A service over another database does not know what is in it."
        ));
    }
    Ok(store)
}

/// For a command that changes what there is: it creates no database.
pub(super) async fn open_to_change(database: &DatabaseArgs) -> Result<Store> {
    up_to_date(database, existing()).await
}

/// For a command that reads: it neither creates a database nor changes its schema.
pub(super) async fn open_to_read(database: &DatabaseArgs) -> Result<Store> {
    let store = connect(database, existing()).await?;
    store.check_schema().await.context("cannot read the database")?;
    Ok(store)
}

pub(super) fn existing() -> StoreOptions {
    StoreOptions { creates: false, ..StoreOptions::default() }
}

/// The database with its schema up to date, for a service.
pub(super) async fn open_for_many(database: &DatabaseArgs, pool: &PoolArgs) -> Result<Store> {
    let options = StoreOptions {
        connections_max: pool.database_connections,
        acquire_timeout: pool.database_acquire_timeout.0,
        lock_timeout: pool.database_lock_timeout.0,
        statement_timeout: pool.database_statement_timeout.0,
        creates: true,
        batch_max: pool.write_batch_max.get(),
        queue_max: pool.write_queue_max.get(),
    };
    up_to_date(database, options).await
}

async fn up_to_date(database: &DatabaseArgs, options: StoreOptions) -> Result<Store> {
    let store = connect(database, options).await?;
    let migrated = Store::migrate(&database.url()?).await;
    migrated.context("cannot bring the database's schema up to date")?;
    Ok(store)
}
