//! The push engine: one task owns the index's changes and tells sessions what to look at again.
//!
//! There is no debounce. The first event of a burst is applied at once together with whatever has arrived with it;
//! later ones wait only while the engine works, and merge in the sessions while a proxy is slow.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use k8s_openapi::api::core::v1::Pod;
use kube::api::DynamicObject;
use lateen_mesh::{Change, Impact, Index, Key, MeshConfig, ObjectKind};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{mpsc, watch};

use crate::awaited_subsets::Waiting;
use crate::metrics::Metrics;
use crate::session::Connection;
use crate::watch::{Event, KINDS, Refused};

/// Events applied before sessions are told. Bounds how long readers wait for the index.
const BATCH: usize = 512;

/// What the engine knows of a pod: whom a proxy claims to be is checked against it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PodFacts {
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) service_account: String,
}

/// The shared state of the control plane.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) index: RwLock<Index>,
    pub(crate) pods: RwLock<HashMap<Key, PodFacts>>,
    /// Istio's objects as they were written, for `/debug/configz`.
    pub(crate) configs: RwLock<BTreeMap<(ObjectKind, Key), Box<DynamicObject>>>,
    /// Objects that cannot be followed.
    pub(crate) refused: RwLock<BTreeMap<(ObjectKind, Key), Refused>>,
    pub(crate) connections: Mutex<BTreeMap<u64, Arc<Connection>>>,
    pub(crate) metrics: Metrics,
    /// Counts the changes of the index.
    version: AtomicU64,
    started: String,
    connection_ids: AtomicU64,
    /// Moves with every batch of events; also says whether the first sync is done.
    state: watch::Sender<State>,
}

/// How far the engine is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) synced: bool,
    pub(crate) batches: u64,
}

impl World {
    pub(crate) fn new(mesh: MeshConfig) -> Self {
        Self {
            index: RwLock::new(Index::new(mesh)),
            pods: RwLock::default(),
            configs: RwLock::default(),
            refused: RwLock::default(),
            connections: Mutex::default(),
            metrics: Metrics::default(),
            version: AtomicU64::new(0),
            started: started_at(),
            connection_ids: AtomicU64::new(0),
            state: watch::Sender::new(State::default()),
        }
    }

    /// The state of the mesh as Istio labels it: when the process began, and a count.
    pub(crate) fn version(&self) -> String {
        format!("{}/{}", self.started, self.version.load(Ordering::Acquire))
    }

    pub(crate) fn is_synced(&self) -> bool {
        self.state.borrow().synced
    }

