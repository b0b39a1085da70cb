//! Endpoints objects, one per Service with a selector: the older form that some clients still read.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Pod, Service,
};
use kube::core::ObjectMeta;
use parking_lot::Mutex;

use super::desired::{
    Family, addresses, families, hostname, is_headless, ports, publishes_unready, reference,
    selector, selects_pod,
};
use super::{HEADLESS_LABEL, WORKERS, change_notes, listen};
use crate::controllers::Shared;
use crate::controllers::error::Error;
use crate::controllers::meta::{Labels, ObjectKey, is_ready, is_terminal};
use crate::controllers::owners::enqueue_changed;
use crate::controllers::queue::Queue;

/// Marks objects that this controller made.
pub(super) const MANAGER_LABEL: &str = "endpoints.kubernetes.io/managed-by";
const MANAGER: &str = "endpoint-controller";
/// Most addresses of one object; the rest is only in the slices.
const ADDRESS_LIMIT: usize = 1000;

/// Services that were deleted and whose Endpoints haven't been looked at since.
type Abandoned = Mutex<HashSet<ObjectKey>>;

/// Starts the controller.
pub(super) fn start(shared: &Arc<Shared>) {
    let queue = Queue::new();
    let abandoned = Arc::new(Abandoned::default());
    // Before the key is queued by `listen`.
    let noted = Arc::clone(&abandoned);
    shared.services.on_change(move |old, new| {
        if let (Some(service), None) = (old, new) {
            noted.lock().insert(ObjectKey::of(&service.metadata));
        }
    });
    listen(shared, &queue);
    enqueue_changed(&shared.endpoints, &queue);
    shared.when_synced(async move |shared| {
        shared.services.synced().await;
        shared.pods.synced().await;
        shared.endpoints.synced().await;
        let controller = Arc::clone(&shared);
        shared.work(&queue, "endpoints", WORKERS, move |key| {
            let (shared, abandoned) = (Arc::clone(&controller), Arc::clone(&abandoned));
            async move { reconcile(&shared, &abandoned, &key).await }
        });
    });
}

async fn reconcile(shared: &Shared, abandoned: &Abandoned, key: &ObjectKey) -> Result<(), Error> {
    let present = shared.endpoints.get(key);
    let present = present.filter(|object| object.metadata.deletion_timestamp.is_none());
    let Some(service) = shared.services.get(key) else {
        // Endpoints share the name, not an owner reference, so they are removed here; those that nobody's Service ever
        // named (leader election of old clients) stay.
        let lost = abandoned.lock().contains(key);
        if let Some(object) = present.filter(|object| lost || is_ours(object)) {
            shared.endpoints.delete(&object).await?;
        }
        abandoned.lock().remove(key);
        return Ok(());
    };
    abandoned.lock().remove(key);
    if selector(&service).is_none() {
        return Ok(());
    }
    let pods = shared.pods.in_namespace(&key.namespace);
    let wanted = subsets(&service, pods.iter().map(|pod| &**pod));
    let labels = labels(&service);
    match present {
        None => {
            let object = Endpoints {
                metadata: ObjectMeta {
                    name: Some(key.name.clone()),
                    namespace: Some(key.namespace.clone()),
                    labels: Some(labels),
                    annotations: Some(change_notes()),
                    ..ObjectMeta::default()
                },
                subsets: wanted,
            };
            match shared.endpoints.create(&object).await {
                Err(error) if error.is_namespace_terminating() => Ok(()),
                outcome => outcome.map(|_| ()),
            }
        }
        Some(present) => {
            let as_is = present
                .subsets
                .as_ref()
                .filter(|subsets| !subsets.is_empty());
            if as_is == wanted.as_ref() && present.metadata.labels.as_ref() == Some(&labels) {
                return Ok(());
            }
            let mut changed = Endpoints::clone(&present);
            changed.subsets = wanted;
            changed.metadata.labels = Some(labels);
            let annotations = changed.metadata.annotations.get_or_insert_default();
            annotations.extend(change_notes());
            shared.endpoints.replace(&changed).await.map(|_| ())
        }
    }
}

