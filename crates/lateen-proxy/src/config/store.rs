//! Keeps accepted resources consistent and puts them into effect: last good wins, make before break.
//!
//! A cluster takes effect when its endpoints are known, a listener when its routes are. Until then the state before
//! stays in effect. Nothing waits: whatever arrives last completes the rest.

mod names;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::SystemTime;

use lateen_route::{Invalid, RouteTable};
use lateen_xds::client::{Handler, Rejection, Update};
use lateen_xds::pb::envoy::config::cluster::v3::Cluster as ClusterMessage;
use lateen_xds::pb::envoy::config::core::v3::TrafficDirection;
use lateen_xds::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use lateen_xds::pb::envoy::config::listener::v3::Listener as ListenerMessage;
use lateen_xds::pb::envoy::config::route::v3::RouteConfiguration;
use lateen_xds::pb::envoy::extensions::transport_sockets::tls::v3::Secret;
use lateen_xds::{Resource, ResourceType};
use parking_lot::Mutex;

use names::Resolution;

use super::cluster::ClusterSpec;
use super::{decode, endpoint, listener};
use crate::access_log::LogFiles;
use crate::cluster::ClusterShared;
use crate::dns::{self, Addresses, Resolver};
use crate::http::manager::RouteSource;
use crate::listener::{Listener, ListenerSlot, NetworkFilter};
use crate::secret::{Origin, Secrets};
use crate::shared::{Clusters, RouteSlot, Shared, UpdateCounts};
use crate::stats::{HttpStats, ListenerStats, PerWorker, ProxyProtocolStats, SslStats, TcpStats};
use crate::telemetry::series::Registry;
use crate::{net, worker};

/// What converters need beside the message.
pub(crate) struct Context<'s> {
    shared: &'s Shared,
    pub(crate) logs: &'s LogFiles,
    pub(crate) node_ip: Option<IpAddr>,
    /// Traffic comes in for the workload beside the proxy.
    pub(crate) inbound: bool,
    /// Traffic goes out from the workload beside the proxy, or through a gateway.
    pub(crate) outbound: bool,
    /// Clusters that wait for their endpoints.
    warming: Option<&'s HashMap<String, ClusterSpec>>,
}

impl<'s> Context<'s> {
    fn new(shared: &'s Shared) -> Self {
        Self {
            shared,
            logs: &shared.names.logs,
            node_ip: shared.node_ip,
            inbound: false,
            outbound: false,
            warming: None,
        }
    }

    /// The same with the clusters that wait for their endpoints.
    fn with_warming(self, warming: &'s HashMap<String, ClusterSpec>) -> Self {
        Self {
            warming: Some(warming),
            ..self
        }
    }

    /// The same for a listener of this direction.
    pub(crate) fn of_direction(&self, direction: i32) -> Self {
        Self {
            inbound: direction == i32::from(TrafficDirection::Inbound),
            outbound: direction == i32::from(TrafficDirection::Outbound),
            ..*self
        }
    }

    pub(crate) fn telemetry(&self) -> &Registry {
        &self.shared.names.telemetry
    }

    /// The secrets that contexts can refer to.
    pub(crate) fn secrets(&self) -> &Secrets {
        &self.shared.secrets
    }

    pub(crate) fn ssl_stats(&self, address: &str) -> Arc<PerWorker<SslStats>> {
        let names = &self.shared.names;
        let new = || Arc::new(PerWorker::new(names.workers));
        names
            .listeners_ssl
            .lock()
            .entry(address.to_owned())
            .or_insert_with(new)
            .clone()
    }

    pub(crate) fn route_slot(&self, name: &str) -> Arc<RouteSlot> {
        let slot = || {
            Arc::new(RouteSlot {
                name: name.to_owned(),
                table: Default::default(),
            })
        };
        self.shared
            .names
            .routes
            .lock()
            .entry(name.to_owned())
            .or_insert_with(slot)
            .clone()
    }

    /// Refuses routes to clusters that do not exist.
    pub(crate) fn check_clusters(&self, table: &RouteTable) -> Result<(), Invalid> {
        let clusters = self.shared.clusters.load();
        let warming = self.warming;
        let known = |name: &str| {
            clusters.contains_key(name) || warming.is_some_and(|all| all.contains_key(name))
        };
        match table.clusters().find(|name| !known(name)) {
            Some(name) => {
                let reason = format!("a route goes to the unknown cluster `{name}`");
                Err(Invalid::new("virtual_hosts", reason))
            }
            None => Ok(()),
        }
    }

