//! Checking a tree against a structural schema, with the messages that Kubernetes gives for custom resources.

use std::net::{Ipv4Addr, Ipv6Addr};

use base64::Engine;
use serde_json::{Number, Value, json};

use super::node::{Additional, Schema, Type};
use crate::field::{FieldError, FieldErrorKind};
use crate::strategy::ListType;

/// Checking stops after this many faults.
const MAX_ERRORS: usize = 200;

impl Schema {
    /// All faults of a value, in the order of the schema's (sorted) fields; repeated items of sets and maps come last.
    pub fn validate(&self, value: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        check(self, value, "", &mut errors);
        check_lists(self, value, "", &mut errors);
        errors
    }
}

fn check(schema: &Schema, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    if errors.len() >= MAX_ERRORS {
        return;
    }
    let schema = schema.resolved();
    check_type(schema, value, path, errors);
    if !value.is_null() {
        check_combinations(schema, value, path, errors);
        match value {
            Value::String(text) => check_string(schema, text, path, errors),
            Value::Number(number) => check_number(schema, number, path, errors),
            Value::Array(items) => check_array(schema, items, path, errors),
            _ => {}
        }
    }
    if !schema.allowed.is_empty()
        && !(value.is_null() && schema.nullable)
        && !schema.allowed.iter().any(|allowed| same(allowed, value))
    {
        let names: Vec<String> = schema
            .allowed
            .iter()
            .map(|allowed| {
                allowed
                    .as_str()
                    .map_or_else(|| allowed.to_string(), str::to_owned)
            })
            .collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        errors.push(FieldError::not_supported(
            name_of(path),
            value.clone(),
            &names,
        ));
    }
    if let Value::Object(members) = value {
        let bounds = &schema.bounds;
        let count = members.len() as u64;
        if let Some(least) = bounds.min_properties.filter(|least| count < *least) {
            let detail = format!("{} should have at least {least} properties", within(path));
            errors.push(FieldError::invalid(name_of(path), value.clone(), detail));
        }
        if let Some(most) = bounds.max_properties.filter(|most| count > *most) {
            errors.push(too_many(path, count, most));
        }
        for (name, member) in members {
            match &schema.additional {
                _ if schema.properties.contains_key(name) => {}
                Additional::Schema(values) => check(values, member, &join(path, name), errors),
                Additional::Forbidden => {
                    let detail = format!("{} in body is a forbidden property", join(path, name));
                    errors.push(FieldError::invalid(name_of(path), json!(""), detail));
                }
                _ => {}
            }
        }
        for (name, property) in &schema.properties {
            if let Some(member) = members.get(name) {
                check(property, member, &join(path, name), errors);
            }
        }
        for name in &schema.required {
            if !members.contains_key(name) {
                errors.push(FieldError::required(join(path, name), ""));
            }
        }
    }
}

fn check_type(schema: &Schema, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let Some(wanted) = schema.type_ else { return };
    if value.is_null() {
        if !schema.nullable {
            errors.push(wrong_type(path, wanted.name(), json!("null")));
        }
        return;
    }
    let found = type_name(value);
    let fits = match wanted {
        Type::Number => value.is_number(),
        Type::Integer => is_integer(value),
        Type::IntOrString => value.is_string() || is_integer(value),
        other => other.name() == found,
    };
    if !fits {
        errors.push(wrong_type(path, wanted.name(), json!(found)));
    }
}

fn check_string(schema: &Schema, text: &str, path: &str, errors: &mut Vec<FieldError>) {
    let length = text.chars().count() as u64;
    let bounds = &schema.bounds;
    if let Some(most) = bounds.max_length.filter(|most| length > *most) {
        let unit = if most == 1 { "byte" } else { "bytes" };
        errors.push(FieldError {
            field: name_of(path),
            kind: FieldErrorKind::TooLong,
            value: Value::Null,
            detail: format!("may not be more than {most} {unit}"),
        });
    }
    if let Some(least) = bounds.min_length.filter(|least| length < *least) {
        let detail = format!("{} should be at least {least} chars long", within(path));
        errors.push(FieldError::invalid(name_of(path), json!(text), detail));
    }
    if let Some(pattern) = bounds
        .pattern
        .as_ref()
        .filter(|pattern| !pattern.is_match(text))
    {
        let detail = format!("{} should match '{}'", within(path), pattern.as_str());
        errors.push(FieldError::invalid(name_of(path), json!(text), detail));
    }
    if schema.type_ == Some(Type::String) && !has_format(&schema.format_name, text) {
        errors.push(FieldError {
            field: name_of(path),
            kind: FieldErrorKind::TypeInvalid,
            value: json!(text),
            detail: format!(
                "{} must be of type {}: {text:?}",
                within(path),
                schema.format_name
            ),
        });
    }
}

