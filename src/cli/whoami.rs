//! `orgd whoami`: as whom a running service takes the token, and what that caller may change.

use anyhow::Result;

use super::{output, remote::ServiceArgs, service::Service};
use crate::{gateway, proto::v1};

pub(super) async fn run(args: ServiceArgs) -> Result<()> {
    let mut service = Service::connect(&args.server)?;
    let request = service.request(v1::WhoAmIRequest {});
    let caller = service.client.who_am_i(request).await?.into_inner();
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
