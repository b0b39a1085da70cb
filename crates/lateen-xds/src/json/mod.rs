//! The JSON form of xDS: what `/config_dump`, snapshots and recordings show.
//!
//! Protobuf JSON with every `Any` expanded in place (`"@type"` and its fields). An `Any` of a type that the
//! descriptors lack appears as `{"@type": .., "@value": base64}` and is read back as it was.
//!
//! The descriptors are those of `envoy-types`, kept in `descriptors.bin.gz` (see `examples/descriptors.rs`), and are
//! unpacked on first use: a process that never prints xDS does not pay for them, and one that does so now and then can
//! forget them meanwhile.

mod extra;
mod fields;
#[cfg(test)]
mod fuzz;
mod opaque;

use std::io::Read as _;

use envoy_types::pb::google::protobuf::Any;
use flate2::read::GzDecoder;
use parking_lot::RwLock;
use prost::{Message, Name};
use prost_reflect::{
    DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor, ReflectMessage as _,
    SerializeOptions,
};
use serde_json::Value;

pub use fields::{SetField, set_fields, unsupported_fields};

/// The release of `envoy-types` that the descriptors come from.
pub const DESCRIPTORS_VERSION: &str = "0.7.7";

/// How deep `Any` may nest in `Any`. Envoy's own configuration stays below ten.
const MAX_DEPTH: usize = 32;

static POOL: RwLock<Option<DescriptorPool>> = RwLock::new(None);

/// The descriptors of every message that xDS may carry.
fn pool() -> DescriptorPool {
    if let Some(pool) = &*POOL.read() {
        return pool.clone();
    }
    POOL.write().get_or_insert_with(unpacked).clone()
}

fn unpacked() -> DescriptorPool {
    let mut encoded = Vec::new();
    GzDecoder::new(&include_bytes!("descriptors.bin.gz")[..])
        .read_to_end(&mut encoded)
        .expect("the embedded descriptors are a whole gzip file");
    let mut pool =
        DescriptorPool::decode(encoded.as_slice()).expect("the embedded descriptors are valid");
    extra::add_to(&mut pool);
    pool
}

/// Frees the descriptors, some 20 MB, until they are needed again, when unpacking them takes some 20 ms.
pub fn forget_descriptors() {
    POOL.write().take();
}

/// How fields are named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldNames {
    /// `lowerCamelCase`, the default of protobuf JSON.
    Camel,
    /// As in the `.proto` files: what Envoy's admin endpoint prints.
    Proto,
}

/// Why a message has no JSON form, or a JSON value is not the message it should be.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// The descriptors do not hold this type.
    #[error("unknown message type {0}")]
    UnknownType(String),
    /// The value has no `@type`.
    #[error("the value has no \"@type\" that names its message")]
    NoType,
    /// The bytes are not a message of the type.
    #[error("{type_name}: {source}")]
    Decode {
        /// Full name of the message type.
        type_name: String,
        /// What the decoder found.
        source: prost::DecodeError,
    },
    /// The JSON value does not fit the message.
    #[error("{type_name}: {source}")]
    Parse {
        /// Full name of the message type.
        type_name: String,
        /// What the parser found.
        source: serde_json::Error,
    },
    /// Messages nest deeper than any real configuration.
    #[error("{0} nests too deep")]
    TooDeep(String),
}

/// The JSON form of an `Any`: the fields of its message and `"@type"`.
///
/// # Errors
/// When the bytes are not a message of the type that they claim, at any depth.
pub fn from_any(any: &Any, names: FieldNames) -> Result<Value, JsonError> {
    let mut message = DynamicMessage::new(descriptor("google.protobuf.Any")?);
    transcode(&mut message, any)?;
    to_value(message, names)
}

/// The JSON form of a message, without `"@type"`.
///
/// # Errors
/// When an `Any` inside does not hold what it claims.
pub fn from_message<M: Message + Name>(message: &M, names: FieldNames) -> Result<Value, JsonError> {
    let mut dynamic = DynamicMessage::new(descriptor(&M::full_name())?);
    transcode(&mut dynamic, message)?;
    to_value(dynamic, names)
}

/// Reads an `Any` from JSON with a `"@type"`, in either form of field names.
///
/// # Errors
/// When `"@type"` is missing or unknown, or a field does not fit. Unknown fields are errors.
pub fn to_any(value: &Value) -> Result<Any, JsonError> {
    if value.get("@type").and_then(Value::as_str).is_none() {
        return Err(JsonError::NoType);
    }
    let message = parse(descriptor("google.protobuf.Any")?, value)?;
    message.transcode_to().map_err(|source| JsonError::Decode {
        type_name: "google.protobuf.Any".to_owned(),
        source,
    })
}

/// Reads a message from JSON, in either form of field names.
///
/// # Errors
/// When a field is unknown or does not fit.
pub fn to_message<M: Message + Name + Default>(value: &Value) -> Result<M, JsonError> {
    let message = parse(descriptor(&M::full_name())?, value)?;
    message.transcode_to().map_err(|source| JsonError::Decode {
        type_name: M::full_name(),
        source,
    })
}

fn descriptor(full_name: &str) -> Result<MessageDescriptor, JsonError> {
    pool()
        .get_message_by_name(full_name)
        .ok_or_else(|| JsonError::UnknownType(full_name.to_owned()))
}

fn transcode<M: Message>(into: &mut DynamicMessage, message: &M) -> Result<(), JsonError> {
    into.transcode_from(message)
        .map_err(|source| JsonError::Decode {
            type_name: into.descriptor().full_name().to_owned(),
            source,
        })
}

fn to_value(mut message: DynamicMessage, names: FieldNames) -> Result<Value, JsonError> {
    opaque::hide(&mut message, 0)?;
    let options = SerializeOptions::new().use_proto_field_name(names == FieldNames::Proto);
    let type_name = message.descriptor().full_name().to_owned();
    let mut value = message
        .serialize_with_options(serde_json::value::Serializer, &options)
        .map_err(|source| JsonError::Parse { type_name, source })?;
    opaque::reveal(&mut value);
    Ok(value)
}

fn parse(descriptor: MessageDescriptor, value: &Value) -> Result<DynamicMessage, JsonError> {
    let type_name = descriptor.full_name().to_owned();
    let mut hidden = value.clone();
    opaque::hide_json(&mut hidden);
    let options = DeserializeOptions::new().deny_unknown_fields(true);
    let mut message = DynamicMessage::deserialize_with_options(descriptor, hidden, &options)
        .map_err(|source| JsonError::Parse { type_name, source })?;
    opaque::restore(&mut message, 0)?;
    Ok(message)
}

#[cfg(test)]
mod tests;
