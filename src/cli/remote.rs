//! `orgd organization` and `orgd whoami`: calls of a running service, as any client's.

use anyhow::Result;
use clap::Args;
use uuid::Uuid;

use super::{
    fields::FieldArgs,
    follow::follow,
    output::{self, Failed, WRONG_WORDS},
    service::Service,
};
use crate::{
    config::ServerArgs,
    domain::{Field, OrganizationId},
    gateway,
    proto::v1,
};

/// Entries of a page, the most that the service gives.
const PAGE_SIZE: i32 = 1000;

#[derive(Args, Debug)]
pub(super) struct CreateArgs {
    #[command(flatten)]
    fields: FieldArgs<true>,
    #[command(flatten)]
    change: ChangeArgs,
    #[command(flatten)]
    service: ServiceArgs,
}

#[derive(Args, Debug)]
pub(super) struct GetArgs {
    /// The organization's id
    #[arg(value_parser = id)]
    id: i64,
    #[command(flatten)]
    service: ServiceArgs,
}

#[derive(Args, Debug)]
pub(super) struct UpdateArgs {
    /// The organization's id
    #[arg(value_parser = id)]
    id: i64,
    #[command(flatten)]
    fields: FieldArgs<false>,
    /// Change it only if this is still its etag, such as 3 or '"3"'
    #[arg(long, value_parser = etag)]
    etag: Option<String>,
    #[command(flatten)]
    change: ChangeArgs,
    #[command(flatten)]
    service: ServiceArgs,
}

#[derive(Args, Debug)]
pub(super) struct ChangesArgs {
    /// The organization's id
    #[arg(value_parser = id)]
    id: i64,
    /// Only the changes after this version
    #[arg(long, default_value_t = 0, value_name = "VERSION")]
    after: i64,
    /// Then wait, and show each new change as it is made, until interrupted
    #[arg(long)]
    follow: bool,
    #[command(flatten)]
    service: ServiceArgs,
}

/// How a change is made.
#[derive(Args, Debug)]
pub(super) struct ChangeArgs {
    /// Check everything, store nothing
    #[arg(long)]
    validate_only: bool,
    /// The change's idempotency key: a command that failed can be run again under the same key, and the change is made once. Without it each run has a new one
    #[arg(long, value_name = "UUID")]
    key: Option<Uuid>,
}

impl ChangeArgs {
    fn key(&self) -> Uuid {
        self.key.unwrap_or_else(Uuid::new_v4)
    }

    fn print(&self, json: bool, organization: v1::Organization) -> Result<()> {
        print_organizations(json, vec![organization])?;
        if self.validate_only {
            output::note("Checked only: nothing was stored.");
        }
        Ok(())
    }
}

/// Which service, and how to print what it answers.
#[derive(Args, Debug)]
pub(super) struct ServiceArgs {
    #[command(flatten)]
    pub(super) server: ServerArgs,
    /// Print JSON, one object a line
    #[arg(long, help_heading = None)]
    pub(super) json: bool,
}

/// Which numbers are ids is the service's to say.
fn id(text: &str) -> Result<i64, String> {
    text.parse().map_err(|_| format!("an id is a number from 1 to {}", OrganizationId::MAX))
}

/// An etag with its quotation marks, which a shell takes away.
#[expect(clippy::unnecessary_wraps, reason = "the signature is clap's")]
fn etag(text: &str) -> Result<String, std::convert::Infallible> {
    let is_version = !text.is_empty() && text.bytes().all(|letter| letter.is_ascii_digit());
    Ok(if is_version { format!("\"{text}\"") } else { text.to_owned() })
}

pub(super) async fn create(args: CreateArgs) -> Result<()> {
    let (FieldArgs(fields), key) = (args.fields, args.change.key());
    let mut service = Service::connect(&args.service.server)?;
    let request = service.request(v1::CreateOrganizationRequest {
        // The id is the service's to choose.
        organization: gateway::update_message(0, fields).organization,
        validate_only: args.change.validate_only,
        request_id: key.to_string(),
        ..Default::default()
    });
    let answer = service.client.create(request).await;
    let created = service.answer_to_change(answer, key)?;
    args.change.print(args.service.json, created)
}

pub(super) async fn get(args: GetArgs) -> Result<()> {
    let mut service = Service::connect(&args.service.server)?;
    let request = service.request(v1::GetOrganizationRequest { id: args.id, ..Default::default() });
    let answer = service.client.get(request).await;
    let found = service.answer(answer)?;
    print_organizations(args.service.json, vec![found])
}

pub(super) async fn update(args: UpdateArgs) -> Result<()> {
    let FieldArgs(changes) = args.fields;
    if changes.is_empty() {
        let sentence = "nothing to change: name a field, such as --name";
        return Err(Failed::new(WRONG_WORDS, sentence).into());
    }
    let mut service = Service::connect(&args.service.server)?;
    let key = args.change.key();
    let mut message = v1::UpdateOrganizationRequest {
        validate_only: args.change.validate_only,
        request_id: key.to_string(),
        ..gateway::update_message(args.id, changes)
    };
    if let Some(organization) = &mut message.organization {
        organization.etag = args.etag.unwrap_or_default();
    }
    let request = service.request(message);
    let answer = service.client.update(request).await;
    let updated = service.answer_to_change(answer, key)?;
    args.change.print(args.service.json, updated)
}

