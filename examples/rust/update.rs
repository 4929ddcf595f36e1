//! Changes an organization and follows its change log, over gRPC with the generated client.
//!
//! `EXAMPLE_GRPC` is the service's `host:port`, `ORGD_TOKEN` a token, `EXAMPLE_ORGANIZATION` the id of an
//! organization, `EXAMPLE_ENTRIES` how many changes to show before the end; without it there is none.

#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a program of its own prints its results and reads its own variables"
)]

use std::{env, time::Duration};

use anyhow::{Context, Result, anyhow, ensure};
use orgd::proto::v1::{
    GetOrganizationRequest, ListChangesRequest, Organization, UpdateOrganizationRequest,
    organization_service_client::OrganizationServiceClient,
};
use prost_types::FieldMask;
use tonic::{
    Code, Request, Response, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt;
use uuid::Uuid;

const NAME: &str = "By the Rust example";
/// What a call may take, each try by itself.
const TIMEOUT: Duration = Duration::from_secs(10);
const TRIES: usize = 4;
/// Where the answer does not say how long to wait.
const WAIT: Duration = Duration::from_secs(1);
/// Between two looks at the end of the change log.
const POLL: Duration = Duration::from_millis(500);
/// Small, so that the example turns pages; the service gives 500 at most.
const PAGE_SIZE: i32 = 2;

type Client = OrganizationServiceClient<InterceptedService<Channel, Bearer>>;

/// Says in every request who calls, and how long the caller waits.
#[derive(Clone)]
struct Bearer(MetadataValue<Ascii>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        request.set_timeout(TIMEOUT);
        Ok(request)
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let id = variable("EXAMPLE_ORGANIZATION")?.parse().context("EXAMPLE_ORGANIZATION")?;
    let entries = env::var("EXAMPLE_ENTRIES").map_or(Ok(usize::MAX), |entries| entries.parse())?;
    let bearer = Bearer(format!("Bearer {}", variable("ORGD_TOKEN")?).parse()?);
    let endpoint = Endpoint::from_shared(format!("http://{}", variable("EXAMPLE_GRPC")?))?;
    let client = OrganizationServiceClient::with_interceptor(endpoint.connect_lazy(), bearer);

    change_name(&client, id).await.map_err(told)?;
    clear_subscription(&client, id).await.map_err(told)?;
    follow(&client, id, 0, entries).await.map_err(told)
}

fn variable(name: &str) -> Result<String> {
    env::var(name).with_context(|| format!("set {name}"))
}

async fn change_name(client: &Client, id: i64) -> Result<()> {
    let get = GetOrganizationRequest { id, ..GetOrganizationRequest::default() };
    let old = call(async || client.clone().get(get).await).await?;
    let old_name = old.name.unwrap_or_default();
    // The same name again would change nothing, and the etag read before would not be stale.
    let name = if old_name == NAME { format!("{NAME}, again") } else { NAME.to_owned() };
    // With the etag the update is made only if nobody else has changed what was read.
    let named = |name: String| Organization {
        id,
        name: Some(name),
        etag: old.etag.clone(),
        ..Organization::default()
    };
    let new = update(client, named(name), "name").await?;
    println!("name: {old_name} -> {}", new.name.unwrap_or_default());

    match update(client, named("Too late".to_owned()), "name").await {
        Ok(_) => Err(anyhow!("a stale etag was taken")),
        Err(status) if reason(&status) == "ETAG_MISMATCH" => {
            println!("stale etag refused: ETAG_MISMATCH");
            Ok(())
        }
        Err(status) => Err(status.into()),
    }
}

async fn clear_subscription(client: &Client, id: i64) -> Result<()> {
    // In the mask and without a value: cleared.
    let organization = Organization { id, ..Organization::default() };
    let new = update(client, organization, "subscription_id").await?;
    ensure!(new.subscription_id.is_none(), "the subscription is still there");
    println!("subscription cleared");
    Ok(())
}

async fn update(
    client: &Client,
    organization: Organization,
    field: &str,
) -> Result<Organization, Status> {
    let request = UpdateOrganizationRequest {
        organization: Some(organization),
        update_mask: Some(FieldMask { paths: vec![field.to_owned()] }),
        // The same in every try, so that the update is made once however many arrive.
        request_id: Uuid::new_v4().to_string(),
        ..UpdateOrganizationRequest::default()
    };
    call(async || client.clone().update(request.clone()).await).await
}

/// Shows the changes after a version, those to come too, until there were so many.
async fn follow(client: &Client, id: i64, mut after: i64, mut entries: usize) -> Result<()> {
    let mut request = ListChangesRequest {
        organization_id: id,
        page_size: PAGE_SIZE,
        ..ListChangesRequest::default()
    };
    loop {
        let page = call(async || client.clone().list_changes(request.clone()).await).await?;
        for change in page.changes {
            if change.version <= after {
                continue;
            }
            after = change.version;
            let fields: Vec<&str> = change.fields.iter().map(|field| &*field.field).collect();
            println!("change {after} by {}: {}", change.subject, fields.join(", "));
            entries = entries.saturating_sub(1);
            if entries == 0 {
                return Ok(());
            }
        }
        if page.next_page_token.is_empty() {
            // The last page grows as changes come, so it is read again.
            tokio::time::sleep(POLL).await;
        } else {
            request.page_token = page.next_page_token;
        }
    }
}

/// Makes a call, and makes it again where that helps. Every call here may be repeated: one that
/// reads changes nothing, and an update has its `request_id`.
async fn call<T>(send: impl AsyncFn() -> Result<Response<T>, Status>) -> Result<T, Status> {
    for _ in 1..TRIES {
        match send().await {
            Ok(answer) => return Ok(answer.into_inner()),
            Err(status) => match wait(&status) {
                Some(wait) => tokio::time::sleep(wait).await,
                None => return Err(status),
            },
        }
    }
    send().await.map(Response::into_inner)
}

/// How long to wait before the next try; none where trying again does not help.
fn wait(status: &Status) -> Option<Duration> {
    let details = status.get_error_details();
    let told = details.retry_info().and_then(|info| info.retry_delay);
    // Nobody answered, or not in time; `Cancelled` is tonic's word for its own timeout.
    let nobody =
        matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled);
    told.or(nobody.then_some(WAIT))
}

fn reason(status: &Status) -> String {
    let details = status.get_error_details();
    details.error_info().map_or(status.code().to_string(), |info| info.reason.clone())
}

/// A refusal as a person needs it: its reason, the id to ask the service's people about, its text.
fn told(error: anyhow::Error) -> anyhow::Error {
    let Some(status) = error.downcast_ref::<Status>() else { return error };
    let id = status.metadata().get("x-request-id").and_then(|id| id.to_str().ok());
    let (reason, id) = (reason(status), id.unwrap_or("unknown"));
    anyhow!("{reason} (request {id}): {}", status.message())
}
