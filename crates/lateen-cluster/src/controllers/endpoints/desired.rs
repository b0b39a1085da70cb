//! Which addresses and ports a Service has, from its pods. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, ObjectReference, Pod, Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::controllers::meta::{contains_labels, is_ready, is_terminal};

/// Endpoints that share their ports. Named target ports may resolve to other numbers in other pods, so a Service can have
/// several groups.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Group {
    pub(super) ports: Vec<EndpointPort>,
    pub(super) endpoints: Vec<Endpoint>,
}

/// Groups by a text form of their ports.
pub(super) type Groups = BTreeMap<String, Group>;

/// `IPv4` or `IPv6`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    /// The name in EndpointSlices and in a Service's `ipFamilies`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    /// The family of an address.
    pub(super) fn of(address: &str) -> Self {
        if address.contains(':') {
            Self::V6
        } else {
            Self::V4
        }
    }
}

/// The address families of the Service.
pub(super) fn families(service: &Service) -> Vec<Family> {
    let listed = service
        .spec
        .as_ref()
        .and_then(|spec| spec.ip_families.as_ref());
    match listed {
        Some(listed) if !listed.is_empty() => listed
            .iter()
            .map(|name| {
                if name == "IPv6" {
                    Family::V6
                } else {
                    Family::V4
                }
            })
            .collect(),
        _ => vec![Family::V4],
    }
}

/// The Service's selector; None when its endpoints are someone else's business.
pub(super) fn selector(service: &Service) -> Option<&BTreeMap<String, String>> {
    let spec = service.spec.as_ref()?;
    if spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    spec.selector
        .as_ref()
        .filter(|selector| !selector.is_empty())
}

/// Whether the Service selects the pod.
pub(super) fn selects_pod(service: &Service, pod: &Pod) -> bool {
    selector(service)
        .is_some_and(|selector| contains_labels(selector, pod.metadata.labels.as_ref()))
}

/// Whether the Service has no address of its own.
pub(super) fn is_headless(service: &Service) -> bool {
    let address = service
        .spec
        .as_ref()
        .and_then(|spec| spec.cluster_ip.as_deref());
    address == Some("None")
}

/// Whether clients want to know of pods that aren't ready as if they were.
pub(super) fn publishes_unready(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    spec.and_then(|spec| spec.publish_not_ready_addresses) == Some(true)
}

/// What the endpoints of a Service depend on, of a pod; other changes of the pod are no reason to look at them again.
#[derive(PartialEq)]
pub(super) struct Facts<'a> {
    labels: Option<&'a BTreeMap<String, String>>,
    addresses: Vec<&'a str>,
    ready: bool,
    terminal: bool,
    deleting: bool,
    node: Option<&'a str>,
}

impl<'a> Facts<'a> {
    pub(super) fn of(pod: &'a Pod) -> Self {
        Self {
            labels: pod.metadata.labels.as_ref(),
            addresses: addresses(pod),
            ready: is_ready(pod),
            terminal: is_terminal(pod),
            deleting: pod.metadata.deletion_timestamp.is_some(),
            node: pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()),
        }
    }
}

/// All addresses of the pod.
pub(super) fn addresses(pod: &Pod) -> Vec<&str> {
    let Some(status) = &pod.status else {
        return Vec::new();
    };
    let listed: Vec<&str> = status
        .pod_ips
        .iter()
        .flatten()
        .map(|address| address.ip.as_str())
        .filter(|address| !address.is_empty())
        .collect();
    if listed.is_empty() {
        status
            .pod_ip
            .as_deref()
            .filter(|ip| !ip.is_empty())
            .into_iter()
            .collect()
    } else {
        listed
    }
}

/// The endpoints of `service` in `family`, for those of `pods` that it selects. `zone_of` tells a node's zone.
pub(super) fn groups<'a>(
    service: &Service,
    pods: impl Iterator<Item = &'a Pod>,
    family: Family,
    zone_of: &dyn Fn(&str) -> Option<String>,
) -> Groups {
    let mut groups = Groups::new();
    for pod in pods {
        if is_terminal(pod) || !selects_pod(service, pod) {
            continue;
        }
        let own = addresses(pod);
        let Some(address) = own.iter().find(|address| Family::of(address) == family) else {
            continue;
        };
        let ports = ports(service, pod);
        let wants_ports = service
            .spec
            .as_ref()
            .is_some_and(|spec| spec.ports.as_ref().is_some_and(|ports| !ports.is_empty()));
        // The pod has none of the ports that are asked for by name.
        if ports.is_empty() && wants_ports {
            continue;
        }
        let endpoint = endpoint(service, pod, address, zone_of);
        let key = serde_json::to_string(&ports).unwrap_or_default();
        let group = groups.entry(key).or_default();
        group.ports = ports;
        group.endpoints.push(endpoint);
    }
    groups
}

fn endpoint(
    service: &Service,
    pod: &Pod,
    address: &str,
    zone_of: &dyn Fn(&str) -> Option<String>,
) -> Endpoint {
    let terminating = pod.metadata.deletion_timestamp.is_some();
    let serving = is_ready(pod);
    let ready = publishes_unready(service) || (serving && !terminating);
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
    Endpoint {
        addresses: vec![address.to_owned()],
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: hostname(service, pod),
        zone: node.as_deref().and_then(zone_of),
        node_name: node,
        target_ref: Some(reference(pod)),
        ..Endpoint::default()
    }
}

/// The reference by which an endpoint names its pod.
pub(super) fn reference(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".to_owned()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

/// The name under which the pod has a DNS record of its own below the Service's: only if it asks for that.
pub(super) fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let asks = spec.subdomain.is_some() && spec.subdomain == service.metadata.name;
    spec.hostname
        .clone()
        .filter(|name| asks && !name.is_empty())
}

/// The Service's ports as numbers of this pod. A named port that the pod lacks is left out.
pub(super) fn ports(service: &Service, pod: &Pod) -> Vec<EndpointPort> {
    let listed = service.spec.as_ref().and_then(|spec| spec.ports.as_ref());
    listed
        .into_iter()
        .flatten()
        .filter_map(|port| {
            Some(EndpointPort {
                // Unnamed ports have an empty name, as in Kubernetes.
                name: Some(port.name.clone().unwrap_or_default()),
                port: Some(target(port, pod)?),
                protocol: Some(protocol(port).to_owned()),
                app_protocol: port.app_protocol.clone(),
            })
        })
        .collect()
}

fn protocol(port: &ServicePort) -> &str {
    port.protocol.as_deref().unwrap_or("TCP")
}

fn target(port: &ServicePort, pod: &Pod) -> Option<i32> {
    let name = match &port.target_port {
        None | Some(IntOrString::Int(0)) => return Some(port.port),
        Some(IntOrString::Int(number)) => return Some(*number),
        Some(IntOrString::String(name)) => name,
    };
    let spec = pod.spec.as_ref()?;
    // An init container that restarts always is a sidecar and serves while the pod runs.
    let is_sidecar = |container: &&Container| container.restart_policy.as_deref() == Some("Always");
    let sidecars = spec.init_containers.iter().flatten().filter(is_sidecar);
    spec.containers
        .iter()
        .chain(sidecars)
        .flat_map(|container| container.ports.iter().flatten())
        .find(|candidate| {
            candidate.name.as_ref() == Some(name)
                && candidate.protocol.as_deref().unwrap_or("TCP") == protocol(port)
        })
        .map(|found| found.container_port)
}

#[cfg(test)]
#[path = "desired_tests.rs"]
mod tests;
