//! The objects of the mesh, indexed for translation.

mod body_to_headers;
pub(crate) mod cache;
mod declarations;
mod delegate;
mod destination_rule;
mod endpoints;
mod gateway_api;
mod host;
mod impact;
mod peer_authentication;
mod policy_status;
mod service;
mod sidecar;
mod sticky_session;
mod update;
mod virtual_service;
mod visibility;
mod workload;
mod workload_changes;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, OnceLock},
};

use lateen_api::{
    BodyToHeaders, DestinationRule, Gateway, Kind, Object, PeerAuthentication, ServiceEntry,
    Sidecar, StickySession, VirtualService, WorkloadEntry,
};

pub use destination_rule::MergedRule;
pub use gateway_api::{
    CONTROLLER as GATEWAY_CONTROLLER, ListenerStatus, ObjectStatus, ParentStatus, StatusContent,
    deployment_of, parse_certificate_name,
};
pub(crate) use gateway_api::{is_of_gateway_api, regex_quoted};
pub use host::{host_matches, resolve_host};
pub use policy_status::{Condition, PolicyStatus};
pub use service::{Discovery, Service, ServicePort, TargetPort};
pub use sticky_session::{StoreSecret, parse_store_secret, store_secret};
pub(crate) use virtual_service::gateway_name;
pub use workload::{Endpoint, Locality, TLS_MODE_LABEL, Workload};

use crate::{Key, MeshConfig};
use declarations::Declaration;
use workload::Slice;

/// Annotation of gateways made from the Gateway API: hosts of the services that the gateway is behind.
pub(crate) const SERVICE_ANNOTATION: &str = "internal.istio.io/gateway-service";

/// The objects of the mesh.
#[derive(Debug, Clone, Default)]
pub struct Index {
    mesh: MeshConfig,
    namespaces: BTreeMap<String, BTreeMap<String, String>>,
    nodes: BTreeMap<String, Locality>,
    pods: BTreeMap<Key, Workload>,
    /// Pods by address; also finds the pod of an endpoint that names none.
    addresses: BTreeMap<String, Key>,
    /// Services of Kubernetes by name, and those of service entries by name, each with its hosts.
    services: BTreeMap<Key, Arc<Service>>,
    entries: BTreeMap<Key, Vec<Arc<Service>>>,
    /// Declarations of each host.
    hosts: BTreeMap<String, BTreeSet<Declaration>>,
    /// Hosts that are other names of a host.
    aliases: BTreeMap<String, BTreeSet<String>>,
    /// Identities behind each host, as clusters were last told: clients check certificates against them.
    identities: BTreeMap<String, BTreeSet<String>>,
    /// Endpoint slices by service, then by name.
    slices: BTreeMap<Key, BTreeMap<String, Slice>>,
    /// Service of each endpoint slice, to find it when only the name is known.
    slice_owners: BTreeMap<Key, Key>,
    gateways: BTreeMap<Key, Arc<Gateway>>,
    virtual_services: BTreeMap<Key, Arc<VirtualService>>,
    /// Virtual services that refer to delegates, with the delegates' rules in place.
    delegating: BTreeMap<Key, Arc<VirtualService>>,
    destination_rules: BTreeMap<Key, Arc<DestinationRule>>,
    service_entries: BTreeMap<Key, Arc<ServiceEntry>>,
    sidecars: BTreeMap<Key, Arc<Sidecar>>,
    peer_authentications: BTreeMap<Key, Arc<PeerAuthentication>>,
    workload_entries: BTreeMap<Key, Arc<WorkloadEntry>>,
    sticky_sessions: BTreeMap<Key, Arc<StickySession>>,
    body_to_headers: BTreeMap<Key, Arc<BodyToHeaders>>,
    /// The Gateway API's objects; what they become is among the gateways and virtual services.
    gateway_api: gateway_api::GatewayApi,
    /// Destination rules by their namespace and full host.
    rule_hosts: BTreeMap<(String, String), BTreeSet<Key>>,
    /// Keys of labels that rules ask clients for.
    asked_labels: OnceLock<BTreeSet<String>>,
    cache: cache::Cache,
}

impl Index {
    /// An empty mesh.
    pub fn new(mesh: MeshConfig) -> Self {
        Self {
            mesh,
            ..Self::default()
        }
    }

    /// Settings of the mesh.
    pub fn mesh(&self) -> &MeshConfig {
        &self.mesh
    }

    /// The pod of a proxy, when it is known.
    pub fn workload(&self, namespace: &str, name: &str) -> Option<&Workload> {
        self.pods.get(&Key::new(namespace, name))
    }

    /// How many resources were translated so far: a measure of work.
    pub fn translated(&self) -> u64 {
        self.cache.made()
    }

    pub(crate) fn cache(&self) -> &cache::Cache {
        &self.cache
    }

    /// Gateways, sorted by namespace and name.
    pub fn gateways(&self) -> impl Iterator<Item = &Gateway> {
        self.gateways.values().map(Arc::as_ref)
    }

    /// Labels of a namespace, when it is known.
    pub fn namespace_labels(&self, namespace: &str) -> Option<&BTreeMap<String, String>> {
        self.namespaces.get(namespace)
    }
}

/// What a namespace has of a kind, in the order of names.
fn of_namespace<'i, V>(
    all: &'i BTreeMap<Key, V>,
    namespace: &str,
) -> impl Iterator<Item = (&'i Key, &'i V)> {
    all.range(Key::new(namespace, "")..)
        .take_while(move |(key, _)| key.namespace == namespace)
}

/// The objects of a kind that a namespace has, older ones first; names decide between those of one second.
fn oldest_first<'i, S: Kind>(
    all: &'i BTreeMap<Key, Arc<Object<S>>>,
    namespace: &str,
) -> Vec<&'i Object<S>> {
    let mut found: Vec<_> = of_namespace(all, namespace)
        .map(|(_, object)| object.as_ref())
        .collect();
    found.sort_by_key(|object| object.created());
    found
}
