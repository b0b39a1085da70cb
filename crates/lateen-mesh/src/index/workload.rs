//! Pods and the addresses behind services.

use std::collections::BTreeMap;

use k8s_openapi::api::{core::v1::Pod, discovery::v1::EndpointSlice};

/// Label that the injected sidecar puts on its pod: it accepts mutual TLS.
pub const TLS_MODE_LABEL: &str = "security.istio.io/tlsMode";

/// Where a workload runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Locality {
    /// Region.
    pub region: String,
    /// Zone within the region.
    pub zone: String,
    /// Part of the zone.
    pub sub_zone: String,
}

impl Locality {
    /// Reads the well-known labels of a node.
    pub(crate) fn of_labels(labels: &BTreeMap<String, String>) -> Self {
        let get = |keys: [&str; 2]| {
            keys.iter()
                .find_map(|key| labels.get(*key))
                .cloned()
                .unwrap_or_default()
        };
        Self {
            region: get([
                "topology.kubernetes.io/region",
                "failure-domain.beta.kubernetes.io/region",
            ]),
            zone: get([
                "topology.kubernetes.io/zone",
                "failure-domain.beta.kubernetes.io/zone",
            ]),
            sub_zone: labels
                .get("topology.istio.io/subzone")
                .cloned()
                .unwrap_or_default(),
        }
    }

    /// Reads `region/zone/subzone`.
    pub(crate) fn parse(text: &str) -> Self {
        let mut parts = text.splitn(3, '/').map(str::to_owned);
        let mut next = || parts.next().unwrap_or_default();
        Self {
            region: next(),
            zone: next(),
            sub_zone: next(),
        }
    }
}

/// What translation needs to know of a pod.
#[derive(Debug, Clone, PartialEq)]
pub struct Workload {
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Service account.
    pub service_account: String,
    /// Addresses.
    pub addresses: Vec<String>,
    /// Node that it runs on.
    pub node: String,
    /// Container ports by name.
    pub ports: BTreeMap<String, u32>,
}

impl Workload {
    /// Reads a pod.
    pub(crate) fn of_pod(pod: &Pod) -> Self {
        let spec = pod.spec.as_ref();
        let status = pod.status.as_ref();
        let mut addresses: Vec<String> = status
            .and_then(|status| status.pod_ips.as_ref())
            .map(|all| all.iter().map(|one| one.ip.clone()).collect())
            .unwrap_or_default();
        if addresses.is_empty() {
            addresses.extend(status.and_then(|status| status.pod_ip.clone()));
        }
        let containers = spec
            .map(|spec| spec.containers.as_slice())
            .unwrap_or_default();
        let named_ports = containers
            .iter()
            .flat_map(|container| container.ports.iter().flatten())
            .filter_map(|port| {
                Some((port.name.clone()?, u32::try_from(port.container_port).ok()?))
            });
        Self {
            labels: pod.metadata.labels.clone().unwrap_or_default(),
            service_account: spec
                .and_then(|spec| spec.service_account_name.clone())
                .unwrap_or_else(|| "default".to_owned()),
            addresses,
            node: spec
                .and_then(|spec| spec.node_name.clone())
                .unwrap_or_default(),
            ports: named_ports.collect(),
        }
    }
}

/// One endpoint slice, reduced to what matters.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Slice {
    /// Ports by name.
    pub(crate) ports: BTreeMap<String, u32>,
    /// Addresses in order.
    pub(crate) endpoints: Vec<SliceEndpoint>,
}

/// One address of an endpoint slice.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SliceEndpoint {
    /// IP address.
    pub(crate) address: String,
    /// Pod behind it, in the slice's namespace.
    pub(crate) pod: Option<String>,
    /// Node that it runs on.
    pub(crate) node: String,
    /// Whether it takes new requests.
    pub(crate) ready: bool,
}

impl Slice {
    /// Reads an endpoint slice.
    pub(crate) fn of(slice: &EndpointSlice) -> Self {
        let ports = slice.ports.iter().flatten().filter_map(|port| {
            Some((
                port.name.clone().unwrap_or_default(),
                u32::try_from(port.port?).ok()?,
            ))
        });
        let endpoints = slice.endpoints.iter().flatten().flat_map(|endpoint| {
            let conditions = endpoint.conditions.as_ref();
            let ready = conditions
                .and_then(|conditions| conditions.ready)
                .unwrap_or(true);
            let target = endpoint
                .target_ref
                .as_ref()
                .filter(|target| target.kind.as_deref() == Some("Pod"));
            endpoint.addresses.iter().map(move |address| SliceEndpoint {
                address: address.clone(),
                pod: target.and_then(|target| target.name.clone()),
                node: endpoint.node_name.clone().unwrap_or_default(),
                ready,
            })
        });
        Self {
            ports: ports.collect(),
            endpoints: endpoints.collect(),
        }
    }
}

/// An address behind a port of a service.
#[derive(Debug, Clone, PartialEq)]
pub struct Endpoint {
    /// IP address or, for DNS, a name.
    pub address: String,
    /// Port.
    pub port: u32,
    /// Labels, for subsets.
    pub labels: BTreeMap<String, String>,
    /// Identity of the workload, `spiffe://...`; empty when unknown.
    pub identity: String,
    /// Where it runs.
    pub locality: Locality,
    /// Share of traffic relative to the others.
    pub weight: u32,
    /// Whether it has a sidecar that accepts mutual TLS.
    pub mutual_tls: bool,
}
