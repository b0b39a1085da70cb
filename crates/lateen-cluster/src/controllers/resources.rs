//! All resources that the server serves, with a watch on the metadata of each: what garbage collection and the deletion
//! of namespaces work on.
//!
//! Built-in resources are found by discovery, once. Those of CustomResourceDefinitions come and go with these.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, DynamicObject};
use kube::core::{ObjectMeta, PartialObjectMeta};
use kube::discovery::{Discovery, Scope, verbs};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use parking_lot::RwLock;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::cache::Cache;
use super::error::Error;
use super::meta::ObjectKey;

/// Delay before discovery is tried again.
const DISCOVERY_RETRY: Duration = Duration::from_millis(200);
/// How long collection waits for the first lists. Later is no harm: every owner is asked for by name before its
/// dependents are deleted.
const SYNC_LIMIT: Duration = Duration::from_secs(10);

/// One served resource, in one of its versions.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Served {
    pub(super) api: ApiResource,
    pub(super) namespaced: bool,
    /// Whether all objects of a namespace can be deleted in one request.
    pub(super) deletes_collections: bool,
}

impl Served {
    /// The objects of a namespace; of a cluster-scoped resource, all.
    pub(super) fn objects(&self, client: &Client, namespace: &str) -> Api<DynamicObject> {
        if self.namespaced {
            Api::namespaced_with(client.clone(), namespace, &self.api)
        } else {
            Api::all_with(client.clone(), &self.api)
        }
    }

    /// `plural.group`, or `plural.` for the core group: the form of Kubernetes' messages about namespaces.
    pub(super) fn qualified(&self) -> String {
        format!("{}.{}", self.api.plural, self.api.group)
    }

    /// The metadata of an object, from the server; None when there is no such object.
    pub(super) async fn metadata(
        &self,
        client: &Client,
        key: &ObjectKey,
    ) -> Result<Option<ObjectMeta>, Error> {
        let api = self.objects(client, &key.namespace);
        match api.get_metadata_opt(&key.name).await {
            Ok(found) => Ok(found.map(|object| object.metadata)),
            Err(source) => Err(Error::Read {
                kind: self.api.kind.clone(),
                key: key.clone(),
                source: Box::new(source),
            }),
        }
    }
}

/// Group and plural name.
type Name = (String, String);
/// Called with an object's resource and metadata, and whether the object is gone.
type ObjectListener = Box<dyn Fn(&Arc<Served>, &ObjectMeta, bool) + Send + Sync>;

/// The served resources and their watches.
pub(super) struct Resources {
    client: Client,
    tasks: TaskTracker,
    stop: CancellationToken,
    rows: RwLock<BTreeMap<Name, (Arc<Served>, CancellationToken)>>,
    on_object: RwLock<Vec<ObjectListener>>,
    on_rows: RwLock<Vec<Box<dyn Fn() + Send + Sync>>>,
    discovered: watch::Sender<bool>,
    /// Watches whose first list isn't in yet.
    unsynced: watch::Sender<usize>,
}

