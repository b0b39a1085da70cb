//! From a schema document to its compiled form.

use std::sync::Arc;

use regex::Regex;
use serde_json::Value;

use super::node::{Additional, Bounds, Format, GoField, Schema, Type};
use crate::strategy::ListType;

/// Schemas that are nested deeper than this are refused.
const MAX_DEPTH: usize = 128;

/// Compiled patterns larger than this many bytes are refused.
const PATTERN_SIZE_LIMIT: usize = 1 << 20;

const REFERENCE: &str = "#/components/schemas/";

/// Why a schema could not be compiled.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// A `pattern` is not a regular expression that can be used.
    #[error("pattern {pattern:?} at {at:?} cannot be used: {source}")]
    Pattern {
        /// The pattern as given.
        pattern: String,
        /// Where in the schema it stands.
        at: String,
        /// What the regular expression compiler says.
        source: Box<regex::Error>,
    },
    /// Schemas are nested too deep.
    #[error("schema is nested deeper than {MAX_DEPTH} levels at {at:?}")]
    TooDeep {
        /// Where the limit was reached.
        at: String,
    },
}

impl Schema {
    /// Compiles an OpenAPI v3 schema, e.g. the `openAPIV3Schema` of a CustomResourceDefinition. What is not understood
    /// (descriptions, examples) is left out; whether a schema is structural is for the caller to check.
    pub fn compile(document: &Value) -> Result<Self, CompileError> {
        compile(document, "", 0)
    }
}

fn compile(document: &Value, at: &str, depth: usize) -> Result<Schema, CompileError> {
    if depth > MAX_DEPTH {
        return Err(CompileError::TooDeep { at: at.to_owned() });
    }
    let child = |member: &Value, name: &str| compile(member, &format!("{at}.{name}"), depth + 1);
    let many = |name: &str| -> Result<Vec<Schema>, CompileError> {
        list(document, name)
            .iter()
            .map(|member| child(member, name))
            .collect()
    };
    let mut schema = Schema {
        type_: type_of(document),
        nullable: flag(document, "nullable"),
        preserve_unknown: flag(document, "x-kubernetes-preserve-unknown-fields"),
        embedded_resource: flag(document, "x-kubernetes-embedded-resource"),
        required: texts(document, "required"),
        list_type: list_type(document),
        default: document.get("default").cloned(),
        allowed: list(document, "enum").to_vec(),
        bounds: bounds(document, at)?,
        any_of: many("anyOf")?,
        one_of: many("oneOf")?,
        go: go_field(document),
        ..Schema::default()
    };
    if let Some(name) = document["format"].as_str() {
        schema.format_name = name.to_owned();
        schema.format = match name {
            "int32" => Format::Int32,
            "int64" => Format::Int64,
            "byte" => Format::Byte,
            _ => Format::None,
        };
    }
    // A reference with members beside it is written as allOf with one entry, in documents for built-in kinds.
    match list(document, "allOf") {
        [only] if only["$ref"].is_string() => schema.reference = reference(only),
        _ => schema.all_of = many("allOf")?,
    }
    if document["$ref"].is_string() {
        schema.reference = reference(document);
    }
    if let Some(not) = document.get("not") {
        schema.not = Some(Box::new(child(not, "not")?));
    }
    if let Some(items) = document.get("items") {
        schema.items = Some(Box::new(child(items, "items")?));
    }
    schema.additional = match document.get("additionalProperties") {
        None => Additional::Unknown,
        Some(Value::Bool(true)) => Additional::Allowed,
        Some(Value::Bool(false)) => Additional::Forbidden,
        Some(values) => Additional::Schema(Box::new(child(values, "additionalProperties")?)),
    };
    if let Some(properties) = document["properties"].as_object() {
        for (name, property) in properties {
            schema
                .properties
                .insert(name.clone(), child(property, name)?);
        }
    }
    if let Some(inline) = document["x-protobuf-inline"].as_object() {
        for (number, name) in inline {
            if let (Ok(number), Some(name)) = (number.parse(), name.as_str()) {
                schema.inline.push((number, Arc::from(name)));
            }
        }
    }
    Ok(schema)
}

fn type_of(document: &Value) -> Option<Type> {
    if flag(document, "x-kubernetes-int-or-string") || document["format"] == "int-or-string" {
        return Some(Type::IntOrString);
    }
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

fn bounds(document: &Value, at: &str) -> Result<Bounds, CompileError> {
    let count = |name: &str| document[name].as_u64();
    let limit = |name: &str, exclusive: &str| {
        document[name]
            .as_f64()
            .map(|value| (value, flag(document, exclusive)))
    };
    let pattern = match document["pattern"].as_str() {
        Some(text) => Some(
            regex::RegexBuilder::new(text)
                .size_limit(PATTERN_SIZE_LIMIT)
                .build()
                .map_err(|source| CompileError::Pattern {
                    pattern: text.to_owned(),
                    at: at.trim_start_matches('.').to_owned(),
                    source: Box::new(source),
                })?,
        ),
        None => None::<Regex>,
    };
    Ok(Bounds {
        maximum: limit("maximum", "exclusiveMaximum"),
        minimum: limit("minimum", "exclusiveMinimum"),
        multiple_of: document["multipleOf"].as_f64(),
        max_length: count("maxLength"),
        min_length: count("minLength"),
        pattern,
        max_items: count("maxItems"),
        min_items: count("minItems"),
        unique_items: flag(document, "uniqueItems"),
        max_properties: count("maxProperties"),
        min_properties: count("minProperties"),
    })
}

fn list_type(document: &Value) -> Option<ListType> {
    match document["x-kubernetes-list-type"].as_str()? {
        "map" => Some(ListType::Map(texts(document, "x-kubernetes-list-map-keys"))),
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
        pointer: flag(document, "x-pointer"),
        always: flag(document, "x-always"),
    }
}

fn reference(document: &Value) -> Option<Arc<str>> {
    document["$ref"]
        .as_str()?
        .strip_prefix(REFERENCE)
        .map(Arc::from)
}

fn flag(document: &Value, name: &str) -> bool {
    document[name].as_bool().unwrap_or(false)
}

fn list<'a>(document: &'a Value, name: &str) -> &'a [Value] {
    document[name].as_array().map_or(&[], Vec::as_slice)
}

fn texts(document: &Value, name: &str) -> Vec<String> {
    list(document, name)
        .iter()
        .filter_map(|text| text.as_str().map(str::to_owned))
        .collect()
}
