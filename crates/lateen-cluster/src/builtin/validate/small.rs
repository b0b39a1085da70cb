//! Kinds with few rules.

use serde_json::{Value, json};

use super::{Check, immutable, invalid, text, too_long};
use crate::builtin::read::{at, list, members, text as text_at};
use crate::field::FieldError;

/// Data of a ConfigMap or Secret may take this many bytes.
const DATA_LIMIT: usize = 1 << 20;

const FROZEN: &str = "field is immutable when `immutable` is set";

/// No rules beyond metadata.
pub(in crate::builtin) fn none(_: &Check<'_>) -> Vec<FieldError> {
    Vec::new()
}

/// A Namespace: its finalizers are names.
pub(in crate::builtin) fn namespace(check: &Check<'_>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for finalizer in list(check.object, "/spec/finalizers") {
        let finalizer = finalizer.as_str().unwrap_or_default();
        invalid(
            &mut errors,
            "spec.finalizers",
            finalizer,
            text::qualified_name(finalizer),
        );
    }
    errors
}

/// A ConfigMap.
pub(in crate::builtin) fn config_map(check: &Check<'_>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if let Some(old) = check.old {
        frozen(&mut errors, check.object, old, &["data", "binaryData"]);
    }
    let mut size = 0;
    let texts = at(check.object, "/data");
    let bytes = at(check.object, "/binaryData");
    for (key, value) in members(texts, "") {
        let path = format!("data[{key}]");
        invalid(&mut errors, &path, key, text::config_key(key));
        if bytes.get(key).is_some() {
            errors.push(FieldError::invalid(
                path,
                json!(key),
                "duplicate of key present in binaryData",
            ));
        }
        size += value.as_str().map_or(0, str::len);
    }
    for (key, value) in members(bytes, "") {
        invalid(
            &mut errors,
            &format!("binaryData[{key}]"),
            key,
            text::config_key(key),
        );
        size += decoded_length(value);
    }
    if size > DATA_LIMIT {
        errors.push(too_long("", DATA_LIMIT));
    }
    errors
}

