//! How the OpenAPI document is edited as JSON.

use serde::Serialize;
use serde_json::{Value, json};

/// The operations of every path.
pub(super) fn operations(document: &mut Value) -> impl Iterator<Item = &mut Value> {
    let paths = document.pointer_mut("/paths").and_then(Value::as_object_mut);
    let paths = paths.into_iter().flat_map(|paths| paths.values_mut());
    paths.filter_map(Value::as_object_mut).flat_map(|operations| operations.values_mut())
}

/// Adds a type that has these values, and gives it to the properties.
pub(super) fn add_enum(
    document: &mut Value,
    (name, about): (&str, &str),
    values: &[impl Serialize],
    properties: &[&str],
) {
    let schema = json!({"type": "string", "description": about, "enum": values});
    set(document, "/components/schemas", name, schema);
    for property in properties {
        let property = document.pointer_mut(&format!("/components/schemas/{property}"));
        if let Some(property) = property.and_then(Value::as_object_mut) {
            property.remove("type");
            property.insert("$ref".to_owned(), format!("#/components/schemas/{name}").into());
        }
    }
}

/// Sets a member of the object at `pointer`, where there is one.
pub(super) fn set(document: &mut Value, pointer: &str, key: &str, value: Value) {
    if let Some(object) = document.pointer_mut(pointer).and_then(Value::as_object_mut) {
        object.insert(key.to_owned(), value);
    }
}
