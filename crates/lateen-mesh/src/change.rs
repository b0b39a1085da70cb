//! What happens to the mesh, and whom it may concern.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::{
    core::v1::{Namespace, Node, Pod, Service},
    discovery::v1::EndpointSlice,
};
use lateen_api::{
    BodyToHeaders, DestinationRule, Gateway, Kind, Object, PeerAuthentication, ServiceEntry,
    Sidecar, StickySession, VirtualService, WorkloadEntry, gateway_api,
};
use lateen_xds::{Names, ResourceType};

use crate::{Proxy, names::ClusterName};

/// One object that appeared, changed or went.
#[derive(Debug, Clone, PartialEq)]
#[allow(clippy::large_enum_variant)] // lives for one call
pub enum Change {
    /// A namespace appeared or changed.
    Namespace(Namespace),
    /// A node appeared or changed (its labels say where its pods are).
    Node(Node),
    /// A pod appeared or changed.
    Pod(Pod),
    /// A service appeared or changed.
    Service(Service),
    /// An endpoint slice appeared or changed.
    EndpointSlice(EndpointSlice),
    /// A gateway appeared or changed.
    Gateway(Gateway),
    /// A virtual service appeared or changed.
    VirtualService(VirtualService),
    /// A destination rule appeared or changed.
    DestinationRule(DestinationRule),
    /// A service entry appeared or changed.
    ServiceEntry(ServiceEntry),
    /// A Sidecar appeared or changed.
    Sidecar(Sidecar),
    /// A peer authentication appeared or changed.
    PeerAuthentication(PeerAuthentication),
    /// A workload outside of Kubernetes appeared or changed.
    WorkloadEntry(WorkloadEntry),
    /// A sticky session appeared or changed.
    StickySession(StickySession),
    /// A policy that copies fields of bodies appeared or changed.
    BodyToHeaders(BodyToHeaders),
    /// A class of gateways appeared or changed.
    GatewayClass(gateway_api::GatewayClass),
    /// A gateway of the Gateway API appeared or changed.
    KubernetesGateway(gateway_api::Gateway),
    /// An HTTPRoute appeared or changed.
    HttpRoute(gateway_api::HttpRoute),
    /// A GRPCRoute appeared or changed.
    GrpcRoute(gateway_api::GrpcRoute),
    /// A TCPRoute appeared or changed.
    TcpRoute(gateway_api::TcpRoute),
    /// A TLSRoute appeared or changed.
    TlsRoute(gateway_api::TlsRoute),
    /// A permission to refer appeared or changed.
    ReferenceGrant(gateway_api::ReferenceGrant),
    /// An object went.
    Deleted(ObjectKind, Key),
}

/// Kinds of objects that the index holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)] // each is named like its kind
pub enum ObjectKind {
    Namespace,
    Node,
    Pod,
    Service,
    EndpointSlice,
    Gateway,
    VirtualService,
    DestinationRule,
    ServiceEntry,
    Sidecar,
    PeerAuthentication,
    WorkloadEntry,
    StickySession,
    BodyToHeaders,
    GatewayClass,
    KubernetesGateway,
    HttpRoute,
    GrpcRoute,
    TcpRoute,
    TlsRoute,
    ReferenceGrant,
}

/// Namespace and name of an object; the namespace is empty for nodes, namespaces and classes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl Key {
    /// A key of borrowed parts.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// The key of an object.
    pub fn of<S: Kind>(object: &Object<S>) -> Self {
        Self::new(object.namespace(), object.name())
    }
}

/// Proxies that a change may concern.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// All.
    All,
    /// Those of one namespace.
    Namespace(String),
    /// The one of this pod (namespace and name).
    Workload(Key),
    /// Gateways with these pod labels.
    Gateways(BTreeMap<String, String>),
    /// Those of a namespace with these pod labels.
    Selected(String, BTreeMap<String, String>),
    /// Those at this address.
    Address(String),
}

