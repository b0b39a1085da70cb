//! OpenAPI v3: an index, and one document for each group and version.
//!
//! Paths are a skeleton, enough for kubectl to learn what it may send. Strategic merge patch is left out on purpose:
//! kubectl then takes the merge keys from its own types, which know more than the documents say.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, ETAG, HeaderMap, HeaderValue};
use http::{Response, StatusCode};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::body::Body;
use super::discovery::{groups, served};
use super::respond::{json_response, with_type};
use super::target::join;
use crate::names;
use crate::registry::Table;
use crate::resource::Resource;

/// Documents by path, each with the hash under which it was made.
pub(super) struct Documents {
    /// Documents of another run may have the same row numbers.
    run: String,
    made: Mutex<HashMap<String, (String, Bytes)>>,
}

impl Documents {
    pub(super) fn new() -> Self {
        Self {
            run: names::uid(),
            made: Mutex::new(HashMap::new()),
        }
    }

    /// `/openapi/v3`: the documents that there are, each with a hash by which clients keep it.
    pub(super) fn index(&self, table: &Table) -> Response<Body> {
        let mut paths = Map::new();
        for (group, versions) in groups(table) {
            for version in versions {
                let path = document_path(&group, &version);
                let hash = self.hash(table, &group, &version);
                let url = format!("/openapi/v3/{path}?hash={hash}");
                paths.insert(path, json!({"serverRelativeURL": url}));
            }
        }
        json_response(200, &json!({"paths": paths}))
    }

    /// `/openapi/v3/api/v1` and `/openapi/v3/apis/{group}/{version}`.
    pub(super) fn document(
        &self,
        table: &Table,
        group: &str,
        version: &str,
    ) -> Option<Response<Body>> {
        served(table, group, version).next()?;
        let path = document_path(group, version);
        let hash = self.hash(table, group, version);
        let kept = {
            let made = self.made.lock();
            made.get(&path)
                .filter(|(known, _)| *known == hash)
                .map(|(_, bytes)| bytes.clone())
        };
        let bytes = kept.unwrap_or_else(|| {
            let bytes = Bytes::from(document(table, group, version).to_string());
            self.made.lock().insert(path, (hash.clone(), bytes.clone()));
            bytes
        });
        let mut response = with_type(StatusCode::OK.as_u16(), "application/json", bytes);
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
        if let Ok(tag) = HeaderValue::from_str(&format!("\"{hash}\"")) {
            headers.insert(ETAG, tag);
        }
        Some(response)
    }

    fn hash(&self, table: &Table, group: &str, version: &str) -> String {
        let mut digest = Sha256::new();
        digest.update(&self.run);
        for (row, _) in served(table, group, version) {
            let serial = table.serial(&row.group, &row.plural);
            digest.update(format!("{}/{serial};", row.storage_key()));
        }
        let bytes = digest.finalize();
        bytes.iter().map(|byte| format!("{byte:02X}")).collect()
    }
}

/// `/openapi/v2` without any kind. kubectl falls back on it for groups that are not in version 3, and must be able to
/// read it to find that it says nothing of them. The protobuf form is `openapi.v2.Document` of gnostic.
pub(super) fn version_2(headers: &HeaderMap) -> Response<Body> {
    let version = super::discovery::VERSION.2;
    let wants_protobuf = headers
        .get(ACCEPT)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|accept| accept.contains("protobuf"));
    if !wants_protobuf {
        let info = json!({"title": "Kubernetes", "version": version});
        let document = json!({"swagger": "2.0", "info": info, "paths": {}, "definitions": {}});
        return json_response(200, &document);
    }
    let info = [field(1, b"Kubernetes"), field(2, version.as_bytes())].concat();
    let bytes = [field(1, b"2.0"), field(2, &info), field(8, &[])].concat();
    with_type(
        200,
        "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
        bytes,
    )
}

/// A length-delimited protobuf field; number and length below 16 and 128, so that one byte holds each.
fn field(number: u8, value: &[u8]) -> Vec<u8> {
    let length = u8::try_from(value.len()).unwrap_or(u8::MAX);
    [&[number << 3 | 2, length], value].concat()
}

fn document_path(group: &str, version: &str) -> String {
    if group.is_empty() {
        format!("api/{version}")
    } else {
        format!("apis/{group}/{version}")
    }
}

