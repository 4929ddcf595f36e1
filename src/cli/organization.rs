//! `orgd organization`: organizations, by a running service.

use anyhow::Result;
use clap::Subcommand;

use super::{
    remote::{self, ChangesArgs, CreateArgs, GetArgs, ServiceArgs, UpdateArgs},
    service::EXIT_CODES,
};

#[derive(Debug, Subcommand)]
pub(super) enum OrganizationCommand {
    /// Create an organization; the service chooses its id
    #[command(after_help = EXIT_CODES)]
    Create(Box<CreateArgs>),
    /// Show an organization; its handshake only with --json
    #[command(after_help = EXIT_CODES)]
    Get(GetArgs),
    /// Change an organization
    #[command(after_help = EXIT_CODES)]
    Update(Box<UpdateArgs>),
    /// List the organizations that the token may see; their handshakes only with --json
    #[command(after_help = EXIT_CODES)]
    List(ServiceArgs),
    /// Show the changes of an organization
    #[command(after_help = EXIT_CODES)]
    Changes(ChangesArgs),
}

pub(super) async fn run(command: OrganizationCommand) -> Result<()> {
    match command {
        OrganizationCommand::Create(args) => remote::create(*args).await,
        OrganizationCommand::Get(args) => remote::get(args).await,
        OrganizationCommand::Update(args) => remote::update(*args).await,
        OrganizationCommand::List(args) => remote::list(args).await,
        OrganizationCommand::Changes(args) => remote::changes(args).await,
    }
}
