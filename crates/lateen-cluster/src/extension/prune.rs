//! Drops fields that a schema does not know, and nulls that it does not allow.

use serde_json::Value;

use super::schema::{Additional, Schema};

/// Fields that every object has, whatever its schema.
const META_FIELDS: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Drops unknown fields of an object and returns their paths, sorted. `metadata` and the type stay as they are.
pub(crate) fn unknown(schema: &Schema, object: &mut Value) -> Vec<String> {
    let mut run = Run { found: Vec::new() };
    run.node(Some(schema), true, object, "");
    run.found.sort();
    run.found
}

/// Drops null fields that may be neither null nor defaulted, as a client cannot mean anything else by them.
pub(crate) fn nulls(schema: &Schema, value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, value| {
                let below = schema.field(name);
                !(value.is_null()
                    && below.is_some_and(|below| !below.nullable && below.default.is_none()))
            });
            for (name, value) in fields {
                if let Some(below) = schema.field(name) {
                    nulls(below, value);
                }
            }
        }
        Value::Array(items) => {
            let Some(below) = &schema.items else { return };
            items.iter_mut().for_each(|item| nulls(below, item));
        }
        _ => {}
    }
}

struct Run {
    found: Vec<String>,
}

impl Run {
    /// `resource` says that `value` is a whole object.
    fn node(&mut self, schema: Option<&Schema>, resource: bool, value: &mut Value, path: &str) {
        let keeps = schema.is_some_and(|schema| schema.preserve_unknown);
        let resource = resource || schema.is_some_and(|schema| schema.embedded);
        match value {
            Value::Object(fields) => {
                let mut dropped = Vec::new();
                for (name, value) in fields.iter_mut() {
                    if resource && META_FIELDS.contains(&name.as_str()) {
                        continue;
                    }
                    let place = super::child(path, name);
                    match schema.map(|schema| (schema.field(name), schema.additional.as_ref())) {
                        Some((Some(below), _)) => self.node(Some(below), false, value, &place),
                        // Values of any kind, of which nothing is known.
                        Some((None, Some(Additional::Any(true)))) => {
                            self.node(None, false, value, &place);
                        }
                        _ if keeps => {}
                        _ => dropped.push((name.clone(), place)),
                    }
                }
                for (name, place) in dropped {
                    fields.shift_remove(&name);
                    self.found.push(place);
                }
            }
            Value::Array(items) => {
                let below = schema.and_then(|schema| schema.items.as_deref());
                if keeps && below.is_none() {
                    return;
                }
                for (index, item) in items.iter_mut().enumerate() {
                    self.node(below, false, item, &format!("{path}[{index}]"));
                }
            }
            _ => {}
        }
    }
}
