//! The commands: each parses its words, calls one function, and prints what it answers.

mod credential;
mod demo;
mod healthcheck;
mod migrate;
mod organization;
mod output;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use uuid::Uuid;

use crate::{
    config::{
        AuthArgs, DatabaseArgs, HttpListenArgs, Limits, ListenArgs, OpsAddrArgs, UpstreamArgs,
        WriteArgs,
    },
    domain::{Call, Principal},
    server::{self, HttpListeners, Listeners},
    store::{Batching, Store},
};

/// The organization service: one safe place to change the details of an organization.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve gRPC and REST over a database
    Serve {
        #[command(flatten)]
        listen: ListenArgs,
        #[command(flatten)]
        database: DatabaseArgs,
        #[command(flatten)]
        auth: AuthArgs,
        #[command(flatten)]
        write: WriteArgs,
    },
    /// Serve REST alone, in front of a remote service
    Gateway {
        #[command(flatten)]
        listen: HttpListenArgs,
        #[command(flatten)]
        upstream: UpstreamArgs,
    },
    /// Bring the database's schema up to date, or show its state
    Migrate(migrate::MigrateArgs),
    /// Create and show organizations, straight in the database
    #[command(subcommand)]
    Organization(organization::OrganizationCommand),
    /// Issue, list and revoke credentials, straight in the database
    #[command(subcommand)]
    Credential(credential::CredentialCommand),
    /// Ask a running service whether it is ready; exit code 0 means yes
    Healthcheck(OpsAddrArgs),
    /// Serve the two documented examples from a temporary database
    Demo(ListenArgs),
}

impl Cli {
    /// Runs the command to its end.
    pub fn run(self) -> Result<ExitCode> {
        let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
        runtime.block_on(self.command.run())
    }
}

impl Command {
    async fn run(self) -> Result<ExitCode> {
        match self {
            Self::Serve { listen, database, auth, write } => {
                let listeners = Listeners::bind(&listen).await?;
                let batching = Batching {
                    updates_max: write.write_batch_max.get(),
                    hold: write.write_batch_hold.get(),
                };
                let store = open_for_many(&database, batching).await?;
                server::serve(listeners, store, auth, Limits::default()).await?;
            }
            Self::Gateway { listen, upstream } => {
                let listeners = HttpListeners::bind(&listen).await?;
                server::serve_gateway(listeners, upstream.upstream, Limits::default()).await?;
            }
            Self::Migrate(args) => migrate::run(args).await?,
            Self::Organization(command) => organization::run(command).await?,
            Self::Credential(command) => credential::run(command).await?,
            Self::Healthcheck(args) => return healthcheck::run(args.ops_addr).await,
            Self::Demo(listen) => demo::run(listen).await?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// A call of whoever works on the database itself.
fn operator_call() -> Call {
    Call {
        principal: Principal::operator().into(),
        request_id: Uuid::now_v7().to_string(),
        idempotency_key: None,
        validate_only: false,
    }
}

async fn connect(database: &DatabaseArgs, batching: Batching) -> Result<Store> {
    // The error's text names no URL, which may hold a password.
    let store = Store::connect(&database.database_url, batching).await;
    store.context("cannot connect to the database")
}

/// The database with its schema up to date, for a command that does one thing.
async fn open(database: &DatabaseArgs) -> Result<Store> {
    open_for_many(database, Batching::default()).await
}

async fn open_for_many(database: &DatabaseArgs, batching: Batching) -> Result<Store> {
    let store = connect(database, batching).await?;
    let migrated = Store::migrate(&database.database_url).await;
    migrated.context("cannot bring the database's schema up to date")?;
    Ok(store)
}
