//! Parts of schemas that types alone do not express.

use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

/// At most one of some fields may be set: none of them, or exactly one.
pub(crate) fn at_most_one(fields: &[&str]) -> Value {
    let required = |field: &&str| json!({"required": [field]});
    let mut cases =
        vec![json!({"not": {"anyOf": fields.iter().map(required).collect::<Vec<_>>()}})];
    cases.extend(fields.iter().map(required));
    Value::Array(cases)
}

/// A duration that may be 0.
pub(crate) fn any_duration(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string"})
}