fn check_number(schema: &Schema, number: &Number, path: &str, errors: &mut Vec<FieldError>) {
    if !matches!(schema.type_, Some(Type::Integer | Type::Number) | None) {
        return;
    }
    let Some(value) = number.as_f64() else { return };
    let bounds = &schema.bounds;
    let mut fail = |detail: String| {
        let detail = format!("{} should be {detail}", within(path));
        errors.push(FieldError::invalid(
            name_of(path),
            Value::Number(number.clone()),
            detail,
        ));
    };
    if let Some(factor) = bounds.multiple_of
        && (value / factor).fract() != 0.0
    {
        fail(format!("a multiple of {factor}"));
    }
    match bounds.maximum {
        Some((most, true)) if value >= most => fail(format!("less than {most}")),
        Some((most, false)) if value > most => fail(format!("less than or equal to {most}")),
        _ => {}
    }
    match bounds.minimum {
        Some((least, true)) if value <= least => fail(format!("greater than {least}")),
        Some((least, false)) if value < least => fail(format!("greater than or equal to {least}")),
        _ => {}
    }
}

fn check_array(schema: &Schema, items: &[Value], path: &str, errors: &mut Vec<FieldError>) {
    if let Some(of) = &schema.items {
        for (index, item) in items.iter().enumerate() {
            check(of, item, &format!("{path}[{index}]"), errors);
        }
    }
    let bounds = &schema.bounds;
    let count = items.len() as u64;
    if let Some(least) = bounds.min_items.filter(|least| count < *least) {
        let detail = format!("{} should have at least {least} items", within(path));
        errors.push(FieldError::invalid(name_of(path), json!(count), detail));
    }
    if let Some(most) = bounds.max_items.filter(|most| count > *most) {
        errors.push(too_many(path, count, most));
    }
    if bounds.unique_items
        && items
            .iter()
            .enumerate()
            .any(|(index, item)| items[..index].contains(item))
    {
        let detail = format!("{} shouldn't contain duplicates", within(path));
        errors.push(FieldError::invalid(name_of(path), json!(""), detail));
    }
}

/// `anyOf`, `oneOf`, `allOf` and `not`: the composite message first, then what is wrong with the closest alternative.
fn check_combinations(schema: &Schema, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let mut composite = |detail: String| {
        errors.push(FieldError::invalid(
            "<nil>",
            json!(""),
            format!("{path:?} {detail}"),
        ));
    };
    let mut closest: Vec<FieldError> = Vec::new();
    let faults = |alternatives: &[Schema]| -> Vec<Vec<FieldError>> {
        alternatives
            .iter()
            .map(|alternative| {
                let mut found = Vec::new();
                check(alternative, value, path, &mut found);
                found
            })
            .collect()
    };
    let fewest =
        |found: Vec<Vec<FieldError>>| found.into_iter().min_by_key(Vec::len).unwrap_or_default();
    let any = faults(&schema.any_of);
    if !any.is_empty() && any.iter().all(|found| !found.is_empty()) {
        composite("must validate at least one schema (anyOf)".to_owned());
        closest.extend(fewest(any));
    }
    let one = faults(&schema.one_of);
    let fitting = one.iter().filter(|found| found.is_empty()).count();
    if !one.is_empty() && fitting != 1 {
        let found = if fitting == 0 {
            "Found none valid".to_owned()
        } else {
            format!("Found {fitting} valid alternatives")
        };
        composite(format!(
            "must validate one and only one schema (oneOf). {found}"
        ));
        if fitting == 0 {
            closest.extend(fewest(one));
        }
    }
    let all = faults(&schema.all_of);
    let fitting = all.iter().filter(|found| found.is_empty()).count();
    if fitting != all.len() {
        let none = if fitting == 0 { ". None validated" } else { "" };
        composite(format!("must validate all the schemas (allOf){none}"));
        closest.extend(all.into_iter().flatten());
    }
    if let Some(not) = &schema.not
        && faults(std::slice::from_ref(not)).iter().all(Vec::is_empty)
    {
        composite("must not validate the schema (not)".to_owned());
    }
    errors.append(&mut closest);
}

