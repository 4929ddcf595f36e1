//! `orgd demo`: the two documented examples, ready to paste, over a database that is gone after.

use anyhow::{Context, Result, bail, ensure};

use super::{database::operator_call, output};
use crate::{
    app::{
        credentials::{self, Grant},
        organizations,
    },
    auth::Secret,
    config::{AuthArgs, ListenArgs, ServingArgs},
    domain::{Change, Creation, Field, OrganizationId, Patch, Role},
    server::{self, Addresses, Listeners},
    store::{Store, StoreOptions},
};

/// The tokens of the documented examples (docs/API.md). Public, so they are good for nothing but a demonstration.
const USER_TOKEN: &str = "e486a154-3cbe-46b8-87a1-0d46a15c54c8";
const ADMINISTRATOR_TOKEN: &str = "111d7a49-b4f7-43c8-8cbd-5b6a67f71066";
const USER_ORGANIZATION: i64 = 90;
const ADMINISTRATOR_ORGANIZATION: i64 = 94;

pub(super) async fn run(listen: ListenArgs, auth: AuthArgs, serving: ServingArgs) -> Result<()> {
    let http = &listen.http;
    for addr in [listen.grpc_addr, http.http_addr, http.ops.ops_addr] {
        ensure!(
            addr.ip().is_loopback(),
            "the demo's tokens are public, so it listens on loopback only; {addr} is not"
        );
    }
    let listeners = Listeners::bind(&listen)?;
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let file = folder.path().join("demo.db");
    let Some(file) = file.to_str() else { bail!("the temporary folder's name is not Unicode") };
    let url = format!("sqlite://{file}?mode=rwc").into();
    Store::migrate(&url).await?;
    let store = Store::connect(&url, StoreOptions::default()).await?;
    seed(&store).await?;
    output::line(&instructions(listeners.addresses()?))?;
    server::serve(listeners, store, auth, serving).await
}

async fn seed(store: &Store) -> Result<()> {
    create(store, USER_ORGANIZATION, "Example Organization").await?;
    create(store, ADMINISTRATOR_ORGANIZATION, "Example Enterprise").await?;
    let organization = OrganizationId::new(USER_ORGANIZATION);
    issue(store, USER_TOKEN, Role::User, organization).await?;
    issue(store, ADMINISTRATOR_TOKEN, Role::Administrator, None).await
}

async fn create(store: &Store, id: i64, name: &str) -> Result<()> {
    let patch = Patch::from([(Field::Name, Change::Set(name.to_owned()))]);
    let creation = Creation { id: OrganizationId::new(id), patch };
    organizations::create(store, &operator_call(), creation).await?;
    Ok(())
}

async fn issue(
    store: &Store,
    token: &str,
    role: Role,
    organization: Option<OrganizationId>,
) -> Result<()> {
    let secret = Secret::parse(token).context("the page's tokens are UUIDs")?;
    let grant = Grant {
        role,
        organization,
        subject: Some(format!("demo-{}", role.as_str())),
        description: None,
        expires_in: None,
    };
    credentials::issue(store, &secret, grant).await?;
    Ok(())
}

fn instructions(Addresses { grpc, http, ops }: Addresses) -> String {
    format!(
        r#"orgd demo: a temporary database with organizations {USER_ORGANIZATION} and {ADMINISTRATOR_ORGANIZATION}. Ctrl-C ends it.

Try it in a browser, with the token {USER_TOKEN}:

  http://{http}/docs

Update an organization as a user:

  curl -i -X PUT http://{http}/v1/organizations/{USER_ORGANIZATION} -H 'Authorization: Bearer {USER_TOKEN}' -H 'Content-Type: application/json' -d '{{"name": "Custom Name"}}'

Update an organization as a System Admin:

  curl -i -X PUT http://{http}/v1/organizations/{ADMINISTRATOR_ORGANIZATION} -H 'Authorization: Bearer {ADMINISTRATOR_TOKEN}' -H 'Content-Type: application/json' -d '{{"name": "Enterprise Org"}}'

The same service over gRPC, with reflection:

  grpcurl -plaintext -H 'Authorization: Bearer {ADMINISTRATOR_TOKEN}' -d '{{"organization": {{"id": {ADMINISTRATOR_ORGANIZATION}, "subscription_id": "enterprise"}}}}' {grpc} organization.v1.OrganizationService/Update

Readiness:

  curl http://{ops}/readyz
"#
    )
}