/// A Secret.
pub(in crate::builtin) fn secret(check: &Check<'_>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let secret = check.object;
    if let Some(old) = check.old {
        immutable(&mut errors, &secret["type"], &old["type"], "type");
        frozen(&mut errors, secret, old, &["data"]);
    }
    let mut size = 0;
    for (key, value) in members(secret, "/data") {
        invalid(
            &mut errors,
            &format!("data[{key}]"),
            key,
            text::config_key(key),
        );
        size += decoded_length(value);
    }
    if size > DATA_LIMIT {
        errors.push(too_long("data", DATA_LIMIT));
    }
    let has = |key: &str| at(secret, "/data").get(key).is_some();
    let required: &[&str] = match text_at(secret, "/type") {
        "kubernetes.io/service-account-token" => {
            let account =
                &at(secret, "/metadata/annotations")["kubernetes.io/service-account.name"];
            if account.as_str().unwrap_or_default().is_empty() {
                errors.push(FieldError::required(
                    "metadata.annotations[kubernetes.io/service-account.name]",
                    "",
                ));
            }
            &[]
        }
        "kubernetes.io/dockercfg" => &[".dockercfg"],
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/basic-auth" if has("username") || has("password") => &[],
        "kubernetes.io/basic-auth" => &["username", "password"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        _ => &[],
    };
    for key in required {
        if !has(key) {
            errors.push(FieldError::required(format!("data[{key}]"), ""));
        }
    }
    errors
}

/// What `immutable: true` forbids.
fn frozen(errors: &mut Vec<FieldError>, object: &Value, old: &Value, fields: &[&str]) {
    if old["immutable"] != true {
        return;
    }
    if object["immutable"] != true {
        errors.push(FieldError::forbidden("immutable", FROZEN));
    }
    for field in fields {
        if object[*field] != old[*field] {
            errors.push(FieldError::forbidden(*field, FROZEN));
        }
    }
}

/// Bytes that base64 text stands for.
fn decoded_length(value: &Value) -> usize {
    let text = value.as_str().unwrap_or_default();
    text.trim_end_matches('=').len() * 3 / 4
}

/// An Event: it is about an object of its own namespace.
pub(in crate::builtin) fn event(check: &Check<'_>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let namespace = text_at(check.object, "/metadata/namespace");
    let involved = text_at(check.object, "/involvedObject/namespace");
    let fits = if involved.is_empty() {
        matches!(namespace, "" | "default" | "kube-system")
    } else {
        involved == namespace
    };
    if !fits {
        errors.push(FieldError::invalid(
            "involvedObject.namespace",
            json!(involved),
            "does not match event.namespace",
        ));
    }
    errors
}

/// A Lease.
pub(in crate::builtin) fn lease(check: &Check<'_>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let spec = at(check.object, "/spec");
    if let Some(seconds) = spec["leaseDurationSeconds"]
        .as_i64()
        .filter(|seconds| *seconds <= 0)
    {
        errors.push(FieldError::invalid(
            "spec.leaseDurationSeconds",
            json!(seconds),
            "must be greater than 0",
        ));
    }
    if let Some(count) = spec["leaseTransitions"].as_i64().filter(|count| *count < 0) {
        errors.push(FieldError::invalid(
            "spec.leaseTransitions",
            json!(count),
            "must be greater than or equal to 0",
        ));
    }
    errors
}

/// A Role or ClusterRole.
pub(in crate::builtin) fn role(check: &Check<'_>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let namespaced = text_at(check.object, "/kind") == "Role";
    for (index, rule) in list(check.object, "/rules").iter().enumerate() {
        let path = format!("rules[{index}]");
        let has = |name: &str| !list(rule, &format!("/{name}")).is_empty();
        if !has("verbs") {
            errors.push(FieldError::required(
                format!("{path}.verbs"),
                "verbs must contain at least one value",
            ));
        }
        if has("nonResourceURLs") {
            if namespaced {
                errors.push(FieldError::invalid(
                    format!("{path}.nonResourceURLs"),
                    rule["nonResourceURLs"].clone(),
                    "namespaced rules cannot apply to non-resource URLs",
                ));
            }
            if has("apiGroups") || has("resources") || has("resourceNames") {
                errors.push(FieldError::invalid(
                    format!("{path}.nonResourceURLs"),
                    rule["nonResourceURLs"].clone(),
                    "rules cannot apply to both regular resources and non-resource URLs",
                ));
            }
            continue;
        }
        if !has("apiGroups") {
            errors.push(FieldError::required(
                format!("{path}.apiGroups"),
                "resource rules must supply at least one api group",
            ));
        }
        if !has("resources") {
            errors.push(FieldError::required(
                format!("{path}.resources"),
                "resource rules must supply at least one resource",
            ));
        }
    }
    errors
}

/// A RoleBinding or ClusterRoleBinding.
pub(in crate::builtin) fn role_binding(check: &Check<'_>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let binding = check.object;
    let namespaced = text_at(binding, "/kind") == "RoleBinding";
    const GROUP: &str = "rbac.authorization.k8s.io";
    let reference = at(binding, "/roleRef");
    let group = text_at(reference, "/apiGroup");
    if group != GROUP {
        errors.push(FieldError::not_supported(
            "roleRef.apiGroup",
            json!(group),
            &[GROUP],
        ));
    }
    let kinds: &[&str] = if namespaced {
        &["Role", "ClusterRole"]
    } else {
        &["ClusterRole"]
    };
    let kind = text_at(reference, "/kind");
    if !kinds.contains(&kind) {
        errors.push(FieldError::not_supported(
            "roleRef.kind",
            json!(kind),
            kinds,
        ));
    }
    let name = text_at(reference, "/name");
    if name.is_empty() {
        errors.push(FieldError::required("roleRef.name", ""));
    } else {
        invalid(&mut errors, "roleRef.name", name, text::path_segment(name));
    }
    for (index, subject) in list(binding, "/subjects").iter().enumerate() {
        role_subject(
            &mut errors,
            subject,
            namespaced,
            &format!("subjects[{index}]"),
        );
    }
    if let Some(old) = check.old
        && reference != at(old, "/roleRef")
    {
        // Kubernetes shows its own struct here.
        let shown = json!({"APIGroup": group, "Kind": kind, "Name": name});
        errors.push(FieldError::invalid(
            "roleRef",
            shown,
            "cannot change roleRef",
        ));
    }
    errors
}

fn role_subject(errors: &mut Vec<FieldError>, subject: &Value, namespaced: bool, path: &str) {
    const GROUP: &str = "rbac.authorization.k8s.io";
    let name = text_at(subject, "/name");
    if name.is_empty() {
        errors.push(FieldError::required(format!("{path}.name"), ""));
    }
    let group = text_at(subject, "/apiGroup");
    match text_at(subject, "/kind") {
        "ServiceAccount" => {
            if !name.is_empty() {
                invalid(
                    errors,
                    &format!("{path}.name"),
                    name,
                    text::dns_subdomain(name),
                );
            }
            if !group.is_empty() {
                errors.push(FieldError::not_supported(
                    format!("{path}.apiGroup"),
                    json!(group),
                    &[""],
                ));
            }
            if !namespaced && text_at(subject, "/namespace").is_empty() {
                errors.push(FieldError::required(format!("{path}.namespace"), ""));
            }
        }
        "User" | "Group" => {
            if group != GROUP {
                errors.push(FieldError::not_supported(
                    format!("{path}.apiGroup"),
                    json!(group),
                    &[GROUP],
                ));
            }
        }
        other => errors.push(FieldError::not_supported(
            format!("{path}.kind"),
            json!(other),
            &["ServiceAccount", "User", "Group"],
        )),
    }
}

/// A PriorityClass: its value stays.
pub(in crate::builtin) fn priority_class(check: &Check<'_>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if let Some(old) = check.old {
        if check.object["value"] != old["value"] {
            errors.push(FieldError::forbidden(
                "value",
                "may not be changed in an update.",
            ));
        }
        if check.object["preemptionPolicy"] != old["preemptionPolicy"] {
            immutable(
                &mut errors,
                &check.object["preemptionPolicy"],
                &old["preemptionPolicy"],
                "preemptionPolicy",
            );
        }
    }
    errors
}