/// Items that must differ: scalars of sets, keys of maps.
fn check_lists(schema: &Schema, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let schema = schema.resolved();
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                match (schema.properties.get(name), &schema.additional) {
                    (Some(property), _) => check_lists(property, member, &join(path, name), errors),
                    (None, Additional::Schema(values)) => {
                        check_lists(values, member, &join(path, name), errors)
                    }
                    _ => {}
                }
            }
        }
        Value::Array(items) => {
            let keys: Vec<Value> = match &schema.list_type {
                Some(ListType::Set) => items.clone(),
                Some(ListType::Map(names)) => {
                    items.iter().map(|item| key_of(item, names)).collect()
                }
                _ => Vec::new(),
            };
            let mut reported: Vec<&Value> = Vec::new();
            for (index, key) in keys.iter().enumerate() {
                if keys[..index].contains(key) && !reported.contains(&key) {
                    reported.push(key);
                    errors.push(FieldError::duplicate(
                        format!("{path}[{index}]"),
                        key.clone(),
                    ));
                }
            }
            if let Some(of) = &schema.items {
                for (index, item) in items.iter().enumerate() {
                    check_lists(of, item, &format!("{path}[{index}]"), errors);
                }
            }
        }
        _ => {}
    }
}

fn key_of(item: &Value, names: &[String]) -> Value {
    let mut key = serde_json::Map::new();
    for name in names {
        if let Some(value) = item.get(name) {
            key.insert(name.clone(), value.clone());
        }
    }
    Value::Object(key)
}

fn has_format(format: &str, text: &str) -> bool {
    match format {
        "date-time" | "datetime" => super::go::parse_time(text).is_some(),
        "date" => super::go::parse_time(&format!("{text}T00:00:00Z")).is_some(),
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "cidr" => text.split_once('/').is_some_and(|(address, bits)| {
            let width = if address.parse::<Ipv4Addr>().is_ok() {
                32
            } else {
                128
            };
            (width == 32 || address.parse::<Ipv6Addr>().is_ok())
                && bits.parse::<u8>().is_ok_and(|bits| bits <= width)
        }),
        "uuid" => uuid::Uuid::parse_str(text).is_ok(),
        "byte" => base64::engine::general_purpose::STANDARD
            .decode(text)
            .is_ok(),
        "uri" => {
            text.split_once(':')
                .is_some_and(|(scheme, _)| !scheme.is_empty())
                || text.starts_with('/')
        }
        "email" => text
            .split_once('@')
            .is_some_and(|(name, host)| !name.is_empty() && !host.is_empty()),
        "duration" => is_duration(text),
        _ => true,
    }
}

/// Durations as Go writes them: `1h30m`, `-1.5s`, `0`.
fn is_duration(text: &str) -> bool {
    let mut rest = text.trim_start_matches(['+', '-']);
    if rest == "0" {
        return true;
    }
    let mut parts = 0;
    while !rest.is_empty() {
        let digits = rest.len()
            - rest
                .trim_start_matches(|letter: char| letter.is_ascii_digit() || letter == '.')
                .len();
        let units = ["ns", "us", "µs", "ms", "s", "m", "h", "d", "w"];
        let Some(unit) = units.iter().find(|unit| rest[digits..].starts_with(**unit)) else {
            return false;
        };
        if digits == 0 {
            return false;
        }
        rest = &rest[digits + unit.len()..];
        parts += 1;
    }
    parts > 0
}

fn is_integer(value: &Value) -> bool {
    value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|number| number.fract() == 0.0)
}

/// Numbers are equal by value: a schema may say `1` where an object has `1.0`.
fn same(left: &Value, right: &Value) -> bool {
    left == right || (left.is_number() && right.is_number() && left.as_f64() == right.as_f64())
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) if is_integer(value) => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn wrong_type(path: &str, wanted: &str, found: Value) -> FieldError {
    FieldError {
        field: name_of(path),
        kind: FieldErrorKind::TypeInvalid,
        detail: format!("{} must be of type {wanted}: {found}", within(path)),
        value: found,
    }
}

fn too_many(path: &str, count: u64, most: u64) -> FieldError {
    let unit = if most == 1 { "item" } else { "items" };
    FieldError {
        field: name_of(path),
        kind: FieldErrorKind::TooMany,
        value: json!(count),
        detail: format!("must have at most {most} {unit}"),
    }
}

fn within(path: &str) -> String {
    format!("{path} in body")
}

/// A fault of the whole object has no field.
fn name_of(path: &str) -> String {
    if path.is_empty() {
        "<nil>".to_owned()
    } else {
        path.to_owned()
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}
