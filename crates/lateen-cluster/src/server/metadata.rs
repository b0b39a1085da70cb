//! The rules of `metadata` that hold for every kind. Whether a name is well formed is the kind's own rule.

use serde_json::{Map, Value, json};

use super::meta;
use crate::field::FieldError;
use crate::status::{Result, Status};
use crate::{clock, names};

/// What only the server may write on a new object.
const SERVER_FIELDS: [&str; 7] = [
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "resourceVersion",
    "selfLink",
    "generation",
];

/// What an update may not change.
const KEPT_FIELDS: [&str; 7] = [
    "name",
    "namespace",
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
];

/// Makes `metadata` an object, if it is absent; refuses anything else in its place.
pub(super) fn ensure(object: &mut Value) -> Result<&mut Map<String, Value>> {
    let Value::Object(fields) = object else {
        return Err(Status::bad_request("the body must be an object"));
    };
    let metadata = fields.entry("metadata").or_insert(Value::Null);
    if metadata.is_null() {
        *metadata = json!({});
    }
    match metadata {
        Value::Object(metadata) => Ok(metadata),
        _ => Err(Status::bad_request("metadata must be an object")),
    }
}

/// Sets what the server decides on a new object.
pub(super) fn for_create(object: &mut Value) -> Result<()> {
    let given = meta(object, "resourceVersion");
    if !given.is_empty() && given != "0" {
        return Err(Status::bad_request(
            "resourceVersion should not be set on objects to be created",
        ));
    }
    let metadata = ensure(object)?;
    for field in SERVER_FIELDS {
        metadata.shift_remove(field);
    }
    metadata.insert("uid".to_owned(), json!(names::uid()));
    metadata.insert("creationTimestamp".to_owned(), json!(clock::now()));
    Ok(())
}

/// Carries over from `old` what an update may not change.
pub(super) fn for_update(object: &mut Value, old: &Value) -> Result<()> {
    let metadata = ensure(object)?;
    metadata.shift_remove("selfLink");
    for field in KEPT_FIELDS {
        match old["metadata"].get(field) {
            Some(value) => metadata.insert(field.to_owned(), value.clone()),
            None => metadata.shift_remove(field),
        };
    }
    Ok(())
}

/// Puts the errors of a kind's own rules and those of `metadata` in the order in which Kubernetes tells them: the name,
/// the rest of `metadata`, the rest of the object.
pub(super) fn ordered(mut errors: Vec<FieldError>) -> Vec<FieldError> {
    errors.sort_by_key(|error| match error.field.as_str() {
        "metadata.generateName" | "metadata.name" => 0,
        "metadata.namespace" => 1,
        field if field.starts_with("metadata.") => 2,
        _ => 3,
    });
    errors
}
