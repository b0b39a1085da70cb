//! Waiting until what was applied works, and saying what does not.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ApiResource, DynamicObject, ListParams};
use kube::core::GroupVersionKind;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use serde_json::Value;

/// A workload that has to get ready: kind, namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Workload {
    kind: WorkloadKind,
    namespace: String,
    name: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum WorkloadKind {
    Deployment,
    ReplicaSet,
}

impl Workload {
    pub(crate) fn deployment(namespace: &str, name: &str) -> Self {
        Self {
            kind: WorkloadKind::Deployment,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    /// The workload that an applied object is, if it is one.
    pub(crate) fn of(object: &Value) -> Option<Self> {
        let kind = match object["kind"].as_str()? {
            "Deployment" => WorkloadKind::Deployment,
            "ReplicaSet" => WorkloadKind::ReplicaSet,
            _ => return None,
        };
        Some(Self {
            kind,
            namespace: object["metadata"]["namespace"]
                .as_str()
                .unwrap_or("default")
                .to_owned(),
            name: object["metadata"]["name"].as_str()?.to_owned(),
        })
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            WorkloadKind::Deployment => "deployment",
            WorkloadKind::ReplicaSet => "replicaset",
        };
        write!(formatter, "{kind}/{} in {}", self.name, self.namespace)
    }
}

/// Waits until all workloads have the replicas they want, or `within` is over. Returns those that are not ready, each
/// with the reason that its pods give.
pub(crate) async fn wait(client: &Client, workloads: &[Workload], within: Duration) -> Vec<String> {
    let mut waiting: BTreeMap<Workload, String> = workloads
        .iter()
        .map(|workload| (workload.clone(), "no replica yet".to_owned()))
        .collect();
    let mut changes = futures_util::stream::select(
        deployments(client.clone()).boxed(),
        replica_sets(client.clone()).boxed(),
    );
    let everything_ready = async {
        while !waiting.is_empty() {
            let Some((workload, state)) = changes.next().await else {
                break;
            };
            match state {
                State::Ready => drop(waiting.remove(&workload)),
                State::Waiting(why) => {
                    if let Some(reason) = waiting.get_mut(&workload) {
                        *reason = why;
                    }
                }
            }
        }
    };
    // Running out of time is told by what is left.
    let _ = tokio::time::timeout(within, everything_ready).await;
    let mut unready = Vec::new();
    for (workload, state) in waiting {
        let mut text = format!("{workload} is not ready: {state}");
        if let Some(reason) = pod_trouble(client, &workload).await {
            text.push_str("; ");
            text.push_str(&reason);
        }
        unready.push(text);
    }
    unready
}

/// Waits until the webhook configurations among these objects have their certificate authority, so that pods are
/// injected and configuration is validated from the first one on.
pub(crate) async fn wait_for_webhooks(
    client: &Client,
    objects: &[Value],
    within: Duration,
) -> bool {
    let webhooks = objects.iter().filter_map(|object| {
        let kind = object["kind"].as_str()?;
        let name = object["metadata"]["name"].as_str()?;
        kind.ends_with("WebhookConfiguration")
            .then(|| trusted(client, kind, name))
    });
    let all = futures_util::future::join_all(webhooks);
    tokio::time::timeout(within, all).await.is_ok()
}

/// Waits until all webhooks of a configuration have their certificate authority.
async fn trusted(client: &Client, kind: &str, name: &str) {
    let gvk = GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", kind);
    let api = Api::<DynamicObject>::all_with(client.clone(), &ApiResource::from_gvk(&gvk));
    let configuration = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut changes = watcher(api, configuration)
        .default_backoff()
        .applied_objects()
        .boxed();
    while let Some(change) = changes.next().await {
        let Ok(configuration) = change else { continue };
        let mut webhooks = configuration.data["webhooks"]
            .as_array()
            .into_iter()
            .flatten();
        if webhooks.all(|webhook| webhook["clientConfig"]["caBundle"].is_string()) {
            return;
        }
    }
}

enum State {
    Ready,
    Waiting(String),
}

impl State {
    fn of(wanted: i32, ready: i32, current: bool) -> Self {
        if current && ready >= wanted {
            Self::Ready
        } else {
            Self::Waiting(format!("{ready} of {wanted} replicas ready"))
        }
    }
}

fn deployments(client: Client) -> impl Stream<Item = (Workload, State)> {
    let api: Api<Deployment> = Api::all(client);
    watcher(api, watcher::Config::default())
        .default_backoff()
        .applied_objects()
        .filter_map(|change| async move {
            let deployment = change.ok()?;
            let workload = Workload::deployment(
                &deployment.namespace().unwrap_or_default(),
                &deployment.name_any(),
            );
            let wanted = deployment
                .spec
                .as_ref()
                .and_then(|spec| spec.replicas)
                .unwrap_or(1);
            let status = deployment.status.unwrap_or_default();
            let current = status.observed_generation >= deployment.metadata.generation
                && status.updated_replicas.unwrap_or(0) >= wanted;
            Some((
                workload,
                State::of(wanted, status.ready_replicas.unwrap_or(0), current),
            ))
        })
}

fn replica_sets(client: Client) -> impl Stream<Item = (Workload, State)> {
    let api: Api<ReplicaSet> = Api::all(client);
    watcher(api, watcher::Config::default())
        .default_backoff()
        .applied_objects()
        .filter_map(|change| async move {
            let set = change.ok()?;
            let workload = Workload {
                kind: WorkloadKind::ReplicaSet,
                namespace: set.namespace().unwrap_or_default(),
                name: set.name_any(),
            };
            let wanted = set
                .spec
                .as_ref()
                .and_then(|spec| spec.replicas)
                .unwrap_or(1);
            let status = set.status.unwrap_or_default();
            let current = status.observed_generation >= set.metadata.generation;
            Some((
                workload,
                State::of(wanted, status.ready_replicas.unwrap_or(0), current),
            ))
        })
}

/// The first thing that a pod of the workload complains about.
async fn pod_trouble(client: &Client, workload: &Workload) -> Option<String> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), &workload.namespace);
    let prefix = format!("{}-", workload.name);
    let pods = pods.list(&ListParams::default()).await.ok()?;
    pods.items
        .iter()
        .filter(|pod| pod.name_any().starts_with(&prefix))
        .find_map(|pod| {
            let status = pod.status.as_ref()?;
            let containers = status
                .init_container_statuses
                .iter()
                .chain(&status.container_statuses);
            let waiting = containers
                .flatten()
                .filter(|container| !container.ready)
                .find_map(|container| container.state.as_ref()?.waiting.clone())?;
            let reason = waiting.reason.unwrap_or_else(|| "waiting".to_owned());
            let message = waiting
                .message
                .map(|message| format!(": {message}"))
                .unwrap_or_default();
            Some(format!("pod {}: {reason}{message}", pod.name_any()))
        })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn workloads_are_told_from_other_objects() {
        for (kind, expected) in [
            ("Deployment", Some("deployment/a in default")),
            ("ReplicaSet", Some("replicaset/a in default")),
            ("Service", None),
        ] {
            let object = json!({"kind": kind, "metadata": {"name": "a"}});
            let found = Workload::of(&object).map(|workload| workload.to_string());
            assert_eq!(found.as_deref(), expected, "{kind}");
        }
    }
}
