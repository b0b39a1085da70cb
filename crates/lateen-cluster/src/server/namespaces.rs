//! The life of namespaces: what a new one gets, and what may be created in one.

use serde_json::{Value, json};

use super::Api;
use super::target::Target;
use crate::status::{Result, Status};
use crate::store::Key;

/// Namespaces that cannot be deleted (`plugin/pkg/admission/namespace/lifecycle`).
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

/// The finalizer that keeps a namespace until its content is gone.
const CONTENT: &str = "kubernetes";

/// Whether the target is the resource `namespaces`.
pub(super) fn is_namespace(target: &Target) -> bool {
    target.is("", "namespaces")
}

/// Sets what every new namespace has.
pub(super) fn for_create(object: &mut Value) {
    let name = object["metadata"]["name"].clone();
    if object["metadata"]["labels"].is_null() {
        object["metadata"]["labels"] = json!({});
    }
    object["metadata"]["labels"]["kubernetes.io/metadata.name"] = name;
    object["spec"] = json!({"finalizers": [CONTENT]});
    object["status"] = json!({"phase": "Active"});
}

/// Refuses to create in a namespace that is missing or going away.
pub(super) fn check(api: &Api, target: &Target, namespace: &str, name: &str) -> Result<()> {
    let key = Key {
        resource: "namespaces".into(),
        namespace: String::new(),
        name: namespace.to_owned(),
    };
    let Some(found) = api.store.get(&key) else {
        return Err(Status::not_found("", "namespaces", namespace));
    };
    if found["metadata"].get("deletionTimestamp").is_none() {
        return Ok(());
    }
    let mut status = target.forbidden(
        name,
        &format!(
            "unable to create new content in namespace {namespace} because it is being terminated"
        ),
    );
    status.details["causes"] = json!([{
        "reason": "NamespaceTerminating",
        "message": format!("namespace {namespace} is being terminated"),
        "field": "metadata.namespace",
    }]);
    Err(status)
}

/// Refuses to delete a namespace that the cluster cannot be without.
pub(super) fn check_delete(target: &Target) -> Result<()> {
    if is_namespace(target) && IMMORTAL.contains(&target.name.as_str()) {
        return Err(target.forbidden(&target.name, "this namespace may not be deleted"));
    }
    Ok(())
}

/// Whether the namespace still waits for its content to go.
pub(super) fn has_content(object: &Value) -> bool {
    object["spec"]["finalizers"]
        .as_array()
        .is_some_and(|finalizers| !finalizers.is_empty())
}
