//! `orgd credential`: credentials, straight in the database. A secret is printed once, when it is issued.

use std::{
    io::{Read, stdin},
    str::FromStr,
};

use anyhow::{Context, Result, bail};
use clap::{
    Args, Subcommand,
    builder::{PossibleValuesParser, TypedValueParser},
};
use serde_json::{Value, json};

use super::{
    database::{StoreArgs, open_to_change, open_to_read, open_to_store, organization_id},
    output,
};
use crate::{
    app::credentials::{self, Grant},
    auth::Secret,
    domain::{Credential, CredentialKind, OrganizationId, Role, StoredCredential},
    store::now,
};

const SECRET_BYTES_MAX: u64 = 1024;

#[derive(Debug, Subcommand)]
pub(super) enum CredentialCommand {
    /// Issue a credential and print its secret, once
    Issue(IssueArgs),
    /// List the credentials, without their secrets
    List(StoreArgs),
    /// End a credential at once
    Revoke(RevokeArgs),
}

#[derive(Args, Debug)]
pub(super) struct IssueArgs {
    /// The role of the holder
    #[arg(long, value_parser = named::<Role>(Role::ALL.map(Role::as_str)))]
    role: Role,
    /// The id of the organization that a user belongs to; the other roles belong to none
    #[arg(long, value_parser = organization_id, required_if_eq("role", "user"))]
    organization: Option<OrganizationId>,
    /// The form of the secret
    #[arg(
        long,
        value_parser = named::<CredentialKind>(CredentialKind::ALL.map(CredentialKind::as_str)),
        default_value = CredentialKind::Bearer.as_str()
    )]
    kind: CredentialKind,
    /// How long the credential is valid, such as 30d or 12h; without it, until it is revoked
    #[arg(long, value_parser = humantime::parse_duration, value_name = "TIME")]
    expires_in: Option<std::time::Duration>,
    /// The holder's name in logs and change logs. Credentials of one name share its rate limit and its idempotency keys; without a name one is made of role and id
    #[arg(long)]
    subject: Option<String>,
    /// A note: what the credential is for
    #[arg(long)]
    description: Option<String>,
    /// Read the secret from standard input instead of making a new one
    #[arg(long)]
    secret_stdin: bool,
    /// Issue and print nothing if the subject has a valid credential already, whatever its role and organization
    #[arg(long, requires = "subject")]
    if_absent: bool,
    #[command(flatten)]
    store: StoreArgs,
}

#[derive(Args, Debug)]
pub(super) struct RevokeArgs {
    /// The credential's id, or its first digits, 8 at least
    id: String,
    #[command(flatten)]
    store: StoreArgs,
}

fn named<T: FromStr<Err = &'static str> + Clone + Send + Sync + 'static>(
    names: impl IntoIterator<Item = &'static str>,
) -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(names).try_map(|name| name.parse())
}

pub(super) async fn run(command: CredentialCommand) -> Result<()> {
    match command {
        CredentialCommand::Issue(args) => issue(args).await,
        CredentialCommand::List(args) => list(args).await,
        CredentialCommand::Revoke(args) => revoke(args).await,
    }
}

async fn issue(args: IssueArgs) -> Result<()> {
    let kind = args.kind;
    let secret = if args.secret_stdin {
        imported_secret(kind)?
    } else {
        Secret::generate(kind).context("the system has no randomness to give")?
    };
    let store = open_to_store(&args.store.database).await?;
    if let Some(subject) = args.subject.as_ref().filter(|_| args.if_absent)
        && store.has_credential(subject).await?
    {
        output::note(&format!(
            "{subject} has a valid credential already; nothing was issued. Its secret is not shown again: `orgd credential issue` \
             for another subject, or without --if-absent, makes a new one."
        ));
        return Ok(store.close().await?);
    }
    let grant = Grant {
        role: args.role,
        organization: args.organization,
        subject: args.subject,
        description: args.description,
        expires_in: args.expires_in,
    };
    let credential = credentials::issue(&store, &secret, grant).await?;
    let mut value = as_json(&credential);
    // Who imports a secret has it already.
    let shown = if args.secret_stdin { None } else { Some(secret.expose()) };
    if let (Some(secret), Some(members)) = (shown, value.as_object_mut()) {
        members.insert("secret".to_owned(), secret.into());
    }
    let id = credential.digest.short_id();
    let printed = match shown {
        Some(secret) if !args.store.json => output::line(secret),
        None if !args.store.json => Ok(()),
        _ => output::line(&value.to_string()),
    };
    store.close().await?;
    if shown.is_some() && printed.is_err() {
        // Also where whoever reads has seen enough: this must be read.
        bail!("credential {id} was issued, but its secret could not be printed: revoke it");
    }
    if !args.store.json {
        output::note(&match shown {
            Some(_) => {
                format!("Issued as credential {id}. Keep the secret: it is not shown again.")
            }
            None => format!("Imported as credential {id}."),
        });
    }
    printed
}

