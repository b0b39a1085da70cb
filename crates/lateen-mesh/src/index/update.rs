//! Changes and whom they may concern.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use lateen_api::{
    DestinationRule, Kind, Object, WorkloadEntry, common::labels_match, gateway_api::ParentKind,
};
use lateen_xds::ResourceType;

use super::{
    Declaration, Index, delegate,
    gateway_api::{Route, RouteKind},
    service::{Discovery, Service},
    workload::{Locality, Slice, Workload},
};
use crate::{Change, Impact, Key, ObjectKind, Scope};

/// Label of an endpoint slice that names its service.
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
/// All that a service or a rule for one can touch.
pub(super) const ROUTING: [ResourceType; 4] = [
    ResourceType::Cluster,
    ResourceType::Endpoint,
    ResourceType::Listener,
    ResourceType::Route,
];

impl Index {
    /// Takes a change over and says whom it may concern. Costs work in proportion to the change.
    pub fn apply(&mut self, change: Change) -> Impact {
        let mut impact = self.take(change);
        let moved: Vec<String> = impact.hosts().map(str::to_owned).collect();
        for host in moved {
            if self.refresh_identities(&host) {
                impact.merge(self.clusters_of(&host));
            }
        }
        let moved: Vec<String> = impact
            .hosts()
            .flat_map(|host| self.cluster_names_of(host))
            .collect();
        self.cache.forget(&impact, moved);
        impact
    }

    /// Looks the identities behind a host up again; says whether they differ from what clusters were told.
    fn refresh_identities(&mut self, host: &str) -> bool {
        let found: BTreeSet<String> = self
            .services_of_host(host)
            .flat_map(|service| self.identities(service))
            .collect();
        let old = self.identities.get(host);
        if old.map_or(found.is_empty(), |old| *old == found) {
            return false;
        }
        if found.is_empty() {
            self.identities.remove(host);
        } else {
            self.identities.insert(host.to_owned(), found);
        }
        true
    }

    fn take(&mut self, change: Change) -> Impact {
        match change {
            Change::Namespace(namespace) => {
                let labels = namespace.metadata.labels.clone().unwrap_or_default();
                self.set_namespace(name_of(&namespace.metadata), Some(labels))
            }
            Change::Node(node) => {
                let locality =
                    Locality::of_labels(node.metadata.labels.as_ref().unwrap_or(&BTreeMap::new()));
                self.set_node(name_of(&node.metadata), Some(locality))
            }
            Change::Pod(pod) => self.set_pod(key_of(&pod.metadata), Some(Workload::of_pod(&pod))),
            Change::Service(service) => {
                let key = key_of(&service.metadata);
                let service = Service::of_kubernetes(&service, &self.mesh.domain);
                self.set_service(key, Some(service))
            }
            Change::EndpointSlice(slice) => {
                let key = key_of(&slice.metadata);
                let owner = slice
                    .metadata
                    .labels
                    .as_ref()
                    .and_then(|labels| labels.get(SERVICE_NAME_LABEL));
                match owner {
                    Some(service) => {
                        let service = Key::new(&*key.namespace, service);
                        self.set_slice(key, Some((service, Slice::of(&slice))))
                    }
                    None => self.set_slice(key, None),
                }
            }
            Change::ServiceEntry(entry) => {
                let key = object_key(&entry);
                let services = Service::of_entry(&entry)
                    .into_iter()
                    .map(Arc::new)
                    .collect();
                self.service_entries.insert(key.clone(), Arc::new(entry));
                self.set_entry(key, services)
            }
            Change::Gateway(gateway) => {
                let key = object_key(&gateway);
                let selector = gateway.spec.selector.clone();
                let old = self.gateways.insert(key, Arc::new(gateway));
                let mut impact = gateway_impact(selector);
                if let Some(old) = old {
                    impact.merge(gateway_impact(old.spec.selector.clone()));
                }
                impact
            }
            Change::VirtualService(rules) => {
                let impact = self.virtual_service_impact();
                let impact = replace(&mut self.virtual_services, rules, impact);
                self.rules_changed();
                impact
            }
            Change::DestinationRule(rule) => self.set_rule(object_key(&rule), Some(rule)),
            Change::Sidecar(sidecar) => {
                self.asked_labels.take();
                let impact = self.namespaced(sidecar.namespace());
                replace(&mut self.sidecars, sidecar, impact)
            }
            Change::PeerAuthentication(policy) => {
                let namespace = policy.namespace().to_owned();
                let impact = self.namespaced(&namespace);
                self.with_mode(&namespace, |index| {
                    replace(&mut index.peer_authentications, policy, impact)
                })
            }
            Change::WorkloadEntry(entry) => self.with_entry(object_key(&entry), |index| {
                replace(&mut index.workload_entries, entry, Impact::none())
            }),
            Change::StickySession(session) => {
                self.set_sticky_session(object_key(&session), Some(session))
            }
            Change::BodyToHeaders(policy) => {
                self.set_body_to_headers(object_key(&policy), Some(policy))
            }
            Change::GatewayClass(class) => {
                self.set_gateway_class(class.name().to_owned(), Some(class))
            }
            Change::KubernetesGateway(gateway) => {
                self.set_kubernetes_gateway(object_key(&gateway), Some(gateway))
            }
            Change::HttpRoute(route) => {
                let id = (RouteKind::Http, object_key(&route));
                self.set_route(id, Some(Route::Http(Arc::new(route))))
            }
            Change::GrpcRoute(route) => {
                let id = (RouteKind::Grpc, object_key(&route));
                self.set_route(id, Some(Route::Grpc(Arc::new(route))))
            }
            Change::TcpRoute(route) => {
                let id = (RouteKind::Tcp, object_key(&route));
                self.set_route(id, Some(Route::Tcp(Arc::new(route))))
            }
            Change::TlsRoute(route) => {
                let id = (RouteKind::Tls, object_key(&route));
                self.set_route(id, Some(Route::Tls(Arc::new(route))))
            }
            Change::ReferenceGrant(grant) => {
                self.set_reference_grant(object_key(&grant), Some(grant))
            }
            Change::Deleted(kind, key) => self.delete(kind, key),
        }
    }

