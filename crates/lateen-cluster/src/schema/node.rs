//! The compiled form of a type.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::definitions;
use crate::strategy::ListType;

/// The type of an object, list or scalar.
#[derive(Debug, Clone, Default)]
pub struct Schema {
    /// JSON type; `None` where any type may stand.
    pub type_: Option<Type>,
    /// What a string or number holds.
    pub format: Format,
    /// Fields of an object, by name.
    pub properties: BTreeMap<String, Self>,
    /// What stands in an object beside its fields.
    pub additional: Additional,
    /// Type of the items of a list.
    pub items: Option<Box<Self>>,
    /// How a list merges.
    pub list_type: Option<ListType>,
    /// Name of a definition that stands here; see [`Schema::resolved`].
    pub reference: Option<Arc<str>>,
    /// How Go and protobuf see the field.
    pub go: GoField,
    /// Embedded Go structs that are messages of their own in protobuf: field number and definition.
    pub inline: Vec<(u32, Arc<str>)>,
}

/// JSON types.
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
    /// An integer or a string.
    IntOrString,
}

/// What a scalar means beyond its JSON type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// Nothing special.
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

/// What stands in an object beside the fields that are listed.
#[derive(Debug, Clone, Default)]
pub enum Additional {
    /// Nothing: other fields are unknown.
    #[default]
    Unknown,
    /// The values of a map.
    Schema(Box<Schema>),
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
    /// The definition that this node refers to, or the node itself.
    pub fn resolved(&self) -> &Self {
        self.reference
            .as_deref()
            .and_then(definitions::definition)
            .unwrap_or(self)
    }
}
