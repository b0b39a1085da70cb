//! Changes of the workloads behind services: nodes, pods, endpoint slices, workloads outside of Kubernetes.

use std::collections::BTreeMap;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use lateen_api::{WorkloadEntry, common::labels_match};
use lateen_xds::ResourceType;

use super::{
    Index,
    service::Discovery,
    update::{put, put_object},
    workload::{Locality, Slice, Workload},
};
use crate::{Impact, Key, Scope};

/// Label of an endpoint slice that names its service.
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

impl Index {
    /// Sets or removes a node, by which the places of its pods are known.
    pub(super) fn set_node(&mut self, name: String, locality: Option<Locality>) -> Impact {
        let old = put(&mut self.nodes, name.clone(), locality.clone());
        if old.unwrap_or_default() == locality.unwrap_or_default() {
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

    /// Sets or removes a pod.
    pub(super) fn set_pod(&mut self, key: Key, pod: Option<Workload>) -> Impact {
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

    /// Sets or removes an endpoint slice.
    pub(super) fn set_endpoint_slice(&mut self, key: Key, slice: Option<&EndpointSlice>) -> Impact {
        let owner = slice.and_then(|slice| {
            let labels = slice.metadata.labels.as_ref()?;
            Some(Key::new(&*key.namespace, labels.get(SERVICE_NAME_LABEL)?))
        });
        let slice = slice.map(Slice::of);
        let old_owner = self.slice_owners.get(&key).cloned();
        if let (Some(owner), Some(slice)) = (&owner, &slice)
            && old_owner.as_ref() == Some(owner)
            && self
                .slices
                .get(owner)
                .and_then(|slices| slices.get(&key.name))
                == Some(slice)
        {
            return Impact::none();
        }
        let mut impact = Impact::none();
        if let Some(owner) = &old_owner {
            impact.merge(self.touched_by_slice(owner));
            if let Some(slices) = self.slices.get_mut(owner) {
                slices.remove(&key.name);
                if slices.is_empty() {
                    self.slices.remove(owner);
                }
            }
        }
        if let (Some(owner), Some(slice)) = (&owner, slice) {
            let slices = self.slices.entry(owner.clone()).or_default();
            slices.insert(key.name.clone(), slice);
        }
        put(&mut self.slice_owners, key, owner.clone());
        for owner in old_owner.iter().chain(&owner) {
            impact.merge(self.touched_by_slice(owner));
        }
        impact
    }

    /// Sets or removes a workload outside of Kubernetes: services that selected it, or do now, have other endpoints.
    pub(super) fn set_workload_entry(&mut self, key: Key, entry: Option<WorkloadEntry>) -> Impact {
        let mut impact = self.services_with_entry(&key);
        if !put_object(&mut self.workload_entries, key.clone(), entry) {
            return Impact::none();
        }
        impact.merge(self.services_with_entry(&key));
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
        impact.merge(self.entries_selecting(&key.namespace, &pod.labels));
        impact
    }

    /// Services that have a workload outside of Kubernetes among their endpoints.
    fn services_with_entry(&self, key: &Key) -> Impact {
        let mut impact = Impact::none();
        let Some(entry) = self.workload_entries.get(key) else {
            return impact;
        };
        let labels = &entry.spec.labels;
        for service in self.services_selecting(&key.namespace, labels) {
            impact.merge(self.touched_by_slice(&service.key()));
        }
        impact.merge(self.entries_selecting(&key.namespace, labels));
        impact
    }

    /// Service entries that select workloads of a namespace with these labels.
    fn entries_selecting(&self, namespace: &str, labels: &BTreeMap<String, String>) -> Impact {
        let mut impact = Impact::none();
        for service in self.entries.values().flatten() {
            let selected = matches!(&service.discovery, Discovery::Workloads(wanted) if labels_match(wanted, labels));
            if selected && service.namespace == namespace {
                impact.merge(Impact::endpoints(&*service.host));
            }
        }
        impact
    }
}
