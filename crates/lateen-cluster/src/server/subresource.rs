//! Subresources other than `status`: `scale`, and those of pods, namespaces and service accounts.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Response};
use serde_json::{Value, json};

use super::accept::Form;
use super::body::{self, Body};
use super::kubelet::{self, Upgrade};
use super::respond::{json_response, partial};
use super::route::{Call, allow, no_such_path, not_allowed, patch_of, writing};
use super::write::{Source, is_released};
use super::{delete, review, store_failure};
use crate::builtin::human_duration;
use crate::clock;
use crate::field::FieldError;
use crate::resource::Scale;
use crate::status::{Result, Status};
use crate::store::{WriteError, revision_of};

/// How often a change of a stored object is tried again when other writes come first.
const ATTEMPTS: usize = 16;

pub(super) async fn answer(
    mut call: Call<'_>,
    method: &Method,
    body: Body,
    upgrade: Upgrade,
) -> Result<Response<Body>> {
    let resource = call.target.resource.clone();
    let core = |plural: &str| resource.group.is_empty() && resource.plural == plural;
    let subresource = call.target.subresource.clone();
    match (subresource.as_str(), method) {
        ("scale", _) if resource.scale.is_some() => {
            let path = resource.scale.clone().unwrap_or_default();
            scale(&mut call, method, body, &path).await
        }
        ("binding", &Method::POST) if core("pods") => {
            let binding = object_of(&call, body).await?;
            bind(&call, &binding).await
        }
        ("eviction", &Method::POST) if core("pods") => {
            let eviction = object_of(&call, body).await?;
            let options = Bytes::from(eviction["deleteOptions"].to_string());
            call.target.subresource.clear();
            call.headers.remove(http::header::CONTENT_TYPE);
            let options = if eviction["deleteOptions"].is_null() {
                Bytes::new()
            } else {
                options
            };
            delete::object(&mut call, &options).await?;
            Ok(json_response(
                201,
                &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}),
            ))
        }
        ("log" | "exec" | "attach" | "portforward", _) if core("pods") => {
            kubelet::answer(&call, method, upgrade).await
        }
        ("finalize", &Method::PUT) if core("namespaces") => {
            let namespace = object_of(&call, body).await?;
            finalize(&call, &namespace).await
        }
        ("token", &Method::POST) if core("serviceaccounts") => {
            let request = object_of(&call, body).await?;
            review::token(call.api, &call.target, request)
        }
        (
            "scale" | "binding" | "eviction" | "log" | "exec" | "attach" | "portforward"
            | "finalize" | "token",
            _,
        ) => Err(not_allowed()),
        _ => Err(no_such_path()),
    }
}

async fn object_of(call: &Call<'_>, body: Body) -> Result<Value> {
    let bytes = body::read(body).await?;
    body::decode(&bytes, &body::media_type(&call.headers))
}

async fn scale(
    call: &mut Call<'_>,
    method: &Method,
    body: Body,
    paths: &Scale,
) -> Result<Response<Body>> {
    let stored = match *method {
        Method::GET => {
            allow(&call.target, "get")?;
            let found = call.api.store.get(&call.target.key());
            found.ok_or_else(|| call.target.not_found())?
        }
        Method::PUT => {
            allow(&call.target, "update")?;
            let wished = object_of(call, body).await?;
            let edit = |object: &mut Value| set_scale(object, &wished, paths);
            rescale(call, &edit).await?
        }
        Method::PATCH => {
            allow(&call.target, "patch")?;
            let bytes = body::read(body).await?;
            let media = body::media_type(&call.headers);
            let strategy = call.target.resource.strategy.clone();
            let patch = patch_of(&media, &bytes, strategy.as_ref())?;
            let edit = |object: &mut Value| {
                let mut wished = scale_of(object, paths);
                patch(&mut wished)?;
                set_scale(object, &wished, paths)
            };
            rescale(call, &edit).await?
        }
        _ => return Err(not_allowed()),
    };
    let scale = scale_of(&stored, paths);
    Ok(match call.shape.accepted.form {
        Form::Object | Form::Partial => json_response(200, &scale),
        Form::Table => json_response(200, &scale_table(&scale)),
    })
}