pub(super) async fn list(ServiceArgs { server, json }: ServiceArgs) -> Result<()> {
    let mut service = Service::connect(&server)?;
    let mut organizations = Vec::new();
    let mut page_token = String::new();
    loop {
        let message =
            v1::ListOrganizationsRequest { page_size: PAGE_SIZE, page_token, ..Default::default() };
        let request = service.request(message);
        let answer = service.client.list(request).await;
        let page = service.answer(answer)?;
        page_token = page.next_page_token;
        if json {
            // Page by page: programs take the lines as they come.
            print_organizations(true, page.organizations)?;
        } else {
            organizations.extend(page.organizations);
        }
        if page_token.is_empty() {
            break;
        }
    }
    if json { Ok(()) } else { print_organizations(false, organizations) }
}

pub(super) async fn changes(args: ChangesArgs) -> Result<()> {
    let mut service = Service::connect(&args.service.server)?;
    if args.follow {
        return follow(service, args.id, args.after, |change| {
            print_changes(args.service.json, vec![change], false)
        })
        .await;
    }
    let mut found = Vec::new();
    let mut page_token = String::new();
    loop {
        let message =
            v1::ListChangesRequest { organization_id: args.id, page_size: PAGE_SIZE, page_token };
        let request = service.request(message);
        let answer = service.client.list_changes(request).await;
        let page = service.answer(answer)?;
        page_token = page.next_page_token;
        found.extend(page.changes.into_iter().filter(|change| change.version > args.after));
        if page_token.is_empty() {
            break;
        }
    }
    print_changes(args.service.json, found, true)
}

pub(super) async fn whoami(args: ServiceArgs) -> Result<()> {
    let mut service = Service::connect(&args.server)?;
    let request = service.request(v1::WhoAmIRequest {});
    let answer = service.client.who_am_i(request).await;
    let caller = service.answer(answer)?;
    let value = serde_json::to_value(gateway::Caller::from(caller.clone()))?;
    output::value(args.json, &value, || {
        let or_none = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        let row = vec![
            caller.subject.clone(),
            caller.role().name(),
            or_none(caller.organization_id.map(|id| id.to_string())),
            // As much of it as `credential list` shows.
            caller.credential_id.chars().take(12).collect(),
            or_none(caller.expire_time.map(|time| output::timestamp(Some(time)))),
            caller.writable_fields.join(", "),
        ];
        let headings = ["SUBJECT", "ROLE", "ORGANIZATION", "CREDENTIAL", "EXPIRES", "MAY UPDATE"];
        output::table(&headings, &[row])
    })
}

/// Prints organizations: as JSON the way REST answers them, or as a table of what is no secret.
pub(super) fn print_organizations(
    json: bool,
    mut organizations: Vec<v1::Organization>,
) -> Result<()> {
    if json {
        let objects = organizations.into_iter().map(|one| gateway::Organization::new(one, false));
        return output::json_lines(objects);
    }
    let logged = || Field::ALL.into_iter().filter(|field| field.is_logged());
    let row = |organization: &mut v1::Organization| {
        let mut row = vec![organization.id.to_string()];
        let mut or_none =
            |field| organization.text_mut(field).take().unwrap_or_else(|| "-".to_owned());
        row.extend(logged().map(&mut or_none));
        row.extend([output::timestamp(organization.date_modified), organization.etag.clone()]);
        row
    };
    let rows: Vec<_> = organizations.iter_mut().map(row).collect();
    let nouns: Vec<String> = logged().map(|field| field.facts().noun.to_uppercase()).collect();
    let mut headings = vec!["ID"];
    headings.extend(nouns.iter().map(String::as_str).chain(["MODIFIED", "ETAG"]));
    output::line(&output::table(&headings, &rows))
}

fn print_changes(json: bool, changes: Vec<v1::Change>, has_headings: bool) -> Result<()> {
    if json {
        return output::json_lines(changes.into_iter().map(gateway::Change::from));
    }
    let row = |change: &v1::Change| {
        vec![
            change.version.to_string(),
            output::timestamp(change.date),
            change.subject.clone(),
            change.role().name(),
            change.fields.iter().map(field_text).collect::<Vec<_>>().join(", "),
        ]
    };
    let rows: Vec<_> = changes.iter().map(row).collect();
    output::line(&if has_headings {
        output::table(&["VERSION", "DATE", "SUBJECT", "ROLE", "FIELDS"], &rows)
    } else {
        rows.iter().map(|row| row.join("  ")).collect::<Vec<_>>().join("\n")
    })
}

fn field_text(change: &v1::FieldChange) -> String {
    let v1::FieldChange { field, old_value, new_value, redacted } = change;
    if *redacted {
        return field.clone();
    }
    let text =
        |value: &Option<String>| value.as_ref().map_or("-".into(), |text| format!("{text:?}"));
    format!("{field}: {} -> {}", text(old_value), text(new_value))
}
