//! `Any` values of types without a descriptor, which protobuf JSON cannot express.
//!
//! Before a message is printed they are replaced by a `google.protobuf.Struct` that carries type and bytes, and in the
//! printed JSON that stand-in becomes `{"@type": TYPE, "@value": BASE64}`; reading goes the same way back.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use envoy_types::pb::google::protobuf::value::Kind as ValueKind;
use envoy_types::pb::google::protobuf::{Any, Struct, Value as StructValue};
use prost::Message as _;
use prost_reflect::{DynamicMessage, ReflectMessage as _, Value};
use serde_json::{Value as Json, json};

use super::{JsonError, MAX_DEPTH, pool};

const STRUCT_URL: &str = "type.googleapis.com/google.protobuf.Struct";
/// Keys of the stand-in. No configuration has keys like these.
const TYPE_KEY: &str = "@lateen.opaque.type";
const VALUE_KEY: &str = "@lateen.opaque.value";

/// Replaces every `Any` of an unknown type by its stand-in. Answers whether anything was replaced.
pub(super) fn hide(message: &mut DynamicMessage, depth: usize) -> Result<bool, JsonError> {
    change_anys(message, depth, &|any| {
        if known(&any.type_url) {
            None
        } else {
            Some(stand_in(any))
        }
    })
}

/// Replaces every stand-in by the `Any` that it stands for.
pub(super) fn restore(message: &mut DynamicMessage, depth: usize) -> Result<bool, JsonError> {
    change_anys(message, depth, &|any| {
        if any.type_url != STRUCT_URL {
            return None;
        }
        let fields = Struct::decode(any.value.as_slice()).ok()?.fields;
        let text = |key: &str| match fields.get(key)?.kind.as_ref()? {
            ValueKind::StringValue(text) => Some(text.clone()),
            _ => None,
        };
        Some(Any {
            type_url: text(TYPE_KEY)?,
            value: BASE64.decode(text(VALUE_KEY)?).ok()?,
        })
    })
}

/// Turns printed stand-ins into `{"@type", "@value"}`.
pub(super) fn reveal(value: &mut Json) {
    let fields = value.get("value").and_then(Json::as_object);
    if let Some(fields) = fields
        && let (Some(type_url), Some(bytes)) = (fields.get(TYPE_KEY), fields.get(VALUE_KEY))
    {
        *value = json!({"@type": type_url, "@value": bytes});
        return;
    }
    each_child(value, reveal);
}

/// Turns `{"@type", "@value"}` into stand-ins that the parser understands.
pub(super) fn hide_json(value: &mut Json) {
    if let (Some(type_url), Some(bytes)) = (value.get("@type"), value.get("@value")) {
        *value = json!({"@type": STRUCT_URL, "value": {TYPE_KEY: type_url, VALUE_KEY: bytes}});
        return;
    }
    each_child(value, hide_json);
}

fn each_child(value: &mut Json, action: fn(&mut Json)) {
    match value {
        Json::Object(fields) => fields.values_mut().for_each(action),
        Json::Array(items) => items.iter_mut().for_each(action),
        _ => {}
    }
}

fn known(type_url: &str) -> bool {
    pool().get_message_by_name(message_name(type_url)).is_some()
}

/// The message name in a type URL: what follows the last slash.
pub(super) fn message_name(type_url: &str) -> &str {
    type_url.rsplit('/').next().unwrap_or(type_url)
}

fn stand_in(any: &Any) -> Any {
    let text = |text: String| StructValue {
        kind: Some(ValueKind::StringValue(text)),
    };
    let fields = [
        (TYPE_KEY.to_owned(), text(any.type_url.clone())),
        (VALUE_KEY.to_owned(), text(BASE64.encode(&any.value))),
    ];
    let stand_in = Struct {
        fields: fields.into_iter().collect(),
    };
    Any {
        type_url: STRUCT_URL.to_owned(),
        value: stand_in.encode_to_vec(),
    }
}

/// Applies `change` to every `Any` within `message`, also to those inside other `Any`s.
fn change_anys(
    message: &mut DynamicMessage,
    depth: usize,
    change: &dyn Fn(&Any) -> Option<Any>,
) -> Result<bool, JsonError> {
    let descriptor = message.descriptor();
    if descriptor.full_name() == "google.protobuf.Any" {
        return change_any(message, depth, change);
    }
    let mut changed = false;
    for (_, value) in message.fields_mut() {
        match value {
            Value::Message(inner) => changed |= change_anys(inner, depth, change)?,
            Value::List(items) => {
                for item in items {
                    if let Value::Message(inner) = item {
                        changed |= change_anys(inner, depth, change)?;
                    }
                }
            }
            Value::Map(entries) => {
                for entry in entries.values_mut() {
                    if let Value::Message(inner) = entry {
                        changed |= change_anys(inner, depth, change)?;
                    }
                }
            }
            _ => {}
        }
    }
    Ok(changed)
}

fn change_any(
    message: &mut DynamicMessage,
    depth: usize,
    change: &dyn Fn(&Any) -> Option<Any>,
) -> Result<bool, JsonError> {
    let mut any: Any = message
        .transcode_to()
        .map_err(|source| decode_error("google.protobuf.Any", source))?;
    if depth >= MAX_DEPTH {
        return Err(JsonError::TooDeep(any.type_url));
    }
    if let Some(other) = change(&any) {
        any = other;
    } else {
        let name = message_name(&any.type_url);
        let Some(descriptor) = pool().get_message_by_name(name) else {
            return Ok(false);
        };
        let mut inner = DynamicMessage::decode(descriptor, any.value.as_slice())
            .map_err(|source| decode_error(name, source))?;
        if !change_anys(&mut inner, depth + 1, change)? {
            return Ok(false);
        }
        any.value = inner.encode_to_vec();
    }
    message
        .transcode_from(&any)
        .map_err(|source| decode_error("google.protobuf.Any", source))?;
    Ok(true)
}

fn decode_error(type_name: &str, source: prost::DecodeError) -> JsonError {
    JsonError::Decode {
        type_name: type_name.to_owned(),
        source,
    }
}
