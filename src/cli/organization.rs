//! `orgd organization`: organizations, straight in the database or by a running service.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};

use super::{
    database::{StoreArgs, open, open_to_read, operator_call},
    fields::FieldArgs,
    remote::{self, ChangesArgs, EXIT_CODES, ServiceArgs, UpdateArgs},
};
use crate::{
    app::organizations,
    domain::{Creation, Organization, OrganizationId, Principal},
    grpc::convert,
};

#[derive(Debug, Subcommand)]
pub(super) enum OrganizationCommand {
    /// Store a new organization, straight in the database
    Create(CreateArgs),
    /// Show an organization, straight from the database
    Get(GetArgs),
    /// Change an organization, by a running service
    #[command(after_help = EXIT_CODES)]
    Update(Box<UpdateArgs>),
    /// List the organizations that the token may see, by a running service
    #[command(after_help = EXIT_CODES)]
    List(ServiceArgs),
    /// Show the changes of an organization, by a running service
    #[command(after_help = EXIT_CODES)]
    Changes(ChangesArgs),
}

#[derive(Args, Debug)]
pub(super) struct CreateArgs {
    /// Its id; without it, the one after the largest
    #[arg(long, value_parser = organization_id)]
    id: Option<OrganizationId>,
    #[command(flatten)]
    fields: FieldArgs<true>,
    #[command(flatten)]
    store: StoreArgs,
}

#[derive(Args, Debug)]
pub(super) struct GetArgs {
    /// Which organization
    #[arg(value_parser = organization_id)]
    id: OrganizationId,
    #[command(flatten)]
    store: StoreArgs,
}

pub(super) fn organization_id(text: &str) -> Result<OrganizationId, String> {
    let id = text.parse().ok().and_then(OrganizationId::new);
    id.ok_or_else(|| format!("an id is a number from 1 to {}", OrganizationId::MAX))
}

pub(super) async fn run(command: OrganizationCommand) -> Result<ExitCode> {
    match command {
        OrganizationCommand::Update(args) => return remote::exit_code(remote::update(*args).await),
        OrganizationCommand::List(args) => return remote::exit_code(remote::list(args).await),
        OrganizationCommand::Changes(args) => {
            return remote::exit_code(remote::changes(args).await);
        }
        OrganizationCommand::Create(args) => {
            let store = open(&args.store.database).await?;
            let creation = Creation { id: args.id, patch: args.fields.0 };
            let created = organizations::create(&store, &operator_call(), creation).await?;
            print(args.store.json, created)?;
            store.close().await?;
        }
        OrganizationCommand::Get(args) => {
            let store = open_to_read(&args.store.database).await?;
            print(args.store.json, store.get_organization(&Principal::operator(), args.id).await?)?;
            store.close().await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn print(json: bool, organization: Organization) -> Result<()> {
    remote::print_organizations(json, vec![convert::organization(organization)])
}