impl Resources {
    pub(super) fn new(client: Client, tasks: &TaskTracker, stop: &CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            client,
            tasks: tasks.clone(),
            stop: stop.clone(),
            rows: RwLock::default(),
            on_object: RwLock::default(),
            on_rows: RwLock::default(),
            discovered: watch::Sender::new(false),
            unsynced: watch::Sender::new(0),
        })
    }

    /// Calls `listener` for every object that is there, comes, changes or goes.
    pub(super) fn on_object(
        &self,
        listener: impl Fn(&Arc<Served>, &ObjectMeta, bool) + Send + Sync + 'static,
    ) {
        self.on_object.write().push(Box::new(listener));
    }

    /// Calls `listener` when resources were added.
    pub(super) fn on_rows(&self, listener: impl Fn() + Send + Sync + 'static) {
        self.on_rows.write().push(Box::new(listener));
    }

    /// Begins with discovery and follows the definitions in `definitions`.
    pub(super) fn run(self: &Arc<Self>, definitions: &Arc<Cache<CustomResourceDefinition>>) {
        let resources = Arc::clone(self);
        definitions.on_change(move |old, new| match (old, new) {
            (_, Some(new)) => match of_definition(new) {
                Some(served) => resources.add(served),
                None => resources.remove(&name_of(new)),
            },
            (Some(old), None) => resources.remove(&name_of(old)),
            (None, None) => {}
        });
        let resources = Arc::clone(self);
        self.tasks.spawn(async move {
            loop {
                let found = tokio::select! {
                    () = resources.stop.cancelled() => return,
                    found = resources.discover() => found,
                };
                match found {
                    Ok(()) => return,
                    Err(error) => tracing::warn!(%error, "trying again"),
                }
                tokio::time::sleep(DISCOVERY_RETRY).await;
            }
        });
    }

    async fn discover(self: &Arc<Self>) -> Result<(), Error> {
        let found = Discovery::new(self.client.clone())
            .run_aggregated()
            .await
            .map_err(|source| Error::Discover(Box::new(source)))?;
        let served: Vec<Served> = found
            .groups()
            .flat_map(|group| group.recommended_resources())
            .filter(|(_, can)| {
                [verbs::LIST, verbs::WATCH, verbs::DELETE]
                    .iter()
                    .all(|verb| can.supports_operation(verb))
            })
            .map(|(api, can)| Served {
                namespaced: can.scope == Scope::Namespaced,
                deletes_collections: can.supports_operation(verbs::DELETE_COLLECTION),
                api,
            })
            .collect();
        for row in &served {
            // `extensions` holds old names of other groups' resources; watching them too would show each object twice.
            let is_old_name = row.api.group == "extensions"
                && served.iter().any(|other| {
                    other.api.plural == row.api.plural && other.api.group != row.api.group
                });
            let known = self.rows.read().contains_key(&key_of(&row.api));
            if !is_old_name && !known {
                self.add(row.clone());
            }
        }
        self.discovered.send_replace(true);
        Ok(())
    }

    /// Waits until the built-in resources are known and their first lists are in, or some time has passed.
    pub(super) async fn synced(&self) {
        let all = async {
            // The senders live in self, so waiting cannot fail.
            let _ = self.discovered.subscribe().wait_for(|done| *done).await;
            let _ = self.unsynced.subscribe().wait_for(|left| *left == 0).await;
        };
        if tokio::time::timeout(SYNC_LIMIT, all).await.is_err() {
            tracing::warn!("not all resources could be listed; collecting garbage nevertheless");
        }
    }

    /// Whether the built-in resources are known.
    pub(super) fn is_discovered(&self) -> bool {
        *self.discovered.borrow()
    }

    /// All resources.
    pub(super) fn all(&self) -> Vec<Arc<Served>> {
        let rows = self.rows.read();
        rows.values()
            .map(|(served, _)| Arc::clone(served))
            .collect()
    }

    /// The resource of a kind, in whichever version.
    pub(super) fn find(&self, group: &str, kind: &str) -> Option<Arc<Served>> {
        let rows = self.rows.read();
        let found = rows
            .values()
            .find(|(served, _)| served.api.group == group && served.api.kind == kind);
        found.map(|(served, _)| Arc::clone(served))
    }

    fn add(self: &Arc<Self>, served: Served) {
        // Events are many, own nothing and expire by themselves.
        if served.api.plural == "events" && matches!(&*served.api.group, "" | "events.k8s.io") {
            return;
        }
        let name = key_of(&served.api);
        let served = Arc::new(served);
        let stop = self.stop.child_token();
        {
            let mut rows = self.rows.write();
            match rows.get(&name) {
                Some((present, _)) if **present == *served => return,
                _ => {}
            }
            if let Some((_, former)) = rows.insert(name, (Arc::clone(&served), stop.clone())) {
                former.cancel();
            }
        }
        self.unsynced.send_modify(|left| *left += 1);
        let resources = Arc::clone(self);
        self.tasks
            .spawn(async move { resources.watch(&served, &stop).await });
        for listener in self.on_rows.read().iter() {
            listener();
        }
    }

    fn remove(&self, name: &Name) {
        if let Some((_, stop)) = self.rows.write().remove(name) {
            stop.cancel();
        }
    }

    /// Watches one resource until it is no longer served; then all its objects are reported gone.
    async fn watch(&self, served: &Arc<Served>, stop: &CancellationToken) {
        let api: Api<PartialObjectMeta<DynamicObject>> =
            Api::all_with(self.client.clone(), &served.api);
        let events = watcher(api, watcher::Config::default()).default_backoff();
        let mut events = std::pin::pin!(events);
        let mut known: HashMap<String, ObjectMeta> = HashMap::new();
        let mut listed: HashMap<String, ObjectMeta> = HashMap::new();
        let mut synced = false;
        loop {
            let event = tokio::select! {
                () = stop.cancelled() => break,
                event = events.next() => event,
            };
            match event {
                Some(Ok(watcher::Event::Apply(object))) => {
                    let meta = essence(object);
                    self.tell(served, &meta, false);
                    known.insert(meta.uid.clone().unwrap_or_default(), meta);
                }
                Some(Ok(watcher::Event::Delete(object))) => {
                    let meta = essence(object);
                    known.remove(meta.uid.as_deref().unwrap_or_default());
                    self.tell(served, &meta, true);
                }
                Some(Ok(watcher::Event::Init)) => listed.clear(),
                Some(Ok(watcher::Event::InitApply(object))) => {
                    let meta = essence(object);
                    self.tell(served, &meta, false);
                    listed.insert(meta.uid.clone().unwrap_or_default(), meta);
                }
                Some(Ok(watcher::Event::InitDone)) => {
                    let before = std::mem::replace(&mut known, std::mem::take(&mut listed));
                    for (uid, meta) in before {
                        if !known.contains_key(&uid) {
                            self.tell(served, &meta, true);
                        }
                    }
                    if !std::mem::replace(&mut synced, true) {
                        self.unsynced.send_modify(|left| *left -= 1);
                    }
                }
                Some(Err(error)) => {
                    tracing::debug!(resource = served.qualified(), %error, "watch interrupted");
                }
                None => break,
            }
        }
        if !synced {
            self.unsynced.send_modify(|left| *left -= 1);
        }
        if !self.stop.is_cancelled() {
            for meta in known.values() {
                self.tell(served, meta, true);
            }
        }
    }

    fn tell(&self, served: &Arc<Served>, meta: &ObjectMeta, gone: bool) {
        for listener in self.on_object.read().iter() {
            listener(served, meta, gone);
        }
    }
}

