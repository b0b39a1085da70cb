//! A cluster with a node that is only told of, and ways to wait for it.

use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::NamespaceResourceScope;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use lateen_cluster::{Cluster, Config};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

/// Longer than anything takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// An image that never comes up.
pub(super) const STUCK: &str = "stuck";

/// A cluster and its kubelet.
pub(super) struct Running {
    pub(super) client: Client,
    cluster: Cluster,
    kubelet: JoinHandle<()>,
    _folder: tempfile::TempDir,
}

impl Running {
    pub(super) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let cluster = Cluster::start(Config {
            state_dir: folder.path().join("state"),
            listeners: Vec::new(),
            certificate_names: Vec::new(),
            service_range: "10.96.0.0/16".to_owned(),
            node_ports: 30000..=32767,
            autoscaler: Default::default(),
            kubelet_socket: folder.path().join("kubelet.sock"),
        })
        .await
        .unwrap();
        let client = cluster.client();
        let kubelet = tokio::spawn(Kubelet::run(client.clone()));
        Self {
            client,
            cluster,
            kubelet,
            _folder: folder,
        }
    }

    pub(super) async fn stop(self) {
        self.kubelet.abort();
        self.cluster.shutdown().await;
    }

    /// Objects of the namespace `default`.
    pub(super) fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), "default")
    }

    /// Creates an object in its namespace, or in `default`.
    pub(super) async fn create(&self, object: Value) -> DynamicObject {
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        let types = object.types.clone().unwrap();
        let gvk = kube::core::GroupVersionKind::try_from(&types).unwrap();
        let resource = ApiResource::from_gvk(&gvk);
        let namespace = object.namespace().unwrap_or_else(|| "default".to_owned());
        let api: Api<DynamicObject> = match types.kind.as_str() {
            "Namespace" | "CustomResourceDefinition" | "MutatingWebhookConfiguration" => {
                Api::all_with(self.client.clone(), &resource)
            }
            _ => Api::namespaced_with(self.client.clone(), &namespace, &resource),
        };
        api.create(&PostParams::default(), &object).await.unwrap()
    }
}

/// Stands in for the node's agent: every pod is bound, runs and is ready at once, and ends as soon as it is asked to.
struct Kubelet;

impl Kubelet {
    async fn run(client: Client) {
        static LAST_ADDRESS: AtomicU8 = AtomicU8::new(1);
        let pods: Api<Pod> = Api::all(client.clone());
        let mut changes = watcher(pods, watcher::Config::default())
            .default_backoff()
            .applied_objects()
            .boxed();
        while let Some(change) = changes.next().await {
            let Ok(pod) = change else { continue };
            let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap());
            if pod.metadata.deletion_timestamp.is_some() {
                let now = DeleteParams::default().grace_period(0);
                let _ = api.delete(&pod.name_any(), &now).await;
            } else if pod
                .status
                .as_ref()
                .is_none_or(|status| status.pod_ip.is_none())
                && image(&pod) != STUCK
            {
                let last = LAST_ADDRESS.fetch_add(1, Ordering::Relaxed);
                let status = json!({"status": {
                    "phase": "Running",
                    "podIP": format!("10.244.0.{last}"),
                    "podIPs": [{"ip": format!("10.244.0.{last}")}],
                    "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
                }});
                let patch = Patch::Merge(status);
                let _ = api
                    .patch_status(&pod.name_any(), &PatchParams::default(), &patch)
                    .await;
            }
        }
    }
}

/// The image of the pod's first container.
fn image(pod: &Pod) -> &str {
    let container = pod.spec.as_ref().and_then(|spec| spec.containers.first());
    container
        .and_then(|container| container.image.as_deref())
        .unwrap_or_default()
}

/// A Deployment whose pods run on a node, so that they end gracefully.
pub(super) fn deployment(replicas: i32, image: &str, spec: Value) -> Value {
    let mut object = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"nodeName": "node", "containers": [{"name": "web", "image": image,
                    "ports": [{"name": "http", "containerPort": 8080}]}]},
            },
        },
    });
    json_patch::merge(&mut object["spec"], &spec);
    object
}

