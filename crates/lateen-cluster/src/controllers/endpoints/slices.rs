//! Spreads endpoints over EndpointSlices with as few changes as possible. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::core::ObjectMeta;

use super::desired::{Family, Groups};
use crate::controllers::meta::{Labels, controller_of};

/// Most endpoints of one slice, as in Kubernetes: beyond that a change costs every watcher too much.
const SLICE_LIMIT: usize = 100;
/// The label that says which Service a slice belongs to.
pub(super) const SERVICE_LABEL: &str = "kubernetes.io/service-name";
/// The label that says whose a slice is.
pub(super) const MANAGER_LABEL: &str = "endpointslice.kubernetes.io/managed-by";

/// What all slices of one owner have in common.
#[derive(Debug, Clone)]
pub(super) struct Common {
    /// Namespace of the slices.
    pub(super) namespace: String,
    /// Name of the Service (or Endpoints), from which the slices' names are generated.
    pub(super) name: String,
    /// All labels.
    pub(super) labels: Labels,
    /// The owner.
    pub(super) owner: OwnerReference,
    /// Annotations that a slice gets when its endpoints change.
    pub(super) notes: Labels,
}

/// What has to be done to the slices.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Plan {
    pub(super) create: Vec<EndpointSlice>,
    pub(super) replace: Vec<EndpointSlice>,
    pub(super) delete: Vec<Arc<EndpointSlice>>,
}

/// Compares the slices that are there with the endpoints that there should be.
pub(super) fn plan(
    common: &Common,
    family: Family,
    mut groups: Groups,
    present: &[Arc<EndpointSlice>],
) -> Plan {
    let mut plan = Plan::default();
    // Without endpoints there still is a slice, so that a client can tell "none" from "not yet known".
    if groups.is_empty() {
        groups.insert(String::new(), Default::default());
    }
    let mut by_ports: BTreeMap<String, Vec<Arc<EndpointSlice>>> = BTreeMap::new();
    for slice in present {
        let ours =
            controller_of(&slice.metadata).is_some_and(|owner| owner.uid == common.owner.uid);
        let ports = slice.ports.as_deref().unwrap_or_default();
        let key = if ports.is_empty() && groups.contains_key("") {
            String::new()
        } else {
            serde_json::to_string(ports).unwrap_or_default()
        };
        if ours && slice.address_type == family.name() && groups.contains_key(&key) {
            by_ports.entry(key).or_default().push(Arc::clone(slice));
        } else {
            plan.delete.push(Arc::clone(slice));
        }
    }
    for (key, group) in groups {
        let slices = by_ports.remove(&key).unwrap_or_default();
        let ports = (!group.ports.is_empty()).then_some(group.ports);
        let new = EndpointSlice {
            address_type: family.name().to_owned(),
            metadata: ObjectMeta {
                generate_name: Some(format!("{}-", common.name)),
                namespace: Some(common.namespace.clone()),
                labels: Some(common.labels.clone()),
                annotations: (!common.notes.is_empty()).then(|| common.notes.clone()),
                owner_references: Some(vec![common.owner.clone()]),
                ..ObjectMeta::default()
            },
            ports,
            endpoints: None,
        };
        fill(&mut plan, common, &new, group.endpoints, &slices);
    }
    recycle(&mut plan, common);
    plan
}

/// Turns a deletion and a creation into a replacement: one write, and the name stays.
fn recycle(plan: &mut Plan, common: &Common) {
    while let Some(new) = plan.create.pop() {
        let reusable = plan.delete.iter().position(|slice| {
            let owner = controller_of(&slice.metadata);
            slice.address_type == new.address_type
                && owner.is_some_and(|owner| owner.uid == common.owner.uid)
        });
        let Some(position) = reusable else {
            plan.create.push(new);
            return;
        };
        let mut slice = EndpointSlice::clone(&plan.delete.remove(position));
        slice.metadata.labels = new.metadata.labels;
        slice.ports = new.ports;
        slice.endpoints = new.endpoints;
        note(&mut slice, common);
        plan.replace.push(slice);
    }
}

fn note(slice: &mut EndpointSlice, common: &Common) {
    if !common.notes.is_empty() {
        let annotations = slice.metadata.annotations.get_or_insert_default();
        annotations.extend(common.notes.clone());
    }
}

/// Deals out the endpoints of one group: each stays in its slice, new ones fill gaps, the rest goes to new slices.
fn fill(
    plan: &mut Plan,
    common: &Common,
    new: &EndpointSlice,
    endpoints: Vec<Endpoint>,
    slices: &[Arc<EndpointSlice>],
) {
    let mut wanted: BTreeMap<String, Endpoint> = endpoints
        .into_iter()
        .map(|endpoint| (identity(&endpoint), endpoint))
        .collect();
    let mut kept: Vec<(Arc<EndpointSlice>, Vec<Endpoint>)> = slices
        .iter()
        .map(|slice| {
            let present = slice.endpoints.iter().flatten();
            let stay = present.filter_map(|endpoint| wanted.remove(&identity(endpoint)));
            (Arc::clone(slice), stay.collect())
        })
        .collect();
    let mut rest: Vec<Endpoint> = wanted.into_values().collect();
    // The fullest first, so that few slices have gaps.
    kept.sort_by_key(|(_, endpoints)| std::cmp::Reverse(endpoints.len()));
    let mut any = false;
    for (slice, mut endpoints) in kept {
        let room = SLICE_LIMIT.saturating_sub(endpoints.len()).min(rest.len());
        endpoints.extend(rest.drain(..room));
        if endpoints.is_empty() && (any || new.ports.is_some()) {
            plan.delete.push(slice);
            continue;
        }
        any = true;
        let endpoints = (!endpoints.is_empty()).then_some(endpoints);
        let present = slice.endpoints.as_ref().filter(|list| !list.is_empty());
        if endpoints.as_ref() != present || slice.metadata.labels.as_ref() != Some(&common.labels) {
            let mut changed = EndpointSlice::clone(&slice);
            changed.endpoints = endpoints;
            changed.metadata.labels = Some(common.labels.clone());
            note(&mut changed, common);
            plan.replace.push(changed);
        }
    }
    for chunk in rest.chunks(SLICE_LIMIT) {
        any = true;
        plan.create.push(EndpointSlice {
            endpoints: Some(chunk.to_vec()),
            ..new.clone()
        });
    }
    if !any {
        plan.create.push(new.clone());
    }
}