    fn delete(&mut self, kind: ObjectKind, key: Key) -> Impact {
        match kind {
            ObjectKind::Namespace => self.set_namespace(key.name, None),
            ObjectKind::Node => self.set_node(key.name, None),
            ObjectKind::Pod => self.set_pod(key, None),
            ObjectKind::Service => self.set_service(key, None),
            ObjectKind::EndpointSlice => self.set_slice(key, None),
            ObjectKind::ServiceEntry => {
                self.service_entries.remove(&key);
                self.set_entry(key, Vec::new())
            }
            ObjectKind::Gateway => match self.gateways.remove(&key) {
                Some(gateway) => gateway_impact(gateway.spec.selector.clone()),
                None => Impact::none(),
            },
            ObjectKind::VirtualService => {
                let impact = self.virtual_service_impact();
                let impact = removed(&mut self.virtual_services, &key, impact);
                self.rules_changed();
                impact
            }
            ObjectKind::DestinationRule => self.set_rule(key, None),
            ObjectKind::Sidecar => {
                self.asked_labels.take();
                let impact = self.namespaced(&key.namespace);
                removed(&mut self.sidecars, &key, impact)
            }
            ObjectKind::WorkloadEntry => self.with_entry(key.clone(), |index| {
                removed(&mut index.workload_entries, &key, Impact::none())
            }),
            ObjectKind::StickySession => self.set_sticky_session(key, None),
            ObjectKind::BodyToHeaders => self.set_body_to_headers(key, None),
            ObjectKind::GatewayClass => self.set_gateway_class(key.name, None),
            ObjectKind::KubernetesGateway => self.set_kubernetes_gateway(key, None),
            ObjectKind::HttpRoute => self.set_route((RouteKind::Http, key), None),
            ObjectKind::GrpcRoute => self.set_route((RouteKind::Grpc, key), None),
            ObjectKind::TcpRoute => self.set_route((RouteKind::Tcp, key), None),
            ObjectKind::TlsRoute => self.set_route((RouteKind::Tls, key), None),
            ObjectKind::ReferenceGrant => self.set_reference_grant(key, None),
            ObjectKind::PeerAuthentication => {
                let impact = self.namespaced(&key.namespace);
                self.with_mode(&key.namespace.clone(), |index| {
                    removed(&mut index.peer_authentications, &key, impact)
                })
            }
        }
    }

