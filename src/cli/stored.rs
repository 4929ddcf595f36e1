//! `orgd database`: organizations, straight in the database, where no service need run.

use anyhow::Result;
use clap::{Args, Subcommand};

use super::{
    database::{StoreArgs, open, open_to_read, operator_call, organization_id},
    fields::FieldArgs,
    output, remote,
};
use crate::{
    app::organizations,
    domain::{Creation, Error, Organization, OrganizationId, Principal},
    grpc::convert,
};

#[derive(Debug, Subcommand)]
pub(super) enum DatabaseCommand {
    /// Store a new organization, under an id of your choice
    CreateOrganization(CreateArgs),
    /// Show an organization, its handshake only with --json; changes nothing
    GetOrganization(GetArgs),
}

#[derive(Args, Debug)]
pub(super) struct CreateArgs {
    /// Its id; without it, the one after the largest
    #[arg(long, value_parser = organization_id)]
    id: Option<OrganizationId>,
    /// Do nothing if there is an organization with this id already
    #[arg(long, requires = "id")]
    if_absent: bool,
    #[command(flatten)]
    fields: FieldArgs<true>,
    #[command(flatten)]
    store: StoreArgs,
}

#[derive(Args, Debug)]
pub(super) struct GetArgs {
    /// The organization's id
    #[arg(value_parser = organization_id)]
    id: OrganizationId,
    #[command(flatten)]
    store: StoreArgs,
}

pub(super) async fn run(command: DatabaseCommand) -> Result<()> {
    match command {
        DatabaseCommand::CreateOrganization(args) => create(args).await,
        DatabaseCommand::GetOrganization(args) => {
            let store = open_to_read(&args.store.database).await?;
            print(args.store.json, store.get_organization(&Principal::operator(), args.id).await?)?;
            Ok(store.close().await?)
        }
    }
}

async fn create(args: CreateArgs) -> Result<()> {
    let store = open(&args.store.database).await?;
    let creation = Creation { id: args.id, patch: args.fields.0 };
    match organizations::create(&store, &operator_call(), creation).await {
        Err(Error::AlreadyExists(_)) if args.if_absent => {
            output::note("There is such an organization already; nothing was stored.");
        }
        created => print(args.store.json, created?)?,
    }
    Ok(store.close().await?)
}

fn print(json: bool, organization: Organization) -> Result<()> {
    remote::print_organizations(json, vec![convert::organization(organization)])
}