fn document(table: &Table, group: &str, version: &str) -> Value {
    let api_version = join(group, version);
    let mut paths = Map::new();
    let mut schemas = Map::new();
    for (row, _) in served(table, group, version) {
        let kind = json!({"group": group, "version": version, "kind": row.kind});
        let mut name = None;
        if let Some((own, definitions)) = row.strategy.openapi(&api_version) {
            for (definition, mut schema) in definitions {
                point_to_components(&mut schema);
                if definition == own {
                    schema["x-kubernetes-group-version-kind"] = json!([kind]);
                }
                schemas.insert(definition, schema);
            }
            name = Some(own);
        }
        add_paths(&mut paths, row, &api_version, &kind, name.as_deref());
    }
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": super::discovery::VERSION.2},
        "paths": paths,
        "components": {"schemas": schemas},
    })
}

/// References come as they stand in OpenAPI v2.
fn point_to_components(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            if let Some(Value::String(target)) = map.get_mut("$ref")
                && let Some(name) = target.strip_prefix("#/definitions/")
            {
                *target = format!("#/components/schemas/{name}");
            }
            map.values_mut().for_each(point_to_components);
        }
        Value::Array(list) => list.iter_mut().for_each(point_to_components),
        _ => {}
    }
}

fn add_paths(
    paths: &mut Map<String, Value>,
    row: &Arc<Resource>,
    api_version: &str,
    kind: &Value,
    schema: Option<&str>,
) {
    let root = if api_version.contains('/') {
        "/apis"
    } else {
        "/api"
    };
    let place = if row.namespaced {
        format!(
            "{root}/{api_version}/namespaces/{{namespace}}/{}",
            row.plural
        )
    } else {
        format!("{root}/{api_version}/{}", row.plural)
    };
    let body = match schema {
        Some(name) => json!({"$ref": format!("#/components/schemas/{name}")}),
        None => json!({"type": "object"}),
    };
    let operation = |action: &str, parameters: &[&str]| {
        let parameters: Vec<Value> = parameters
            .iter()
            .map(|name| json!({"name": name, "in": "query", "schema": {"type": "string"}}))
            .collect();
        json!({
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": kind,
            "parameters": parameters,
            "responses": {"200": {
                "description": "OK",
                "content": {"application/json": {"schema": body}},
            }},
        })
    };
    let with_body = |mut operation: Value, media: &[&str], schema: &Value| {
        let content: Map<String, Value> = media
            .iter()
            .map(|&media| (media.to_owned(), json!({"schema": schema})))
            .collect();
        operation["requestBody"] = json!({"required": true, "content": content});
        operation
    };
    let has = |verb: &str| row.verbs.contains(&verb);
    let writing = ["dryRun", "fieldManager", "fieldValidation"];
    let media = ["application/json", "application/yaml"];
    let mut collection = Map::new();
    let mut object = Map::new();
    if has("list") {
        let options = [
            "labelSelector",
            "fieldSelector",
            "limit",
            "continue",
            "watch",
        ];
        collection.insert("get".to_owned(), operation("list", &options));
    }
    if has("create") {
        let create = with_body(operation("post", &writing), &media, &body);
        collection.insert("post".to_owned(), create);
    }
    if has("get") {
        object.insert("get".to_owned(), operation("get", &[]));
    }
    if has("update") {
        let update = with_body(operation("put", &writing), &media, &body);
        object.insert("put".to_owned(), update);
    }
    if has("patch") {
        let options = ["dryRun", "fieldManager", "fieldValidation", "force"];
        let media = [
            "application/apply-patch+yaml",
            "application/json-patch+json",
            "application/merge-patch+json",
        ];
        let patch = with_body(
            operation("patch", &options),
            &media,
            &json!({"type": "object"}),
        );
        object.insert("patch".to_owned(), patch);
    }
    if has("delete") {
        let options = ["dryRun", "gracePeriodSeconds", "propagationPolicy"];
        object.insert("delete".to_owned(), operation("delete", &options));
    }
    if row.status_subresource {
        let mut status = object.clone();
        status.shift_remove("delete");
        paths.insert(format!("{place}/{{name}}/status"), Value::Object(status));
    }
    paths.insert(place.clone(), Value::Object(collection));
    paths.insert(format!("{place}/{{name}}"), Value::Object(object));
}
