//! Endpoints of Services: EndpointSlices, the older Endpoints, and slices that mirror hand-made Endpoints.

mod desired;
mod legacy;
mod mirror;
mod slices;

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;

pub(super) use self::mirror::SKIP_LABEL as SKIP_MIRROR_LABEL;

use self::desired::{Facts, is_headless, selects_pod};
use self::slices::{Common, MANAGER_LABEL, Plan, SERVICE_LABEL, plan};
use super::Shared;
use super::error::Error;
use super::meta::{Labels, ObjectKey, controller_reference, now};
use super::owners::enqueue_changed;
use super::queue::Queue;

const WORKERS: usize = 4;
/// Manager of the slices that this controller makes.
const MANAGER: &str = "endpointslice-controller.k8s.io";
/// When the endpoints last changed.
const CHANGE_ANNOTATION: &str = "endpoints.kubernetes.io/last-change-trigger-time";
/// Marks the endpoints of Services without an address of their own.
const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";

/// Starts the controllers.
pub(super) fn start(shared: &Arc<Shared>) {
    let queue = Queue::new();
    listen(shared, &queue);
    enqueue_managed(shared, &queue, MANAGER);
    shared.when_synced(async move |shared| {
        shared.services.synced().await;
        shared.pods.synced().await;
        shared.endpoint_slices.synced().await;
        shared.nodes.synced().await;
        let controller = Arc::clone(&shared);
        shared.work(&queue, "endpointslice", WORKERS, move |key| {
            let shared = Arc::clone(&controller);
            async move { reconcile(&shared, &key).await }
        });
    });
    legacy::start(shared);
    mirror::start(shared);
}

/// Turns changes of Services and pods into keys of Services.
fn listen(shared: &Arc<Shared>, queue: &Arc<Queue<ObjectKey>>) {
    enqueue_changed(&shared.services, queue);
    let (to, services) = (Arc::clone(queue), Arc::clone(&shared.services));
    shared.pods.on_change(move |old, new| {
        if old.map(|pod| Facts::of(pod)) == new.map(|pod| Facts::of(pod)) {
            return;
        }
        let Some(pod) = new.or(old) else { return };
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        for service in services.in_namespace(namespace) {
            let selected =
                |pod: Option<&Arc<Pod>>| pod.is_some_and(|pod| selects_pod(&service, pod));
            if selected(old) || selected(new) {
                to.add(ObjectKey::of(&service.metadata));
            }
        }
    });
}

/// Turns changes of the slices that `manager` makes into keys of what it makes them for.
fn enqueue_managed(shared: &Shared, queue: &Arc<Queue<ObjectKey>>, manager: &'static str) {
    let to = Arc::clone(queue);
    shared.endpoint_slices.on_change(move |old, new| {
        for slice in old.into_iter().chain(new) {
            if let Some(key) = managed(slice, manager) {
                to.add(key);
            }
        }
    });
}

/// The key of the Service (or Endpoints) for which `manager` made the slice.
fn managed(slice: &EndpointSlice, manager: &str) -> Option<ObjectKey> {
    let labels = slice.metadata.labels.as_ref()?;
    if labels.get(MANAGER_LABEL).map(String::as_str) != Some(manager) {
        return None;
    }
    let service = labels.get(SERVICE_LABEL)?;
    let namespace = slice.metadata.namespace.clone().unwrap_or_default();
    Some(ObjectKey::new(namespace, service.clone()))
}

/// The slices that `manager` made for a Service.
fn present(shared: &Shared, key: &ObjectKey, manager: &str) -> Vec<Arc<EndpointSlice>> {
    let mut slices = shared.endpoint_slices.indexed(&key.to_string());
    slices.retain(|slice| managed(slice, manager).is_some());
    // Those that are on their way out are as good as gone.
    slices.retain(|slice| slice.metadata.deletion_timestamp.is_none());
    slices
}

async fn reconcile(shared: &Shared, key: &ObjectKey) -> Result<(), Error> {
    // The slices of a deleted Service are garbage, by their owner reference.
    let Some(service) = shared.services.get(key) else {
        return Ok(());
    };
    if desired::selector(&service).is_none() || service.metadata.deletion_timestamp.is_some() {
        return Ok(());
    }
    let common = common(&service, key);
    let pods = shared.pods.in_namespace(&key.namespace);
    let families = desired::families(&service);
    let mut slices = present(shared, key, MANAGER);
    let zone_of = |node: &str| zone(shared, node);
    for family in families {
        let (of_family, others) = slices
            .into_iter()
            .partition::<Vec<_>, _>(|slice| slice.address_type == family.name());
        slices = others;
        let pods = pods.iter().map(|pod| &**pod);
        let groups = desired::groups(&service, pods, family, &zone_of);
        carry_out(shared, plan(&common, family, groups, &of_family)).await?;
    }
    // What is left belongs to a family that the Service no longer has.
    for slice in slices {
        shared.endpoint_slices.delete(&slice).await?;
    }
    Ok(())
}

fn common(service: &Service, key: &ObjectKey) -> Common {
    let mut labels: Labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS_LABEL);
    if is_headless(service) {
        labels.insert(HEADLESS_LABEL.to_owned(), String::new());
    }
    labels.insert(SERVICE_LABEL.to_owned(), key.name.clone());
    labels.insert(MANAGER_LABEL.to_owned(), MANAGER.to_owned());
    Common {
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        labels,
        owner: controller_reference(service),
        notes: change_notes(),
    }
}

/// The annotation that tells how long a change took to reach a client.
fn change_notes() -> Labels {
    let time = now().0.to_string();
    Labels::from([(CHANGE_ANNOTATION.to_owned(), time)])
}

fn zone(shared: &Shared, node: &str) -> Option<String> {
    let node = shared.nodes.get(&ObjectKey::new("", node))?;
    let labels = node.metadata.labels.as_ref()?;
    labels.get("topology.kubernetes.io/zone").cloned()
}

/// Writes the changes: new slices first, so that no endpoint is missing in between.
async fn carry_out(shared: &Shared, plan: Plan) -> Result<(), Error> {
    for slice in &plan.create {
        match shared.endpoint_slices.create(slice).await {
            Err(error) if error.is_namespace_terminating() => return Ok(()),
            outcome => outcome?,
        };
    }
    for slice in &plan.replace {
        shared.endpoint_slices.replace(slice).await?;
    }
    for slice in &plan.delete {
        shared.endpoint_slices.delete(slice).await?;
    }
    Ok(())
}
