//! Takes changes over: each goes to the module of its kind, which says whom it may concern.

use std::{
    borrow::Borrow,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use lateen_api::{Gateway, Kind, Object};
use lateen_xds::ResourceType;

use super::{
    Index,
    gateway_api::{Route, RouteKind},
    service::Service,
    workload::{Locality, Workload},
};
use crate::{Change, Impact, Key, ObjectKind, Scope};

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
                self.set_endpoint_slice(key_of(&slice.metadata), Some(&slice))
            }
            Change::ServiceEntry(entry) => self.set_service_entry(Key::of(&entry), Some(entry)),
            Change::Gateway(gateway) => self.set_gateway(Key::of(&gateway), Some(gateway)),
            Change::VirtualService(rules) => self.set_virtual_service(Key::of(&rules), Some(rules)),
            Change::DestinationRule(rule) => self.set_destination_rule(Key::of(&rule), Some(rule)),
            Change::Sidecar(sidecar) => self.set_sidecar(Key::of(&sidecar), Some(sidecar)),
            Change::PeerAuthentication(policy) => {
                self.set_peer_authentication(Key::of(&policy), Some(policy))
            }
            Change::WorkloadEntry(entry) => self.set_workload_entry(Key::of(&entry), Some(entry)),
            Change::StickySession(session) => {
                self.set_sticky_session(Key::of(&session), Some(session))
            }
            Change::BodyToHeaders(policy) => {
                self.set_body_to_headers(Key::of(&policy), Some(policy))
            }
            Change::GatewayClass(class) => {
                self.set_gateway_class(class.name().to_owned(), Some(class))
            }
            Change::KubernetesGateway(gateway) => {
                self.set_kubernetes_gateway(Key::of(&gateway), Some(gateway))
            }
            Change::HttpRoute(route) => {
                let id = (RouteKind::Http, Key::of(&route));
                self.set_route(id, Some(Route::Http(Arc::new(route))))
            }
            Change::GrpcRoute(route) => {
                let id = (RouteKind::Grpc, Key::of(&route));
                self.set_route(id, Some(Route::Grpc(Arc::new(route))))
            }
            Change::TcpRoute(route) => {
                let id = (RouteKind::Tcp, Key::of(&route));
                self.set_route(id, Some(Route::Tcp(Arc::new(route))))
            }
            Change::TlsRoute(route) => {
                let id = (RouteKind::Tls, Key::of(&route));
                self.set_route(id, Some(Route::Tls(Arc::new(route))))
            }
            Change::ReferenceGrant(grant) => self.set_reference_grant(Key::of(&grant), Some(grant)),
            Change::Deleted(kind, key) => self.delete(kind, key),
        }
    }

    fn delete(&mut self, kind: ObjectKind, key: Key) -> Impact {
        match kind {
            ObjectKind::Namespace => self.set_namespace(key.name, None),
            ObjectKind::Node => self.set_node(key.name, None),
            ObjectKind::Pod => self.set_pod(key, None),
            ObjectKind::Service => self.set_service(key, None),
            ObjectKind::EndpointSlice => self.set_endpoint_slice(key, None),
            ObjectKind::ServiceEntry => self.set_service_entry(key, None),
            ObjectKind::Gateway => self.set_gateway(key, None),
            ObjectKind::VirtualService => self.set_virtual_service(key, None),
            ObjectKind::DestinationRule => self.set_destination_rule(key, None),
            ObjectKind::Sidecar => self.set_sidecar(key, None),
            ObjectKind::PeerAuthentication => self.set_peer_authentication(key, None),
            ObjectKind::WorkloadEntry => self.set_workload_entry(key, None),
            ObjectKind::StickySession => self.set_sticky_session(key, None),
            ObjectKind::BodyToHeaders => self.set_body_to_headers(key, None),
            ObjectKind::GatewayClass => self.set_gateway_class(key.name, None),
            ObjectKind::KubernetesGateway => self.set_kubernetes_gateway(key, None),
            ObjectKind::HttpRoute => self.set_route((RouteKind::Http, key), None),
            ObjectKind::GrpcRoute => self.set_route((RouteKind::Grpc, key), None),
            ObjectKind::TcpRoute => self.set_route((RouteKind::Tcp, key), None),
            ObjectKind::TlsRoute => self.set_route((RouteKind::Tls, key), None),
            ObjectKind::ReferenceGrant => self.set_reference_grant(key, None),
        }
    }

    fn set_namespace(&mut self, name: String, labels: Option<BTreeMap<String, String>>) -> Impact {
        let old = put(&mut self.namespaces, name, labels.clone());
        if old == labels {
            return Impact::none();
        }
        self.namespace_changed()
    }

    fn set_gateway(&mut self, key: Key, gateway: Option<Gateway>) -> Impact {
        let gateway = gateway.map(Arc::new);
        let old = put(&mut self.gateways, key, gateway.clone());
        let mut impact = Impact::none();
        for gateway in [gateway, old].into_iter().flatten() {
            impact.merge(Impact::of(
                Scope::Gateways(gateway.spec.selector.clone()),
                [ResourceType::Listener, ResourceType::Route],
            ));
        }
        impact
    }
}

/// Sets or removes what a key stands for; returns what was there.
pub(super) fn put<K: Ord, V>(all: &mut BTreeMap<K, V>, key: K, value: Option<V>) -> Option<V> {
    match value {
        Some(value) => all.insert(key, value),
        None => all.remove(&key),
    }
}

/// Takes a value out of the set that a key stands for, and the set with its last value.
pub(super) fn remove_from<K, Q, V>(all: &mut BTreeMap<K, BTreeSet<V>>, key: &Q, value: &V)
where
    K: Borrow<Q> + Ord,
    Q: Ord + ?Sized,
    V: Ord,
{
    if let Some(values) = all.get_mut(key) {
        values.remove(value);
        if values.is_empty() {
            all.remove(key);
        }
    }
}

/// Sets or removes an object; says whether that [makes a difference](differ).
pub(super) fn put_object<S: Kind>(
    all: &mut BTreeMap<Key, Arc<Object<S>>>,
    key: Key,
    object: Option<Object<S>>,
) -> bool {
    let object = object.map(Arc::new);
    let old = put(all, key, object.clone());
    differ(old.as_deref(), object.as_deref())
}

/// Whether two states of an object differ in their specification or labels.
pub(super) fn differ<S: Kind>(old: Option<&Object<S>>, new: Option<&Object<S>>) -> bool {
    match (old, new) {
        (Some(old), Some(new)) => {
            old.spec != new.spec || old.metadata.labels != new.metadata.labels
        }
        (None, None) => false,
        _ => true,
    }
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
