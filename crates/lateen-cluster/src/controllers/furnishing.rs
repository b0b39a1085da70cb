//! What every namespace has: the ServiceAccount `default` and the ConfigMap with the cluster's CA. And what the namespace
//! `default` has: the endpoints of the Service `kubernetes`.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    ConfigMap, EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::{self as discovery, EndpointSlice};
use kube::core::ObjectMeta;
use parking_lot::Mutex;

use super::Shared;
use super::endpoints::SKIP_MIRROR_LABEL;
use super::error::Error;
use super::meta::{Labels, ObjectKey};
use super::queue::Queue;

/// Name of the ServiceAccount of pods that name none.
const ACCOUNT: &str = "default";
/// Name of the ConfigMap, known to clients in pods.
const CA_MAP: &str = "kube-root-ca.crt";
/// Its entry.
const CA_ENTRY: &str = "ca.crt";

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Work {
    /// Furnish a namespace.
    Namespace(String),
    /// Look after the Service `kubernetes`.
    ApiService,
}

/// Starts the controller.
pub(super) fn start(shared: &Arc<Shared>) {
    let queue = Queue::new();
    let last_service = Arc::new(Mutex::new(None));
    listen(shared, &queue, &last_service);
    queue.add(Work::ApiService);
    shared.when_synced(async move |shared| {
        shared.namespaces.synced().await;
        shared.accounts.synced().await;
        shared.ca_maps.synced().await;
        shared.services.synced().await;
        shared.endpoints.synced().await;
        shared.endpoint_slices.synced().await;
        let controller = Arc::clone(&shared);
        shared.work(&queue, "furnishing", 2, move |work| {
            let (shared, last_service) = (Arc::clone(&controller), Arc::clone(&last_service));
            async move {
                match work {
                    Work::Namespace(name) => furnish(&shared, &name).await,
                    Work::ApiService => keep_api_service(&shared, &last_service).await,
                }
            }
        });
    });
}

fn listen(
    shared: &Arc<Shared>,
    queue: &Arc<Queue<Work>>,
    last_service: &Arc<Mutex<Option<Arc<Service>>>>,
) {
    let to = Arc::clone(queue);
    shared.namespaces.on_change(move |_, new| {
        if let Some(name) = new.and_then(|namespace| namespace.metadata.name.clone()) {
            to.add(Work::Namespace(name));
        }
    });
    let to = Arc::clone(queue);
    shared.accounts.on_change(move |old, new| {
        if let (Some(old), None) = (old, new) {
            to.add(Work::Namespace(
                old.metadata.namespace.clone().unwrap_or_default(),
            ));
        }
    });
    let to = Arc::clone(queue);
    shared.ca_maps.on_change(move |old, new| {
        if let (Some(map), _) | (None, Some(map)) = (old, new) {
            to.add(Work::Namespace(
                map.metadata.namespace.clone().unwrap_or_default(),
            ));
        }
    });
    let (to, last) = (Arc::clone(queue), Arc::clone(last_service));
    shared.services.on_change(move |old, new| {
        if let Some(service) = old
            .or(new)
            .filter(|service| is_api_object(&service.metadata))
        {
            if new.is_none() {
                *last.lock() = Some(Arc::clone(service));
            }
            to.add(Work::ApiService);
        }
    });
    let to = Arc::clone(queue);
    shared.endpoints.on_change(move |old, new| {
        if old
            .or(new)
            .is_some_and(|object| is_api_object(&object.metadata))
        {
            to.add(Work::ApiService);
        }
    });
    let to = Arc::clone(queue);
    shared.endpoint_slices.on_change(move |old, new| {
        if old
            .or(new)
            .is_some_and(|slice| is_api_object(&slice.metadata))
        {
            to.add(Work::ApiService);
        }
    });
}

fn is_api_object(meta: &ObjectMeta) -> bool {
    meta.namespace.as_deref() == Some("default") && meta.name.as_deref() == Some("kubernetes")
}

