//! Slices for Endpoints that someone made by hand, for a Service without a selector.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{EndpointAddress, Endpoints};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort};

use super::desired::{Family, Groups};
use super::slices::{Common, MANAGER_LABEL, SERVICE_LABEL, plan};
use super::{WORKERS, carry_out, enqueue_managed, legacy, present};
use crate::controllers::Shared;
use crate::controllers::error::Error;
use crate::controllers::meta::{Labels, ObjectKey, controller_reference};
use crate::controllers::owners::enqueue_changed;
use crate::controllers::queue::Queue;

const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
/// Label by which Endpoints ask not to be mirrored.
pub(in crate::controllers) const SKIP_LABEL: &str = "endpointslice.kubernetes.io/skip-mirror";
/// Annotation of Endpoints that old clients used as a lock.
const LEADER_ANNOTATION: &str = "control-plane.alpha.kubernetes.io/leader";

/// Starts the controller.
pub(super) fn start(shared: &Arc<Shared>) {
    let queue = Queue::new();
    enqueue_changed(&shared.endpoints, &queue);
    enqueue_changed(&shared.services, &queue);
    enqueue_managed(shared, &queue, MANAGER);
    shared.when_synced(async move |shared| {
        shared.services.synced().await;
        shared.endpoints.synced().await;
        shared.endpoint_slices.synced().await;
        let controller = Arc::clone(&shared);
        shared.work(&queue, "endpointslicemirroring", WORKERS, move |key| {
            let shared = Arc::clone(&controller);
            async move { reconcile(&shared, &key).await }
        });
    });
}

async fn reconcile(shared: &Shared, key: &ObjectKey) -> Result<(), Error> {
    let endpoints = shared.endpoints.get(key);
    let service = shared.services.get(key);
    let selects = service.as_ref().is_some_and(|service| {
        service.spec.as_ref().is_some_and(|spec| {
            spec.selector
                .as_ref()
                .is_some_and(|selector| !selector.is_empty())
        })
    });
    let slices = present(shared, key, MANAGER);
    let mirrored = endpoints.filter(|object| service.is_some() && !selects && is_mirrored(object));
    let Some(endpoints) = mirrored else {
        for slice in &slices {
            shared.endpoint_slices.delete(slice).await?;
        }
        return Ok(());
    };
    let mut labels = endpoints.metadata.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_LABEL.to_owned(), key.name.clone());
    labels.insert(MANAGER_LABEL.to_owned(), MANAGER.to_owned());
    let common = Common {
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        labels,
        owner: controller_reference(&*endpoints),
        notes: Labels::new(),
    };
    for family in [Family::V4, Family::V6] {
        let of_family: Vec<_> = slices
            .iter()
            .filter(|slice| slice.address_type == family.name())
            .cloned()
            .collect();
        let groups = groups(&endpoints, family);
        // Unlike for a selector, no addresses means no slice.
        if groups.is_empty() {
            for slice in &of_family {
                shared.endpoint_slices.delete(slice).await?;
            }
        } else {
            carry_out(shared, plan(&common, family, groups, &of_family)).await?;
        }
    }
    Ok(())
}

fn is_mirrored(endpoints: &Endpoints) -> bool {
    let meta = &endpoints.metadata;
    let label = |name: &str| meta.labels.as_ref().and_then(|labels| labels.get(name));
    let leader = meta
        .annotations
        .as_ref()
        .is_some_and(|annotations| annotations.contains_key(LEADER_ANNOTATION));
    meta.deletion_timestamp.is_none()
        && label(SKIP_LABEL).map(String::as_str) != Some("true")
        && label(legacy::MANAGER_LABEL).is_none()
        && !leader
}

fn groups(endpoints: &Endpoints, family: Family) -> Groups {
    let mut groups = Groups::new();
    for subset in endpoints.subsets.iter().flatten() {
        let ports: Vec<EndpointPort> = subset
            .ports
            .iter()
            .flatten()
            .map(|port| EndpointPort {
                name: Some(port.name.clone().unwrap_or_default()),
                port: Some(port.port),
                protocol: port.protocol.clone(),
                app_protocol: port.app_protocol.clone(),
            })
            .collect();
        let key = serde_json::to_string(&ports).unwrap_or_default();
        let ready = subset
            .addresses
            .iter()
            .flatten()
            .map(|address| (address, true));
        let others = subset.not_ready_addresses.iter().flatten();
        for (address, ready) in ready.chain(others.map(|address| (address, false))) {
            if Family::of(&address.ip) == family {
                let group = groups.entry(key.clone()).or_default();
                group.ports.clone_from(&ports);
                group.endpoints.push(endpoint(address, ready));
            }
        }
    }
    groups
}

fn endpoint(address: &EndpointAddress, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            ..EndpointConditions::default()
        }),
        hostname: address.hostname.clone(),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}