fn imported_secret(kind: CredentialKind) -> Result<Secret> {
    let mut text = String::new();
    stdin()
        .lock()
        .take(SECRET_BYTES_MAX)
        .read_to_string(&mut text)
        .context("cannot read the secret from standard input")?;
    let text = text.trim_end_matches(['\r', '\n']);
    match Secret::parse(text) {
        _ if Secret::is_mistyped_key(text) => bail!(
            "the API key's checksum is wrong, so it was mistyped or made up: its last 8 digits are the \
             CRC-32 of the 20 bytes before them; leave out --secret-stdin to get a new one"
        ),
        Some(secret) if secret.kind() == kind => Ok(secret),
        _ => bail!(
            "standard input holds no secret of kind {}: a bearer token is a lower-case UUID \
             version 4, an API key begins with orgd_ and ends with its checksum",
            kind.as_str()
        ),
    }
}

async fn list(args: StoreArgs) -> Result<()> {
    let store = open_to_read(&args.database).await?;
    let credentials = store.list_credentials().await?;
    let value: Vec<Value> = credentials.iter().map(stored_as_json).collect();
    output::value(args.json, &value.into(), || {
        let rows: Vec<_> = credentials.iter().map(row).collect();
        let headings = [
            "ID",
            "KIND",
            "ROLE",
            "ORGANIZATION",
            "SUBJECT",
            "CREATED",
            "EXPIRES",
            "LAST USED",
            "STATE",
            "DESCRIPTION",
        ];
        output::table(&headings, &rows)
    })?;
    Ok(store.close().await?)
}

async fn revoke(args: RevokeArgs) -> Result<()> {
    let store = open_to_change(&args.store.database).await?;
    let revoked = credentials::revoke(&store, &args.id).await?.credential;
    if args.store.json {
        output::line(&as_json(&revoked).to_string())?;
    } else {
        let id = revoked.digest.short_id();
        output::note(&format!("Credential {id} of {} is revoked.", revoked.subject));
    }
    Ok(store.close().await?)
}

fn row(stored: &StoredCredential) -> Vec<String> {
    let credential = &stored.credential;
    vec![
        credential.digest.short_id(),
        credential.kind.as_str().to_owned(),
        credential.role.as_str().to_owned(),
        credential.organization.map_or_else(|| "-".to_owned(), |id| id.to_string()),
        credential.subject.clone(),
        output::time(stored.created_at),
        credential.expires_at.map_or_else(|| "-".to_owned(), output::time),
        stored.last_used_at.map_or_else(|| "-".to_owned(), output::time),
        stored.state(now()).as_str().to_owned(),
        credential.description.clone().unwrap_or_else(|| "-".to_owned()),
    ]
}

fn stored_as_json(stored: &StoredCredential) -> Value {
    let mut value = as_json(&stored.credential);
    if let Some(members) = value.as_object_mut() {
        members.insert("createdAt".to_owned(), output::time(stored.created_at).into());
        members.insert("revokedAt".to_owned(), stored.revoked_at.map(output::time).into());
        members.insert("lastUsedAt".to_owned(), stored.last_used_at.map(output::time).into());
        members.insert("state".to_owned(), stored.state(now()).as_str().into());
    }
    value
}

fn as_json(credential: &Credential) -> Value {
    json!({
        "id": credential.digest.id(),
        "kind": credential.kind.as_str(),
        "role": credential.role.as_str(),
        "organization": credential.organization.map(OrganizationId::get),
        "subject": credential.subject,
        "description": credential.description,
        "expiresAt": credential.expires_at.map(output::time),
    })
}
