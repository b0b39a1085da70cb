//! What is wrong with an object, field by field, with Kubernetes' words and in Kubernetes' order.

mod admission;
mod autoscaling;
mod container;
mod endpoints;
mod environment;
mod pod;
mod port;
mod service;
mod small;
mod stateful;
pub(super) mod text;
mod volume;
mod workload;

use serde_json::{Value, json};

pub(super) use admission::{policy, webhooks};
pub(super) use autoscaling::{autoscaler, disruption_budget};
pub(super) use endpoints::{endpoint_slice, endpoints};
pub(super) use pod::pod;
pub(super) use service::service;
pub(super) use small::{
    config_map, event, lease, namespace, none, priority_class, role, role_binding, secret,
};
pub(super) use stateful::{controller_revision, stateful_set};
pub(super) use workload::{deployment, replica_set};

use super::read::{at, list, members, text as text_at};
use crate::field::{FieldError, FieldErrorKind};

/// What immutable fields answer to a change.
const IMMUTABLE: &str = "field is immutable";

/// Annotations of an object may take this many bytes.
const ANNOTATIONS_LIMIT: usize = 256 << 10;

/// An object to check.
pub(super) struct Check<'a> {
    /// The object as it would be stored.
    pub(super) object: &'a Value,
    /// The stored object, on updates.
    pub(super) old: Option<&'a Value>,
}

/// Faults of the name and namespace, by the kind's rule.
pub(super) fn identity(
    check: &Check<'_>,
    namespaced: bool,
    name_rule: fn(&str) -> Vec<String>,
) -> Vec<FieldError> {
    let metadata = at(check.object, "/metadata");
    let mut errors = Vec::new();
    if let Some(old) = check.old {
        for name in ["name", "namespace", "uid", "creationTimestamp"] {
            let (new, before) = (&metadata[name], &old["metadata"][name]);
            if !new.is_null() {
                immutable(&mut errors, new, before, &format!("metadata.{name}"));
            }
        }
        return errors;
    }
    let prefix = text_at(metadata, "/generateName");
    if !prefix.is_empty() {
        // The prefix gets a suffix of letters: what it ends with is free.
        let faults = name_rule(&format!("{prefix}a"));
        invalid(&mut errors, "metadata.generateName", prefix, faults);
    }
    let name = text_at(metadata, "/name");
    if name.is_empty() {
        errors.push(FieldError::required(
            "metadata.name",
            "name or generateName is required",
        ));
    } else {
        invalid(&mut errors, "metadata.name", name, name_rule(name));
    }
    let namespace = text_at(metadata, "/namespace");
    if !namespaced && !namespace.is_empty() {
        errors.push(FieldError::forbidden(
            "metadata.namespace",
            "not allowed on this type",
        ));
    } else if namespaced && namespace.is_empty() {
        errors.push(FieldError::required("metadata.namespace", ""));
    } else if namespaced {
        invalid(
            &mut errors,
            "metadata.namespace",
            namespace,
            text::dns_label(namespace),
        );
    }
    errors
}

/// Faults of `metadata` that every kind can have, built in or not: labels, annotations, owners and finalizers.
pub(crate) fn metadata_errors(object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let metadata = at(object, "/metadata");
    let mut errors = Vec::new();
    labels(&mut errors, at(metadata, "/labels"), "metadata.labels");
    annotations(
        &mut errors,
        at(metadata, "/annotations"),
        "metadata.annotations",
    );
    owners(&mut errors, list(metadata, "/ownerReferences"));
    for finalizer in list(metadata, "/finalizers") {
        let finalizer = finalizer.as_str().unwrap_or_default();
        invalid(
            &mut errors,
            "metadata.finalizers",
            finalizer,
            text::qualified_name(finalizer),
        );
    }
    if let Some(old) = old
        .map(|old| at(old, "/metadata"))
        .filter(|old| !old["deletionTimestamp"].is_null())
    {
        let before = list(old, "/finalizers");
        let mut added: Vec<String> = list(metadata, "/finalizers")
            .iter()
            .filter(|finalizer| !before.contains(finalizer))
            .map(ToString::to_string)
            .collect();
        added.sort();
        if !added.is_empty() {
            errors.push(FieldError::forbidden(
                "metadata.finalizers",
                format!(
                    "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                    added.join(", ")
                ),
            ));
        }
    }
    errors
}

