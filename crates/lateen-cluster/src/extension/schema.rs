//! The structural schema of one version of a custom resource, parsed once from its CustomResourceDefinition.
//!
//! The tree keeps what pruning, defaulting, validation and rules need; descriptions and the like stay in the
//! definition, from where the OpenAPI document is made. Parsing accepts anything that [`super::definition`] accepts and
//! treats the rest as absent, because a definition is checked before it gets here.

use std::collections::BTreeMap;
use std::sync::Arc;

use regex::Regex;
use serde_json::Value;

use super::rule::Rule;

/// Levels of nesting after which a schema is cut off (also refused by [`super::definition`]).
pub(crate) const MAX_DEPTH: usize = 64;

/// JSON types that a schema can ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Type {
    Array,
    Boolean,
    Integer,
    Number,
    Object,
    String,
}

/// What a schema says of properties that it does not name.
#[derive(Debug)]
pub(crate) enum Additional {
    /// `true` or `false`.
    Any(bool),
    /// Their values have this schema; the object is a map.
    Schema(Box<Schema>),
}

/// How items of a list are told apart.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum ListKind {
    /// Not at all: the list is one value.
    #[default]
    Atomic,
    /// By their value.
    Set,
    /// By the values of these fields.
    Map(Vec<String>),
}

/// Lower and upper limits of a number, a length or a count.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Range<T> {
    pub(crate) least: Option<T>,
    pub(crate) most: Option<T>,
}

/// A regular expression with its source; `None` when it cannot be compiled.
#[derive(Debug)]
pub(crate) struct Pattern {
    pub(crate) source: String,
    pub(crate) compiled: Option<Regex>,
}

/// One node of a schema.
#[derive(Debug, Default)]
pub(crate) struct Schema {
    pub(crate) type_: Option<Type>,
    pub(crate) nullable: bool,
    pub(crate) default: Option<Value>,
    /// Sorted by name, so that messages come in the same order each time.
    pub(crate) properties: BTreeMap<String, Self>,
    pub(crate) additional: Option<Additional>,
    pub(crate) items: Option<Box<Self>>,
    pub(crate) required: Vec<String>,
    pub(crate) choices: Vec<Value>,
    pub(crate) format: String,
    pub(crate) pattern: Option<Pattern>,
    pub(crate) value: Range<f64>,
    pub(crate) exclusive_least: bool,
    pub(crate) exclusive_most: bool,
    pub(crate) multiple_of: Option<f64>,
    pub(crate) length: Range<u64>,
    pub(crate) item_count: Range<u64>,
    pub(crate) property_count: Range<u64>,
    pub(crate) all_of: Vec<Self>,
    pub(crate) any_of: Vec<Self>,
    pub(crate) one_of: Vec<Self>,
    pub(crate) not: Option<Box<Self>>,
    pub(crate) int_or_string: bool,
    pub(crate) preserve_unknown: bool,
    pub(crate) embedded: bool,
    pub(crate) list: ListKind,
    /// `x-kubernetes-map-type: atomic`.
    pub(crate) atomic_map: bool,
    pub(crate) rules: Vec<Arc<Rule>>,
    /// Whether this node or one below it has rules or defaults, so that walks can stop early.
    pub(crate) has_rules: bool,
    pub(crate) has_defaults: bool,
}

impl Type {
    pub(crate) fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "array" => Self::Array,
            "boolean" => Self::Boolean,
            "integer" => Self::Integer,
            "number" => Self::Number,
            "object" => Self::Object,
            "string" => Self::String,
            _ => return None,
        })
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Array => "array",
            Self::Boolean => "boolean",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Object => "object",
            Self::String => "string",
        }
    }
}

impl Schema {
    /// Parses `openAPIV3Schema`.
    pub(crate) fn parse(source: &Value) -> Self {
        Self::parse_at(source, 0)
    }

