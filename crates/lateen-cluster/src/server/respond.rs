//! Answers: objects, lists and errors in the form that the client asked for.

use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use serde_json::{Map, Value, json};

use super::accept::{Accepted, Form};
use super::body::{Body, full};
use super::target::Target;
use crate::clock;
use crate::status::{Result, Status};

/// How objects are shown to this client.
#[derive(Clone)]
pub(crate) struct Shape {
    pub(crate) accepted: Accepted,
    /// `includeObject` of tables: `None`, `Metadata` or `Object`.
    pub(crate) include: Include,
}

/// What a table row carries beside its cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Include {
    Nothing,
    Metadata,
    Object,
}

impl Include {
    pub(crate) fn parse(text: Option<&str>) -> Result<Self> {
        match text {
            None | Some("Metadata") => Ok(Self::Metadata),
            Some("None") => Ok(Self::Nothing),
            Some("Object") => Ok(Self::Object),
            Some(other) => Err(Status::bad_request(format!(
                "unrecognized includeObject value: {other:?}"
            ))),
        }
    }
}

impl Shape {
    /// One stored object as this client wants it.
    pub(crate) fn object(&self, target: &Target, stored: &Value) -> Result<Value> {
        let object = converted(target, stored)?;
        Ok(match self.accepted.form {
            Form::Object => object,
            Form::Partial => partial(&object),
            Form::Table => {
                let metadata = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
                self.table(target, metadata, vec![object])
            }
        })
    }

    /// A list of stored objects; `metadata` is the list's.
    pub(crate) fn list(
        &self,
        target: &Target,
        metadata: Value,
        stored: &[impl AsRef<Value>],
    ) -> Result<Value> {
        let objects: Vec<Value> = stored
            .iter()
            .map(|object| converted(target, object.as_ref()))
            .collect::<Result<_>>()?;
        Ok(match self.accepted.form {
            Form::Object => json!({
                "kind": format!("{}List", target.resource.kind),
                "apiVersion": target.api_version(),
                "metadata": metadata,
                "items": objects,
            }),
            Form::Partial => json!({
                "kind": "PartialObjectMetadataList",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": metadata,
                "items": objects.iter().map(partial).collect::<Vec<_>>(),
            }),
            Form::Table => self.table(target, metadata, objects),
        })
    }

    fn table(&self, target: &Target, metadata: Value, objects: Vec<Value>) -> Value {
        let strategy = &target.resource.strategy;
        let api_version = target.api_version();
        let now = clock::now();
        let columns: Vec<Value> = strategy
            .columns(&api_version)
            .into_iter()
            .map(|column| {
                json!({
                    "name": column.name,
                    "type": column.type_,
                    "format": column.format,
                    "description": column.description,
                    "priority": column.priority,
                })
            })
            .collect();
        let rows: Vec<Value> = objects
            .into_iter()
            .map(|object| {
                let cells = strategy.row(&object, &api_version, &now);
                let mut row = json!({"cells": cells});
                match self.include {
                    Include::Nothing => {}
                    Include::Metadata => row["object"] = partial(&object),
                    Include::Object => row["object"] = object,
                }
                row
            })
            .collect();
        json!({
            "kind": "Table",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": metadata,
            "columnDefinitions": columns,
            "rows": rows,
        })
    }
}

/// A stored object in the version of the request.
pub(crate) fn converted(target: &Target, stored: &Value) -> Result<Value> {
    let mut object = stored.clone();
    target
        .resource
        .strategy
        .convert_from_storage(&mut object, &target.api_version())?;
    // kubectl and people expect these two first.
    let Value::Object(fields) = object else {
        return Ok(object);
    };
    let mut ordered = Map::new();
    ordered.insert("kind".to_owned(), json!(target.resource.kind));
    ordered.insert("apiVersion".to_owned(), json!(target.api_version()));
    ordered.extend(
        fields
            .into_iter()
            .filter(|(key, _)| key != "kind" && key != "apiVersion"),
    );
    Ok(Value::Object(ordered))
}

/// `PartialObjectMetadata` of an object.
pub(crate) fn partial(object: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": object["metadata"],
    })
}

/// A JSON answer.
pub(crate) fn json_response(code: u16, value: &Value) -> Response<Body> {
    let mut bytes = value.to_string();
    bytes.push('\n');
    with_type(code, "application/json", bytes)
}

/// An answer in JSON or YAML.
pub(crate) fn encoded(code: u16, value: &Value, yaml: bool) -> Response<Body> {
    if yaml && let Ok(text) = serde_saphyr::to_string(value) {
        return with_type(code, "application/yaml", text);
    }
    json_response(code, value)
}

/// An error answer.
pub(crate) fn error_response(status: &Status) -> Response<Body> {
    let mut response = json_response(status.code, &status.to_object());
    if status.code == 429 {
        let headers = response.headers_mut();
        headers.insert(http::header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// An answer with a body of the given type.
pub(crate) fn with_type(
    code: u16,
    media: &'static str,
    bytes: impl Into<bytes::Bytes>,
) -> Response<Body> {
    let mut response = Response::new(full(bytes));
    *response.status_mut() =
        StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
    headers.insert(
        http::header::CACHE_CONTROL,
        HeaderValue::from_static("no-cache, private"),
    );
    response
}

/// Adds `Warning` headers. Text that cannot stand in a header is left out of it.
pub(crate) fn add_warnings(response: &mut Response<Body>, warnings: &[String]) {
    for warning in warnings {
        let quoted = warning.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            response.headers_mut().append(http::header::WARNING, value);
        }
    }
}
