//! Checks the numbers that the `scale` subresource of a custom resource reads and writes.

use serde_json::Value;

use crate::field::FieldError;
use crate::strategy::Part;

/// Adds the faults of the fields that `scale` (as it stands in the definition) points at.
pub(crate) fn check(scale: &Value, object: &Value, part: Part, errors: &mut Vec<FieldError>) {
    let mut number = |key: &str| {
        let path = scale[key].as_str().unwrap_or_default();
        let fault = match nested(object, path) {
            Ok(None) => return,
            Ok(Some(value)) => match value.as_i64() {
                None => Some((0, mistyped(path, value, "int64"))),
                Some(count @ ..=-1) => Some((count, "should be a non-negative integer".to_owned())),
                Some(count) if count > i64::from(i32::MAX) => Some((
                    count,
                    format!("should be less than or equal to {}", i32::MAX),
                )),
                Some(_) => None,
            },
            Err(detail) => Some((0, detail)),
        };
        errors.extend(fault.map(|(count, detail)| FieldError::invalid(path, count.into(), detail)));
    };
    if part == Part::Main {
        number("specReplicasPath");
    }
    number("statusReplicasPath");
    let path = scale["labelSelectorPath"].as_str().unwrap_or_default();
    if path.is_empty() {
        return;
    }
    let fault = match nested(object, path) {
        Ok(Some(value)) if !value.is_string() => Some(mistyped(path, value, "string")),
        Ok(_) => None,
        Err(detail) => Some(detail),
    };
    errors.extend(fault.map(|detail| FieldError::invalid(path, Value::from(""), detail)));
}

/// The value at a path with dots; an error when something on the way is no object.
fn nested<'a>(object: &'a Value, path: &str) -> Result<Option<&'a Value>, String> {
    let mut value = object;
    let mut passed = String::new();
    for name in path.trim_start_matches('.').split('.') {
        let Some(fields) = value.as_object() else {
            return Err(mistyped(&passed, value, "map[string]interface{}"));
        };
        passed = format!("{passed}.{name}");
        match fields.get(name) {
            Some(next) => value = next,
            None => return Ok(None),
        }
    }
    Ok(Some(value))
}

/// Names types as Go does, whose words clients know.
fn mistyped(path: &str, value: &Value, wanted: &str) -> String {
    let (shown, found) = match value {
        Value::Null => ("<nil>".to_owned(), "<nil>"),
        Value::Bool(value) => (value.to_string(), "bool"),
        Value::Number(number) if number.is_f64() => (number.to_string(), "float64"),
        Value::Number(number) => (number.to_string(), "int64"),
        Value::String(text) => (text.clone(), "string"),
        Value::Array(_) => (value.to_string(), "[]interface {}"),
        Value::Object(_) => (value.to_string(), "map[string]interface {}"),
    };
    format!("{path} accessor error: {shown} is of the type {found}, expected {wanted}")
}