    pub(crate) fn http_stats(&self, prefix: &str) -> Arc<PerWorker<HttpStats>> {
        let names = &self.shared.names;
        let new = || Arc::new(PerWorker::new(names.workers));
        names
            .http
            .lock()
            .entry(prefix.to_owned())
            .or_insert_with(new)
            .clone()
    }

    pub(crate) fn tcp_stats(&self, prefix: &str) -> Arc<PerWorker<TcpStats>> {
        let names = &self.shared.names;
        let new = || Arc::new(PerWorker::new(names.workers));
        names
            .tcp
            .lock()
            .entry(prefix.to_owned())
            .or_insert_with(new)
            .clone()
    }

    pub(crate) fn proxy_protocol_stats(&self, prefix: &str) -> Arc<PerWorker<ProxyProtocolStats>> {
        let names = &self.shared.names;
        let new = || Arc::new(PerWorker::new(names.workers));
        names
            .proxy_protocol
            .lock()
            .entry(prefix.to_owned())
            .or_insert_with(new)
            .clone()
    }

    pub(crate) fn listener_stats(&self, address: &str) -> Arc<PerWorker<ListenerStats>> {
        let names = &self.shared.names;
        let new = || Arc::new(PerWorker::new(names.workers));
        names
            .listeners
            .lock()
            .entry(address.to_owned())
            .or_insert_with(new)
            .clone()
    }
}

/// The handler of discovery updates: the store, which changes of local secrets reach, too.
pub(crate) struct StoreHandle(Arc<Mutex<Store>>);

/// What was accepted so far.
pub(crate) struct Store {
    shared: Arc<Shared>,
    /// Clusters in effect.
    clusters: HashMap<String, ClusterSpec>,
    /// Clusters that wait for endpoints.
    warming_clusters: HashMap<String, ClusterSpec>,
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
    seen: BTreeSet<ResourceType>,
}

/// Resources for the admin interface, as they were received.
#[derive(Debug, Default)]
pub(crate) struct Dump {
    pub(crate) kinds: BTreeMap<ResourceType, BTreeMap<String, DumpEntry>>,
    pub(crate) versions: BTreeMap<ResourceType, String>,
}

/// One resource of the dump.
#[derive(Debug, Default)]
pub(crate) struct DumpEntry {
    /// Last accepted state.
    pub(crate) accepted: Option<(Resource, SystemTime)>,
    /// Accepted but not in effect yet.
    pub(crate) warming: bool,
    /// Last rejected state with the reason.
    pub(crate) rejected: Option<(Resource, String, SystemTime)>,
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

    fn apply(&mut self, update: &Update) -> Vec<Rejection> {
        let mut rejections = Vec::new();
        let mut clusters = (**self.shared.clusters.load()).clone();
        for resource in &update.changed {
            let result = match update.kind {
                ResourceType::Cluster => self.cluster(resource, &mut clusters),
                ResourceType::Endpoint => self.assignment(resource, &mut clusters),
                ResourceType::Listener => self.listener(resource),
                ResourceType::Route => self.route(resource),
                ResourceType::Secret => decode::<Secret>(&resource.body)
                    .and_then(|secret| self.shared.secrets.discovered(secret)),
            };
            if let Err(error) = result {
                rejections.push(Rejection {
                    name: resource.name.clone(),
                    reason: error.to_string().trim_start_matches(": ").to_owned(),
                });
            }
        }
        if update.kind == ResourceType::Cluster && !update.removed.is_empty() {
            // A worker may be about to look for a cluster that the route named which it chose a moment ago.
            self.shared.wait_for_workers();
        }
        for name in &update.removed {
            match update.kind {
                ResourceType::Cluster => self.remove_cluster(name, &mut clusters),
                ResourceType::Listener => self.remove_listener(name),
                ResourceType::Endpoint => self.missing_assignment(name, &mut clusters),
                ResourceType::Route => self.missing_route(name),
                ResourceType::Secret => self.shared.secrets.missing(name),
            }
        }
        if matches!(update.kind, ResourceType::Cluster | ResourceType::Endpoint) {
            self.shared.clusters.store(Arc::new(clusters));
            self.shared.tell_workers(|| worker::Command::Prune);
        }
        self.activate_clusters();
        self.activate_listeners();
        rejections
    }