    /// Configuration of a namespace concerns its proxies; that of the root namespace concerns all.
    fn namespaced(&self, namespace: &str) -> Impact {
        let scope = if namespace == self.mesh.root_namespace {
            Scope::All
        } else {
            Scope::Namespace(namespace.to_owned())
        };
        Impact::of(scope, ROUTING)
    }

    /// Applies a change of what a namespace's workloads accept: clients of its services choose by it.
    fn with_mode(&mut self, namespace: &str, change: impl FnOnce(&mut Self) -> Impact) -> Impact {
        let before = self.mutual_tls_mode_of_namespace(namespace);
        let mut impact = change(self);
        let root = namespace == self.mesh.root_namespace;
        if root || before != self.mutual_tls_mode_of_namespace(namespace) {
            impact.merge(Impact::of(Scope::All, [ResourceType::Cluster]));
        }
        impact
    }

    /// Rules concern listeners and routes, and the clusters of proxies whose Sidecar lists what they see: what rules
    /// lead to comes on top.
    fn virtual_service_impact(&self) -> Impact {
        let mut impact = Impact::of(Scope::All, [ResourceType::Listener, ResourceType::Route]);
        impact.merge(self.beyond_sidecars());
        impact
    }

    /// The clusters of proxies whose Sidecar lists what they see: rules may lead further.
    pub(super) fn beyond_sidecars(&self) -> Impact {
        let mut impact = Impact::none();
        for (key, sidecar) in &self.sidecars {
            if sidecar.spec.egress.is_empty() {
                continue;
            }
            let scope = if key.namespace == self.mesh.root_namespace {
                Scope::All
            } else {
                Scope::Namespace(key.namespace.clone())
            };
            impact.merge(Impact::of(scope, [ResourceType::Cluster]));
        }
        impact
    }

    fn rules_changed(&mut self) {
        self.asked_labels.take();
        self.delegating = delegate::merged(&self.virtual_services, &self.mesh.domain);
    }

    fn set_rule(&mut self, key: Key, rule: Option<DestinationRule>) -> Impact {
        let old = self.destination_rules.remove(&key);
        let same = match (&old, &rule) {
            (Some(old), Some(new)) => {
                old.spec == new.spec && old.metadata.labels == new.metadata.labels
            }
            (None, None) => true,
            _ => false,
        };
        let hosts: BTreeSet<String> = [old.as_deref(), rule.as_ref()]
            .into_iter()
            .flatten()
            .map(|rule| self.resolve(&rule.spec.host, rule.namespace()))
            .collect();
        // Names of the old subsets are found while the old rule is still there.
        let mut impact = Impact::none();
        if let Some(old) = old.filter(|_| !same) {
            self.destination_rules.insert(key.clone(), old);
            for host in &hosts {
                impact.merge(self.touched_by_rule(host));
            }
            self.destination_rules.remove(&key);
        }
        for host in &hosts {
            let place = (key.namespace.clone(), host.clone());
            if let Some(keys) = self.rule_hosts.get_mut(&place) {
                keys.remove(&key);
            }
        }
        self.rule_hosts.retain(|_, keys| !keys.is_empty());
        if let Some(rule) = rule {
            let host = self.resolve(&rule.spec.host, rule.namespace());
            let place = (key.namespace.clone(), host.clone());
            self.rule_hosts
                .entry(place)
                .or_default()
                .insert(key.clone());
            self.destination_rules.insert(key, Arc::new(rule));
            if !same {
                impact.merge(self.touched_by_rule(&host));
            }
        }
        if !same {
            self.asked_labels.take();
        }
        impact
    }

    /// Applies a change of a workload outside of Kubernetes: services that selected it, or do now, have other endpoints.
    fn with_entry(&mut self, key: Key, change: impl FnOnce(&mut Self) -> Impact) -> Impact {
        let before = self.workload_entries.get(&key).cloned();
        let mut impact = self.services_with_entry(&key);
        impact.merge(change(self));
        impact.merge(self.services_with_entry(&key));
        let spec = |entry: Option<&Arc<WorkloadEntry>>| entry.map(|entry| entry.spec.clone());
        if spec(before.as_ref()) == spec(self.workload_entries.get(&key)) {
            return Impact::none();
        }
        impact
    }

