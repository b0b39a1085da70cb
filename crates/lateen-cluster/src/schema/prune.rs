//! Dropping the fields that a structural schema does not know.

use serde_json::{Map, Value};

use super::node::{Additional, Schema};

impl Schema {
    /// Drops unknown fields of an object and returns their paths, e.g. `spec.rig[0].unknown`, in document order.
    ///
    /// `resource` says that the value is a whole object, whose `apiVersion`, `kind` and `metadata` always stay.
    pub fn prune(&self, value: &mut Value, resource: bool) -> Vec<String> {
        let mut unknown = Vec::new();
        prune(self, value, resource, "", &mut unknown);
        unknown
    }
}

fn prune(
    schema: &Schema,
    value: &mut Value,
    resource: bool,
    path: &str,
    unknown: &mut Vec<String>,
) {
    let schema = schema.resolved();
    let resource = resource || schema.embedded_resource;
    match value {
        Value::Object(members) => prune_object(schema, members, resource, path, unknown),
        Value::Array(items) => match &schema.items {
            Some(of) => {
                for (index, item) in items.iter_mut().enumerate() {
                    prune(of, item, false, &format!("{path}[{index}]"), unknown);
                }
            }
            None if schema.preserve_unknown => {}
            // Without a schema for items nothing is known about the objects in the list.
            None => {
                for (index, item) in items.iter_mut().enumerate() {
                    prune(
                        &Schema::default(),
                        item,
                        false,
                        &format!("{path}[{index}]"),
                        unknown,
                    );
                }
            }
        },
        _ => {}
    }
}

fn prune_object(
    schema: &Schema,
    members: &mut Map<String, Value>,
    resource: bool,
    path: &str,
    unknown: &mut Vec<String>,
) {
    let mut drop = Vec::new();
    for (name, member) in members.iter_mut() {
        if resource && matches!(name.as_str(), "apiVersion" | "kind" | "metadata") {
            continue;
        }
        let at = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        match (schema.properties.get(name), &schema.additional) {
            (Some(property), _) => prune(property, member, false, &at, unknown),
            (None, Additional::Schema(values)) => prune(values, member, false, &at, unknown),
            (None, Additional::Allowed) => {}
            (None, _) if schema.preserve_unknown => {}
            (None, _) => {
                drop.push(name.clone());
                unknown.push(at);
            }
        }
    }
    for name in drop {
        members.shift_remove(&name);
    }
}
