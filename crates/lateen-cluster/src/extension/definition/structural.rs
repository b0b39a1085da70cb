//! What makes a schema structural: every field has a type outside of `allOf`, `anyOf`, `oneOf` and `not`, so that
//! pruning and defaulting are possible.

use serde_json::{Map, Value, json};

use crate::field::FieldError;

use super::super::schema::{Schema, compile};
use super::super::{check, list, prune, rule};

/// Where a node stands.
#[derive(Clone, Copy, PartialEq)]
enum Level {
    Root,
    Item,
    Field,
}

/// What nested value validations may not say, and the word for the state that they must be in.
const NESTED_FORBIDDEN: [(&str, &str); 12] = [
    ("type", "must be empty to be structural"),
    ("additionalProperties", "must be undefined to be structural"),
    ("default", "must be undefined to be structural"),
    ("title", "must be empty to be structural"),
    ("description", "must be empty to be structural"),
    ("nullable", "must be false to be structural"),
    (
        "x-kubernetes-preserve-unknown-fields",
        "must be false to be structural",
    ),
    (
        "x-kubernetes-embedded-resource",
        "must be false to be structural",
    ),
    (
        "x-kubernetes-int-or-string",
        "must be false to be structural",
    ),
    (
        "x-kubernetes-list-map-keys",
        "must be empty to be structural",
    ),
    (
        "x-kubernetes-list-type",
        "must be undefined to be structural",
    ),
    ("x-kubernetes-validations", "must be empty to be structural"),
];

