//! From a document of the committed table to its compiled form.

use std::sync::Arc;

use serde_json::Value;

use super::node::{Additional, Format, GoField, Schema, Type};
use crate::strategy::ListType;

const REFERENCE: &str = "#/components/schemas/";

impl Schema {
    /// Compiles one definition. Definitions are not nested deep: what has a name is referred to.
    pub(super) fn compile(document: &Value) -> Self {
        let reference = match list(document, "allOf") {
            // A reference with members beside it is written as allOf with one entry.
            [only] if only["$ref"].is_string() => only,
            _ => document,
        };
        Self {
            type_: type_of(document),
            format: match document["format"].as_str() {
                Some("int32") => Format::Int32,
                Some("int64") => Format::Int64,
                Some("byte") => Format::Byte,
                _ => Format::None,
            },
            properties: document["properties"]
                .as_object()
                .into_iter()
                .flatten()
                .map(|(name, property)| (name.clone(), Self::compile(property)))
                .collect(),
            additional: match &document["additionalProperties"] {
                Value::Object(_) => {
                    Additional::Schema(Box::new(Self::compile(&document["additionalProperties"])))
                }
                _ => Additional::Unknown,
            },
            items: document
                .get("items")
                .map(|items| Box::new(Self::compile(items))),
            list_type: list_type(document),
            reference: reference["$ref"]
                .as_str()
                .and_then(|target| target.strip_prefix(REFERENCE))
                .map(Arc::from),
            go: go_field(document),
            inline: document["x-protobuf-inline"]
                .as_object()
                .into_iter()
                .flatten()
                .filter_map(|(number, name)| {
                    Some((number.parse().ok()?, Arc::from(name.as_str()?)))
                })
                .collect(),
        }
    }
}

fn type_of(document: &Value) -> Option<Type> {
    match document["type"].as_str()? {
        "object" => Some(Type::Object),
        "array" => Some(Type::Array),
        "string" => Some(Type::String),
        "integer" => Some(Type::Integer),
        "number" => Some(Type::Number),
        "boolean" => Some(Type::Boolean),
        _ => None,
    }
}

fn list_type(document: &Value) -> Option<ListType> {
    match document["x-kubernetes-list-type"].as_str()? {
        "map" => {
            let keys = list(document, "x-kubernetes-list-map-keys");
            let keys = keys.iter().filter_map(Value::as_str).map(str::to_owned);
            Some(ListType::Map(keys.collect()))
        }
        "set" => Some(ListType::Set),
        _ => Some(ListType::Atomic),
    }
}

fn go_field(document: &Value) -> GoField {
    let text = |name: &str| document[name].as_str().map(Arc::from);
    GoField {
        struct_name: text("x-go-type"),
        type_name: text("x-go"),
        number: document["x-protobuf"]
            .as_u64()
            .and_then(|number| u32::try_from(number).ok())
            .unwrap_or(0),
        pointer: document["x-pointer"] == true,
        always: document["x-always"] == true,
    }
}

fn list<'a>(document: &'a Value, name: &str) -> &'a [Value] {
    document[name].as_array().map_or(&[], Vec::as_slice)
}