/// Gives a namespace what it lacks.
async fn furnish(shared: &Shared, namespace: &str) -> Result<(), Error> {
    let present = shared.namespaces.get(&ObjectKey::new("", namespace));
    if present.is_none_or(|present| present.metadata.deletion_timestamp.is_some()) {
        return Ok(());
    }
    let meta = |name: &str| ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(namespace.to_owned()),
        ..ObjectMeta::default()
    };
    if shared
        .accounts
        .get(&ObjectKey::new(namespace, ACCOUNT))
        .is_none()
    {
        let account = ServiceAccount {
            metadata: meta(ACCOUNT),
            ..ServiceAccount::default()
        };
        made(shared.accounts.create(&account).await)?;
    }
    let data = Labels::from([(CA_ENTRY.to_owned(), shared.config.root_ca_pem.clone())]);
    match shared.ca_maps.get(&ObjectKey::new(namespace, CA_MAP)) {
        None => {
            let map = ConfigMap {
                metadata: ObjectMeta {
                    annotations: Some(Labels::from([(
                        "kubernetes.io/description".to_owned(),
                        "Certificates by which pods verify the API server of this cluster."
                            .to_owned(),
                    )])),
                    ..meta(CA_MAP)
                },
                data: Some(data),
                ..ConfigMap::default()
            };
            made(shared.ca_maps.create(&map).await)
        }
        Some(map) if map.data.as_ref() == Some(&data) => Ok(()),
        Some(map) => {
            let mut map = ConfigMap::clone(&map);
            map.data = Some(data);
            shared.ca_maps.replace(&map).await.map(|_| ())
        }
    }
}

/// That it is there already, or that the namespace is going away, is no error.
fn made<K>(outcome: Result<K, Error>) -> Result<(), Error> {
    match outcome {
        Err(error)
            if !error.is_already_exists()
                && !error.is_namespace_terminating()
                && !error.is_not_found() =>
        {
            Err(error)
        }
        _ => Ok(()),
    }
}

/// Brings a deleted Service `kubernetes` back, and points it to the API server.
async fn keep_api_service(
    shared: &Shared,
    last: &Mutex<Option<Arc<Service>>>,
) -> Result<(), Error> {
    let key = ObjectKey::new("default", "kubernetes");
    let lost = last.lock().take();
    if let Some(lost) = lost.filter(|_| shared.services.get(&key).is_none()) {
        let mut service = Service::clone(&lost);
        service.metadata = ObjectMeta {
            name: Some(key.name.clone()),
            namespace: Some(key.namespace.clone()),
            labels: lost.metadata.labels.clone(),
            ..ObjectMeta::default()
        };
        service.status = None;
        made(shared.services.create(&service).await)?;
    }
    let Some(address) = shared.config.api_address else {
        return Ok(());
    };
    let ip = address.ip().to_string();
    let port = i32::from(address.port());
    let subsets = vec![EndpointSubset {
        addresses: Some(vec![EndpointAddress {
            ip: ip.clone(),
            ..EndpointAddress::default()
        }]),
        ports: Some(vec![EndpointPort {
            name: Some("https".to_owned()),
            port,
            protocol: Some("TCP".to_owned()),
            app_protocol: None,
        }]),
        not_ready_addresses: None,
    }];
    let endpoints = Endpoints {
        metadata: meta_of(&key, SKIP_MIRROR_LABEL, "true"),
        subsets: Some(subsets),
    };
    match shared.endpoints.get(&key) {
        None => made(shared.endpoints.create(&endpoints).await)?,
        Some(present) if present.subsets == endpoints.subsets => {}
        Some(present) => {
            let mut changed = Endpoints::clone(&present);
            changed.subsets = endpoints.subsets;
            shared.endpoints.replace(&changed).await?;
        }
    }
    let slice = EndpointSlice {
        metadata: meta_of(&key, "kubernetes.io/service-name", "kubernetes"),
        address_type: if address.is_ipv6() { "IPv6" } else { "IPv4" }.to_owned(),
        endpoints: Some(vec![discovery::Endpoint {
            addresses: vec![ip],
            conditions: Some(discovery::EndpointConditions {
                ready: Some(true),
                ..Default::default()
            }),
            ..Default::default()
        }]),
        ports: Some(vec![discovery::EndpointPort {
            name: Some("https".to_owned()),
            port: Some(port),
            protocol: Some("TCP".to_owned()),
            app_protocol: None,
        }]),
    };
    match shared.endpoint_slices.get(&key) {
        None => made(shared.endpoint_slices.create(&slice).await),
        Some(present) if present.endpoints == slice.endpoints && present.ports == slice.ports => {
            Ok(())
        }
        Some(present) => {
            let mut changed = EndpointSlice::clone(&present);
            changed.endpoints = slice.endpoints;
            changed.ports = slice.ports;
            shared.endpoint_slices.replace(&changed).await.map(|_| ())
        }
    }
}

fn meta_of(key: &ObjectKey, label: &str, value: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(key.name.clone()),
        namespace: Some(key.namespace.clone()),
        labels: Some(Labels::from([(label.to_owned(), value.to_owned())])),
        ..ObjectMeta::default()
    }
}
