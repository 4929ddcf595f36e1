//! The OpenAPI document of the REST door, derived from its routes and served at `/openapi.json`.
//!
//! What the derive cannot say is added to its JSON: the rights to each field, as the proto declares
//! them, and the refusals that every operation has.

use std::sync::Arc;

use axum::{
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use serde_json::{Value, json};
use utoipa::{ToSchema, openapi::OpenApi};

use crate::{
    gateway::write::resource,
    proto::{rights, role_name, v1::Role},
};

/// What every text field holds: no control characters, and something that is not white space.
const TEXT: &str = r"^[^\u0000-\u001F\u007F-\u009F]*[^\u0000-\u0020\u007F-\u00A0\u1680\u2000-\u200A\u2028\u2029\u202F\u205F\u3000][^\u0000-\u001F\u007F-\u009F]*$";

/// The fields to change: a member that is not there is not touched. Other members are ignored.
#[derive(ToSchema)]
#[schema(example = json!({"name": "Custom Name"}))]
#[expect(dead_code, reason = "a shape for the document; bodies are read in json.rs")]
pub(super) struct OrganizationUpdate {
    /// The display name.
    #[schema(min_length = 1, max_length = 255, nullable = false)]
    name: Option<String>,
    /// The subscription; null clears it.
    #[schema(rename = "subscriptionId", min_length = 1, max_length = 255)]
    subscription_id: Option<String>,
    /// The handshake; null clears it.
    #[schema(min_length = 1, max_length = 255)]
    handshake: Option<String>,
}

/// A new organization. Other members are ignored.
#[derive(ToSchema)]
#[schema(example = json!({"name": "New Org"}))]
#[expect(dead_code, reason = "a shape for the document; bodies are read in json.rs")]
pub(super) struct OrganizationCreation {
    /// The display name.
    #[schema(min_length = 1, max_length = 255)]
    name: String,
    /// The subscription.
    #[schema(rename = "subscriptionId", min_length = 1, max_length = 255)]
    subscription_id: Option<String>,
    /// The handshake.
    #[schema(min_length = 1, max_length = 255)]
    handshake: Option<String>,
}

/// The id alone, or with `Prefer: return=representation` the whole organization.
#[derive(ToSchema)]
#[expect(dead_code, reason = "a shape for the document")]
pub(super) struct Updated {
    /// The id.
    #[schema(example = 90)]
    id: i64,
}

/// A refusal (RFC 9457).
#[derive(ToSchema)]
#[schema(as = Problem, rename_all = "camelCase")]
#[expect(dead_code, reason = "a shape for the document; problems are written in problem.rs")]
pub(super) struct ProblemBody {
    /// Names the kind of problem.
    r#type: String,
    /// The kind of problem, in the words of the published page where it has some.
    title: String,
    /// The HTTP status.
    status: i32,
    /// What is wrong and what to do.
    detail: String,
    /// The path of the request.
    instance: String,
    /// The gRPC code.
    code: String,
    /// The stable reason.
    reason: String,
    /// Whose reasons these are.
    domain: String,
    /// The request's id, for a report.
    request_id: String,
    /// More of the reason, such as the current etag.
    #[schema(nullable = false)]
    metadata: Option<Object>,
    /// The members of the body at fault.
    #[schema(nullable = false)]
    errors: Option<Vec<ProblemError>>,
}

type Object = std::collections::BTreeMap<String, String>;

/// One member of the body, or parameter, at fault.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "a shape for the document")]
pub(super) struct ProblemError {
    /// Where in the body (RFC 6901, as a fragment); not there where the fault is not in it.
    #[schema(nullable = false)]
    pointer: Option<String>,
    /// The stable reason.
    reason: String,
    /// What is wrong.
    detail: String,
}

/// `GET /openapi.json`, without authentication.
pub(super) fn handler(
    derived: OpenApi,
) -> impl Fn() -> std::future::Ready<Response> + Clone + Send + Sync {
    let document: Arc<Bytes> = Arc::new(document(derived).to_string().into());
    move || {
        let body = Bytes::clone(&document);
        std::future::ready(([(CONTENT_TYPE, "application/json")], body).into_response())
    }
}

fn document(derived: OpenApi) -> Value {
    let mut document = serde_json::to_value(derived).unwrap_or_default();
    remove_null_parameters(&mut document);
    add_security(&mut document);
    add_refusals(&mut document);
    add_field_rules(&mut document);
    document
}

/// A parameter that is not there is not null; the derive says of an optional header that it may be.
fn remove_null_parameters(document: &mut Value) {
    for operation in operations(document) {
        let parameters = operation.get_mut("parameters").and_then(Value::as_array_mut);
        for schema in parameters.into_iter().flatten().filter_map(|one| one.get_mut("schema")) {
            let forms = schema.get("type").and_then(Value::as_array).map(Vec::as_slice);
            if let Some([form, null]) = forms
                && null == "null"
            {
                let form = form.clone();
                set(schema, "", "type", form);
            }
        }
    }
}

/// Every operation of the document.
fn operations(document: &mut Value) -> impl Iterator<Item = &mut Value> {
    let paths = document.pointer_mut("/paths").and_then(Value::as_object_mut);
    let paths = paths.into_iter().flat_map(|paths| paths.values_mut());
    paths.filter_map(Value::as_object_mut).flat_map(|operations| operations.values_mut())
}

fn add_security(document: &mut Value) {
    set(
        document,
        "/components",
        "securitySchemes",
        json!({
            "bearer": {
                "type": "http",
                "scheme": "bearer",
                "description": "A bearer token (a UUID) or an API key. `ApiKey <key>` and a bare API \
                    key are taken in the Authorization header as well."
            }
        }),
    );
    set(document, "", "security", json!([{"bearer": []}]));
}

/// Every operation may be refused in these ways; `default` stands for limits and failures.
fn add_refusals(document: &mut Value) {
    let problem =
        json!({"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}});
    let refusals = [
        ("400", "Invalid input"),
        ("401", "Invalid authentication token"),
        ("403", "Insufficient rights"),
        ("404", "No such organization"),
        ("default", "The request cannot be served as it is, or not at the moment"),
    ];
    for operation in operations(document) {
        let responses = operation.get_mut("responses").and_then(Value::as_object_mut);
        let Some(responses) = responses else { continue };
        for (status, description) in refusals {
            let refusal = json!({"description": description, "content": problem});
            responses.insert(status.to_owned(), refusal);
        }
    }
}

/// The form of texts, and who may write and read a field, as the proto declares it.
fn add_field_rules(document: &mut Value) {
    let roles = |roles: &[Role]| -> Vec<String> { roles.iter().copied().map(role_name).collect() };
    for declared in rights::declared().unwrap_or_default() {
        let member = resource::member(&declared.field);
        let rights = json!({"write": roles(&declared.write), "read": roles(&declared.read)});
        for schema in ["Organization", "OrganizationUpdate", "OrganizationCreation"] {
            let property = format!("/components/schemas/{schema}/properties/{member}");
            set(document, &property, "x-rights", rights.clone());
            if !declared.write.is_empty() {
                set(document, &property, "pattern", TEXT.into());
            }
        }
    }
}

/// Sets a member of the object at `pointer`, where there is one.
fn set(document: &mut Value, pointer: &str, key: &str, value: Value) {
    if let Some(object) = document.pointer_mut(pointer).and_then(Value::as_object_mut) {
        object.insert(key.to_owned(), value);
    }
}
