//! The compiled form of a schema.

use std::collections::BTreeMap;
use std::sync::Arc;

use regex::Regex;
use serde_json::Value;

use super::definitions;
use crate::strategy::ListType;

/// A compiled OpenAPI v3 schema with the extensions of Kubernetes. Cheap to clone where it is shared by [`Arc`].
#[derive(Debug, Clone, Default)]
pub struct Schema {
    /// JSON type; `None` where any type may stand.
    pub type_: Option<Type>,
    /// What a string or number holds.
    pub format: Format,
    /// The format as written, e.g. `date-time`; empty without one.
    pub format_name: String,
    /// Whether `null` may stand.
    pub nullable: bool,
    /// `x-kubernetes-preserve-unknown-fields`.
    pub preserve_unknown: bool,
    /// `x-kubernetes-embedded-resource`.
    pub embedded_resource: bool,
    /// `properties`, by name.
    pub properties: BTreeMap<String, Schema>,
    /// `additionalProperties`.
    pub additional: Additional,
    /// `required`.
    pub required: Vec<String>,
    /// Schema of the items of an array.
    pub items: Option<Box<Schema>>,
    /// `x-kubernetes-list-type` with its keys.
    pub list_type: Option<ListType>,
    /// Value to put where none is given.
    pub default: Option<Value>,
    /// Allowed values; empty for any.
    pub allowed: Vec<Value>,
    /// Bounds on numbers, lengths and counts.
    pub bounds: Bounds,
    /// Every one of these must hold.
    pub all_of: Vec<Schema>,
    /// At least one of these must hold.
    pub any_of: Vec<Schema>,
    /// Exactly one of these must hold.
    pub one_of: Vec<Schema>,
    /// This must not hold.
    pub not: Option<Box<Schema>>,
    /// Name of a built-in definition that stands here; see [`Schema::resolved`].
    pub reference: Option<Arc<str>>,
    /// How Go and protobuf see the field; built-in kinds only.
    pub go: GoField,
    /// Embedded Go structs that are messages of their own in protobuf: field number and definition.
    pub inline: Vec<(u32, Arc<str>)>,
}

/// JSON types that a schema can ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// A JSON object.
    Object,
    /// A JSON array.
    Array,
    /// A string.
    String,
    /// A number without a fraction.
    Integer,
    /// Any number.
    Number,
    /// `true` or `false`.
    Boolean,
    /// An integer or a string (`x-kubernetes-int-or-string`).
    IntOrString,
}

impl Type {
    /// The name in messages and documents.
    pub fn name(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
            Self::IntOrString => "integer,string",
        }
    }
}

/// What a scalar means beyond its JSON type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// Nothing special, or a format that is only checked by name.
    #[default]
    None,
    /// 32-bit signed integer.
    Int32,
    /// 64-bit signed integer.
    Int64,
    /// Base64 text.
    Byte,
    /// RFC 3339 time in whole seconds, `null` when not set.
    Time,
    /// RFC 3339 time with microseconds, `null` when not set.
    MicroTime,
    /// A Kubernetes quantity such as `100m`.
    Quantity,
    /// A JSON value that is kept as it is.
    Raw,
}

/// `additionalProperties`.
#[derive(Debug, Clone, Default)]
pub enum Additional {
    /// Not given: fields that are not listed are unknown.
    #[default]
    Unknown,
    /// `true`.
    Allowed,
    /// `false`.
    Forbidden,
    /// The values of a map.
    Schema(Box<Schema>),
}

/// Limits that a schema sets.
#[derive(Debug, Clone, Default)]
pub struct Bounds {
    /// Greatest number, and whether it is itself excluded.
    pub maximum: Option<(f64, bool)>,
    /// Least number, and whether it is itself excluded.
    pub minimum: Option<(f64, bool)>,
    /// The number must be a multiple of this.
    pub multiple_of: Option<f64>,
    /// Greatest length of a string in characters.
    pub max_length: Option<u64>,
    /// Least length of a string in characters.
    pub min_length: Option<u64>,
    /// Pattern that a string must match somewhere, with its text.
    pub pattern: Option<Regex>,
    /// Greatest number of items.
    pub max_items: Option<u64>,
    /// Least number of items.
    pub min_items: Option<u64>,
    /// Items must differ.
    pub unique_items: bool,
    /// Greatest number of properties.
    pub max_properties: Option<u64>,
    /// Least number of properties.
    pub min_properties: Option<u64>,
}

/// How a field of a Go struct behaves.
#[derive(Debug, Clone, Default)]
pub struct GoField {
    /// On an object: name of its Go struct, e.g. `Container`.
    pub struct_name: Option<Arc<str>>,
    /// Go type of the field as Go prints it, e.g. `[]v1.Container`.
    pub type_name: Option<Arc<str>>,
    /// Protobuf field number; 0 when there is none.
    pub number: u32,
    /// The field is a pointer: absence differs from the zero value.
    pub pointer: bool,
    /// The field is written even when it holds the zero value.
    pub always: bool,
}

impl Schema {
    /// The schema of the definition that this node refers to, or the node itself.
    pub fn resolved(&self) -> &Schema {
        self.reference
            .as_deref()
            .and_then(definitions::definition)
            .unwrap_or(self)
    }

    /// The schema of a field, its reference followed; `None` for a field that is not known.
    pub fn property(&self, name: &str) -> Option<&Schema> {
        self.resolved().properties.get(name)
    }
}