/// What is remembered of an object: who it is, who owns it and how far its deletion is.
fn essence(object: PartialObjectMeta<DynamicObject>) -> ObjectMeta {
    let meta = object.metadata;
    ObjectMeta {
        name: meta.name,
        namespace: meta.namespace,
        uid: meta.uid,
        owner_references: meta.owner_references,
        finalizers: meta.finalizers,
        deletion_timestamp: meta.deletion_timestamp,
        ..ObjectMeta::default()
    }
}

fn key_of(api: &ApiResource) -> Name {
    (api.group.clone(), api.plural.clone())
}

fn name_of(definition: &CustomResourceDefinition) -> Name {
    let spec = &definition.spec;
    (spec.group.clone(), spec.names.plural.clone())
}

/// The resource of a definition, once the server serves it.
fn of_definition(definition: &CustomResourceDefinition) -> Option<Served> {
    let spec = &definition.spec;
    let established = definition
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten())
        .any(|condition| condition.type_ == "Established" && condition.status == "True");
    if !established {
        return None;
    }
    let versions = || spec.versions.iter().filter(|version| version.served);
    let version = versions()
        .find(|version| version.storage)
        .or_else(|| versions().next())?;
    Some(Served {
        api: ApiResource {
            group: spec.group.clone(),
            version: version.name.clone(),
            api_version: format!("{}/{}", spec.group, version.name),
            kind: spec.names.kind.clone(),
            plural: spec.names.plural.clone(),
        },
        namespaced: spec.scope == "Namespaced",
        deletes_collections: true,
    })
}
