//! Objects inside custom resources (`x-kubernetes-embedded-resource`): their type and metadata are always checked.

use serde_json::Value;

use crate::field::FieldError;
use crate::status::Result;

use super::metadata;
use super::schema::Schema;

/// Drops unknown fields of the metadata of embedded objects and returns their paths.
///
/// # Errors
/// A field of the metadata has the wrong type.
pub(crate) fn decode(schema: &Schema, object: &mut Value) -> Result<Vec<String>> {
    let mut unknown = Vec::new();
    each(schema, object, "", &mut |value, path| {
        let found = metadata::decode(value)?;
        unknown.extend(found.into_iter().map(|name| format!("{path}.{name}")));
        Ok(())
    })?;
    Ok(unknown)
}

/// The faults of the types of embedded objects.
pub(crate) fn check(schema: &Schema, object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut copy = object.clone();
    let walked = each(schema, &mut copy, "", &mut |value, path| {
        for name in ["apiVersion", "kind"] {
            let place = super::child(path, name);
            match value.get(name) {
                None => errors.push(FieldError::required(place, "")),
                Some(Value::String(text)) if text.is_empty() => {
                    errors.push(FieldError::invalid(
                        place,
                        Value::from(""),
                        "must not be empty",
                    ));
                }
                Some(Value::String(_)) => {}
                Some(other) => {
                    errors.push(FieldError::invalid(
                        place,
                        other.clone(),
                        "must be a string",
                    ));
                }
            }
        }
        Ok(())
    });
    debug_assert!(walked.is_ok(), "the visitor does not fail");
    errors
}

/// Calls `visit` with every embedded object below the root, and its path.
fn each(
    schema: &Schema,
    value: &mut Value,
    path: &str,
    visit: &mut dyn FnMut(&mut Value, &str) -> Result<()>,
) -> Result<()> {
    if schema.embedded && !path.is_empty() && value.is_object() {
        visit(value, path)?;
    }
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if let Some(below) = schema.field(name) {
                    each(below, value, &super::child(path, name), visit)?;
                }
            }
        }
        Value::Array(items) => {
            let Some(below) = &schema.items else {
                return Ok(());
            };
            for (index, item) in items.iter_mut().enumerate() {
                each(below, item, &format!("{path}[{index}]"), visit)?;
            }
        }
        _ => {}
    }
    Ok(())
}