/// The write is one of the object itself: its rules and hooks see the whole object.
async fn rescale(
    call: &mut Call<'_>,
    edit: &(dyn Fn(&mut Value) -> Result<()> + Sync),
) -> Result<Arc<Value>> {
    call.target.subresource.clear();
    writing(call)?.update(Source::Edit(edit)).await
}

/// `autoscaling/v1` `Scale` of an object.
fn scale_of(object: &Value, paths: &Scale) -> Value {
    let metadata = &object["metadata"];
    let mut shown = json!({});
    for field in [
        "name",
        "namespace",
        "uid",
        "resourceVersion",
        "creationTimestamp",
    ] {
        if let Some(value) = metadata.get(field) {
            shown[field] = value.clone();
        }
    }
    // As in Go: a wish for no replicas is an empty one.
    let mut spec = json!({});
    let number = |path: &str| at(object, path).and_then(Value::as_i64).unwrap_or(0);
    let wished = number(&paths.spec_replicas);
    if wished != 0 {
        spec["replicas"] = json!(wished);
    }
    let mut status = json!({"replicas": number(&paths.status_replicas)});
    let selector = paths
        .label_selector
        .as_deref()
        .and_then(|path| at(object, path));
    if let Some(selector) = selector {
        status["selector"] = json!(selector_text(selector));
    }
    json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": shown,
        "spec": spec,
        "status": status,
    })
}

/// The table that `kubectl get --subresource=scale` prints.
fn scale_table(scale: &Value) -> Value {
    let column = |name: &str, type_: &str, format: &str| json!({"name": name, "type": type_, "format": format, "description": "", "priority": 0});
    let metadata = &scale["metadata"];
    let created = metadata["creationTimestamp"].as_str().unwrap_or_default();
    let age = clock::since(created).map_or_else(|| "<unknown>".to_owned(), human_duration);
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {"resourceVersion": metadata["resourceVersion"]},
        "columnDefinitions": [
            column("Name", "string", "name"),
            column("Desired", "integer", ""),
            column("Available", "integer", ""),
            column("Age", "string", ""),
        ],
        "rows": [{
            "cells": [
                metadata["name"],
                scale["spec"]["replicas"],
                scale["status"]["replicas"],
                age,
            ],
            "object": partial(scale),
        }],
    })
}

fn set_scale(object: &mut Value, wished: &Value, paths: &Scale) -> Result<()> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let replicas = wished["spec"]["replicas"].as_i64().unwrap_or(0);
    if replicas < 0 {
        return Err(Status::invalid(
            "autoscaling",
            "Scale",
            name,
            &[FieldError::invalid(
                "spec.replicas",
                json!(replicas),
                "must be greater than or equal to 0",
            )],
        ));
    }
    // A revision in the Scale guards the object's.
    if let Some(revision) = wished["metadata"]["resourceVersion"].as_str()
        && !revision.is_empty()
    {
        object["metadata"]["resourceVersion"] = json!(revision);
    }
    let mut place = object;
    for part in paths
        .spec_replicas
        .split('.')
        .filter(|part| !part.is_empty())
    {
        if !place.is_object() {
            *place = json!({});
        }
        place = &mut place[part];
    }
    *place = json!(replicas);
    Ok(())
}

fn at<'v>(object: &'v Value, path: &str) -> Option<&'v Value> {
    let mut value = object;
    for part in path.split('.').filter(|part| !part.is_empty()) {
        value = value.get(part)?;
    }
    Some(value)
}

