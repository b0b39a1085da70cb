//! Refuses lists of type `set` and `map` that name an item twice.

use std::collections::HashMap;

use serde_json::{Map, Value};

use crate::field::FieldError;

use super::schema::{ListKind, Schema};

/// The repeated items of all lists in `value`, which lies at `path`.
pub(crate) fn repeated(schema: &Schema, value: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    walk(schema, value, path, &mut errors);
    errors
}

fn walk(schema: &Schema, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    match value {
        Value::Object(fields) => {
            for (name, below) in &schema.properties {
                if let Some(value) = fields.get(name) {
                    walk(below, value, &super::child(path, name), errors);
                }
            }
            let Some(values) = schema.values() else {
                return;
            };
            for (key, value) in fields {
                if !schema.properties.contains_key(key) {
                    walk(values, value, &format!("{path}[{key}]"), errors);
                }
            }
        }
        Value::Array(items) => {
            match &schema.list {
                ListKind::Atomic => {}
                ListKind::Set => add_repeated(items.clone(), path, errors),
                ListKind::Map(keys) => keyed(keys, items, path, errors),
            }
            let Some(below) = &schema.items else { return };
            for (index, item) in items.iter().enumerate() {
                walk(below, item, &format!("{path}[{index}]"), errors);
            }
        }
        _ => {}
    }
}

fn keyed(keys: &[String], items: &[Value], path: &str, errors: &mut Vec<FieldError>) {
    if let Some(index) = items
        .iter()
        .position(|item| !item.is_object() && !item.is_null())
    {
        let detail = "must be an object for an array of list-type map";
        errors.push(FieldError::invalid(
            format!("{path}[{index}]"),
            items[index].clone(),
            detail,
        ));
        return;
    }
    let key_of = |item: &Value| {
        let named = keys
            .iter()
            .filter_map(|key| Some((key.clone(), item.get(key)?.clone())));
        Value::Object(named.collect::<Map<_, _>>())
    };
    add_repeated(items.iter().map(key_of).collect(), path, errors);
}

/// Each value that stands more than once is reported once, at its second place.
fn add_repeated(values: Vec<Value>, path: &str, errors: &mut Vec<FieldError>) {
    let mut seen: HashMap<String, usize> = HashMap::with_capacity(values.len());
    for (index, value) in values.into_iter().enumerate() {
        let times = seen.entry(value.to_string()).or_default();
        *times += 1;
        if *times == 2 {
            errors.push(FieldError::duplicate(format!("{path}[{index}]"), value));
        }
    }
}