fn is_ours(object: &Endpoints) -> bool {
    let labels = object.metadata.labels.as_ref();
    labels.is_some_and(|labels| labels.contains_key(MANAGER_LABEL))
}

fn labels(service: &Service) -> Labels {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS_LABEL);
    if is_headless(service) {
        labels.insert(HEADLESS_LABEL.to_owned(), String::new());
    }
    labels.insert(MANAGER_LABEL.to_owned(), MANAGER.to_owned());
    labels
}

/// The subsets for those of `pods` that the Service selects, each with its ports; None when there are none.
fn subsets<'a>(
    service: &Service,
    pods: impl Iterator<Item = &'a Pod>,
) -> Option<Vec<EndpointSubset>> {
    // Endpoints have one family only, the Service's first.
    let family = families(service).first().copied().unwrap_or(Family::V4);
    let mut subsets: BTreeMap<String, EndpointSubset> = BTreeMap::new();
    let mut total = 0;
    for pod in pods {
        let leaving = pod.metadata.deletion_timestamp.is_some();
        let shown = !is_terminal(pod) && (!leaving || publishes_unready(service));
        if !shown || !selects_pod(service, pod) || total == ADDRESS_LIMIT {
            continue;
        }
        let own = addresses(pod);
        let Some(address) = own.iter().find(|address| Family::of(address) == family) else {
            continue;
        };
        let ports: Vec<EndpointPort> = ports(service, pod)
            .into_iter()
            .map(|port| EndpointPort {
                name: port.name.filter(|name| !name.is_empty()),
                port: port.port.unwrap_or(0),
                protocol: port.protocol,
                app_protocol: port.app_protocol,
            })
            .collect();
        if ports.is_empty() && !is_headless(service) {
            continue;
        }
        total += 1;
        let address = EndpointAddress {
            ip: (*address).to_owned(),
            hostname: hostname(service, pod),
            node_name: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
            target_ref: Some(reference(pod)),
        };
        let key = serde_json::to_string(&ports).unwrap_or_default();
        let subset = subsets.entry(key).or_default();
        subset.ports = (!ports.is_empty()).then_some(ports);
        let list = if publishes_unready(service) || is_ready(pod) {
            &mut subset.addresses
        } else {
            &mut subset.not_ready_addresses
        };
        list.get_or_insert_default().push(address);
    }
    let mut subsets: Vec<EndpointSubset> = subsets.into_values().collect();
    for subset in &mut subsets {
        for list in [&mut subset.addresses, &mut subset.not_ready_addresses] {
            list.iter_mut()
                .for_each(|list| list.sort_by(|a, b| a.ip.cmp(&b.ip)));
        }
    }
    (!subsets.is_empty()).then_some(subsets)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ready_and_other_addresses_are_kept_apart() {
        let service: Service = serde_json::from_value(json!({
            "metadata": {"name": "web"},
            "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]},
        }))
        .unwrap();
        let pod = |ip: &str, ready: &str| -> Pod {
            serde_json::from_value(json!({
                "metadata": {"name": ip, "labels": {"app": "web"}},
                "spec": {"containers": []},
                "status": {"podIP": ip, "conditions": [{"type": "Ready", "status": ready}]},
            }))
            .unwrap()
        };
        let pods = [
            pod("10.0.0.2", "True"),
            pod("10.0.0.1", "True"),
            pod("10.0.0.3", "False"),
        ];
        let subsets = subsets(&service, pods.iter()).unwrap();
        let [subset] = subsets.as_slice() else {
            panic!("one subset expected: {subsets:?}");
        };
        let ips = |list: &Option<Vec<EndpointAddress>>| -> Vec<String> {
            list.iter()
                .flatten()
                .map(|address| address.ip.clone())
                .collect()
        };
        assert_eq!(ips(&subset.addresses), ["10.0.0.1", "10.0.0.2"]);
        assert_eq!(ips(&subset.not_ready_addresses), ["10.0.0.3"]);
        assert_eq!(subset.ports.as_ref().unwrap()[0].port, 8080);
        assert_eq!(super::subsets(&service, [].iter()), None);
    }
}