fn owners(errors: &mut Vec<FieldError>, references: &[Value]) {
    const PATH: &str = "metadata.ownerReferences";
    let mut controller: Option<String> = None;
    for reference in references {
        let version = text_at(reference, "/apiVersion");
        if version.is_empty() {
            errors.push(FieldError::invalid(
                format!("{PATH}.apiVersion"),
                json!(version),
                "version must not be empty",
            ));
        }
        for name in ["kind", "name", "uid"] {
            let value = reference[name].as_str().unwrap_or_default();
            if value.is_empty() {
                errors.push(FieldError::invalid(
                    format!("{PATH}.{name}"),
                    json!(value),
                    "must not be empty",
                ));
            }
        }
        if reference["controller"] == true {
            let this = format!(
                "{}/{}",
                text_at(reference, "/kind"),
                text_at(reference, "/name")
            );
            match &controller {
                Some(other) => errors.push(FieldError::invalid(
                    PATH,
                    json!(references),
                    format!("Only one reference can have Controller set to true. Found \"true\" in references for {other} and {this}"),
                )),
                None => controller = Some(this),
            }
        }
    }
}

/// Keys and values of labels, in sorted order.
fn labels(errors: &mut Vec<FieldError>, labels: &Value, path: &str) {
    let mut pairs: Vec<(&String, &Value)> = members(labels, "").collect();
    pairs.sort_by_key(|(key, _)| *key);
    for (key, value) in pairs {
        invalid(errors, path, key, text::qualified_name(key));
        let value = value.as_str().unwrap_or_default();
        invalid(errors, path, value, text::label_value(value));
    }
}

fn annotations(errors: &mut Vec<FieldError>, annotations: &Value, path: &str) {
    let mut size = 0;
    for (key, value) in members(annotations, "") {
        size += key.len() + value.as_str().map_or(0, str::len);
        invalid(errors, path, key, text::qualified_name(&key.to_lowercase()));
    }
    if size > ANNOTATIONS_LIMIT {
        errors.push(too_long(path, ANNOTATIONS_LIMIT));
    }
}

/// A label selector with `matchLabels` and `matchExpressions`.
fn label_selector(errors: &mut Vec<FieldError>, selector: &Value, path: &str) {
    labels(
        errors,
        at(selector, "/matchLabels"),
        &format!("{path}.matchLabels"),
    );
    for (index, expression) in list(selector, "/matchExpressions").iter().enumerate() {
        let path = format!("{path}.matchExpressions[{index}]");
        let values = list(expression, "/values");
        match text_at(expression, "/operator") {
            "In" | "NotIn" if values.is_empty() => errors.push(FieldError::required(
                format!("{path}.values"),
                "must be specified when `operator` is 'In' or 'NotIn'",
            )),
            "In" | "NotIn" => {}
            "Exists" | "DoesNotExist" if !values.is_empty() => errors.push(FieldError::forbidden(
                format!("{path}.values"),
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            )),
            "Exists" | "DoesNotExist" => {}
            other => errors.push(FieldError::invalid(
                format!("{path}.operator"),
                json!(other),
                "not a valid selector operator",
            )),
        }
        let key = text_at(expression, "/key");
        invalid(
            errors,
            &format!("{path}.key"),
            key,
            text::qualified_name(key),
        );
        for (index, value) in values.iter().enumerate() {
            let value = value.as_str().unwrap_or_default();
            invalid(
                errors,
                &format!("{path}.values[{index}]"),
                value,
                text::label_value(value),
            );
        }
    }
}

/// One fault per message.
fn invalid(errors: &mut Vec<FieldError>, path: &str, value: &str, faults: Vec<String>) {
    for fault in faults {
        errors.push(FieldError::invalid(path, json!(value), fault));
    }
}

/// A number that may not be negative.
fn nonnegative(errors: &mut Vec<FieldError>, value: &Value, path: &str) {
    if let Some(number) = value.as_i64().filter(|number| *number < 0) {
        errors.push(FieldError::invalid(
            path,
            json!(number),
            "must be greater than or equal to 0",
        ));
    }
}

/// One of a few words; an empty one is missing.
fn one_of(errors: &mut Vec<FieldError>, value: &str, supported: &[&str], path: String) {
    if value.is_empty() {
        errors.push(FieldError::required(path, ""));
    } else if !supported.contains(&value) {
        errors.push(FieldError::not_supported(path, json!(value), supported));
    }
}

fn immutable(errors: &mut Vec<FieldError>, new: &Value, old: &Value, path: &str) {
    if new != old {
        errors.push(FieldError::invalid(path, new.clone(), IMMUTABLE));
    }
}

fn too_long(path: &str, limit: usize) -> FieldError {
    FieldError {
        field: path.to_owned(),
        kind: FieldErrorKind::TooLong,
        value: Value::Null,
        detail: format!("may not be more than {limit} bytes"),
    }
}
