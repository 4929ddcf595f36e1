//! The refusals in the OpenAPI document: their reasons, as docs/ERRORS.md lists them, and an example of each.

use serde_json::{Map, Value, json};

use super::edit::{add_enum, operations, set};
use crate::domain::reason;

const PAGE: &str = include_str!("../../../docs/ERRORS.md");
/// Bodies that a running service answered: a test writes them (tests/it/api/refusals.rs).
const RECORDED: &str = include_str!("refusals.json");

/// The statuses that have a description of their own. Every operation may answer the first five.
const STATUSES: [(&str, &str); 7] = [
    ("400", "Invalid input"),
    ("401", "Invalid authentication token"),
    ("403", "Insufficient rights"),
    ("404", "No such organization"),
    ("429", "Too much at once, or too often; Retry-After says when to try again"),
    ("412", "A precondition does not hold; the metadata has the organization's etag"),
    ("422", "Another request was sent under this key"),
];
const OF_EVERY_OPERATION: usize = 5;
/// All others: limits and failures.
const OTHERS: (&str, &str) =
    ("default", "The request cannot be served as it is, or not at the moment");

/// The reasons by which a stream of events ends that had begun: no status says them, but the last event.
const OF_STREAMS: [&str; 3] =
    [reason::CONNECTION_AGED, reason::CREDENTIAL_CHANGED, reason::SERVICE_STOPPING];
/// The answer that is such a stream.
const STREAM: &str =
    "/paths/~1v1~1organizations~1{id}~1events/get/responses/200/content/text~1event-stream";

pub(super) fn add(document: &mut Value) {
    add_reasons(document);
    let recorded: Vec<Value> = serde_json::from_str(RECORDED).unwrap_or_default();
    let (of_streams, recorded): (Vec<_>, Vec<_>) =
        recorded.into_iter().partition(|problem| OF_STREAMS.contains(&reason(problem)));
    set(document, STREAM, "examples", last_events(&of_streams));
    let mut responses = Map::new();
    for (status, description) in STATUSES.into_iter().chain([OTHERS]) {
        responses.insert(name(status), response(status, description, &recorded));
    }
    set(document, "/components", "responses", responses.into());
    for operation in operations(document) {
        refer(operation);
    }
}

/// The reasons of whole refusals, of those that the REST API gives, and of single fields.
fn add_reasons(document: &mut Value) {
    let of_rest = rows("Refusals").filter(|(_, http)| *http != "-");
    let refusals: Vec<&str> = of_rest.map(|(reason, _)| reason).collect();
    let fields: Vec<&str> = rows("Reasons of single fields").map(|(reason, _)| reason).collect();
    let about = "Why a request is refused (docs/ERRORS.md).";
    add_enum(document, ("Reason", about), &refusals, &["Problem/properties/reason"]);
    let about = "Why a member of the body, or a parameter, is refused (docs/ERRORS.md).";
    add_enum(document, ("FieldReason", about), &fields, &["ProblemError/properties/reason"]);
}

/// The reasons in a table of the page, each with its third cell, which is the HTTP status if it has one.
fn rows(heading: &str) -> impl Iterator<Item = (&'static str, &'static str)> {
    let section = PAGE.split("\n## ").find_map(|section| section.strip_prefix(heading));
    section.unwrap_or_default().lines().filter_map(|line| {
        let mut cells = line.split('|').map(str::trim).skip(1);
        let reason = cells.next()?.strip_prefix('`')?.strip_suffix('`')?;
        Some((reason, cells.nth(1).unwrap_or_default()))
    })
}

/// The name of a status among the document's responses.
fn name(status: &str) -> String {
    format!("Refused{}", if status == OTHERS.0 { "Otherwise" } else { status })
}

fn reason(problem: &Value) -> &str {
    problem.get("reason").and_then(Value::as_str).unwrap_or_default()
}

/// The response with this status, with what was recorded of it as examples.
fn response(status: &str, description: &str, recorded: &[Value]) -> Value {
    let is_named = |of: &str| STATUSES.iter().any(|(status, _)| *status == of);
    let mut examples = Map::new();
    for problem in recorded {
        let of = problem.get("status").map(Value::to_string).unwrap_or_default();
        if of == status || (status == OTHERS.0 && !is_named(&of)) {
            examples.insert(reason(problem).to_owned(), json!({"value": problem}));
        }
    }
    let schema = json!({"$ref": "#/components/schemas/Problem"});
    let problem = json!({"schema": schema, "examples": examples});
    json!({"description": description, "content": {"application/problem+json": problem}})
}

/// The last event of a stream, for each reason.
fn last_events(recorded: &[Value]) -> Value {
    let event = |problem: &Value| json!({"value": format!("event: error\ndata: {problem}\n\n")});
    let examples = recorded.iter().map(|problem| (reason(problem).to_owned(), event(problem)));
    examples.collect::<Map<_, _>>().into()
}

/// Names the responses that an operation may have.
fn refer(operation: &mut Value) {
    let responses = operation.get_mut("responses").and_then(Value::as_object_mut);
    let Some(responses) = responses else { return };
    let of_every_operation = STATUSES.iter().take(OF_EVERY_OPERATION).chain([&OTHERS]);
    let every: Vec<&str> = of_every_operation.map(|(status, _)| *status).collect();
    for (status, _) in STATUSES.iter().chain([&OTHERS]) {
        if every.contains(status) || responses.contains_key(*status) {
            let response = format!("#/components/responses/{}", name(status));
            responses.insert((*status).to_owned(), json!({"$ref": response}));
        }
    }
}
