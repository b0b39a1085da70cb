//! From JSON Schema to the structural schemas of Kubernetes.

use serde_json::{Map, Value, json};

/// Keywords that Kubernetes refuses, or that mean something else to it. A `default` in particular would be written
/// into stored objects.
const DROPPED: [&str; 6] = [
    "$schema",
    "title",
    "default",
    "nullable",
    "examples",
    "deprecated",
];

/// Rewrites a schema in place: one type for each value, no references, no constants.
pub(super) fn make_structural(schema: &mut Value) {
    let Some(fields) = schema.as_object_mut() else {
        return;
    };
    collapse_optional(fields);
    collapse_constants(fields);
    for key in DROPPED {
        fields.remove(key);
    }
    bound_unsigned(fields);
    if fields.get("additionalProperties") == Some(&Value::Bool(false)) {
        fields.remove("additionalProperties");
    }
    for inner in fields
        .get_mut("properties")
        .and_then(Value::as_object_mut)
        .into_iter()
        .flat_map(Map::values_mut)
    {
        make_structural(inner);
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = fields.get_mut(key) {
            make_structural(inner);
        }
    }
}

/// `T or null` is `T`: Kubernetes drops nulls before it validates.
fn collapse_optional(fields: &mut Map<String, Value>) {
    if let Some(types) = fields.get("type").and_then(Value::as_array) {
        let first = types.iter().find(|kind| *kind != "null").cloned();
        fields.extend(first.map(|kind| ("type".to_owned(), kind)));
    }
    for key in ["anyOf", "oneOf"] {
        let Some(cases) = fields.get(key).and_then(Value::as_array) else {
            continue;
        };
        let is_null = |case: &Value| {
            case["type"] == "null"
                || case["enum"] == json!([null])
                || case.get("const") == Some(&Value::Null)
        };
        let rest: Vec<Value> = cases
            .iter()
            .filter(|case| !is_null(case))
            .cloned()
            .collect();
        let optional = rest.len() < cases.len() || key == "anyOf";
        if let ([Value::Object(only)], true) = (rest.as_slice(), optional) {
            let only = only.clone();
            fields.remove(key);
            for (name, value) in only {
                // The field's own description says more than that of its type.
                fields.entry(name).or_insert(value);
            }
        }
    }
    if let Some(single) = fields
        .get("allOf")
        .and_then(Value::as_array)
        .filter(|cases| cases.len() == 1)
    {
        let only = single[0].as_object().cloned().unwrap_or_default();
        fields.remove("allOf");
        for (name, value) in only {
            fields.entry(name).or_insert(value);
        }
    }
    if let Some(values) = fields.get_mut("enum").and_then(Value::as_array_mut) {
        values.retain(|value| !value.is_null());
    }
}

/// A choice of constants is an enumeration of strings.
fn collapse_constants(fields: &mut Map<String, Value>) {
    let Some(cases) = fields.get("oneOf").and_then(Value::as_array) else {
        return;
    };
    let mut values = Vec::new();
    for case in cases {
        match (
            case.get("const"),
            case.get("enum").and_then(Value::as_array),
        ) {
            (Some(value), _) => values.push(value.clone()),
            (None, Some(several)) => values.extend(several.iter().cloned()),
            (None, None) => return,
        }
    }
    fields.remove("oneOf");
    fields.insert("type".to_owned(), json!("string"));
    fields.insert("enum".to_owned(), Value::Array(values));
}

/// Kubernetes does not know unsigned formats; bounds say the same.
fn bound_unsigned(fields: &mut Map<String, Value>) {
    let Some(format) = fields
        .get("format")
        .and_then(Value::as_str)
        .map(str::to_owned)
    else {
        return;
    };
    match format.as_str() {
        "uint32" => {
            fields.remove("format");
            fields.insert("minimum".to_owned(), json!(0));
            fields.insert("maximum".to_owned(), json!(u32::MAX));
        }
        "uint64" => {
            fields.remove("format");
            fields.insert("minimum".to_owned(), json!(0));
        }
        "int32" | "int64" | "float" | "double" => {}
        _ => drop(fields.remove("format")),
    }
}