    fn parse_at(source: &Value, depth: usize) -> Self {
        if depth > MAX_DEPTH {
            return Self::default();
        }
        let below = |value: &Value| Self::parse_at(value, depth + 1);
        let text = |key: &str| source[key].as_str();
        let flag = |key: &str| source[key].as_bool().unwrap_or(false);
        let list = |key: &str| {
            source[key]
                .as_array()
                .map(Vec::as_slice)
                .unwrap_or_default()
        };
        let count = |least: &str, most: &str| Range {
            least: source[least].as_u64(),
            most: source[most].as_u64(),
        };
        let schemas = |key: &str| list(key).iter().map(below).collect::<Vec<_>>();
        let mut schema = Self {
            type_: text("type").and_then(Type::parse),
            nullable: flag("nullable"),
            default: source
                .get("default")
                .filter(|value| !value.is_null())
                .cloned(),
            properties: source["properties"]
                .as_object()
                .into_iter()
                .flatten()
                .map(|(name, value)| (name.clone(), below(value)))
                .collect(),
            additional: match &source["additionalProperties"] {
                Value::Bool(any) => Some(Additional::Any(*any)),
                Value::Object(_) => Some(Additional::Schema(Box::new(below(
                    &source["additionalProperties"],
                )))),
                _ => None,
            },
            items: source
                .get("items")
                .filter(|items| items.is_object())
                .map(|items| Box::new(below(items))),
            required: strings(list("required")),
            choices: list("enum").to_vec(),
            format: String::new(),
            pattern: text("pattern")
                .filter(|pattern| !pattern.is_empty())
                .map(Pattern::new),
            value: Range {
                least: source["minimum"].as_f64(),
                most: source["maximum"].as_f64(),
            },
            exclusive_least: flag("exclusiveMinimum"),
            exclusive_most: flag("exclusiveMaximum"),
            multiple_of: source["multipleOf"].as_f64(),
            length: count("minLength", "maxLength"),
            item_count: count("minItems", "maxItems"),
            property_count: count("minProperties", "maxProperties"),
            all_of: schemas("allOf"),
            any_of: schemas("anyOf"),
            one_of: schemas("oneOf"),
            not: source
                .get("not")
                .filter(|not| not.is_object())
                .map(|not| Box::new(below(not))),
            int_or_string: flag("x-kubernetes-int-or-string"),
            preserve_unknown: flag("x-kubernetes-preserve-unknown-fields"),
            embedded: flag("x-kubernetes-embedded-resource"),
            list: match text("x-kubernetes-list-type") {
                Some("set") => ListKind::Set,
                Some("map") => ListKind::Map(strings(list("x-kubernetes-list-map-keys"))),
                _ => ListKind::Atomic,
            },
            atomic_map: text("x-kubernetes-map-type") == Some("atomic"),
            rules: list("x-kubernetes-validations")
                .iter()
                .map(|rule| Arc::new(Rule::parse(rule)))
                .collect(),
            has_rules: false,
            has_defaults: false,
        };
        schema.format = known_format(schema.type_, text("format").unwrap_or_default());
        schema.note_below();
        schema
    }

    /// The schema of `name` in an object: the property's own or that of all additional ones.
    pub(crate) fn field(&self, name: &str) -> Option<&Self> {
        self.properties.get(name).or_else(|| self.values())
    }

    /// The schema of a map's values.
    pub(crate) fn values(&self) -> Option<&Self> {
        match &self.additional {
            Some(Additional::Schema(schema)) => Some(schema),
            _ => None,
        }
    }

    /// The node that `path` (field names, no indexes) leads to; lists are stepped into.
    pub(crate) fn at(&self, path: &[&str]) -> Option<&Self> {
        let mut node = self;
        for name in path {
            while let Some(items) = &node.items {
                node = items;
            }
            node = node.field(name)?;
        }
        Some(node)
    }

    fn note_below(&mut self) {
        let mut rules = !self.rules.is_empty();
        let mut defaults = self.default.is_some();
        let children = self
            .properties
            .values()
            .chain(self.values())
            .chain(self.items.as_deref());
        for child in children {
            rules |= child.has_rules;
            defaults |= child.has_defaults;
        }
        self.has_rules = rules;
        self.has_defaults = defaults;
    }
}

impl Pattern {
    fn new(source: &str) -> Self {
        Self {
            source: source.to_owned(),
            compiled: compile(source).ok(),
        }
    }
}

/// Compiles a pattern of a schema, within a size that no reasonable pattern reaches.
///
/// # Errors
/// The pattern is not a regular expression, or too large.
pub(crate) fn compile(source: &str) -> Result<Regex, regex::Error> {
    regex::RegexBuilder::new(source).size_limit(4 << 20).build()
}

/// The format if the type knows it; others are ignored, as Kubernetes does.
fn known_format(type_: Option<Type>, format: &str) -> String {
    let known = match type_ {
        None | Some(Type::String) => super::format::is_known(format),
        Some(Type::Integer) => matches!(format, "int32" | "int64"),
        Some(Type::Number) => matches!(format, "float" | "double"),
        Some(_) => false,
    };
    if known {
        format.to_owned()
    } else {
        String::new()
    }
}

fn strings(list: &[Value]) -> Vec<String> {
    list.iter()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}
