//! Endpoints of services.

use std::collections::{BTreeMap, BTreeSet};

use lateen_api::{common::labels_match, networking::service_entry::WorkloadEntryBody};

use super::{
    Index, of_namespace,
    service::{Discovery, Service, ServicePort, TargetPort},
    workload::{Endpoint, Locality, SliceEndpoint, TLS_MODE_LABEL, Workload},
};
use crate::{Key, Proxy};

impl Index {
    /// The endpoints behind a port of a service that take new requests, sorted by address.
    pub fn endpoints(&self, service: &Service, port: &ServicePort) -> Vec<Endpoint> {
        let mut endpoints = match &service.discovery {
            Discovery::Slices => self.endpoints_of_slices(service, port),
            Discovery::Workloads(labels) if labels.is_empty() => Vec::new(),
            Discovery::Workloads(labels) => of_namespace(&self.pods, &service.namespace)
                .filter(|(_, pod)| labels_match(labels, &pod.labels))
                .filter_map(|(key, pod)| {
                    self.endpoint_of_pod(key, pod, pod.addresses.first()?, target(port, Some(pod))?)
                })
                .collect(),
            Discovery::Static(entries)
            | Discovery::Dns {
                endpoints: entries, ..
            } if !entries.is_empty() => entries
                .iter()
                .map(|entry| self.endpoint_of_entry(&service.namespace, entry, port))
                .collect(),
            Discovery::Dns { .. } => vec![Endpoint {
                address: service.host.clone(),
                port: target(port, None).unwrap_or(port.number),
                labels: Default::default(),
                identity: String::new(),
                locality: Locality::default(),
                weight: 1,
                mutual_tls: false,
            }],
            Discovery::Static(_) | Discovery::Original | Discovery::Alias(_) => Vec::new(),
        };
        let selected = match (&service.selector, &service.discovery) {
            (Some(labels), Discovery::Slices) | (_, Discovery::Workloads(labels)) => Some(labels),
            _ => None,
        };
        if let Some(labels) = selected.filter(|labels| !labels.is_empty()) {
            let entries = of_namespace(&self.workload_entries, &service.namespace)
                .filter(|(_, entry)| labels_match(labels, &entry.spec.labels));
            endpoints.extend(
                entries
                    .map(|(key, entry)| self.endpoint_of_entry(&key.namespace, &entry.spec, port)),
            );
        }
        endpoints.sort_by(|a, b| (&a.address, a.port).cmp(&(&b.address, b.port)));
        endpoints
    }

    /// A listed endpoint, or a workload outside of Kubernetes.
    fn endpoint_of_entry(
        &self,
        namespace: &str,
        entry: &WorkloadEntryBody,
        port: &ServicePort,
    ) -> Endpoint {
        let named = entry.ports.get(&port.name).copied();
        Endpoint {
            address: entry.address.clone(),
            port: named.or_else(|| target(port, None)).unwrap_or(port.number),
            labels: entry.labels.clone(),
            identity: match entry.service_account.as_str() {
                "" => String::new(),
                account => self.identity(namespace, account),
            },
            locality: Locality::parse(&entry.locality),
            weight: entry.weight.max(1),
            mutual_tls: entry
                .labels
                .get(TLS_MODE_LABEL)
                .is_some_and(|mode| mode == "istio"),
        }
    }

    fn endpoints_of_slices(&self, service: &Service, port: &ServicePort) -> Vec<Endpoint> {
        let slices = self
            .slices
            .get(&service.key())
            .into_iter()
            .flat_map(|slices| slices.values());
        let mut seen = BTreeSet::new();
        let mut endpoints = Vec::new();
        for slice in slices {
            let Some(&number) = slice.ports.get(&port.name) else {
                continue;
            };
            for endpoint in slice.endpoints.iter().filter(|endpoint| endpoint.ready) {
                if seen.insert((endpoint.address.as_str(), number)) {
                    endpoints.push(self.endpoint_of_slice(service, endpoint, number));
                }
            }
        }
        endpoints
    }

    fn endpoint_of_slice(
        &self,
        service: &Service,
        endpoint: &SliceEndpoint,
        port: u32,
    ) -> Endpoint {
        let key = match &endpoint.pod {
            Some(pod) => Some(Key::new(&*service.namespace, pod)),
            None => self.addresses.get(&endpoint.address).cloned(),
        };
        let known = key
            .as_ref()
            .and_then(|key| Some((key, self.pods.get(key)?)));
        known
            .and_then(|(key, pod)| self.endpoint_of_pod(key, pod, &endpoint.address, port))
            .unwrap_or_else(|| Endpoint {
                address: endpoint.address.clone(),
                port,
                labels: Default::default(),
                identity: String::new(),
                locality: self.nodes.get(&endpoint.node).cloned().unwrap_or_default(),
                weight: 1,
                mutual_tls: false,
            })
    }

