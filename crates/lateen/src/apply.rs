//! Applying objects to a Kubernetes API, as `kubectl apply` would have done it.
//!
//! The objects carry the `last-applied-configuration` annotation, so that a later `kubectl apply` of the same file
//! finds them `unchanged` and can tell which fields were given before.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use kube::api::{Api, DynamicObject, GroupVersionKind, Patch, PatchParams};
use kube::core::discovery::{ApiResource, Scope};
use kube::{Client, discovery};
use serde_json::{Value, json};

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The owner of the fields that are applied. It is kubectl's, so that fields do not get two owners.
const FIELD_MANAGER: &str = "kubectl-client-side-apply";

/// How long a kind may take to be served after its definition was applied.
const KIND_WITHIN: Duration = Duration::from_secs(10);

/// Why an object could not be applied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApplyError {
    /// The API serves no such kind.
    #[error("no kind {kind} in {api_version} is served here")]
    UnknownKind {
        /// Kind of the object.
        kind: String,
        /// API version of the object.
        api_version: String,
    },
    /// The object has no name.
    #[error("the {kind} has no metadata.name")]
    Nameless {
        /// Kind of the object.
        kind: String,
    },
    /// The API refused the object, for a reason that names it.
    #[error("{0}")]
    Refused(String),
    /// The API could not be asked.
    #[error("{kind} {name}: {source}")]
    Request {
        /// Kind of the object.
        kind: String,
        /// Name of the object.
        name: String,
        /// What the API said.
        source: Box<kube::Error>,
    },
}

/// Applies objects; remembers which kinds it has seen.
pub(crate) struct Applier {
    client: Client,
    kinds: HashMap<GroupVersionKind, (ApiResource, Scope)>,
}

impl Applier {
    pub(crate) fn new(client: Client) -> Self {
        Self {
            client,
            kinds: HashMap::new(),
        }
    }

    /// Creates the object or brings it to the given form.
    pub(crate) async fn apply(&mut self, object: &Value) -> Result<(), ApplyError> {
        let kind = object["kind"].as_str().unwrap_or_default().to_owned();
        let Some(name) = object["metadata"]["name"].as_str().map(str::to_owned) else {
            return Err(ApplyError::Nameless { kind });
        };
        let (resource, scope) = self.kind(object).await?;
        let mut object = object.clone();
        let api: Api<DynamicObject> = match scope {
            Scope::Cluster => Api::all_with(self.client.clone(), &resource),
            Scope::Namespaced => {
                let namespace = object["metadata"]["namespace"]
                    .as_str()
                    .unwrap_or("default")
                    .to_owned();
                object["metadata"]["namespace"] = json!(namespace);
                Api::namespaced_with(self.client.clone(), &namespace, &resource)
            }
        };
        annotate(&mut object);
        let parameters = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        }
        .force();
        api.patch(&name, &parameters, &Patch::Apply(&object))
            .await
            .map(drop)
            .map_err(|error| match error {
                // Its own text would repeat everything for programmers.
                kube::Error::Api(status) if !status.message.is_empty() => {
                    ApplyError::Refused(status.message.clone())
                }
                source => ApplyError::Request {
                    kind,
                    name,
                    source: Box::new(source),
                },
            })
    }

    /// Finds out how the object's kind is served, waiting for a definition that was just applied.
    async fn kind(&mut self, object: &Value) -> Result<(ApiResource, Scope), ApplyError> {
        let api_version = object["apiVersion"].as_str().unwrap_or_default();
        let kind = object["kind"].as_str().unwrap_or_default();
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let gvk = GroupVersionKind::gvk(group, version, kind);
        if let Some(known) = self.kinds.get(&gvk) {
            return Ok(known.clone());
        }
        // Only kinds that a definition adds can be late; the others are there from the start.
        let late = group.contains('.') && !group.ends_with(".k8s.io");
        let deadline = Instant::now() + if late { KIND_WITHIN } else { Duration::ZERO };
        loop {
            match discovery::pinned_kind(&self.client, &gvk).await {
                Ok((resource, capabilities)) => {
                    let known = (resource, capabilities.scope);
                    self.kinds.insert(gvk, known.clone());
                    return Ok(known);
                }
                Err(_) if Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                Err(_) => {
                    return Err(ApplyError::UnknownKind {
                        kind: kind.to_owned(),
                        api_version: api_version.to_owned(),
                    });
                }
            }
        }
    }
}

/// Adds the annotation that `kubectl apply` compares with later.
fn annotate(object: &mut Value) {
    let mut applied = object.clone();
    // kubectl writes the annotation of an object that has none of its own with an empty map.
    if !applied["metadata"]["annotations"].is_object() {
        applied["metadata"]["annotations"] = json!({});
    }
    sort(&mut applied);
    object["metadata"]["annotations"][LAST_APPLIED] = json!(format!("{applied}\n"));
}

/// Orders members by name, as Go writes them.
fn sort(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.sort_keys();
            members.values_mut().for_each(sort);
        }
        Value::Array(items) => items.iter_mut().for_each(sort),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_annotation_is_what_kubectl_writes() {
        let mut object = json!({
            "kind": "ConfigMap", "apiVersion": "v1",
            "metadata": {"namespace": "default", "name": "a"}, "data": {"b": "1", "a": "2"},
        });
        annotate(&mut object);
        let expected = "{\"apiVersion\":\"v1\",\"data\":{\"a\":\"2\",\"b\":\"1\"},\"kind\":\"ConfigMap\",\"metadata\":{\"annotations\":{},\"name\":\"a\",\"namespace\":\"default\"}}\n";
        assert_eq!(object["metadata"]["annotations"][LAST_APPLIED], expected);
    }
}
