//! Walking the fields that a message sets, so that a receiver can refuse what it does not implement.

use envoy_types::pb::google::protobuf::Any;
use prost_reflect::{DynamicMessage, MapKey, ReflectMessage as _, Value};

use super::opaque::message_name;
use super::{JsonError, MAX_DEPTH, pool};

/// A field that is set somewhere in a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SetField<'a> {
    /// Full name of the message that declares the field, such as `envoy.config.cluster.v3.Cluster`.
    pub message: &'a str,
    /// Name of the field as in the `.proto` file; `#NUMBER` for a field that the descriptors lack.
    pub field: &'a str,
    /// Where it is, from the outermost message: `filter_chains[0].filters[1].typed_config.stat_prefix`.
    pub path: &'a str,
}

/// Calls `visit` for every set field, outermost first, also inside `Any`; `visit` says whether to look inside it.
///
/// An `Any` of a type that the descriptors lack is not looked into: its `typed_config` field was visited, and
/// whoever knows the type decodes it.
///
/// # Errors
/// When an `Any` does not hold a message of the type that it claims, or nests too deep.
pub fn set_fields(any: &Any, visit: &mut dyn FnMut(SetField<'_>) -> bool) -> Result<(), JsonError> {
    walk_any(&any.type_url, &any.value, &mut String::new(), 0, visit)
}

/// The paths of set fields that `supported(message, field)` does not name, each with nothing below it.
///
/// # Errors
/// As [`set_fields`].
pub fn unsupported_fields(
    any: &Any,
    mut supported: impl FnMut(&str, &str) -> bool,
) -> Result<Vec<String>, JsonError> {
    let mut paths = Vec::new();
    set_fields(any, &mut |field| {
        let known = supported(field.message, field.field);
        if !known {
            paths.push(field.path.to_owned());
        }
        known
    })?;
    Ok(paths)
}

fn walk_any(
    type_url: &str,
    bytes: &[u8],
    path: &mut String,
    depth: usize,
    visit: &mut dyn FnMut(SetField<'_>) -> bool,
) -> Result<(), JsonError> {
    if depth >= MAX_DEPTH {
        return Err(JsonError::TooDeep(type_url.to_owned()));
    }
    let name = message_name(type_url);
    let Some(descriptor) = pool().get_message_by_name(name) else {
        return Ok(());
    };
    let message =
        DynamicMessage::decode(descriptor, bytes).map_err(|source| JsonError::Decode {
            type_name: name.to_owned(),
            source,
        })?;
    walk(&message, path, depth, visit)
}

fn walk(
    message: &DynamicMessage,
    path: &mut String,
    depth: usize,
    visit: &mut dyn FnMut(SetField<'_>) -> bool,
) -> Result<(), JsonError> {
    let descriptor = message.descriptor();
    let declared_by = descriptor.full_name();
    if declared_by == "google.protobuf.Any" {
        let any: Any = message.transcode_to().map_err(|source| JsonError::Decode {
            type_name: declared_by.to_owned(),
            source,
        })?;
        return walk_any(&any.type_url, &any.value, path, depth + 1, visit);
    }
    // Well-known types are values, not messages with fields of their own.
    if declared_by.starts_with("google.protobuf.") {
        return Ok(());
    }
    let start = path.len();
    for (field, value) in message.fields() {
        push_segment(path, field.name());
        if visit(SetField {
            message: declared_by,
            field: field.name(),
            path,
        }) {
            walk_value(value, path, depth, visit)?;
        }
        path.truncate(start);
    }
    for field in message.unknown_fields() {
        let name = format!("#{}", field.number());
        push_segment(path, &name);
        visit(SetField {
            message: declared_by,
            field: &name,
            path,
        });
        path.truncate(start);
    }
    Ok(())
}

fn walk_value(
    value: &Value,
    path: &mut String,
    depth: usize,
    visit: &mut dyn FnMut(SetField<'_>) -> bool,
) -> Result<(), JsonError> {
    let start = path.len();
    match value {
        Value::Message(inner) => walk(inner, path, depth, visit)?,
        Value::List(items) => {
            for (position, item) in items.iter().enumerate() {
                if let Value::Message(inner) = item {
                    path.push_str(&format!("[{position}]"));
                    walk(inner, path, depth, visit)?;
                    path.truncate(start);
                }
            }
        }
        Value::Map(entries) => {
            for (key, entry) in entries {
                if let Value::Message(inner) = entry {
                    path.push_str(&format!("[{}]", key_text(key)));
                    walk(inner, path, depth, visit)?;
                    path.truncate(start);
                }
            }
        }
        _ => {}
    }
    Ok(())
}

fn push_segment(path: &mut String, name: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(name);
}

fn key_text(key: &MapKey) -> String {
    match key {
        MapKey::String(text) => format!("{text:?}"),
        MapKey::Bool(value) => value.to_string(),
        MapKey::I32(value) => value.to_string(),
        MapKey::I64(value) => value.to_string(),
        MapKey::U32(value) => value.to_string(),
        MapKey::U64(value) => value.to_string(),
    }
}
