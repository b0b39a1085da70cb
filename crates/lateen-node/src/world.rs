//! What the node knows of services: kept by watches, read by DNS, service rules, the host's
//! listeners, and containers' environments.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource};
use parking_lot::RwLock;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

/// Label of an EndpointSlice that names its service.
pub(crate) const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Pause before a broken watch is tried again. The API server is in this process: it either
/// answers or ends with us.
const RETRY: Duration = Duration::from_millis(250);

/// Namespace and name.
pub(crate) type Key = (String, String);

/// Services and their endpoints.
#[derive(Debug)]
pub(crate) struct World {
    services: RwLock<Kind<Service>>,
    slices: RwLock<Kind<EndpointSlice>>,
    changed: watch::Sender<u64>,
}

#[derive(Debug)]
struct Kind<K> {
    objects: BTreeMap<Key, Arc<K>>,
    complete: bool,
}

impl<K> Default for Kind<K> {
    fn default() -> Self {
        Self {
            objects: BTreeMap::new(),
            complete: false,
        }
    }
}

impl World {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            services: RwLock::default(),
            slices: RwLock::default(),
            changed: watch::Sender::new(0),
        })
    }

    /// Follows the API for ever.
    pub(crate) async fn follow(self: Arc<Self>, client: Client) {
        let services = follow(client.clone(), |event| self.apply(&self.services, event));
        let slices = follow(client, |event| self.apply(&self.slices, event));
        tokio::join!(services, slices);
    }

    /// A receiver that sees a new number after each change, and after the first complete lists.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Waits until both kinds were listed completely once.
    pub(crate) async fn complete(&self) {
        let mut changes = self.changes();
        // The sender lives in `self`, so the wait cannot fail.
        let _ = changes
            .wait_for(|_| self.services.read().complete && self.slices.read().complete)
            .await;
    }

    /// All services, by namespace and name.
    pub(crate) fn services(&self) -> Vec<Arc<Service>> {
        self.services.read().objects.values().cloned().collect()
    }

    /// One service.
    pub(crate) fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>> {
        self.services
            .read()
            .objects
            .get(&(namespace.to_owned(), name.to_owned()))
            .cloned()
    }

    /// The slices of a service.
    pub(crate) fn slices(&self, namespace: &str, name: &str) -> Vec<Arc<EndpointSlice>> {
        let slices = self.slices.read();
        let of_service = slices
            .objects
            .range((namespace.to_owned(), String::new())..);
        of_service
            .take_while(|((of, _), _)| of == namespace)
            .filter(|(_, slice)| service_of(slice) == Some(name))
            .map(|(_, slice)| slice.clone())
            .collect()
    }

    /// A world with these objects, for tests.
    #[cfg(test)]
    pub(crate) fn with(services: Vec<Service>, slices: Vec<EndpointSlice>) -> Arc<Self> {
        let world = Self::new();
        world.apply(&world.services, Change::All(services));
        world.apply(&world.slices, Change::All(slices));
        world
    }

    fn apply<K: Resource>(&self, kind: &RwLock<Kind<K>>, change: Change<K>) {
        {
            let mut kind = kind.write();
            match change {
                Change::All(objects) => {
                    kind.objects = objects.into_iter().filter_map(keyed).collect();
                    kind.complete = true;
                }
                Change::Put(object) => kind.objects.extend(keyed(object)),
                Change::Gone(object) => {
                    if let Some((key, _)) = keyed(object) {
                        kind.objects.remove(&key);
                    }
                }
            }
        }
        self.changed.send_modify(|number| *number += 1);
    }
}

/// The service that a slice belongs to.
pub(crate) fn service_of(slice: &EndpointSlice) -> Option<&str> {
    slice
        .metadata
        .labels
        .as_ref()?
        .get(SERVICE_NAME)
        .map(String::as_str)
}

/// A step of a followed kind.
pub(crate) enum Change<K> {
    /// This is the complete set now.
    All(Vec<K>),
    /// The object was made or changed.
    Put(K),
    /// The object was deleted.
    Gone(K),
}

/// Calls `apply` with everything that happens to a kind, in all namespaces, for ever.
pub(crate) async fn follow<K>(client: Client, mut apply: impl FnMut(Change<K>))
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    K::DynamicType: Default,
{
    let mut listed = Vec::new();
    let mut events = std::pin::pin!(watcher(Api::<K>::all(client), watcher::Config::default()));
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed = Vec::new(),
            Ok(Event::InitApply(object)) => listed.push(object),
            Ok(Event::InitDone) => apply(Change::All(std::mem::take(&mut listed))),
            Ok(Event::Apply(object)) => apply(Change::Put(object)),
            Ok(Event::Delete(object)) => apply(Change::Gone(object)),
            Err(error) => {
                tracing::warn!(%error, kind = %K::kind(&K::DynamicType::default()), "watch broke");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

fn keyed<K: Resource>(object: K) -> Option<(Key, Arc<K>)> {
    let meta = object.meta();
    let key = (
        meta.namespace.clone().unwrap_or_default(),
        meta.name.clone()?,
    );
    Some((key, Arc::new(object)))
}