impl Scope {
    /// Whether the proxy is one of them.
    pub fn contains(&self, proxy: &Proxy) -> bool {
        match self {
            Self::All => true,
            Self::Namespace(namespace) => proxy.namespace == *namespace,
            Self::Workload(pod) => proxy.namespace == pod.namespace && proxy.name == pod.name,
            Self::Gateways(selector) => {
                proxy.kind == crate::ProxyKind::Router
                    && lateen_api::common::labels_match(selector, &proxy.labels)
            }
            Self::Selected(namespace, selector) => {
                proxy.namespace == *namespace
                    && lateen_api::common::labels_match(selector, &proxy.labels)
            }
            Self::Address(address) => proxy.address == *address,
        }
    }
}

/// Whom a change may concern. Impacts of several changes can be [merged](Impact::merge), so that a burst of changes
/// costs one update. An impact may name more than what really differs; comparing versions drops the rest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Impact {
    /// Hosts of services of which only the endpoints moved.
    endpoints: BTreeSet<String>,
    /// Resources that may differ for whoever sees them.
    named: BTreeSet<(ResourceType, String)>,
    /// Types of resources that may differ, by the proxies that they may differ for.
    types: BTreeMap<Scope, BTreeSet<ResourceType>>,
}

impl Impact {
    /// Nobody is concerned.
    pub fn none() -> Self {
        Self::default()
    }

    /// Only the endpoints of a service moved.
    pub(crate) fn endpoints(host: impl Into<String>) -> Self {
        Self {
            endpoints: BTreeSet::from([host.into()]),
            ..Self::default()
        }
    }

    /// Resources of some types may differ for some proxies.
    pub(crate) fn of(scope: Scope, types: impl IntoIterator<Item = ResourceType>) -> Self {
        Self {
            types: BTreeMap::from([(scope, types.into_iter().collect())]),
            ..Self::default()
        }
    }

    /// Resources of these names may differ for all proxies that see them.
    pub(crate) fn of_named(named: impl IntoIterator<Item = (ResourceType, String)>) -> Self {
        Self {
            named: named.into_iter().collect(),
            ..Self::default()
        }
    }

    /// Whether nobody is concerned.
    pub fn is_empty(&self) -> bool {
        self.endpoints.is_empty() && self.named.is_empty() && self.types.is_empty()
    }

    /// Whether only endpoints moved, so that nothing but endpoint resources needs to be looked at.
    pub fn is_endpoints_only(&self) -> bool {
        self.types.is_empty() && self.named.is_empty() && !self.endpoints.is_empty()
    }

    pub(crate) fn types(&self) -> impl Iterator<Item = (&Scope, &BTreeSet<ResourceType>)> {
        self.types.iter()
    }

    pub(crate) fn named(&self) -> impl Iterator<Item = (ResourceType, &str)> {
        self.named.iter().map(|(kind, name)| (*kind, name.as_str()))
    }

    /// Hosts of services of which endpoints moved.
    pub fn hosts(&self) -> impl Iterator<Item = &str> {
        self.endpoints.iter().map(String::as_str)
    }

    /// Adds what another change concerns.
    pub fn merge(&mut self, other: Self) {
        self.endpoints.extend(other.endpoints);
        self.named.extend(other.named);
        for (scope, types) in other.types {
            self.types.entry(scope).or_default().extend(types);
        }
    }

    /// Which of the resources of a type that a proxy subscribed to need to be translated anew.
    pub fn narrow(&self, proxy: &Proxy, kind: ResourceType, subscribed: &Names) -> Names {
        let affected = self
            .types
            .iter()
            .any(|(scope, types)| types.contains(&kind) && scope.contains(proxy));
        if affected {
            return subscribed.clone();
        }
        let moved = |name: &str| {
            let cluster = ClusterName::parse(name).or_else(|| ClusterName::parse_server_name(name));
            kind == ResourceType::Endpoint
                && cluster.is_some_and(|cluster| self.endpoints.contains(cluster.host))
        };
        match subscribed {
            Names::Only(names) => {
                let concerned =
                    |name: &&String| self.named.contains(&(kind, (*name).clone())) || moved(name);
                names.iter().filter(concerned).cloned().collect()
            }
            Names::All if kind == ResourceType::Endpoint && !self.endpoints.is_empty() => {
                Names::All
            }
            Names::All => {
                let of_kind = self.named.iter().filter(|(other, _)| *other == kind);
                of_kind.map(|(_, name)| name.clone()).collect()
            }
        }
    }
}