    fn endpoint_of_pod(
        &self,
        key: &Key,
        pod: &Workload,
        address: &str,
        port: u32,
    ) -> Option<Endpoint> {
        let locality = self.locality_of_pod(pod);
        Some(Endpoint {
            address: address.to_owned(),
            port,
            identity: self.identity(&key.namespace, &pod.service_account),
            locality,
            weight: 1,
            mutual_tls: pod
                .labels
                .get(TLS_MODE_LABEL)
                .is_some_and(|mode| mode == "istio"),
            labels: pod.labels.clone(),
        })
    }

    fn locality_of_pod(&self, pod: &Workload) -> Locality {
        match pod.labels.get("istio-locality") {
            // A label cannot hold slashes, so Istio writes dots.
            Some(label) => Locality::parse(&label.replace('.', "/")),
            None => self.nodes.get(&pod.node).cloned().unwrap_or_default(),
        }
    }

    /// Where a proxy runs: what the cluster knows of its pod beats what the proxy says of itself.
    pub(crate) fn locality_of(&self, proxy: &Proxy) -> Locality {
        let pod = self.workload(&proxy.namespace, &proxy.name);
        let known = pod.map(|pod| self.locality_of_pod(pod));
        known
            .filter(|place| !place.region.is_empty())
            .unwrap_or_else(|| proxy.locality.clone())
    }

    /// Identities of all workloads behind a service, on any port, sorted.
    pub fn identities(&self, service: &Service) -> BTreeSet<String> {
        let endpoints = service
            .ports
            .iter()
            .flat_map(|port| self.endpoints(service, port));
        endpoints
            .map(|endpoint| endpoint.identity)
            .filter(|identity| !identity.is_empty())
            .collect()
    }

    /// The identity of a service account.
    pub fn identity(&self, namespace: &str, account: &str) -> String {
        format!(
            "spiffe://{}/ns/{namespace}/sa/{account}",
            self.mesh.trust_domain
        )
    }

    /// The services that a proxy's own workload is behind, older ones first. Those of service entries count when they
    /// list its address or select its labels.
    pub fn services_of<'a>(&'a self, proxy: &'a Proxy) -> Vec<&'a Service> {
        let labels = self.labels_of(proxy);
        let listed = |service: &&Service| match &service.discovery {
            Discovery::Static(endpoints) => endpoints
                .iter()
                .any(|endpoint| endpoint.address == proxy.address),
            Discovery::Workloads(selector) => {
                service.namespace == proxy.namespace && labels_match(selector, labels)
            }
            _ => false,
        };
        let entries = self.entries.values().flatten().map(AsRef::as_ref);
        let mut services: Vec<&Service> = self
            .services_selecting(&proxy.namespace, labels)
            .chain(entries.filter(listed))
            .collect();
        services.sort_by(|a, b| (a.created, &a.host).cmp(&(b.created, &b.host)));
        services
    }

    /// Labels of a proxy's workload: what the cluster knows of the pod beats what the proxy says of itself.
    pub fn labels_of<'a>(&'a self, proxy: &'a Proxy) -> &'a BTreeMap<String, String> {
        self.workload(&proxy.namespace, &proxy.name)
            .map_or(&proxy.labels, |pod| &pod.labels)
    }

    /// The port of a proxy's own workload behind a port of one of its services.
    pub fn own_port(&self, proxy: &Proxy, service: &Service, port: &ServicePort) -> Option<u32> {
        if let Discovery::Static(endpoints) = &service.discovery {
            let own = endpoints
                .iter()
                .find(|endpoint| endpoint.address == proxy.address)?;
            if let Some(number) = own.ports.get(&port.name) {
                return Some(*number);
            }
        }
        target(port, self.workload(&proxy.namespace, &proxy.name))
    }

    /// Services of a namespace that select pods with these labels, sorted by name.
    pub fn services_selecting<'a>(
        &'a self,
        namespace: &'a str,
        labels: &'a BTreeMap<String, String>,
    ) -> impl Iterator<Item = &'a Service> {
        of_namespace(&self.services, namespace)
            .map(|(_, service)| service.as_ref())
            .filter(move |service| {
                service
                    .selector
                    .as_ref()
                    .is_some_and(|selector| labels_match(selector, labels))
            })
    }
}

/// The number of a target port, looked up in the pod when it is a name.
pub(crate) fn target(port: &ServicePort, pod: Option<&Workload>) -> Option<u32> {
    match &port.target {
        TargetPort::Number(number) => Some(*number),
        TargetPort::Name(name) => pod?.ports.get(name).copied(),
    }
}