/// What makes two endpoints the same one: the pod, or the address when there is none.
fn identity(endpoint: &Endpoint) -> String {
    let pod = endpoint.target_ref.as_ref();
    let uid = pod.and_then(|pod| pod.uid.as_deref()).unwrap_or_default();
    format!("{} {uid}", endpoint.addresses.join(","))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::discovery::v1::EndpointPort;

    use super::super::desired::Group;
    use super::*;

    fn common() -> Common {
        Common {
            namespace: "n".to_owned(),
            name: "web".to_owned(),
            labels: Labels::from([(SERVICE_LABEL.to_owned(), "web".to_owned())]),
            owner: OwnerReference {
                uid: "owner".to_owned(),
                controller: Some(true),
                ..OwnerReference::default()
            },
            notes: Labels::new(),
        }
    }

    /// A port, and the numbers of the addresses that have it.
    type PortAddresses = (i32, std::ops::Range<usize>);

    fn groups(ports: &[PortAddresses]) -> Groups {
        ports
            .iter()
            .map(|(port, numbers)| {
                let ports = vec![EndpointPort {
                    port: Some(*port),
                    ..EndpointPort::default()
                }];
                let key = serde_json::to_string(&ports).unwrap();
                let endpoints = numbers
                    .clone()
                    .map(|number| Endpoint {
                        addresses: vec![format!("10.0.0.{number}")],
                        ..Endpoint::default()
                    })
                    .collect();
                (key, Group { ports, endpoints })
            })
            .collect()
    }

    /// Applies the plan; returns the slices and `created/replaced/deleted`.
    fn step(
        number: usize,
        present: &[Arc<EndpointSlice>],
        groups: Groups,
    ) -> (Vec<Arc<EndpointSlice>>, String) {
        let plan = plan(&common(), Family::V4, groups, present);
        let (made, changed, gone) = (plan.create.len(), plan.replace.len(), plan.delete.len());
        let mut next: Vec<_> = present
            .iter()
            .filter(|slice| !plan.delete.contains(slice))
            .filter(|slice| {
                plan.replace
                    .iter()
                    .all(|changed| changed.metadata.name != slice.metadata.name)
            })
            .cloned()
            .collect();
        for (index, mut slice) in plan.create.into_iter().enumerate() {
            slice.metadata.name = Some(format!("s{number}-{index}"));
            next.push(Arc::new(slice));
        }
        next.extend(plan.replace.into_iter().map(Arc::new));
        (next, format!("{made}/{changed}/{gone}"))
    }

    fn sizes(slices: &[Arc<EndpointSlice>]) -> Vec<usize> {
        let mut sizes: Vec<usize> = slices
            .iter()
            .map(|slice| slice.endpoints.as_ref().map_or(0, Vec::len))
            .collect();
        sizes.sort_unstable();
        sizes
    }

    #[test]
    fn slices_change_as_little_as_possible() {
        let mut slices = Vec::new();
        let steps: [(&[PortAddresses], &str, &[usize]); 8] = [
            (&[], "1/0/0", &[0]),
            (&[], "0/0/0", &[0]),
            (&[(80, 0..3)], "0/1/0", &[3]),
            (&[(80, 0..3)], "0/0/0", &[3]),
            (&[(80, 0..150)], "1/1/0", &[50, 100]),
            (&[(80, 1..150)], "0/1/0", &[50, 99]),
            (&[(80, 1..150), (81, 150..152)], "1/0/0", &[2, 50, 99]),
            (&[], "0/1/2", &[0]),
        ];
        for (number, (ports, expected, expected_sizes)) in steps.into_iter().enumerate() {
            let (next, done) = step(number, &slices, groups(ports));
            assert_eq!(done, expected, "{ports:?}");
            assert_eq!(sizes(&next), expected_sizes, "{ports:?}");
            slices = next;
        }
    }

    #[test]
    fn slices_of_a_former_service_of_that_name_go() {
        let (slices, _) = step(0, &[], groups(&[(80, 0..1)]));
        let mut other = EndpointSlice::clone(&slices[0]);
        other.metadata.owner_references.as_mut().unwrap()[0].uid = "former".to_owned();
        let (_, done) = step(1, &[Arc::new(other)], groups(&[(80, 0..1)]));
        assert_eq!(done, "1/0/1");
    }
}
