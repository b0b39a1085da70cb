//! Pods of nodes that no longer exist: nobody runs them and nobody would report their end, so they are removed here.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, ResourceExt};
use serde_json::json;

use super::Shared;
use super::error::Error;
use super::meta::{ObjectKey, is_terminal, now};
use super::queue::Queue;

/// Starts the controller. Its keys are names of nodes.
pub(super) fn start(shared: &Arc<Shared>) {
    let queue = Queue::new();
    let grace = shared.config.lost_node_grace;
    let to = Arc::clone(&queue);
    shared.nodes.on_change(move |old, new| {
        if let (Some(node), None) = (old, new) {
            to.add_after(node.name_any(), grace);
        }
    });
    let (to, nodes) = (Arc::clone(&queue), Arc::clone(&shared.nodes));
    shared.pods.on_change(move |old, new| {
        // Once per pod and node: when the pod appears or is bound.
        let node = |pod: Option<&Arc<Pod>>| pod.and_then(|pod| node_of(pod).map(str::to_owned));
        if let Some(name) = node(new)
            && node(old).as_ref() != Some(&name)
            && nodes.get(&ObjectKey::new("", &*name)).is_none()
        {
            to.add_after(name, grace);
        }
    });
    shared.when_synced(async move |shared| {
        shared.nodes.synced().await;
        shared.pods.synced().await;
        let controller = Arc::clone(&shared);
        shared.work(&queue, "podgc", 1, move |node| {
            let shared = Arc::clone(&controller);
            async move { reconcile(&shared, &node).await }
        });
    });
}

fn node_of(pod: &Pod) -> Option<&str> {
    let spec = pod.spec.as_ref()?;
    spec.node_name.as_deref().filter(|node| !node.is_empty())
}

async fn reconcile(shared: &Shared, node: &str) -> Result<(), Error> {
    if shared.nodes.get(&ObjectKey::new("", node)).is_some() {
        return Ok(());
    }
    let pods = shared.pods.all();
    for pod in pods.iter().filter(|pod| node_of(pod) == Some(node)) {
        remove(shared, pod).await?;
    }
    Ok(())
}

/// Marks the pod failed, so that whoever watches it learns why, and removes it without waiting for its node.
async fn remove(shared: &Shared, pod: &Pod) -> Result<(), Error> {
    let key = ObjectKey::of(&pod.metadata);
    let api: Api<Pod> = Api::namespaced(shared.client.clone(), &key.namespace);
    if !is_terminal(pod) {
        let mut conditions = pod
            .status
            .as_ref()
            .and_then(|status| status.conditions.clone())
            .map_or_else(Vec::new, |conditions| {
                conditions.iter().map(|one| json!(one)).collect()
            });
        conditions.push(json!({
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "DeletionByPodGC",
            "message": "PodGC: node no longer exists",
            "lastTransitionTime": now(),
        }));
        let patch = json!({"status": {"phase": "Failed", "conditions": conditions}});
        let outcome = api
            .patch_status(&key.name, &PatchParams::default(), &Patch::Merge(patch))
            .await;
        match outcome {
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
            Err(source) => {
                return Err(Error::Change {
                    kind: "Pod".to_owned(),
                    key,
                    source: Box::new(source),
                });
            }
            Ok(_) => {}
        }
    }
    let parameters = DeleteParams::default()
        .grace_period(0)
        .preconditions(Preconditions {
            uid: pod.metadata.uid.clone(),
            resource_version: None,
        });
    match api.delete(&key.name, &parameters).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(source) => Err(Error::Delete {
            kind: "Pod".to_owned(),
            key,
            source: Box::new(source),
        }),
        Ok(_) => Ok(()),
    }
}
