//! `orgd database`: organizations, straight in the database, where no service need run; and whether orgd can run
//! on it.

use anyhow::Result;
use clap::{Args, Subcommand};
use serde_json::json;

use super::{
    database::{StoreArgs, open_to_read, open_to_store, operator_call, organization_id},
    fields::FieldArgs,
    output::{self, Failed},
    remote,
};
use crate::{
    app::organizations,
    domain::{Creation, Error, Organization, OrganizationId, Principal},
    grpc::convert,
    store::{Finding, Store},
};

#[derive(Debug, Subcommand)]
pub(super) enum DatabaseCommand {
    /// Store a new organization, under an id of your choice
    CreateOrganization(CreateArgs),
    /// Show an organization, its handshake only with --json; changes nothing
    GetOrganization(GetArgs),
    /// Try what orgd needs of the database; exit code 0 means that it can run. Leaves nothing behind
    Check(StoreArgs),
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
        DatabaseCommand::Check(args) => check(args).await,
    }
}

async fn create(args: CreateArgs) -> Result<()> {
    let store = open_to_store(&args.store.database).await?;
    let creation = Creation { id: args.id, patch: args.fields.0 };
    match organizations::create(&store, &operator_call(), creation).await {
        Err(Error::AlreadyExists(_)) if args.if_absent => {
            output::note("There is such an organization already; nothing was stored.");
        }
        created => print(args.store.json, created?)?,
    }
    Ok(store.close().await?)
}

async fn check(StoreArgs { database, json }: StoreArgs) -> Result<()> {
    let findings = Store::examine(&database.url()?).await;
    let unfit = findings.iter().find(|finding| !finding.will_do);
    let because = unfit.map(|finding| format!("{}: {}", finding.name, finding.said));
    let finding = |finding: &Finding| {
        let Finding { name, said, will_do } = finding;
        json!({"name": name, "said": said, "willDo": will_do})
    };
    let value = json!({
        "checks": findings.iter().map(finding).collect::<Vec<_>>(),
        "canRun": because.is_none(),
        "because": because,
    });
    output::value(json, &value, || {
        let lines = findings.iter().map(|finding| format!("{}: {}", finding.name, finding.said));
        let verdict = because
            .as_ref()
            .map_or_else(|| "can run".to_owned(), |because| format!("cannot, because {because}"));
        lines.chain([verdict]).collect::<Vec<_>>().join("\n")
    })?;
    if because.is_some() {
        return Err(Failed::new(1, "orgd cannot run on this database").into());
    }
    Ok(())
}

fn print(json: bool, organization: Organization) -> Result<()> {
    remote::print_organizations(json, vec![convert::organization(organization)])
}