/// A selector in query form; kinds of CustomResourceDefinitions keep it in that form already.
fn selector_text(selector: &Value) -> String {
    if let Some(text) = selector.as_str() {
        return text.to_owned();
    }
    let structured =
        selector.get("matchLabels").is_some() || selector.get("matchExpressions").is_some();
    let labels = if structured {
        &selector["matchLabels"]
    } else {
        selector
    };
    let mut parts: Vec<String> = labels
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    parts.sort();
    for expression in selector["matchExpressions"]
        .as_array()
        .into_iter()
        .flatten()
    {
        let key = expression["key"].as_str().unwrap_or_default();
        let values: Vec<&str> = expression["values"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let values = values.join(",");
        parts.push(match expression["operator"].as_str() {
            Some("In") => format!("{key} in ({values})"),
            Some("NotIn") => format!("{key} notin ({values})"),
            Some("DoesNotExist") => format!("!{key}"),
            _ => key.to_owned(),
        });
    }
    parts.join(",")
}

/// Gives a pod to a node.
async fn bind(call: &Call<'_>, binding: &Value) -> Result<Response<Body>> {
    let node = binding["target"]["name"].as_str().unwrap_or_default();
    let pod_name = call.target.name.clone();
    if node.is_empty() {
        return Err(Status::invalid(
            "",
            "Binding",
            &pod_name,
            &[FieldError::required("target.name", "")],
        ));
    }
    let edit = |pod: &mut Value| {
        let refused = |why: String| Status::conflict("", "pods/binding", &pod_name, &why);
        if pod["metadata"].get("deletionTimestamp").is_some() {
            return Err(refused(format!(
                "pod {pod_name} is being deleted, cannot be assigned to a host"
            )));
        }
        if let Some(other) = pod["spec"]["nodeName"]
            .as_str()
            .filter(|name| !name.is_empty())
        {
            return Err(refused(format!(
                "pod {pod_name} is already assigned to node {other:?}"
            )));
        }
        pod["spec"]["nodeName"] = json!(node);
        let condition = json!({
            "type": "PodScheduled",
            "status": "True",
            "lastProbeTime": null,
            "lastTransitionTime": clock::now(),
        });
        let status = &mut pod["status"];
        if status.is_null() {
            *status = json!({});
        }
        match status["conditions"].as_array_mut() {
            Some(conditions) => {
                conditions.retain(|known| known["type"] != "PodScheduled");
                conditions.push(condition);
            }
            None => status["conditions"] = json!([condition]),
        }
        Ok(())
    };
    amend(call, &edit).await?;
    Ok(json_response(
        201,
        &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}),
    ))
}

/// Sets the finalizers of a namespace; without any it may go.
async fn finalize(call: &Call<'_>, namespace: &Value) -> Result<Response<Body>> {
    let revision = namespace["metadata"]["resourceVersion"]
        .as_str()
        .unwrap_or_default();
    let target = call.target.clone();
    let edit = |stored: &mut Value| {
        if !revision.is_empty() && stored["metadata"]["resourceVersion"] != revision {
            return Err(target.conflict(
                "the object has been modified; please apply your changes to the latest version and try again",
            ));
        }
        match namespace["spec"]["finalizers"].as_array() {
            Some(finalizers) if !finalizers.is_empty() => {
                stored["spec"]["finalizers"] = json!(finalizers);
            }
            _ => stored["spec"] = json!({}),
        }
        Ok(())
    };
    let stored = amend(call, &edit).await?;
    call.answer(200, &stored)
}

/// Changes a stored object without the rules for clients' writes, and removes it when it waited only for this.
async fn amend(
    call: &Call<'_>,
    edit: &(dyn Fn(&mut Value) -> Result<()> + Sync),
) -> Result<Arc<Value>> {
    let dry_run = call.query.dry_run()?;
    for _attempt in 0..ATTEMPTS {
        let key = call.target.key();
        let current = call
            .api
            .store
            .get(&key)
            .ok_or_else(|| call.target.not_found())?;
        let mut object = (*current).clone();
        edit(&mut object)?;
        if dry_run || object == *current {
            return Ok(Arc::new(object));
        }
        let revision = revision_of(&current);
        let written = if is_released(&call.target, &object) {
            call.api.store.delete(key, object, revision).await
        } else {
            call.api.store.update(key, object, revision).await
        };
        match written {
            Ok(stored) => return Ok(stored),
            Err(WriteError::Changed) => {}
            Err(WriteError::Missing) => return Err(call.target.not_found()),
            Err(error) => return Err(store_failure(&error)),
        }
    }
    Err(call
        .target
        .conflict("the object is changed all the time; please try again"))
}