/// A webhook without which no pod is made, and which nobody answers.
pub(super) fn broken_webhook() -> Value {
    // Nobody listens on port 1.
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": "broken"},
        "webhooks": [{"name": "broken.example.org", "clientConfig": {"url": "https://127.0.0.1:1/"},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"]}],
            "failurePolicy": "Fail", "sideEffects": "None", "admissionReviewVersions": ["v1"]}],
    })
}

/// Changes an object by a merge patch.
pub(super) async fn patch<K>(api: &Api<K>, name: &str, patch: Value) -> K
where
    K: Clone + DeserializeOwned + Debug,
{
    api.patch(name, &PatchParams::default(), &Patch::Merge(patch))
        .await
        .unwrap()
}

/// Changes the image of the Deployment `web`, so that a new revision is rolled out.
pub(super) async fn set_image(api: &Api<Deployment>, image: &str) {
    let ports = json!([{"name": "http", "containerPort": 8080}]);
    let containers = json!([{"name": "web", "image": image, "ports": ports}]);
    let spec = json!({"spec": {"template": {"spec": {"containers": containers}}}});
    patch(api, "web", spec).await;
}

/// Whether the rollout that was asked for last is over, as `kubectl rollout status` sees it.
pub(super) fn is_rolled_out(deployment: &Deployment) -> bool {
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas);
    let status = deployment.status.as_ref();
    status.is_some_and(|status| {
        status.observed_generation >= deployment.metadata.generation
            && [
                status.updated_replicas,
                status.replicas,
                status.available_replicas,
            ]
            .iter()
            .all(|count| count.unwrap_or(0) == wanted.unwrap_or(1))
    })
}

/// Waits until the Deployment `web` is rolled out.
pub(super) async fn rolled_out(api: &Api<Deployment>) -> Deployment {
    eventually("rollout", || async {
        let deployment = api.get("web").await.unwrap();
        is_rolled_out(&deployment).then_some(deployment)
    })
    .await
}

/// Asks again and again until there is an answer; fails when it takes too long.
pub(super) async fn eventually<T, F, R>(what: &str, ask: F) -> T
where
    F: Fn() -> R,
    R: Future<Output = Option<T>>,
{
    let begin = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(begin.elapsed() < DEADLINE, "waited too long for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until there is no object of that name.
pub(super) async fn gone<K>(api: &Api<K>, name: &str)
where
    K: Clone + DeserializeOwned + Debug + Serialize,
{
    eventually(&format!("{name} to go"), || async {
        api.get_opt(name).await.unwrap().is_none().then_some(())
    })
    .await;
}

/// A record of what a watch showed, kept while a test runs.
pub(super) struct Observed<T> {
    seen: Arc<parking_lot::Mutex<Vec<T>>>,
    task: JoinHandle<()>,
}

impl<T: Send + 'static> Observed<T> {
    /// Notes what `view` makes of every state of every object.
    pub(super) fn start<K>(api: Api<K>, view: impl Fn(&K) -> T + Send + 'static) -> Self
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
    {
        let seen = Arc::new(parking_lot::Mutex::new(Vec::new()));
        let to = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            let changes = watcher(api, watcher::Config::default()).applied_objects();
            let mut changes = changes.boxed();
            while let Some(Ok(object)) = changes.next().await {
                to.lock().push(view(&object));
            }
        });
        Self { seen, task }
    }

    /// What was seen, when the last of it has come: watches tell of changes a little later.
    pub(super) async fn finish_after(self, is_last: impl Fn(&T) -> bool) -> Vec<T> {
        eventually("the last change to be seen", || async {
            self.seen.lock().iter().any(&is_last).then_some(())
        })
        .await;
        self.finish()
    }

    pub(super) fn finish(self) -> Vec<T> {
        self.task.abort();
        std::mem::take(&mut self.seen.lock())
    }
}