    fn cluster(&mut self, resource: &Resource, clusters: &mut Clusters) -> Result<(), Invalid> {
        let message = decode::<ClusterMessage>(&resource.body)?;
        let spec = ClusterSpec::compile(message, &Context::new(&self.shared))?;
        let name = resource.name.clone();
        if let (Some(_), Some(inline)) = (&spec.dns, &spec.inline) {
            // What can be wrong beside the names is wrong with any address.
            endpoint::compile(dns::expand(inline, &Addresses::new(), false), &[])?;
        }
        self.forget_user(&name);
        let resolved = self.resolve(&name, &spec)?;
        let known = spec.assignment_name.as_ref().is_none_or(|assignment| {
            self.users
                .entry(assignment.clone())
                .or_default()
                .insert(name.clone());
            self.assignments.contains_key(assignment)
        });
        if known && resolved && spec.transports.is_settled() {
            self.activate_cluster(&name, spec, clusters)?;
        } else {
            self.warming_clusters.insert(name, spec);
        }
        Ok(())
    }

    fn activate_cluster(
        &mut self,
        name: &str,
        spec: ClusterSpec,
        clusters: &mut Clusters,
    ) -> Result<(), Invalid> {
        let message = match &spec.assignment_name {
            Some(assignment) => self.assignments.get(assignment).cloned(),
            None => spec.inline.clone(),
        };
        let message = match (message, &spec.dns, self.resolutions.get(name)) {
            (Some(message), Some(settings), Some(resolution)) => Some(dns::expand(
                &message,
                &resolution.addresses,
                settings.logical,
            )),
            (message, _, _) => message,
        };
        let previous = clusters
            .get(name)
            .map(|cluster| cluster.hosts.as_slice())
            .unwrap_or_default();
        let assignment = endpoint::compile(message.unwrap_or_default(), previous)?;
        let workers = self.shared.names.workers;
        let shared = {
            let mut all = self.shared.names.clusters.lock();
            all.entry(name.to_owned())
                .or_insert_with(|| Arc::new(ClusterShared::new(workers)))
                .clone()
        };
        clusters.insert(name.to_owned(), Arc::new(spec.build(assignment, shared)));
        self.warming_clusters.remove(name);
        self.clusters.insert(name.to_owned(), spec);
        Ok(())
    }

    fn remove_cluster(&mut self, name: &str, clusters: &mut Clusters) {
        self.resolutions.remove(name);
        self.forget_user(name);
        self.clusters.remove(name);
        self.warming_clusters.remove(name);
        clusters.remove(name);
        self.shared.names.clusters.lock().remove(name);
    }

    /// Forgets which assignment a cluster used, and the assignment with its last user.
    fn forget_user(&mut self, name: &str) {
        let spec = self
            .warming_clusters
            .get(name)
            .or_else(|| self.clusters.get(name));
        let Some(assignment) = spec.and_then(|spec| spec.assignment_name.clone()) else {
            return;
        };
        if let Some(users) = self.users.get_mut(&assignment) {
            users.remove(name);
        }
    }

    fn assignment(&mut self, resource: &Resource, clusters: &mut Clusters) -> Result<(), Invalid> {
        let message: ClusterLoadAssignment = decode(&resource.body)?;
        // Checked before it replaces the one before.
        endpoint::compile(message.clone(), &[])?;
        self.assignments.insert(resource.name.clone(), message);
        self.assignment_changed(&resource.name, clusters)
    }

    fn assignment_changed(&mut self, name: &str, clusters: &mut Clusters) -> Result<(), Invalid> {
        for user in self.users.get(name).cloned().unwrap_or_default() {
            let spec = self
                .warming_clusters
                .get(&user)
                .or_else(|| self.clusters.get(&user));
            if let Some(spec) = spec.cloned()
                && spec.transports.is_settled()
            {
                self.activate_cluster(&user, spec, clusters)?;
            }
        }
        Ok(())
    }

