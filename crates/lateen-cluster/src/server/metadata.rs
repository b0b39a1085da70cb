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

/// The annotations' names and values together may have this many bytes.
const ANNOTATIONS_LIMIT: usize = 256 * 1024;

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

/// All errors of `metadata` but those of the name.
pub(super) fn validate(object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let metadata = &object["metadata"];
    let mut errors = Vec::new();
    for (key, value) in entries(&metadata["labels"]) {
        errors.extend(key_error("metadata.labels", key));
        errors.extend(label_value_error("metadata.labels", value));
    }
    let mut size = 0;
    for (key, value) in entries(&metadata["annotations"]) {
        errors.extend(key_error("metadata.annotations", &key.to_ascii_lowercase()));
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size > ANNOTATIONS_LIMIT {
        errors.push(FieldError {
            field: "metadata.annotations".to_owned(),
            kind: crate::field::FieldErrorKind::TooLong,
            value: Value::Null,
            detail: format!("may not be more than {ANNOTATIONS_LIMIT} bytes"),
        });
    }
    errors.extend(owner_errors(&metadata["ownerReferences"]));
    errors.extend(finalizer_errors(metadata, old));
    errors
}

fn entries(map: &Value) -> impl Iterator<Item = (&String, &Value)> {
    map.as_object().into_iter().flatten()
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn owner_errors(owners: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut controllers = 0;
    for (index, owner) in items(owners).enumerate() {
        let path = format!("metadata.ownerReferences[{index}]");
        for (field, detail) in [
            ("apiVersion", "version must not be empty"),
            ("kind", "must not be empty"),
            ("name", "must not be empty"),
            ("uid", "must not be empty"),
        ] {
            if owner[field].as_str().unwrap_or_default().is_empty() {
                errors.push(FieldError::invalid(
                    format!("{path}.{field}"),
                    json!(""),
                    detail,
                ));
            }
        }
        controllers += usize::from(owner["controller"] == true);
    }
    if controllers > 1 {
        errors.push(FieldError::invalid(
            "metadata.ownerReferences",
            owners.clone(),
            "Only one reference can have Controller set to true",
        ));
    }
    errors
}

fn finalizer_errors(metadata: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut added = Vec::new();
    let before = old.map(|old| &old["metadata"]["finalizers"]);
    for (index, finalizer) in items(&metadata["finalizers"]).enumerate() {
        let name = finalizer.as_str().unwrap_or_default();
        errors.extend(key_error(&format!("metadata.finalizers[{index}]"), name));
        let is_new = before.is_none_or(|list| items(list).all(|known| known != finalizer));
        if is_new {
            added.push(name);
        }
    }
    let deleting = old.is_some_and(|old| old["metadata"].get("deletionTimestamp").is_some());
    if deleting && !added.is_empty() {
        let quoted: Vec<String> = added.iter().map(|name| format!("{name:?}")).collect();
        errors.push(FieldError::forbidden(
            "metadata.finalizers",
            format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                quoted.join(", ")
            ),
        ));
    }
    errors
}

/// A qualified name: an optional DNS prefix and a slash, then up to 63 letters, digits, `-`, `_` and `.`.
fn key_error(field: &str, key: &str) -> Option<FieldError> {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    let prefix_wrong = prefix.is_some_and(|prefix| {
        prefix.is_empty() || prefix.len() > 253 || !prefix.split('.').all(is_dns_label)
    });
    if prefix_wrong || !is_name(name, 63) {
        return Some(FieldError::invalid(
            field,
            json!(key),
            "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
        ));
    }
    None
}

fn label_value_error(field: &str, value: &Value) -> Option<FieldError> {
    let text = value.as_str().unwrap_or_default();
    (!text.is_empty() && !is_name(text, 63)).then(|| {
        FieldError::invalid(
            field,
            value.clone(),
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
        )
    })
}

fn is_name(text: &str, longest: usize) -> bool {
    let bytes = text.as_bytes();
    let ends = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    bytes.len() <= longest
        && ends(bytes.first())
        && ends(bytes.last())
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
}

fn is_dns_label(text: &str) -> bool {
    is_name(text, 63)
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}
