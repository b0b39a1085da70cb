//! The OpenAPI document of a custom resource, from which `kubectl explain` and client-side checks work.

use serde_json::{Map, Value, json};

use crate::schema::definitions;

use super::metadata::OBJECT_META;

/// Where references to other definitions begin.
const REFERENCE: &str = "#/components/schemas/";
const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";

const API_VERSION: &str = "APIVersion defines the versioned schema of this representation of an object. Servers should convert recognized schemas to the latest internal value, and may reject unrecognized values. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources";
const KIND: &str = "Kind is a string value representing the REST resource this object represents. Servers may infer this from the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";
const METADATA: &str = "Standard object's metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";
const LIST_METADATA: &str = "Standard list metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";

/// The full name of the kind's definition, and all definitions that it needs. `schema` is as the
/// CustomResourceDefinition has it.
pub(crate) fn document(
    group: &str,
    api_version: &str,
    kind: &str,
    list_kind: &str,
    schema: &Value,
) -> (String, Map<String, Value>) {
    let version = api_version.rsplit('/').next().unwrap_or_default();
    let reversed: Vec<&str> = group.rsplit('.').collect();
    let full = |kind: &str| format!("{}.{version}.{kind}", reversed.join("."));
    let mut object = schema.as_object().cloned().unwrap_or_default();
    object.entry("type").or_insert_with(|| json!("object"));
    let properties = object.entry("properties").or_insert_with(|| json!({}));
    if let Some(properties) = properties.as_object_mut() {
        describe_type(properties);
        properties.insert("metadata".to_owned(), reference(OBJECT_META, METADATA));
        properties.sort_keys();
        properties.values_mut().for_each(describe_embedded);
    }
    let gvk = |kind: &str| json!([{"group": group, "kind": kind, "version": version}]);
    object.insert("x-kubernetes-group-version-kind".to_owned(), gvk(kind));

    let mut list = Map::new();
    describe_type(&mut list);
    list.insert("metadata".to_owned(), reference(LIST_META, LIST_METADATA));
    list.insert(
        "items".to_owned(),
        json!({
            "type": "array",
            "description": format!(
                "List of {}. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md",
                kind.to_lowercase()
            ),
            "items": {"$ref": format!("{REFERENCE}{}", full(kind))},
        }),
    );
    let list = json!({
        "type": "object",
        "description": format!("{list_kind} is a list of {kind}"),
        "required": ["items"],
        "properties": list,
        "x-kubernetes-group-version-kind": gvk(list_kind),
    });

    let mut all = definitions::documents(OBJECT_META);
    all.extend(definitions::documents(LIST_META));
    all.insert(full(kind), Value::Object(object));
    all.insert(full(list_kind), list);
    (full(kind), all)
}

fn reference(name: &str, description: &str) -> Value {
    json!({
        "description": description,
        "allOf": [{"$ref": format!("{REFERENCE}{name}")}],
        "default": {},
    })
}

fn describe_type(properties: &mut Map<String, Value>) {
    for (name, description) in [("apiVersion", API_VERSION), ("kind", KIND)] {
        properties.insert(
            name.to_owned(),
            json!({"type": "string", "description": description}),
        );
    }
}

/// Embedded objects have a type and metadata as well.
fn describe_embedded(schema: &mut Value) {
    let Some(fields) = schema.as_object_mut() else {
        return;
    };
    if fields.get("x-kubernetes-embedded-resource") == Some(&json!(true)) {
        let properties = fields.entry("properties").or_insert_with(|| json!({}));
        if let Some(properties) = properties.as_object_mut() {
            describe_type(properties);
            properties.insert("metadata".to_owned(), reference(OBJECT_META, METADATA));
        }
    }
    if let Some(properties) = fields.get_mut("properties").and_then(Value::as_object_mut) {
        properties.values_mut().for_each(describe_embedded);
    }
    for below in ["items", "additionalProperties"] {
        if let Some(schema) = fields.get_mut(below) {
            describe_embedded(schema);
        }
    }
}
