//! Services, whether Kubernetes or a ServiceEntry declares them.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::Service as KubernetesService, apimachinery::pkg::util::intstr::IntOrString,
};
use lateen_api::{
    ServiceEntry,
    networking::service_entry::{Location, Resolution, WorkloadEntryBody},
};

use crate::{Key, protocol::Protocol};

/// A host that traffic can be sent to.
#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    /// Fully qualified host.
    pub host: String,
    /// Name of the object that declares it.
    pub name: String,
    /// Namespace of the object that declares it.
    pub namespace: String,
    /// Ports in the order of declaration.
    pub ports: Vec<ServicePort>,
    /// Virtual addresses; none for headless services and most service entries.
    pub addresses: Vec<String>,
    /// Networks that are its own as a whole, `10.1.0.0/16`.
    pub networks: Vec<String>,
    /// How its endpoints are found.
    pub discovery: Discovery,
    /// Whether the endpoints are outside of the mesh.
    pub external: bool,
    /// Labels of the pods behind it; `None` when it has no selector.
    pub selector: Option<BTreeMap<String, String>>,
    /// Namespaces that see it: `*`, `.`, `~` or names; empty means all.
    pub export_to: Vec<String>,
    /// Names of which the endpoints' certificates must have one, as the service entry says.
    pub subject_alt_names: Vec<String>,
    /// Creation time in seconds since the epoch.
    pub created: i64,
    /// Whether Kubernetes declares it.
    pub kubernetes: bool,
    /// Addresses and host names of its load balancer, none as long as it has none; `None` when no load balancer is asked
    /// for.
    pub ingress: Option<Vec<String>>,
    /// Labels of the object that declares it.
    pub labels: BTreeMap<String, String>,
}

/// A port of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// Name; may be empty when it is the only one.
    pub name: String,
    /// Number that clients use.
    pub number: u32,
    /// What is spoken on it.
    pub protocol: Protocol,
    /// Port of the endpoints.
    pub target: TargetPort,
    /// Is that port given, rather than the same because nothing else is said?
    pub target_given: bool,
}

/// Port of the endpoints of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetPort {
    /// The same for all.
    Number(u32),
    /// A container port by name, which may differ from pod to pod.
    Name(String),
}

/// How the endpoints of a service are found.
#[derive(Debug, Clone, PartialEq)]
pub enum Discovery {
    /// By endpoint slices of Kubernetes.
    Slices,
    /// Listed in the service entry.
    Static(Vec<WorkloadEntryBody>),
    /// Pods of the namespace with these labels.
    Workloads(BTreeMap<String, String>),
    /// Names that the proxy looks up; all answers count, or the first one only.
    Dns {
        /// Listed endpoints; the host itself when empty.
        endpoints: Vec<WorkloadEntryBody>,
        /// Whether only the first answer counts.
        first_only: bool,
    },
    /// The address that the client connected to.
    Original,
    /// Another name of the service of this host.
    Alias(String),
}

impl Service {
    /// The service that a Kubernetes Service declares.
    pub(crate) fn of_kubernetes(service: &KubernetesService, domain: &str) -> Self {
        let metadata = &service.metadata;
        let name = metadata.name.clone().unwrap_or_default();
        let namespace = metadata.namespace.clone().unwrap_or_default();
        let annotation = |key: &str| {
            metadata
                .annotations
                .as_ref()
                .and_then(|all| all.get(key))
                .map(String::as_str)
        };
        let spec = service.spec.clone().unwrap_or_default();
        let mut addresses = spec.cluster_ips.unwrap_or_default();
        if addresses.is_empty() {
            addresses.extend(spec.cluster_ip);
        }
        addresses.retain(|address| !address.is_empty() && address != "None");
        let host = format!("{name}.{namespace}.svc.{domain}");
        let external_name = spec
            .external_name
            .filter(|_| spec.type_.as_deref() == Some("ExternalName"));
        let discovery = match &external_name {
            Some(target) => Discovery::Alias(target.trim_end_matches('.').to_ascii_lowercase()),
            None => Discovery::Slices,
        };
        let ports = spec.ports.unwrap_or_default();
        Self {
            ports: ports
                .iter()
                .map(|port| {
                    let number = u32::try_from(port.port).unwrap_or_default();
                    let name = port.name.clone().unwrap_or_default();
                    ServicePort {
                        protocol: Protocol::of_service_port(
                            port.protocol.as_deref().unwrap_or("TCP"),
                            port.app_protocol.as_deref(),
                            &name,
                            number,
                        ),
                        target: match &port.target_port {
                            Some(IntOrString::Int(target)) if *target > 0 => {
                                TargetPort::Number(u32::try_from(*target).unwrap_or(number))
                            }
                            Some(IntOrString::String(target)) => TargetPort::Name(target.clone()),
                            _ => TargetPort::Number(number),
                        },
                        target_given: port.target_port.is_some(),
                        name,
                        number,
                    }
                })
                .collect(),
            export_to: annotation("networking.istio.io/exportTo")
                .map(|list| list.split(',').map(|name| name.trim().to_owned()).collect())
                .unwrap_or_default(),
            external: external_name.is_some(),
            selector: spec.selector.filter(|labels| !labels.is_empty()),
            created: metadata
                .creation_timestamp
                .as_ref()
                .map_or(0, |time| time.0.as_second()),
            subject_alt_names: Vec::new(),
            networks: Vec::new(),
            labels: metadata.labels.clone().unwrap_or_default(),
            ingress: ingress(service),
            kubernetes: true,
            host,
            name,
            namespace,
            addresses,
            discovery,
        }
    }

