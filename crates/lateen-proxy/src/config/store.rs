//! Keeps accepted resources consistent and puts them into effect: last good wins, make before break.
//!
//! A cluster takes effect when its endpoints are known, a listener when its routes are. Until then the state before
//! stays in effect. Nothing waits: whatever arrives last completes the rest.
//!
//! Each type of resource has its module: [`clusters`] (with endpoints, and [`names`] that are resolved to them),
//! [`listeners`] and [`routes`]; secrets go to where contexts find them. [`dump`] keeps what was received to be shown.

mod clusters;
pub(crate) mod dump;
mod listeners;
mod names;
mod routes;

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use lateen_route::Invalid;
use lateen_xds::client::{Handler, Rejection, Update};
use lateen_xds::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use lateen_xds::pb::envoy::extensions::transport_sockets::tls::v3::Secret;
use lateen_xds::{Resource, ResourceType};
use parking_lot::Mutex;

use names::Resolution;

use super::cluster::ClusterSpec;
use super::decode;
use crate::dns::Resolver;
use crate::listener::Listener;
use crate::secret::Origin;
use crate::shared::Shared;

/// The handler of discovery updates: the store, which changes of local secrets reach, too.
pub(crate) struct StoreHandle(Arc<Mutex<Store>>);

/// What was accepted so far.
pub(crate) struct Store {
    shared: Arc<Shared>,
    /// Clusters in effect.
    clusters: HashMap<String, ClusterSpec>,
    /// Clusters that wait for endpoints.
    warming_clusters: HashMap<String, ClusterSpec>,
    /// Endpoints by the name of their assignment.
    assignments: HashMap<String, ClusterLoadAssignment>,
    /// Names of clusters that are resolved, with what is known of them.
    resolutions: HashMap<String, Resolution>,
    resolver: Resolver,
    /// What answers to questions for names are told to.
    own: Weak<Mutex<Self>>,
    /// Clusters by the assignment they use.
    users: HashMap<String, BTreeSet<String>>,
    /// Listeners that wait for routes.
    warming_listeners: HashMap<String, Arc<Listener>>,
    /// Types of which an update came.
    seen: BTreeSet<ResourceType>,
}

impl Store {
    /// A store that hears of secrets which do not come from the discovery stream.
    pub(crate) fn start(shared: Arc<Shared>) -> StoreHandle {
        let secrets = shared.secrets.clone();
        let store = Arc::new_cyclic(|own| Mutex::new(Self::new(shared, own.clone())));
        let weak = Arc::downgrade(&store);
        secrets.observe(move || {
            if let Some(store) = weak.upgrade() {
                store.lock().secrets_changed();
            }
        });
        StoreHandle(store)
    }

    fn new(shared: Arc<Shared>, own: Weak<Mutex<Self>>) -> Self {
        Self {
            resolutions: HashMap::new(),
            resolver: Resolver::new(shared.mark_sockets),
            own,
            shared,
            clusters: HashMap::new(),
            warming_clusters: HashMap::new(),
            assignments: HashMap::new(),
            users: HashMap::new(),
            warming_listeners: HashMap::new(),
            seen: BTreeSet::new(),
        }
    }

    fn update(&mut self, update: Update) -> Vec<Rejection> {
        let rejections = self.apply(&update);
        let counts = self.shared.updates.of(update.kind);
        let count = if rejections.is_empty() {
            &counts.success
        } else {
            &counts.rejected
        };
        count.fetch_add(1, Ordering::Relaxed);
        self.seen.insert(update.kind);
        self.record(update, &rejections);
        self.settle();
        self.shared.worked.notify_one();
        rejections
    }

    fn apply(&mut self, update: &Update) -> Vec<Rejection> {
        let rejections = match update.kind {
            ResourceType::Cluster => self.apply_clusters(update),
            ResourceType::Endpoint => self.apply_assignments(update),
            ResourceType::Listener => self.apply_listeners(update),
            ResourceType::Route => self.apply_routes(update),
            ResourceType::Secret => self.apply_secrets(update),
        };
        self.activate_clusters();
        self.activate_listeners();
        rejections
    }

    fn apply_secrets(&self, update: &Update) -> Vec<Rejection> {
        let secrets = &self.shared.secrets;
        let rejections = apply_each(update, |resource| {
            secrets.discovered(decode::<Secret>(&resource.body)?)
        });
        for name in &update.removed {
            secrets.missing(name);
        }
        rejections
    }

    /// A secret came or went: what waited for it may go on.
    fn secrets_changed(&mut self) {
        self.activate_clusters();
        self.activate_listeners();
        self.settle();
    }

    /// After a change: forgets what nothing refers to, and says what is still waited for.
    fn settle(&self) {
        let updates = &self.shared.updates;
        updates
            .clusters_warming
            .store(self.warming_clusters.len(), Ordering::Relaxed);
        updates
            .listeners_warming
            .store(self.warming_listeners.len(), Ordering::Relaxed);
        // Slots of tables that nothing refers to are dropped, so that they are fetched anew when wanted again.
        let wanted = self.route_names();
        self.shared
            .names
            .routes
            .lock()
            .retain(|name, _| wanted.contains(name));
        let mut dump = self.shared.dump.lock();
        dump.retain(ResourceType::Route, |name| wanted.contains(name));
        drop(dump);
        self.shared.secrets.forget_unused();
        let complete = self.warming_clusters.is_empty() && self.warming_listeners.is_empty();
        if complete
            && self.seen.contains(&ResourceType::Cluster)
            && self.seen.contains(&ResourceType::Listener)
        {
            self.shared.live.store(true, Ordering::Relaxed);
        }
    }

    fn wanted(&self, kind: ResourceType) -> BTreeSet<String> {
        match kind {
            ResourceType::Endpoint => self
                .clusters
                .values()
                .chain(self.warming_clusters.values())
                .filter_map(|spec| spec.assignment_name.clone())
                .collect(),
            ResourceType::Route => self.route_names(),
            ResourceType::Secret => self.shared.secrets.names(Origin::Discovery),
            _ => BTreeSet::new(),
        }
    }
}

impl Handler for StoreHandle {
    fn update(&mut self, update: Update) -> Vec<Rejection> {
        self.0.lock().update(update)
    }

    fn wanted(&self, kind: ResourceType) -> BTreeSet<String> {
        self.0.lock().wanted(kind)
    }

    fn connection_changed(&mut self, connected: bool) {
        let store = self.0.lock();
        let updates = &store.shared.updates;
        updates.connected.store(connected, Ordering::Relaxed);
    }
}

/// Takes the changed resources over one by one; returns those that were refused.
fn apply_each(
    update: &Update,
    mut apply: impl FnMut(&Resource) -> Result<(), Invalid>,
) -> Vec<Rejection> {
    let mut rejections = Vec::new();
    for resource in &update.changed {
        if let Err(error) = apply(resource) {
            rejections.push(Rejection {
                name: resource.name.clone(),
                reason: error.to_string().trim_start_matches(": ").to_owned(),
            });
        }
    }
    rejections
}
