//! Pods: each one that the API assigns to this node has a task that runs it.

pub(crate) mod console;
pub(crate) mod environment;
pub(crate) mod exec;
pub(crate) mod fields;
pub(crate) mod files;
mod hooks;
pub(crate) mod probe;
pub(crate) mod resources;
mod security;
pub(crate) mod shared;
mod start;
pub(crate) mod state;
pub(crate) mod supervise;
mod volumes;
mod worker;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Binding, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::{Api, Resource};
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::NodeConfig;
use crate::events::{Events, Severity};
use crate::images::Images;
use crate::world::{Change, World, follow};

use shared::Shared;
use worker::Order;

/// What all pods of the node share.
pub(crate) struct Context {
    pub(crate) config: NodeConfig,
    pub(crate) images: Images,
    pub(crate) events: Events,
    pub(crate) world: Arc<World>,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Context")
            .field("node", &self.config.name)
            .finish_non_exhaustive()
    }
}

/// The pods of this node, by uid.
#[derive(Debug)]
pub(crate) struct Pods {
    context: Arc<Context>,
    workers: Mutex<HashMap<String, Worker>>,
    /// Pods by namespace and name, for logs and exec.
    names: Mutex<BTreeMap<(String, String), Arc<Shared>>>,
}

#[derive(Debug)]
struct Worker {
    object: watch::Sender<Arc<Pod>>,
    order: watch::Sender<Order>,
    task: JoinHandle<()>,
}

impl Pods {
    pub(crate) fn new(context: Arc<Context>) -> Arc<Self> {
        Arc::new(Self {
            context,
            workers: Mutex::default(),
            names: Mutex::default(),
        })
    }

    /// Follows the pods of the API for ever.
    pub(crate) async fn follow(self: Arc<Self>) {
        let (changes, mut queue) = mpsc::unbounded_channel();
        let client = self.context.config.client.clone();
        let watching = follow(client, |change| {
            // The receiver lives as long as this function.
            let _ = changes.send(change);
        });
        let applying = async {
            while let Some(change) = queue.recv().await {
                self.apply(change);
            }
        };
        tokio::join!(watching, applying);
    }

    /// Finds a pod by name, for logs and exec.
    pub(crate) fn find(&self, namespace: &str, name: &str) -> Option<Arc<Shared>> {
        self.names
            .lock()
            .get(&(namespace.to_owned(), name.to_owned()))
            .cloned()
    }

    /// The node's name.
    pub(crate) fn node(&self) -> &str {
        &self.context.config.name
    }

    /// All pods of the node.
    pub(crate) fn all(&self) -> Vec<Arc<Shared>> {
        self.names.lock().values().cloned().collect()
    }

    /// Ends all containers, leaving the objects.
    pub(crate) async fn shut_down(&self, grace: Duration) {
        let workers: Vec<_> = self
            .workers
            .lock()
            .drain()
            .map(|(_, worker)| worker)
            .collect();
        for worker in &workers {
            worker.order.send_replace(Order::Down(grace));
        }
        for worker in workers {
            // A worker that failed has nothing more to end.
            let _ = worker.task.await;
        }
    }

    fn apply(self: &Arc<Self>, change: Change<Pod>) {
        match change {
            Change::Put(pod) => self.put(pod),
            Change::Gone(pod) => self.gone(pod.metadata.uid.as_deref().unwrap_or_default()),
            Change::All(pods) => {
                let here: Vec<_> = pods
                    .iter()
                    .filter_map(|pod| pod.metadata.uid.clone())
                    .collect();
                let known: Vec<_> = self.workers.lock().keys().cloned().collect();
                if known.is_empty() {
                    forget_logs(&self.context.config.state_dir, &here);
                }
                for uid in known.iter().filter(|uid| !here.contains(uid)) {
                    self.gone(uid);
                }
                for pod in pods {
                    self.put(pod);
                }
            }
        }
    }