    /// Puts clusters into effect whose endpoints and secrets are known.
    fn activate_clusters(&mut self) {
        let known = |spec: &ClusterSpec| {
            let assignment = spec.assignment_name.as_ref();
            assignment.is_none_or(|name| self.assignments.contains_key(name))
        };
        let ready: Vec<_> = self
            .warming_clusters
            .iter()
            .filter(|(name, spec)| {
                known(spec) && spec.transports.is_settled() && self.is_resolved(name)
            })
            .map(|(name, spec)| (name.clone(), spec.clone()))
            .collect();
        if ready.is_empty() {
            return;
        }
        let mut clusters = (**self.shared.clusters.load()).clone();
        for (name, spec) in ready {
            if let Err(error) = self.activate_cluster(&name, spec, &mut clusters) {
                tracing::error!(name, %error, "cluster cannot take effect");
            }
        }
        self.shared.clusters.store(Arc::new(clusters));
        self.shared.tell_workers(|| worker::Command::Prune);
    }

    /// The server says that there is no such assignment: clusters that wait for it go on without endpoints; others
    /// keep what they have.
    fn missing_assignment(&mut self, name: &str, clusters: &mut Clusters) {
        if !self.assignments.contains_key(name) {
            self.assignments
                .insert(name.to_owned(), ClusterLoadAssignment::default());
            // An empty assignment is always valid.
            let _ = self.assignment_changed(name, clusters);
        }
    }

    fn listener(&mut self, resource: &Resource) -> Result<(), Invalid> {
        let message: ListenerMessage = decode(&resource.body)?;
        let context = Context::new(&self.shared).with_warming(&self.warming_clusters);
        let compiled = listener::compile(message, &context)?;
        let owner = self
            .shared
            .listeners
            .load()
            .by_address
            .get(&compiled.address)
            .cloned();
        if let Some(owner) = owner.and_then(|slot| slot.load())
            && owner.name != compiled.name
        {
            return Err(Invalid::new(
                "address",
                format!(
                    "`{}` is already used by listener `{}`",
                    compiled.address, owner.name
                ),
            ));
        }
        if is_complete(&compiled) {
            self.warming_listeners.remove(&resource.name);
            return self.activate_listener(Arc::new(compiled));
        }
        self.warming_listeners
            .insert(resource.name.clone(), Arc::new(compiled));
        Ok(())
    }

    /// Puts listeners into effect whose routes and secrets have arrived.
    fn activate_listeners(&mut self) {
        let ready: Vec<_> = self
            .warming_listeners
            .iter()
            .filter(|(_, listener)| is_complete(listener))
            .map(|(name, _)| name.clone())
            .collect();
        for name in ready {
            if let Some(listener) = self.warming_listeners.remove(&name)
                && let Err(error) = self.activate_listener(listener)
            {
                tracing::error!(name, %error, "listener cannot take effect");
            }
        }
    }

    fn activate_listener(&self, listener: Arc<Listener>) -> Result<(), Invalid> {
        let mut set = (**self.shared.listeners.load()).clone();
        if let Some(slot) = set.by_name.get(&listener.name) {
            let before = slot.load();
            if before.is_some_and(|before| {
                before.address == listener.address && before.bind == listener.bind
            }) {
                // The sockets stay; only what new connections see changes.
                slot.store(Some(listener));
                return Ok(());
            }
        }
        let slot = Arc::new(ListenerSlot::new(listener.clone()));
        if listener.bind {
            self.open_sockets(&listener, &slot)?;
        }
        if let Some(old) = set.by_name.insert(listener.name.clone(), slot.clone()) {
            if let Some(before) = old.load() {
                set.by_address.remove(&before.address);
            }
            old.store(None);
        }
        set.by_address.insert(listener.address, slot);
        self.shared.listeners.store(Arc::new(set));
        Ok(())
    }

    /// Opens one socket per worker. The kernel spreads connections over them.
    fn open_sockets(&self, listener: &Listener, slot: &Arc<ListenerSlot>) -> Result<(), Invalid> {
        let refused = |error: std::io::Error| {
            Invalid::new(
                "address",
                format!("cannot bind `{}`: {error}", listener.address),
            )
        };
        let sockets = self
            .shared
            .workers
            .iter()
            .map(|_| net::listen(listener.address))
            .collect::<Result<Vec<_>, _>>()
            .map_err(refused)?;
        for (worker, socket) in self.shared.workers.iter().zip(sockets) {
            let _ = worker.send(worker::Command::Listen {
                socket,
                slot: slot.clone(),
            });
        }
        Ok(())
    }

    fn remove_listener(&mut self, name: &str) {
        self.warming_listeners.remove(name);
        let mut set = (**self.shared.listeners.load()).clone();
        let Some(slot) = set.by_name.remove(name) else {
            return;
        };
        if let Some(listener) = slot.load() {
            set.by_address.remove(&listener.address);
        }
        self.shared.listeners.store(Arc::new(set));
        slot.store(None);
    }