    /// The services that a ServiceEntry declares, one per host.
    pub(crate) fn of_entry(entry: &ServiceEntry) -> Vec<Self> {
        let spec = &entry.spec;
        let discovery = match (spec.resolution.unwrap_or_default(), &spec.workload_selector) {
            (Resolution::Static, Some(selector)) => Discovery::Workloads(selector.labels.clone()),
            (Resolution::Static, None) => Discovery::Static(spec.endpoints.clone()),
            (Resolution::Dns, _) => Discovery::Dns {
                endpoints: spec.endpoints.clone(),
                first_only: false,
            },
            (Resolution::DnsRoundRobin, _) => Discovery::Dns {
                endpoints: spec.endpoints.clone(),
                first_only: true,
            },
            (Resolution::None | Resolution::DynamicDns, _) => Discovery::Original,
        };
        let ports: Vec<ServicePort> = spec
            .ports
            .iter()
            .map(|port| ServicePort {
                name: port.name.clone(),
                number: port.number,
                protocol: Protocol::of_name(&port.protocol),
                target: TargetPort::Number(if port.target_port == 0 {
                    port.number
                } else {
                    port.target_port
                }),
                target_given: port.target_port != 0,
            })
            .collect();
        spec.hosts
            .iter()
            .map(|host| Self {
                host: host.to_ascii_lowercase(),
                name: entry.name().to_owned(),
                namespace: entry.namespace().to_owned(),
                ports: ports.clone(),
                addresses: spec
                    .addresses
                    .iter()
                    .filter_map(|address| single_address(address))
                    .collect(),
                networks: spec
                    .addresses
                    .iter()
                    .filter(|address| single_address(address).is_none())
                    .cloned()
                    .collect(),
                discovery: discovery.clone(),
                external: spec.location.unwrap_or_default() == Location::MeshExternal,
                selector: None,
                export_to: spec.export_to.clone(),
                subject_alt_names: spec.subject_alt_names.clone(),
                created: entry.created(),
                labels: entry.metadata.labels.clone().unwrap_or_default(),
                ingress: None,
                kubernetes: false,
            })
            .collect()
    }

    /// The object that declares it.
    pub fn key(&self) -> Key {
        Key::new(&*self.namespace, &*self.name)
    }

    /// Whether it has no virtual address and its pods are addressed one by one.
    pub fn is_headless(&self) -> bool {
        self.kubernetes && self.addresses.is_empty() && !self.external
    }

    /// The host that it is another name of.
    pub fn alias_for(&self) -> Option<&str> {
        match &self.discovery {
            Discovery::Alias(host) => Some(host),
            _ => None,
        }
    }

    /// The port that clients use.
    pub fn port(&self, number: u32) -> Option<&ServicePort> {
        self.ports.iter().find(|port| port.number == number)
    }
}

/// Where the load balancer of a service is reached.
fn ingress(service: &KubernetesService) -> Option<Vec<String>> {
    let spec = service.spec.as_ref()?;
    if spec.type_.as_deref() != Some("LoadBalancer") {
        return None;
    }
    let status = service.status.as_ref();
    let balancer = status.and_then(|status| status.load_balancer.as_ref());
    let points = balancer.and_then(|balancer| balancer.ingress.as_ref());
    let points = points.into_iter().flatten();
    Some(
        points
            .filter_map(|point| point.ip.clone().or_else(|| point.hostname.clone()))
            .collect(),
    )
}

/// The address of `address` or of a network of one address; `None` for larger networks.
fn single_address(text: &str) -> Option<String> {
    let Some((address, length)) = text.split_once('/') else {
        return Some(text.to_owned());
    };
    let whole = if address.contains(':') { "128" } else { "32" };
    (length == whole).then(|| address.to_owned())
}