    fn put(self: &Arc<Self>, pod: Pod) {
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
        match node.filter(|node| !node.is_empty()) {
            None if pod.metadata.deletion_timestamp.is_none() => {
                if !gated(&pod) {
                    tokio::spawn(bind(self.context.clone(), pod));
                }
            }
            Some(name) if name != self.context.config.name => {}
            // Also an unassigned pod on its way out: somebody has to finish its deletion.
            _ => self.run(pod),
        }
    }

    fn run(self: &Arc<Self>, pod: Pod) {
        let Some(uid) = pod.metadata.uid.clone() else {
            return;
        };
        let mut workers = self.workers.lock();
        if let Some(worker) = workers.get(&uid) {
            worker.object.send_replace(Arc::new(pod));
            return;
        }
        let meta = &pod.metadata;
        let key = (
            meta.namespace.clone().unwrap_or_default(),
            meta.name.clone().unwrap_or_default(),
        );
        let (object, objects) = watch::channel(Arc::new(pod));
        let (order, orders) = watch::channel(Order::Run);
        let (pods, own) = (self.clone(), uid.clone());
        let task = tokio::spawn(async move {
            let register = |shared: Arc<Shared>| {
                pods.names.lock().insert(key.clone(), shared);
            };
            worker::run(pods.context.clone(), objects, orders, register).await;
            let mut names = pods.names.lock();
            if names.get(&key).is_some_and(|shared| shared.uid() == own) {
                names.remove(&key);
            }
            drop(names);
            pods.workers.lock().remove(&own);
        });
        workers.insert(
            uid,
            Worker {
                object,
                order,
                task,
            },
        );
    }

    fn gone(&self, uid: &str) {
        if let Some(worker) = self.workers.lock().get(uid) {
            // A worker that is finishing a deletion by itself is left to it.
            worker.order.send_replace(Order::Gone);
        }
    }
}

/// Removes the logs of pods that were deleted while no node ran.
fn forget_logs(state: &std::path::Path, here: &[String]) {
    let logs = std::fs::read_dir(state.join("logs"))
        .into_iter()
        .flatten()
        .flatten();
    for entry in logs {
        if !here.iter().any(|uid| entry.file_name() == uid.as_str())
            && let Err(error) = std::fs::remove_dir_all(entry.path())
        {
            tracing::warn!(%error, folder = %entry.path().display(), "cannot remove old logs");
        }
    }
}

/// Does a scheduling gate hold the pod back?
fn gated(pod: &Pod) -> bool {
    let gates = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.scheduling_gates.as_ref());
    gates.is_some_and(|gates| !gates.is_empty())
}

/// Assigns a pod to this node: the only one there is.
async fn bind(context: Arc<Context>, pod: Pod) {
    let name = pod.metadata.name.clone().unwrap_or_default();
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let api: Api<Pod> = Api::namespaced(context.config.client.clone(), &namespace);
    let binding = Binding {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(namespace.clone()),
            uid: pod.metadata.uid.clone(),
            ..ObjectMeta::default()
        },
        target: ObjectReference {
            kind: Some("Node".into()),
            name: Some(context.config.name.clone()),
            ..ObjectReference::default()
        },
    };
    let bound: kube::Result<serde_json::Value> = api
        .create_subresource("binding", &name, &PostParams::default(), &binding)
        .await;
    match bound {
        Ok(_) => {
            let node = &context.config.name;
            let message = format!("Successfully assigned {namespace}/{name} to {node}");
            let object = pod.object_ref(&());
            let reason = "Scheduled";
            context.events.send(
                "default-scheduler",
                object,
                Severity::Normal,
                reason,
                message,
            );
        }
        // Gone, or bound already.
        Err(kube::Error::Api(answer)) if [404, 409].contains(&answer.code) => {}
        Err(error) => tracing::warn!(%error, namespace, name, "pod not bound"),
    }
}