    fn services_with_entry(&self, key: &Key) -> Impact {
        let mut impact = Impact::none();
        let Some(entry) = self.workload_entries.get(key) else {
            return impact;
        };
        let labels = &entry.spec.labels;
        for service in self.services_selecting(&key.namespace, labels) {
            impact.merge(self.touched_by_slice(&service.key()));
        }
        for service in self.entries.values().flatten() {
            let selected = matches!(&service.discovery, Discovery::Workloads(wanted) if labels_match(wanted, labels));
            if selected && service.namespace == key.namespace {
                impact.merge(Impact::endpoints(&*service.host));
            }
        }
        impact
    }

    fn set_namespace(&mut self, name: String, labels: Option<BTreeMap<String, String>>) -> Impact {
        let old = match labels.clone() {
            Some(labels) => self.namespaces.insert(name, labels),
            None => self.namespaces.remove(&name),
        };
        if old == labels {
            return Impact::none();
        }
        self.namespace_changed()
    }

    fn set_node(&mut self, name: String, locality: Option<Locality>) -> Impact {
        let locality = locality.unwrap_or_default();
        let old = self
            .nodes
            .insert(name.clone(), locality.clone())
            .unwrap_or_default();
        if old == locality {
            return Impact::none();
        }
        // Rare: a node's place is known before its pods start.
        let pods: Vec<Key> = self
            .pods
            .iter()
            .filter(|(_, pod)| pod.node == name)
            .map(|(key, _)| key.clone())
            .collect();
        let mut impact = Impact::none();
        for pod in pods {
            impact.merge(self.endpoints_of_pod(&pod));
        }
        impact
    }

    fn set_pod(&mut self, key: Key, pod: Option<Workload>) -> Impact {
        if self.pods.get(&key) == pod.as_ref() {
            return Impact::none();
        }
        let mut impact = self.endpoints_of_pod(&key);
        let old = self.pods.remove(&key);
        for address in old.iter().flat_map(|pod| &pod.addresses) {
            if self.addresses.get(address) == Some(&key) {
                self.addresses.remove(address);
            }
        }
        // What the pod's own proxy accepts follows from its labels: the services that select it.
        let shape = |pod: &Workload| {
            (
                pod.labels.clone(),
                pod.service_account.clone(),
                pod.ports.clone(),
            )
        };
        let reshaped = old.as_ref().map(shape) != pod.as_ref().map(shape);
        if let Some(pod) = pod {
            for address in &pod.addresses {
                self.addresses.insert(address.clone(), key.clone());
            }
            self.pods.insert(key.clone(), pod);
        }
        impact.merge(self.endpoints_of_pod(&key));
        if reshaped {
            let own = [
                ResourceType::Cluster,
                ResourceType::Listener,
                ResourceType::Route,
            ];
            impact.merge(Impact::of(Scope::Workload(key), own));
        }
        impact
    }

    /// Services that have the pod's address among their endpoints.
    fn endpoints_of_pod(&self, key: &Key) -> Impact {
        let mut impact = Impact::none();
        let Some(pod) = self.pods.get(key) else {
            return impact;
        };
        for service in self.services_selecting(&key.namespace, &pod.labels) {
            let known = self
                .slices
                .get(&service.key())
                .into_iter()
                .flat_map(|slices| slices.values());
            let mut addresses = known
                .flat_map(|slice| &slice.endpoints)
                .map(|endpoint| &endpoint.address);
            if addresses.any(|address| pod.addresses.contains(address)) {
                impact.merge(Impact::endpoints(&*service.host));
                if service.is_headless() {
                    // Whether its clients use mutual TLS follows from all of its pods.
                    impact.merge(self.clusters_of(&service.host));
                }
            }
        }
        for service in self.entries.values().flatten() {
            let selected = matches!(&service.discovery, Discovery::Workloads(labels) if labels_match(labels, &pod.labels));
            if selected && service.namespace == key.namespace {
                impact.merge(Impact::endpoints(&*service.host));
            }
        }
        impact
    }

    fn set_service(&mut self, key: Key, service: Option<Service>) -> Impact {
        let service = service.map(Arc::new);
        if self.services.get(&key) == service.as_ref() {
            return Impact::none();
        }
        let mut impact = Impact::none();
        let parent = key.clone();
        if let Some(old) = self.services.remove(&key) {
            impact.merge(self.touched_by_service(&old));
            self.undeclare(&old);
        }
        if let Some(service) = service {
            self.declare(&service);
            self.services.insert(key, Arc::clone(&service));
            self.refresh_identities(&service.host);
            impact.merge(self.touched_by_service(&service));
        }
        impact.merge(self.parent_changed(ParentKind::Service, &parent));
        impact
    }