/// Levels of nesting in `source`.
pub(super) fn depth(source: &Value) -> usize {
    match source {
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        Value::Array(items) => items.iter().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// Why the schema `source` at the path `at` is not structural, sorted.
pub(super) fn check(source: &Value, at: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    invariants(source, Level::Root, at, &mut errors);
    junctors(source, source, at, at, &mut errors);
    errors.sort_by_cached_key(ToString::to_string);
    errors
}

fn invariants(node: &Value, level: Level, at: &str, errors: &mut Vec<FieldError>) {
    let type_ = text(node, "type");
    let (int_or_string, preserve, embedded) = (
        flag(node, "x-kubernetes-int-or-string"),
        flag(node, "x-kubernetes-preserve-unknown-fields"),
        flag(node, "x-kubernetes-embedded-resource"),
    );
    match &node["items"] {
        items @ Value::Object(_) => invariants(items, Level::Item, &format!("{at}.items"), errors),
        _ if type_ == "array" => {
            errors.push(FieldError::required(
                format!("{at}.items"),
                "must be specified",
            ));
        }
        _ => {}
    }
    for (name, below) in properties(node) {
        invariants(
            below,
            Level::Field,
            &format!("{at}.properties[{name}]"),
            errors,
        );
    }
    let values = &node["additionalProperties"];
    if !values.is_null() {
        let field = format!("{at}.additionalProperties");
        if level == Level::Root {
            errors.push(FieldError::forbidden(
                field.clone(),
                "must not be used at the root",
            ));
        }
        if embedded {
            let detail = "must not be used if x-kubernetes-embedded-resource is set";
            errors.push(FieldError::forbidden(field.clone(), detail));
        }
        if values.is_object() {
            invariants(values, Level::Field, &field, errors);
        }
    }
    for (clashes, key) in [
        (preserve, "x-kubernetes-preserve-unknown-fields"),
        (embedded, "x-kubernetes-embedded-resource"),
    ] {
        if int_or_string && clashes {
            let detail = "must be false if x-kubernetes-int-or-string is true";
            errors.push(FieldError::invalid(
                format!("{at}.{key}"),
                json!(true),
                detail,
            ));
        }
    }
    values_rules(node, at, true, errors);
    let type_field = format!("{at}.type");
    if embedded && type_ != "object" {
        let detail = "must be object if x-kubernetes-embedded-resource is true";
        errors.push(match type_ {
            "" => FieldError::required(type_field.clone(), detail),
            _ => FieldError::invalid(type_field.clone(), json!(type_), detail),
        });
    } else if type_.is_empty() && !int_or_string && !preserve {
        let detail = match level {
            Level::Root => "must not be empty at the root",
            Level::Item => "must not be empty for specified array items",
            Level::Field => "must not be empty for specified object fields",
        };
        errors.push(FieldError::required(type_field.clone(), detail));
    }
    if level == Level::Root && !type_.is_empty() && type_ != "object" {
        errors.push(FieldError::invalid(
            type_field,
            json!(type_),
            "must be object at the root",
        ));
    }
    resource_fields(node, level == Level::Root, embedded, at, errors);
    if embedded && !preserve && properties(node).next().is_none() {
        let detail = "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
        errors.push(FieldError::required(format!("{at}.properties"), detail));
    }
}

/// The fields that every object has.
fn resource_fields(
    node: &Value,
    root: bool,
    embedded: bool,
    at: &str,
    errors: &mut Vec<FieldError>,
) {
    let typed = |name: &str, wanted: &str| {
        let found = text(&node["properties"][name], "type");
        let field = format!("{at}.properties[{name}].type");
        let detail = format!("must be {wanted}");
        (found != wanted).then(|| FieldError::invalid(field, json!(found), detail))
    };
    let has = |name: &str| !node["properties"][name].is_null();
    if root || embedded {
        for (name, wanted) in [
            ("kind", "string"),
            ("apiVersion", "string"),
            ("metadata", "object"),
        ] {
            if has(name) {
                errors.extend(typed(name, wanted));
            }
        }
    }
    if root && has("metadata") {
        let metadata = &node["properties"]["metadata"];
        let named =
            properties(metadata).all(|(name, _)| matches!(name.as_str(), "name" | "generateName"));
        let bare = metadata
            .as_object()
            .into_iter()
            .flat_map(Map::keys)
            .all(|key| {
                matches!(
                    key.as_str(),
                    "type" | "properties" | "default" | "description"
                )
            });
        if !named || !bare {
            let detail = "must not specify anything other than name and generateName, but metadata is implicitly specified";
            errors.push(FieldError::forbidden(
                format!("{at}.properties[metadata]"),
                detail,
            ));
        }
    }
}

/// The value validations of a node: its pattern and what stands in `anyOf` and the like.
fn values_rules(node: &Value, at: &str, spine: bool, errors: &mut Vec<FieldError>) {
    let pattern = text(node, "pattern");
    if !pattern.is_empty()
        && let Err(fault) = compile(pattern)
    {
        let detail = format!("must be a valid regular expression, but isn't: {fault}");
        errors.push(FieldError::invalid(
            format!("{at}.pattern"),
            json!(pattern),
            detail,
        ));
    }
    // These two forms are how `x-kubernetes-int-or-string` was written out before it existed.
    let written_out = json!([{"type": "integer"}, {"type": "string"}]);
    for key in ["allOf", "anyOf", "oneOf"] {
        if key == "anyOf" && spine && node[key] == written_out {
            continue;
        }
        for (index, nested) in items(node, key).iter().enumerate() {
            let at = format!("{at}.{key}[{index}]");
            let skip = key == "allOf" && index == 0 && spine && nested["anyOf"] == written_out;
            nested_rules(nested, &at, skip, errors);
        }
    }
    if node["not"].is_object() {
        nested_rules(&node["not"], &format!("{at}.not"), false, errors);
    }
}

fn nested_rules(node: &Value, at: &str, skip_any_of: bool, errors: &mut Vec<FieldError>) {
    values_rules(node, at, skip_any_of, errors);
    if node["items"].is_object() {
        nested_rules(&node["items"], &format!("{at}.items"), false, errors);
    }
    for (name, below) in properties(node) {
        nested_rules(below, &format!("{at}.properties[{name}]"), false, errors);
    }
    for (key, detail) in NESTED_FORBIDDEN {
        let given = match &node[key] {
            Value::Null | Value::Bool(false) => key == "additionalProperties" && node[key] == false,
            Value::String(text) => !text.is_empty(),
            Value::Array(items) => !items.is_empty(),
            _ => true,
        };
        if given {
            errors.push(FieldError::forbidden(format!("{at}.{key}"), detail));
        }
    }
    if !node["properties"]["metadata"].is_null() {
        let detail = "must not be specified in a nested context";
        errors.push(FieldError::forbidden(
            format!("{at}.properties[metadata]"),
            detail,
        ));
    }
}

/// Value validations may only speak of fields that the structure has.
fn junctors(nested: &Value, node: &Value, nested_at: &str, at: &str, errors: &mut Vec<FieldError>) {
    for key in ["allOf", "anyOf", "oneOf"] {
        for (index, below) in items(nested, key).iter().enumerate() {
            completeness(
                below,
                node,
                &format!("{nested_at}.{key}[{index}]"),
                at,
                errors,
            );
        }
    }
    if nested["not"].is_object() {
        completeness(
            &nested["not"],
            node,
            &format!("{nested_at}.not"),
            at,
            errors,
        );
    }
}

fn completeness(
    nested: &Value,
    node: &Value,
    nested_at: &str,
    at: &str,
    errors: &mut Vec<FieldError>,
) {
    junctors(nested, node, nested_at, at, errors);
    let mut step = |below: &Value, part: String, found: &Value| {
        let (nested_at, at) = (format!("{nested_at}.{part}"), format!("{at}.{part}"));
        if found.is_object() {
            completeness(below, found, &nested_at, &at, errors);
        } else {
            let detail = format!("because it is defined in {nested_at}");
            errors.push(FieldError::required(at, detail));
        }
    };
    if nested["items"].is_object() {
        step(&nested["items"], "items".to_owned(), &node["items"]);
    }
    for (name, below) in properties(nested) {
        step(
            below,
            format!("properties[{name}]"),
            &node["properties"][name],
        );
    }
}

/// The faults of the defaults in a structural schema: they must hold what the schema asks for.
pub(super) fn check_defaults(source: &Value, at: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    defaults_below(source, at, &mut errors);
    errors
}

fn defaults_below(node: &Value, at: &str, errors: &mut Vec<FieldError>) {
    if let Some(default) = node.get("default").filter(|default| !default.is_null()) {
        let schema = Schema::parse(node);
        let field = format!("{at}.default");
        // Pruning knows roots only: wrapping makes the default a plain field.
        let wrapped = json!({"type": "object", "properties": {"default": node}});
        let mut pruned = json!({"default": default});
        if !prune::unknown(&Schema::parse(&wrapped), &mut pruned).is_empty() {
            let detail = "must not have unknown fields";
            errors.push(FieldError::invalid(field.clone(), default.clone(), detail));
        }
        let faults = check::check(&schema, default, None, &field);
        let valid = faults.is_empty();
        errors.extend(faults);
        errors.extend(list::repeated(&schema, default, &field));
        if valid {
            errors.extend(rule::broken(&schema, default, None, &field));
        }
    }
    if node["items"].is_object() {
        defaults_below(&node["items"], &format!("{at}.items"), errors);
    }
    for (name, below) in properties(node) {
        defaults_below(below, &format!("{at}.properties[{name}]"), errors);
    }
}

fn text<'a>(node: &'a Value, key: &str) -> &'a str {
    node[key].as_str().unwrap_or_default()
}

fn flag(node: &Value, key: &str) -> bool {
    node[key].as_bool().unwrap_or(false)
}

fn items<'a>(node: &'a Value, key: &str) -> &'a [Value] {
    node[key].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn properties(node: &Value) -> impl Iterator<Item = (&String, &Value)> {
    node["properties"].as_object().into_iter().flatten()
}
