//! Filling the defaults of a structural schema.

use serde_json::Value;

use super::node::{Additional, Schema};

impl Schema {
    /// Puts defaults where fields are missing, and where a field that may not be null is null; such a field without a
    /// default is dropped. Idempotent.
    pub fn apply_defaults(&self, value: &mut Value) {
        let schema = self.resolved();
        match value {
            Value::Object(members) => {
                for (name, property) in &schema.properties {
                    let stands = members.get(name);
                    let missing = stands.is_none()
                        || (stands.is_some_and(Value::is_null) && !property.nullable);
                    if !missing {
                        continue;
                    }
                    match &property.default {
                        Some(default) => {
                            members.insert(name.clone(), default.clone());
                        }
                        None => {
                            members.shift_remove(name);
                        }
                    }
                }
                if let Additional::Schema(values) = &schema.additional {
                    members.retain(|name, member| {
                        schema.properties.contains_key(name)
                            || !member.is_null()
                            || values.nullable
                            || values.default.is_some()
                    });
                }
                for (name, member) in members.iter_mut() {
                    if let Some(property) = schema.properties.get(name) {
                        property.apply_defaults(member);
                    } else if let Additional::Schema(values) = &schema.additional {
                        fill(values, member);
                    }
                }
            }
            Value::Array(items) => {
                if let Some(of) = &schema.items {
                    items.iter_mut().for_each(|item| fill(of, item));
                }
            }
            _ => {}
        }
    }
}

/// Items of lists and values of maps take their default only in place of a null.
fn fill(schema: &Schema, member: &mut Value) {
    if member.is_null()
        && !schema.nullable
        && let Some(default) = &schema.default
    {
        *member = default.clone();
    }
    schema.apply_defaults(member);
}