    fn route(&self, resource: &Resource) -> Result<(), Invalid> {
        let table = RouteTable::compile(decode::<RouteConfiguration>(&resource.body)?)?;
        // A table of its own may arrive before its clusters, so they are only looked for when that is asked for.
        if table.validate_clusters == Some(true) {
            let context = Context::new(&self.shared).with_warming(&self.warming_clusters);
            context.check_clusters(&table)?;
        }
        let slot = Context::new(&self.shared).route_slot(&resource.name);
        slot.table.store(Some(Arc::new(table)));
        Ok(())
    }

    /// The server says that there is no such table: listeners that wait for it go on without routes; others keep what
    /// they have.
    fn missing_route(&self, name: &str) {
        let slot = Context::new(&self.shared).route_slot(name);
        if slot.table.load().is_none() {
            slot.table.store(Some(Arc::new(RouteTable::empty(name))));
        }
    }

    /// Names of the route tables that listeners refer to.
    fn route_names(&self) -> BTreeSet<String> {
        let active = self.shared.listeners.load();
        let active = active.by_name.values().filter_map(|slot| slot.load());
        let all = active.chain(self.warming_listeners.values().cloned());
        all.flat_map(|listener| {
            route_slots(&listener)
                .map(|slot| slot.name.clone())
                .collect::<Vec<_>>()
        })
        .collect()
    }

    /// A secret came or went: what waited for it may go on.
    fn secrets_changed(&mut self) {
        self.activate_clusters();
        self.activate_listeners();
        self.settle();
    }

    fn record(&self, update: Update, rejections: &[Rejection]) {
        if update.kind == ResourceType::Secret {
            // Nothing that can be dumped may hold private keys.
            return;
        }
        let now = SystemTime::now();
        let mut dump = self.shared.dump.lock();
        dump.versions.insert(update.kind, update.version);
        let entries = dump.kinds.entry(update.kind).or_default();
        for name in &update.removed {
            if matches!(update.kind, ResourceType::Cluster | ResourceType::Listener) {
                entries.remove(name);
            }
        }
        for resource in update.changed {
            let entry = entries.entry(resource.name.clone()).or_default();
            match rejections
                .iter()
                .find(|rejection| rejection.name == resource.name)
            {
                Some(rejection) => {
                    entry.rejected = Some((resource, rejection.reason.clone(), now));
                }
                None => {
                    entry.accepted = Some((resource, now));
                    entry.rejected = None;
                }
            }
        }
        // What arrives last completes others, so both kinds that can wait are looked at.
        for (kind, entries) in &mut dump.kinds {
            for (name, entry) in entries {
                entry.warming = match kind {
                    ResourceType::Cluster => self.warming_clusters.contains_key(name),
                    ResourceType::Listener => self.warming_listeners.contains_key(name),
                    _ => false,
                };
            }
        }
    }

    fn counts(&self, kind: ResourceType) -> &UpdateCounts {
        let updates = &self.shared.updates;
        match kind {
            ResourceType::Cluster => &updates.cluster,
            ResourceType::Endpoint => &updates.endpoint,
            ResourceType::Listener => &updates.listener,
            ResourceType::Route => &updates.route,
            ResourceType::Secret => &updates.secret,
        }
    }
}

impl Store {
    fn update(&mut self, update: Update) -> Vec<Rejection> {
        let rejections = self.apply(&update);
        let counts = self.counts(update.kind);
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

fn route_slots(listener: &Listener) -> impl Iterator<Item = &Arc<RouteSlot>> {
    listener
        .chains
        .iter()
        .chain(&listener.default_chain)
        .filter_map(|chain| match &chain.filter {
            NetworkFilter::Http(manager) => match &manager.routes {
                RouteSource::Dynamic(slot) => Some(slot),
                RouteSource::Inline(_) => None,
            },
            NetworkFilter::Tcp(_) => None,
        })
}

/// Whether nothing is waited for: all routes are known, and all secrets.
fn is_complete(listener: &Listener) -> bool {
    let mut chains = listener.chains.iter().chain(&listener.default_chain);
    route_slots(listener).all(|slot| slot.table.load().is_some())
        && chains.all(|chain| chain.tls.as_ref().is_none_or(|tls| tls.is_settled()))
}