    pub(crate) fn state(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// Lets those who follow the state look again, for what the index does not hold.
    pub(crate) fn nudge(&self) {
        self.state.send_modify(|state| state.batches += 1);
    }

    pub(crate) fn next_connection_id(&self) -> u64 {
        self.connection_ids.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn apply(&self, batch: Vec<Event>, progress: &mut Progress) {
        let began = Instant::now();
        let mut impact = Impact::none();
        let mut changes = 0_u64;
        let mut index = self.index.write();
        for event in batch {
            match event {
                Event::Synced(kind) => {
                    progress.unsynced.remove(&kind);
                }
                Event::Refused(refused) => {
                    let id = (refused.kind, refused.key.clone());
                    self.refused.write().insert(id, refused);
                }
                Event::Change(change, raw) => {
                    self.note(&change, raw);
                    changes += 1;
                    if let Some(change) = progress.waiting.put(change) {
                        impact.merge(index.apply(*change));
                    }
                }
            }
        }
        let synced = progress.unsynced.is_empty();
        for change in progress.waiting.take(&index, synced, began) {
            impact.merge(index.apply(change));
        }
        self.metrics.events.add(changes);
        // Marked before the new state can be read: who reads a route to a new cluster knows of the cluster's change.
        if !impact.is_empty() {
            self.version.fetch_add(1, Ordering::AcqRel);
            let connections: Vec<_> = self.connections.lock().values().cloned().collect();
            for connection in connections {
                connection.mark(&impact, began);
            }
        }
        drop(index);
        self.state.send_modify(|state| {
            if synced && !state.synced {
                tracing::info!(objects = self.metrics.events.get(), "first sync done");
            }
            state.synced = synced;
            state.batches += 1;
        });
    }

    /// Keeps what the index does not: pods' addresses and objects as written.
    fn note(&self, change: &Change, raw: Option<Box<DynamicObject>>) {
        match change {
            Change::Pod(pod) => {
                self.pods.write().insert(pod_key(pod), PodFacts::of(pod));
            }
            Change::Deleted(ObjectKind::Pod, key) => {
                self.pods.write().remove(key);
            }
            Change::Deleted(kind, key) => {
                let id = (*kind, key.clone());
                self.configs.write().remove(&id);
                self.refused.write().remove(&id);
            }
            other => {
                if let (Some(kind), Some(raw)) = (config_kind(other), raw) {
                    let meta = &raw.metadata;
                    let key = Key::new(
                        meta.namespace.clone().unwrap_or_default(),
                        meta.name.clone().unwrap_or_default(),
                    );
                    let id = (kind, key);
                    self.refused.write().remove(&id);
                    self.configs.write().insert(id, raw);
                }
            }
        }
    }
}

/// How far the events are that came.
struct Progress {
    /// Kinds whose objects have not all been told.
    unsynced: HashSet<ObjectKind>,
    waiting: Waiting,
}

/// Applies events until all watches have ended.
pub(crate) async fn run(world: Arc<World>, mut events: mpsc::Receiver<Event>) {
    let mut progress = Progress {
        unsynced: KINDS.into_iter().collect(),
        waiting: Waiting::default(),
    };
    loop {
        let mut batch = Vec::new();
        let due = progress.waiting.due();
        tokio::select! {
            received = events.recv_many(&mut batch, BATCH) => {
                if received == 0 {
                    return;
                }
            }
            () = wait_until(due) => {}
        }
        world.apply(batch, &mut progress);
    }
}

async fn wait_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

impl PodFacts {
    fn of(pod: &Pod) -> Self {
        let status = pod.status.as_ref();
        let listed = status
            .and_then(|status| status.pod_ips.as_ref())
            .into_iter()
            .flatten();
        let single = status.and_then(|status| status.pod_ip.as_deref());
        let addresses = listed.map(|ip| ip.ip.as_str()).chain(single);
        Self {
            addresses: addresses
                .filter_map(|address| address.parse().ok())
                .collect(),
            labels: pod.metadata.labels.clone().unwrap_or_default(),
            service_account: pod
                .spec
                .as_ref()
                .and_then(|spec| spec.service_account_name.clone())
                .unwrap_or_else(|| "default".to_owned()),
        }
    }
}

fn pod_key(pod: &Pod) -> Key {
    let meta = &pod.metadata;
    Key::new(
        meta.namespace.clone().unwrap_or_default(),
        meta.name.clone().unwrap_or_default(),
    )
}

fn config_kind(change: &Change) -> Option<ObjectKind> {
    match change {
        Change::Gateway(_) => Some(ObjectKind::Gateway),
        Change::VirtualService(_) => Some(ObjectKind::VirtualService),
        Change::DestinationRule(_) => Some(ObjectKind::DestinationRule),
        Change::ServiceEntry(_) => Some(ObjectKind::ServiceEntry),
        Change::Sidecar(_) => Some(ObjectKind::Sidecar),
        Change::PeerAuthentication(_) => Some(ObjectKind::PeerAuthentication),
        Change::WorkloadEntry(_) => Some(ObjectKind::WorkloadEntry),
        Change::StickySession(_) => Some(ObjectKind::StickySession),
        Change::BodyToHeaders(_) => Some(ObjectKind::BodyToHeaders),
        Change::GatewayClass(_) => Some(ObjectKind::GatewayClass),
        Change::KubernetesGateway(_) => Some(ObjectKind::KubernetesGateway),
        Change::HttpRoute(_) => Some(ObjectKind::HttpRoute),
        Change::GrpcRoute(_) => Some(ObjectKind::GrpcRoute),
        Change::TcpRoute(_) => Some(ObjectKind::TcpRoute),
        Change::TlsRoute(_) => Some(ObjectKind::TlsRoute),
        Change::ReferenceGrant(_) => Some(ObjectKind::ReferenceGrant),
        _ => None,
    }
}

fn started_at() -> String {
    let format = time::format_description::well_known::Rfc3339;
    time::OffsetDateTime::now_utc()
        .replace_nanosecond(0)
        .ok()
        .and_then(|now| now.format(&format).ok())
        .unwrap_or_default()
}
