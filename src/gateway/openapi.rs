//! The OpenAPI document at `/openapi.json`. It is derived from the routes; each field's rights (from the
//! proto) and each operation's refusals are added.

mod edit;
mod refusals;

use std::sync::Arc;

use axum::{
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use serde_json::{Map, Value, json};
use utoipa::{ToSchema, openapi::OpenApi};

use self::edit::{add_enum, operations, set};
use crate::{
    domain::fields::{Field, ID_MAX, TEXT_CODE_POINTS_MAX},
    proto::{rights, v1::Role},
};

/// The pattern of every text field: no control characters, and something that is not white space.
const TEXT: &str = r"^[^\u0000-\u001F\u007F-\u009F]*[^\u0000-\u0020\u007F-\u00A0\u1680\u2000-\u200A\u2028\u2029\u202F\u205F\u3000][^\u0000-\u001F\u007F-\u009F]*$";

/// The fields to change: a member that is not there is not touched. Other members are ignored.
#[derive(ToSchema)]
#[schema(example = json!({"name": "Custom Name"}))]
pub(super) struct OrganizationUpdate {}

/// A new organization. Other members are ignored.
#[derive(ToSchema)]
#[schema(example = json!({"name": "New Org"}))]
pub(super) struct OrganizationCreation {}

/// The id alone, or with `Prefer: return=representation` the whole organization.
#[derive(ToSchema)]
#[schema(example = json!({"id": 90}))]
pub(super) struct Updated {}

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
    // Relative to the document's own address, so that it is right behind a proxy that adds a path as well.
    set(&mut document, "", "servers", json!([{"url": "."}]));
    add_security(&mut document);
    refusals::add(&mut document);
    add_fields(&mut document);
    add_rights(&mut document);
    add_names(&mut document);
    complete_updated(&mut document);
    document
}

/// Removes `null` from the types of parameters: the derive adds it to optional headers, which are never null.
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

const SCHEMAS: [&str; 3] = ["Organization", "OrganizationUpdate", "OrganizationCreation"];

/// The bounds of an id, and the fields, as the table has them.
fn add_fields(document: &mut Value) {
    let id = "/components/schemas/Organization/properties/id";
    set(document, id, "minimum", 1.into());
    set(document, id, "maximum", ID_MAX.into());
    for (name, field) in SCHEMAS.iter().flat_map(|name| Field::ALL.map(|field| (*name, field))) {
        let schema = document.pointer_mut(&format!("/components/schemas/{name}"));
        let Some(schema) = schema.and_then(Value::as_object_mut) else { continue };
        if let Some(members) = member_of(schema, "properties", json!({})).as_object_mut() {
            members.insert(field.member().to_owned(), text(name, field));
        }
        if field.facts().is_required
            && name != "OrganizationUpdate"
            && let Some(required) = member_of(schema, "required", json!([])).as_array_mut()
        {
            required.push(field.member().into());
        }
    }
}

fn member_of<'a>(schema: &'a mut Map<String, Value>, name: &str, default: Value) -> &'a mut Value {
    schema.entry(name).or_insert(default)
}

fn text(schema: &str, field: Field) -> Value {
    let may_be_null = schema != "Organization" && !field.facts().is_required;
    let clears =
        if schema == "OrganizationUpdate" && may_be_null { "; null clears it" } else { "" };
    json!({
        "description": format!("{}{clears}.", field.facts().about),
        "type": if may_be_null { json!(["string", "null"]) } else { json!("string") },
        "minLength": 1,
        "maxLength": TEXT_CODE_POINTS_MAX,
        "pattern": TEXT,
    })
}

fn add_rights(document: &mut Value) {
    let roles = |roles: &[Role]| -> Vec<String> { roles.iter().copied().map(Role::name).collect() };
    for declared in rights::declared().unwrap_or_default() {
        let rights = json!({"write": roles(&declared.write), "read": roles(&declared.read)});
        for schema in SCHEMAS {
            let property = format!("/components/schemas/{schema}/properties/{}", declared.member);
            set(document, &property, "x-rights", rights.clone());
        }
    }
}

/// The names of roles and fields, as types of their own.
fn add_names(document: &mut Value) {
    let roles = [Role::User, Role::Support, Role::Administrator].map(Role::name);
    let fields = Field::ALL.map(|field| field.member().to_owned());
    let of_roles = ["Caller/properties/role", "Change/properties/role"];
    let of_fields = [
        "FieldChange/properties/field",
        "Caller/properties/writableFields/items",
        "Organization/properties/writableFields/items",
    ];
    add_enum(document, ("Role", "What kind of caller it is."), &roles, &of_roles);
    add_enum(document, ("Field", "A field that an update may name."), &fields, &of_fields);
}

/// The answer to an update has the members of an organization, of which only the id is always there.
fn complete_updated(document: &mut Value) {
    let members = document.pointer("/components/schemas/Organization/properties").cloned();
    set(document, "/components/schemas/Updated", "properties", members.unwrap_or_default());
    set(document, "/components/schemas/Updated", "required", json!(["id"]));
}
