//! One engine behind both APIs: each update, sent by REST PUT, by gRPC with a mask and by gRPC
//! without one, leaves the same row, the same change log and the same etag, or is refused alike.

use orgd::{
    domain::{ChangeEntry, Organization as Stored},
    proto::v1::{Organization, UpdateOrganizationRequest},
};
use prost_types::FieldMask;
use serde_json::{Map, Value, json};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::harness::{
    ADMINISTRATOR, FOREIGN, OWN, SUPPORT, Service, UNKNOWN, USER, authorized, hold_updates,
    on_both_databases, patiently_on_both_databases,
};

/// One update, in no API's own form.
struct Case {
    name: &'static str,
    token: &'static str,
    organization: i64,
    /// The fields to change: `None` clears.
    fields: &'static [(&'static str, Option<&'static str>)],
    etag: Option<&'static str>,
    expected: Expected,
}

#[derive(Clone, Copy)]
enum Expected {
    /// The version after the update, and the fields that the change log names.
    Version(i64, &'static [&'static str]),
    /// The HTTP status, the gRPC code, the reason, and the fields at fault.
    Refused(u16, Code, &'static str, &'static [&'static str]),
}
use Expected::{Refused, Version};

const LONG: &str = "ÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄ\
    ÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄ\
    ÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄ";

const INVALID: u16 = 400;

#[rustfmt::skip]
const CASES: &[Case] = &[
    Case { name: "a user's name", token: USER, organization: OWN, fields: &[("name", Some("New"))], etag: None, expected: Version(2, &["name"]) },
    Case { name: "support's subscription", token: SUPPORT, organization: FOREIGN, fields: &[("subscription_id", Some("pro"))], etag: None, expected: Version(2, &["subscription_id"]) },
    Case { name: "all fields", token: ADMINISTRATOR, organization: OWN, fields: &[("name", Some("N")), ("subscription_id", Some("s")), ("handshake", Some("h"))], etag: None, expected: Version(2, &["name", "subscription_id", "handshake"]) },
    Case { name: "cleared subscription", token: SUPPORT, organization: OWN, fields: &[("subscription_id", None)], etag: None, expected: Version(2, &["subscription_id"]) },
    Case { name: "cleared handshake that was none", token: ADMINISTRATOR, organization: OWN, fields: &[("handshake", None)], etag: None, expected: Version(1, &[]) },
    Case { name: "half changed", token: SUPPORT, organization: OWN, fields: &[("name", Some("Organization 90")), ("subscription_id", Some("pro"))], etag: None, expected: Version(2, &["subscription_id"]) },
    Case { name: "unchanged", token: USER, organization: OWN, fields: &[("name", Some("Organization 90"))], etag: None, expected: Version(1, &[]) },
    Case { name: "nothing named", token: USER, organization: OWN, fields: &[], etag: None, expected: Version(1, &[]) },
    Case { name: "not trimmed", token: USER, organization: OWN, fields: &[("name", Some("  \u{a0}x "))], etag: None, expected: Version(2, &["name"]) },
    Case { name: "255 code points", token: USER, organization: OWN, fields: &[("name", Some(LONG))], etag: None, expected: Version(2, &["name"]) },
    Case { name: "right etag", token: USER, organization: OWN, fields: &[("name", Some("New"))], etag: Some("\"1\""), expected: Version(2, &["name"]) },
    Case { name: "right etag, unchanged", token: USER, organization: OWN, fields: &[("name", Some("Organization 90"))], etag: Some("\"1\""), expected: Version(1, &[]) },
    Case { name: "stale etag", token: USER, organization: OWN, fields: &[("name", Some("New"))], etag: Some("\"7\""), expected: Refused(412, Code::Aborted, "ETAG_MISMATCH", &[]) },
    Case { name: "stale etag, unchanged", token: USER, organization: OWN, fields: &[("name", Some("Organization 90"))], etag: Some("\"7\""), expected: Refused(412, Code::Aborted, "ETAG_MISMATCH", &[]) },
    Case { name: "stale etag, nothing named", token: USER, organization: OWN, fields: &[], etag: Some("\"7\""), expected: Refused(412, Code::Aborted, "ETAG_MISMATCH", &[]) },
    Case { name: "an etag that we never issue", token: USER, organization: OWN, fields: &[("name", Some("New"))], etag: Some("\"01\""), expected: Refused(412, Code::Aborted, "ETAG_MISMATCH", &[]) },
    Case { name: "no rights before a stale etag", token: USER, organization: OWN, fields: &[("handshake", Some("h"))], etag: Some("\"7\""), expected: Refused(403, Code::PermissionDenied, "FIELD_FORBIDDEN", &["handshake"]) },
    Case { name: "all forbidden fields are named", token: USER, organization: OWN, fields: &[("name", Some("N")), ("subscription_id", Some("s")), ("handshake", Some("h"))], etag: None, expected: Refused(403, Code::PermissionDenied, "FIELD_FORBIDDEN", &["subscription_id", "handshake"]) },
    Case { name: "a user's foreign organization", token: USER, organization: FOREIGN, fields: &[("name", Some("N"))], etag: None, expected: Refused(403, Code::PermissionDenied, "ORGANIZATION_FORBIDDEN", &[]) },
    Case { name: "a user's unknown organization", token: USER, organization: UNKNOWN, fields: &[("name", Some("N"))], etag: None, expected: Refused(403, Code::PermissionDenied, "ORGANIZATION_FORBIDDEN", &[]) },
    Case { name: "rights before values", token: USER, organization: FOREIGN, fields: &[("name", Some(""))], etag: None, expected: Refused(403, Code::PermissionDenied, "ORGANIZATION_FORBIDDEN", &[]) },
    Case { name: "field rights before values", token: SUPPORT, organization: OWN, fields: &[("name", Some("")), ("handshake", Some(""))], etag: None, expected: Refused(403, Code::PermissionDenied, "FIELD_FORBIDDEN", &["handshake"]) },
    Case { name: "values before existence", token: SUPPORT, organization: UNKNOWN, fields: &[("name", Some(" "))], etag: None, expected: Refused(INVALID, Code::InvalidArgument, "INVALID_INPUT", &["name"]) },
    Case { name: "existence before preconditions", token: SUPPORT, organization: UNKNOWN, fields: &[("name", Some("N"))], etag: Some("\"7\""), expected: Refused(404, Code::NotFound, "ORGANIZATION_NOT_FOUND", &[]) },
    Case { name: "unknown, nothing named", token: ADMINISTRATOR, organization: UNKNOWN, fields: &[], etag: None, expected: Refused(404, Code::NotFound, "ORGANIZATION_NOT_FOUND", &[]) },
    Case { name: "values before preconditions", token: USER, organization: OWN, fields: &[("name", Some(""))], etag: Some("\"7\""), expected: Refused(INVALID, Code::InvalidArgument, "INVALID_INPUT", &["name"]) },
    Case { name: "all violations are listed", token: ADMINISTRATOR, organization: OWN, fields: &[("name", None), ("subscription_id", Some("a\nb")), ("handshake", Some("\u{3000}"))], etag: None, expected: Refused(INVALID, Code::InvalidArgument, "INVALID_INPUT", &["name", "subscription_id", "handshake"]) },
    Case { name: "empty", token: USER, organization: OWN, fields: &[("name", Some(""))], etag: None, expected: Refused(INVALID, Code::InvalidArgument, "INVALID_INPUT", &["name"]) },
    Case { name: "a control character", token: USER, organization: OWN, fields: &[("name", Some("a\u{85}b"))], etag: None, expected: Refused(INVALID, Code::InvalidArgument, "INVALID_INPUT", &["name"]) },
    Case { name: "NUL", token: SUPPORT, organization: OWN, fields: &[("subscription_id", Some("a\0b"))], etag: None, expected: Refused(INVALID, Code::InvalidArgument, "INVALID_INPUT", &["subscription_id"]) },
    Case { name: "an unknown credential", token: "0b7cf3d4-3c1f-4d0c-9d5c-7b1f7a0f9e55", organization: OWN, fields: &[("name", Some(""))], etag: None, expected: Refused(401, Code::Unauthenticated, "CREDENTIAL_INVALID", &[]) },
];

#[derive(Clone, Copy, Debug)]
enum Api {
    Rest,
    GrpcMasked,
    GrpcUnmasked,
}

/// What an update did, whichever API it came through.
#[derive(Debug, PartialEq)]
struct Outcome {
    answer: Told,
    stored: Option<Stored>,
    changes: Vec<ChangeEntry>,
}

/// Organizations that others update at the same time, where a case is to be part of a batch.
const COMPANY: [i64; 2] = [101, 102];
/// How often a batch is tried to be made of them.
const TRIES_MAX: usize = 20;

#[tokio::test]
async fn rest_and_grpc_do_the_same() {
    on_both_databases(async |service| every_case(&service, false).await).await;
}

#[tokio::test]
async fn rest_and_grpc_do_the_same_within_a_batch() {
    patiently_on_both_databases(&[], async |service| every_case(&service, true).await).await;
}

pub async fn every_case(service: &Service, in_company: bool) {
    assert_eq!(LONG.chars().count(), orgd::domain::TEXT_CODE_POINTS_MAX);
    for case in CASES {
        let mut first: Option<Outcome> = None;
        for api in [Api::Rest, Api::GrpcMasked, Api::GrpcUnmasked] {
            let clears = case.fields.iter().any(|(_, value)| value.is_none());
            if clears && matches!(api, Api::GrpcUnmasked) {
                // Without a mask nothing can be cleared (AIP-134).
                continue;
            }
            let outcome = send(service, case, api, in_company && case.is_written()).await;
            check(case, api, &outcome);
            match &first {
                None => first = Some(outcome),
                Some(first) => assert_eq!(&outcome, first, "{} through {api:?}", case.name),
            }
        }
    }
}

impl Case {
    /// Whether the update comes as far as the statement that would write.
    fn is_written(&self) -> bool {
        let reasons = ["ETAG_MISMATCH", "ORGANIZATION_NOT_FOUND"];
        let is_sent = match self.expected {
            Version(..) => true,
            Refused(_, _, reason, _) => reasons.contains(&reason),
        };
        is_sent && !self.fields.is_empty()
    }
}

async fn send(service: &Service, case: &Case, api: Api, in_company: bool) -> Outcome {
    let answer = if in_company {
        send_in_company(service, case, api).await
    } else {
        service.database().reset().await;
        through(service, case, api).await
    };
    let is_known = case.organization != UNKNOWN;
    let stored = if is_known {
        Some(without_dates(service.database().organization(case.organization).await))
    } else {
        None
    };
    let mut changes = service.database().changes(case.organization).await;
    for change in &mut changes {
        change.date = time::OffsetDateTime::UNIX_EPOCH;
    }
    Outcome { answer, stored, changes }
}

type Told = Result<(), (String, Vec<String>)>;

async fn through(service: &Service, case: &Case, api: Api) -> Told {
    match api {
        Api::Rest => through_rest(service, case).await,
        Api::GrpcMasked | Api::GrpcUnmasked => through_grpc(service, case, api).await,
    }
}

/// Sends an update that is in one batch with two others.
async fn send_in_company(service: &Service, case: &Case, api: Api) -> Told {
    let [first, second] = COMPANY;
    let beside = |id| service.put(id, SUPPORT, r#"{"name": "Beside"}"#).send();
    for _ in 0..TRIES_MAX {
        service.database().reset().await;
        service.database().add_organizations(first, second).await;
        let held = hold_updates(service).await;
        let sending = Box::pin(async {
            tokio::join!(through(service, case, api), beside(first), beside(second))
        });
        if let Ok((told, first, second)) = held.batch(3, sending).await {
            assert_eq!((first.status(), second.status()), (200, 200), "beside {}", case.name);
            return told;
        }
    }
    panic!("{} came too late {TRIES_MAX} times", case.name)
}

fn without_dates(stored: Stored) -> Stored {
    let epoch = time::OffsetDateTime::UNIX_EPOCH;
    Stored { date_created: epoch, date_modified: epoch, ..stored }
}

async fn through_rest(service: &Service, case: &Case) -> Told {
    let key =
        |field: &str| if field == "subscription_id" { "subscriptionId" } else { field }.to_owned();
    let members = case.fields.iter().map(|(field, value)| (key(field), json!(value)));
    let body = Value::Object(members.collect::<Map<_, _>>()).to_string();
    let mut request =
        service.put(case.organization, case.token, &body).header("x-request-id", "parity");
    if let Some(etag) = case.etag {
        request = request.header("if-match", etag);
    }
    let answer = request.send().await;
    if answer.status() == 200 {
        return Ok(());
    }
    if let Refused(status, ..) = case.expected {
        assert_eq!(answer.status(), status, "{}: {}", case.name, answer.text());
    }
    let problem = answer.json();
    let errors = problem["errors"].as_array().cloned().unwrap_or_default();
    let fields = errors.iter().map(|error| match error["pointer"].as_str().unwrap() {
        "#/subscriptionId" => "subscription_id".to_owned(),
        pointer => pointer.trim_start_matches("#/").to_owned(),
    });
    Err((answer.reason(), fields.collect()))
}

async fn through_grpc(service: &Service, case: &Case, api: Api) -> Told {
    let mut organization = Organization {
        id: case.organization,
        etag: case.etag.unwrap_or_default().to_owned(),
        ..Organization::default()
    };
    for (field, value) in case.fields {
        let value = value.map(str::to_owned);
        match *field {
            "name" => organization.name = value,
            "subscription_id" => organization.subscription_id = value,
            "handshake" => organization.handshake = value,
            _ => unreachable!("{field}"),
        }
    }
    let paths: Vec<String> = case.fields.iter().map(|(field, _)| (*field).to_owned()).collect();
    // An empty mask means all that is set, which for nothing named is nothing as well.
    let masked = matches!(api, Api::GrpcMasked);
    let message = UpdateOrganizationRequest {
        organization: Some(organization),
        update_mask: masked.then_some(FieldMask { paths }),
        ..UpdateOrganizationRequest::default()
    };
    let mut request = authorized(case.token, message);
    request.metadata_mut().insert("x-request-id", "parity".parse().unwrap());
    match service.grpc().update(request).await {
        Ok(_) => Ok(()),
        Err(status) => Err(refusal(case, &status)),
    }
}

fn refusal(case: &Case, status: &Status) -> (String, Vec<String>) {
    if let Refused(_, code, ..) = case.expected {
        assert_eq!(status.code(), code, "{}", case.name);
    }
    let details = status.get_error_details();
    let violations = details.bad_request().map(|bad| bad.field_violations.clone());
    let fields = violations.unwrap_or_default().into_iter();
    let fields = fields.map(|one| one.field.trim_start_matches("organization.").to_owned());
    (details.error_info().unwrap().reason.clone(), fields.collect())
}

fn check(case: &Case, api: Api, outcome: &Outcome) {
    let name = format!("{} through {api:?}: {outcome:?}", case.name);
    match case.expected {
        Version(version, logged) => {
            assert_eq!(outcome.answer, Ok(()), "{name}");
            assert_eq!(outcome.stored.as_ref().unwrap().etag.version(), version, "{name}");
            assert_eq!(outcome.changes.len(), usize::try_from(version).unwrap(), "{name}");
            let last = outcome.changes.last().unwrap();
            if version > 1 {
                let fields: Vec<&str> = last.fields.iter().map(|one| one.field.path()).collect();
                assert_eq!(fields, logged, "{name}");
                assert_eq!(last.request_id, "parity", "{name}");
                assert!(!last.subject.is_empty(), "{name}");
            }
        }
        Refused(_, _, reason, fields) => {
            let fields = fields.iter().map(|field| (*field).to_owned()).collect();
            assert_eq!(outcome.answer, Err((reason.to_owned(), fields)), "{name}");
            if let Some(stored) = &outcome.stored {
                assert_eq!(stored.etag.version(), 1, "{name}");
                assert_eq!(outcome.changes.len(), 1, "{name}");
            }
        }
    }
}
