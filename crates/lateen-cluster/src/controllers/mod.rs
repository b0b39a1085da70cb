//! The controllers: programs that watch the API and bring about what objects wish for.
//!
//! They are ordinary clients, as in Kubernetes. Each kind is watched once, into a [`cache`] that all controllers share.
//! A change makes the controllers concerned put a key into their [`queue`]; a worker then brings that one object closer to
//! its wish. Nothing is polled, so a cluster in which nothing changes costs nothing.

mod autoscaler;
mod batch;
mod cache;
mod claim;
mod deployment;
mod endpoints;
mod error;
mod event_expiry;
mod events;
mod furnishing;
mod gc;
mod hash;
mod lost_pods;
mod meta;
mod namespace;
mod owners;
mod queue;
mod refused;
mod replicaset;
mod resources;
mod statefulset;

use std::fmt::Debug;
use std::future::Future;
use std::hash::Hash;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::apps::v1::{ControllerRevision, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Namespace, Node, Pod, Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::core::{NamespaceResourceScope, ObjectMeta};
use kube::{Client, Resource};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::autoscaler::AutoscalerConfig;
use self::cache::{Cache, Kind};
use self::error::Error;
use self::events::Recorder;
use self::meta::{ObjectKey, controller_of};
use self::queue::Queue;
use self::resources::Resources;

/// What the controllers need to know beyond the API.
#[derive(Debug, Clone)]
pub struct ControllersConfig {
    /// Where pods reach the API server: the endpoint of the `kubernetes` Service. None leaves the Service without one.
    pub api_address: Option<SocketAddr>,
    /// The cluster's CA certificates in PEM form, for the ConfigMap `kube-root-ca.crt` of every namespace.
    pub root_ca_pem: String,
    /// How long a node has to be gone before its pods are removed. Kubernetes waits 40 seconds.
    pub lost_node_grace: Duration,
    /// How HorizontalPodAutoscalers are followed.
    pub autoscaler: AutoscalerConfig,
}

/// The running controllers. Dropping it stops them without waiting; [`Self::shutdown`] waits.
#[derive(Debug)]
pub struct Controllers {
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// Starts all controllers as tasks of the present tokio runtime. They wait for the API server if it doesn't answer yet.
pub fn start(client: Client, config: ControllersConfig) -> Controllers {
    let tasks = TaskTracker::new();
    let stop = CancellationToken::new();
    let shared = Arc::new(Shared::new(client, config, &tasks, &stop));
    deployment::start(&shared);
    replicaset::start(&shared);
    statefulset::start(&shared);
    endpoints::start(&shared);
    namespace::start(&shared);
    gc::start(&shared);
    furnishing::start(&shared);
    lost_pods::start(&shared);
    event_expiry::start(&shared);
    autoscaler::start(&shared);
    // Last, when everyone listens: what is there already is reported as new.
    shared.run();
    tasks.close();
    Controllers { tasks, stop }
}

impl Controllers {
    /// Stops the controllers and waits until no request of theirs is under way.
    pub async fn shutdown(self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }
}

impl Drop for Controllers {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// What the controllers share.
struct Shared {
    client: Client,
    config: ControllersConfig,
    tasks: TaskTracker,
    stop: CancellationToken,
    recorder: Recorder,
    deployments: Arc<Cache<Deployment>>,
    autoscalers: Arc<Cache<HorizontalPodAutoscaler>>,
    /// Indexed by owner, see [`owner_group`].
    replica_sets: Arc<Cache<ReplicaSet>>,
    stateful_sets: Arc<Cache<StatefulSet>>,
    /// Indexed by owner, see [`owner_group`].
    revisions: Arc<Cache<ControllerRevision>>,
    /// Indexed by owner, see [`owner_group`].
    pods: Arc<Cache<Pod>>,
    services: Arc<Cache<Service>>,
    endpoints: Arc<Cache<Endpoints>>,
    /// Indexed by service, see [`service_group`].
    endpoint_slices: Arc<Cache<EndpointSlice>>,
    namespaces: Arc<Cache<Namespace>>,
    nodes: Arc<Cache<Node>>,
    /// Only those called `default`.
    accounts: Arc<Cache<ServiceAccount>>,
    /// Only those called `kube-root-ca.crt`.
    ca_maps: Arc<Cache<ConfigMap>>,
    definitions: Arc<Cache<CustomResourceDefinition>>,
    webhooks: Arc<Cache<MutatingWebhookConfiguration>>,
    resources: Arc<Resources>,
}

impl Shared {
    fn new(
        client: Client,
        config: ControllersConfig,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Self {
        Self {
            recorder: Recorder::start(client.clone(), tasks, stop),
            deployments: Cache::new(client.clone(), |_| None),
            autoscalers: Cache::new(client.clone(), |_| None),
            replica_sets: Cache::new(client.clone(), |set| Some(owner_group(&set.metadata))),
            stateful_sets: Cache::new(client.clone(), |_| None),
            revisions: Cache::new(client.clone(), |revision| {
                Some(owner_group(&revision.metadata))
            }),
            pods: Cache::new(client.clone(), |pod| Some(owner_group(&pod.metadata))),
            services: Cache::new(client.clone(), |_| None),
            endpoints: Cache::new(client.clone(), |_| None),
            endpoint_slices: Cache::new(client.clone(), |slice| service_group(&slice.metadata)),
            namespaces: Cache::new(client.clone(), |_| None),
            nodes: Cache::new(client.clone(), |_| None),
            accounts: Cache::new(client.clone(), |_| None),
            ca_maps: Cache::new(client.clone(), |_| None),
            definitions: Cache::new(client.clone(), |_| None),
            webhooks: Cache::new(client.clone(), |_| None),
            resources: Resources::new(client.clone(), tasks, stop),
            client,
            config,
            tasks: tasks.clone(),
            stop: stop.clone(),
        }
    }

    /// Starts the watches.
    fn run(&self) {
        self.deployments.run("", &self.tasks, &self.stop);
        self.autoscalers.run("", &self.tasks, &self.stop);
        self.replica_sets.run("", &self.tasks, &self.stop);
        self.stateful_sets.run("", &self.tasks, &self.stop);
        self.revisions.run("", &self.tasks, &self.stop);
        self.pods.run("", &self.tasks, &self.stop);
        self.services.run("", &self.tasks, &self.stop);
        self.endpoints.run("", &self.tasks, &self.stop);
        self.endpoint_slices.run("", &self.tasks, &self.stop);
        self.namespaces.run("", &self.tasks, &self.stop);
        self.nodes.run("", &self.tasks, &self.stop);
        self.accounts
            .run("metadata.name=default", &self.tasks, &self.stop);
        self.ca_maps
            .run("metadata.name=kube-root-ca.crt", &self.tasks, &self.stop);
        self.resources.run(&self.definitions);
        self.definitions.run("", &self.tasks, &self.stop);
        self.webhooks.run("", &self.tasks, &self.stop);
    }

    /// Runs `begin`, which waits for the caches that a controller needs, unless the controllers are stopped before.
    fn when_synced<F, R>(self: &Arc<Self>, begin: F)
    where
        F: FnOnce(Arc<Self>) -> R,
        R: Future<Output = ()> + Send + 'static,
    {
        let begin = begin(Arc::clone(self));
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = begin => {}
            }
        });
    }

    /// Reconciles the keys of a queue in as many tasks as there are workers, until the controllers are stopped.
    fn work<K, F, R>(&self, queue: &Arc<Queue<K>>, name: &'static str, workers: usize, reconcile: F)
    where
        K: Clone + Eq + Hash + Debug + Send + 'static,
        F: Fn(K) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), Error>> + Send,
    {
        queue.run(name, workers, &self.tasks, &self.stop, reconcile);
    }
}

/// Groups objects by the uid of their controller, or as orphans of their namespace.
fn owner_group(meta: &ObjectMeta) -> String {
    match controller_of(meta) {
        Some(owner) => owner.uid.clone(),
        None => orphans_of(meta.namespace.as_deref().unwrap_or_default()),
    }
}

/// The group of a namespace's objects that have no controller.
fn orphans_of(namespace: &str) -> String {
    format!("orphans of {namespace}")
}

/// Groups slices by `namespace/service`.
fn service_group(meta: &ObjectMeta) -> Option<String> {
    let service = meta.labels.as_ref()?.get("kubernetes.io/service-name")?;
    Some(format!(
        "{}/{service}",
        meta.namespace.as_deref().unwrap_or_default()
    ))
}

/// Makes sure, by asking the server, that `owner` may adopt: it exists, is the same and isn't being deleted.
async fn ensure_current<K>(cache: &Cache<K>, owner: &K) -> Result<(), Error>
where
    K: Kind + Resource<Scope = NamespaceResourceScope>,
{
    let key = ObjectKey::of(owner.meta());
    let live = cache.get_live(&key).await?;
    let current = live.is_some_and(|live| {
        live.meta().uid == owner.meta().uid && live.meta().deletion_timestamp.is_none()
    });
    if current {
        return Ok(());
    }
    Err(Error::Waiting {
        subject: format!("{} {key}", K::kind(&())),
        reason: "it may not adopt, as it is being deleted".to_owned(),
    })
}