    fn set_entry(&mut self, key: Key, services: Vec<Arc<Service>>) -> Impact {
        if self.entries.get(&key) == Some(&services) {
            return Impact::none();
        }
        let mut impact = Impact::none();
        let parent = key.clone();
        for old in self.entries.remove(&key).into_iter().flatten() {
            impact.merge(self.touched(&old));
            self.undeclare(&old);
        }
        for service in &services {
            self.declare(service);
        }
        if !services.is_empty() {
            self.entries.insert(key, services.clone());
        }
        for service in services {
            self.refresh_identities(&service.host);
            impact.merge(self.touched(&service));
        }
        impact.merge(self.parent_changed(ParentKind::ServiceEntry, &parent));
        impact
    }

    fn declare(&mut self, service: &Service) {
        if let Some(host) = service.alias_for() {
            let names = self.aliases.entry(host.to_owned()).or_default();
            names.insert(service.host.clone());
        }
        self.hosts
            .entry(service.host.clone())
            .or_default()
            .insert(declaration(service));
    }

    fn undeclare(&mut self, service: &Service) {
        if let Some(host) = service.alias_for()
            && let Some(names) = self.aliases.get_mut(host)
        {
            names.remove(&service.host);
        }
        self.aliases.retain(|_, names| !names.is_empty());
        if let Some(declarations) = self.hosts.get_mut(&service.host) {
            declarations.remove(&declaration(service));
            if declarations.is_empty() {
                self.hosts.remove(&service.host);
            }
        }
    }

    fn set_slice(&mut self, key: Key, slice: Option<(Key, Slice)>) -> Impact {
        let mut owners = Vec::new();
        let same = match (&slice, self.slice_owners.get(&key)) {
            (Some((service, slice)), Some(owner)) if owner == service => {
                self.slices
                    .get(owner)
                    .and_then(|slices| slices.get(&key.name))
                    == Some(slice)
            }
            _ => false,
        };
        if same {
            return Impact::none();
        }
        let mut impact = Impact::none();
        if let Some(owner) = self.slice_owners.get(&key) {
            impact.merge(self.touched_by_slice(owner));
        }
        if let Some(owner) = self.slice_owners.remove(&key) {
            if let Some(slices) = self.slices.get_mut(&owner) {
                slices.remove(&key.name);
            }
            owners.push(owner);
        }
        if let Some((service, slice)) = slice {
            self.slices
                .entry(service.clone())
                .or_default()
                .insert(key.name.clone(), slice);
            self.slice_owners.insert(key, service.clone());
            owners.push(service);
        }
        for owner in owners {
            impact.merge(self.touched_by_slice(&owner));
        }
        impact
    }
}

fn declaration(service: &Service) -> Declaration {
    Declaration {
        entry: !service.kubernetes,
        created: service.created,
        key: service.key(),
    }
}

fn gateway_impact(selector: BTreeMap<String, String>) -> Impact {
    Impact::of(
        Scope::Gateways(selector),
        [ResourceType::Listener, ResourceType::Route],
    )
}

/// Inserts an object; nobody is concerned when its specification and labels are what they were.
fn replace<S: Kind>(
    objects: &mut BTreeMap<Key, Arc<Object<S>>>,
    object: Object<S>,
    impact: Impact,
) -> Impact {
    let old = objects.get(&object_key(&object));
    let same = old.is_some_and(|old| {
        old.spec == object.spec && old.metadata.labels == object.metadata.labels
    });
    objects.insert(object_key(&object), Arc::new(object));
    if same { Impact::none() } else { impact }
}

fn removed<S: Kind>(
    objects: &mut BTreeMap<Key, Arc<Object<S>>>,
    key: &Key,
    impact: Impact,
) -> Impact {
    if objects.remove(key).is_some() {
        impact
    } else {
        Impact::none()
    }
}

fn object_key<S: Kind>(object: &Object<S>) -> Key {
    Key::new(object.namespace(), object.name())
}

fn key_of(metadata: &ObjectMeta) -> Key {
    Key::new(
        metadata.namespace.clone().unwrap_or_default(),
        name_of(metadata),
    )
}

fn name_of(metadata: &ObjectMeta) -> String {
    metadata.name.clone().unwrap_or_default()
}
