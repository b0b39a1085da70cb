//! A local copy of all objects of one kind, kept current by a watch, that also takes in what its own writes return.
//!
//! Controllers decide by the cache. Because a write's answer is put in at once, a controller sees its own writes in its
//! next pass, and needs no bookkeeping of creations and deletions that the watch hasn't reported yet. The cache never
//! goes back: an object is only replaced by a later resource version.

mod write;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Debug;
use std::sync::Arc;

use futures_util::StreamExt;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource};
use parking_lot::RwLock;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::meta::{ObjectKey, now, version_of};

/// A kind that can be cached.
pub(super) trait Kind:
    Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Serialize + Send + Sync + 'static
{
}

impl<K> Kind for K where
    K: Resource<DynamicType = ()>
        + Clone
        + Debug
        + DeserializeOwned
        + Serialize
        + Send
        + Sync
        + 'static
{
}

/// Called with the object before and after a change; one of them is absent when it came or went.
type Listener<K> = Box<dyn Fn(Option<&Arc<K>>, Option<&Arc<K>>) + Send + Sync>;

/// The cache of one kind.
pub(super) struct Cache<K> {
    client: Client,
    state: RwLock<State<K>>,
    listeners: RwLock<Vec<Listener<K>>>,
    synced: watch::Sender<bool>,
}

struct State<K> {
    objects: BTreeMap<ObjectKey, Entry<K>>,
    /// Keys of objects by what `index_of` says of them.
    index: HashMap<String, BTreeSet<ObjectKey>>,
    index_of: fn(&K) -> Option<String>,
    /// Highest resource version that the watch has delivered.
    watched: u64,
}

struct Entry<K> {
    object: Arc<K>,
    version: u64,
    /// Whether the watch has delivered the object, or only our own write.
    watched: bool,
}

impl<K: Kind> Cache<K> {
    /// An empty cache. `index_of` names the group by which [`Self::indexed`] finds an object.
    pub(super) fn new(client: Client, index_of: fn(&K) -> Option<String>) -> Arc<Self> {
        Arc::new(Self {
            client,
            state: RwLock::new(State {
                objects: BTreeMap::new(),
                index: HashMap::new(),
                index_of,
                watched: 0,
            }),
            listeners: RwLock::new(Vec::new()),
            synced: watch::Sender::new(false),
        })
    }

    /// Calls `listener` on every change from now on. Listeners only note what has to be looked at.
    pub(super) fn on_change(
        &self,
        listener: impl Fn(Option<&Arc<K>>, Option<&Arc<K>>) + Send + Sync + 'static,
    ) {
        self.listeners.write().push(Box::new(listener));
    }

    /// Starts the watch. `fields` restricts it, empty for all objects.
    pub(super) fn run(
        self: &Arc<Self>,
        fields: &'static str,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) {
        let cache = Arc::clone(self);
        let stop = stop.clone();
        tasks.spawn(async move {
            let mut config = watcher::Config::default();
            if !fields.is_empty() {
                config = config.fields(fields);
            }
            let mut events =
                std::pin::pin!(watcher(Api::all(cache.client.clone()), config).default_backoff());
            let mut listed = Vec::new();
            loop {
                let event = tokio::select! {
                    () = stop.cancelled() => return,
                    event = events.next() => event,
                };
                match event {
                    Some(Ok(watcher::Event::Apply(object))) => cache.put(object, true),
                    Some(Ok(watcher::Event::Delete(object))) => cache.remove(&object),
                    Some(Ok(watcher::Event::Init)) => listed.clear(),
                    Some(Ok(watcher::Event::InitApply(object))) => listed.push(object),
                    Some(Ok(watcher::Event::InitDone)) => {
                        cache.replace_all(std::mem::take(&mut listed));
                        cache.synced.send_replace(true);
                    }
                    Some(Err(error)) => {
                        tracing::debug!(kind = %K::kind(&()), %error, "watch interrupted");
                    }
                    None => return,
                }
            }
        });
    }

    /// Waits until the first list is in.
    pub(super) async fn synced(&self) {
        // The sender lives in self, so waiting cannot fail.
        let _ = self.synced.subscribe().wait_for(|synced| *synced).await;
    }

    /// The object of that key.
    pub(super) fn get(&self, key: &ObjectKey) -> Option<Arc<K>> {
        let state = self.state.read();
        state
            .objects
            .get(key)
            .map(|entry| Arc::clone(&entry.object))
    }

    /// All objects of a namespace, by name.
    pub(super) fn in_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        let state = self.state.read();
        state
            .objects
            .range(ObjectKey::new(namespace, "")..)
            .take_while(|(key, _)| key.namespace == namespace)
            .map(|(_, entry)| Arc::clone(&entry.object))
            .collect()
    }

    /// All objects, by namespace and name.
    pub(super) fn all(&self) -> Vec<Arc<K>> {
        let state = self.state.read();
        state
            .objects
            .values()
            .map(|entry| Arc::clone(&entry.object))
            .collect()
    }

    /// The objects for which the index function gave `group`.
    pub(super) fn indexed(&self, group: &str) -> Vec<Arc<K>> {
        let state = self.state.read();
        let keys = state.index.get(group);
        keys.into_iter()
            .flatten()
            .filter_map(|key| state.objects.get(key))
            .map(|entry| Arc::clone(&entry.object))
            .collect()
    }

    /// Takes in an object, from the watch or from the answer to a write of ours.
    fn put(&self, object: K, watched: bool) {
        let (old, new) = {
            let mut state = self.state.write();
            let version = version_of(object.meta());
            let key = ObjectKey::of(object.meta());
            let passed = state.watched;
            if watched {
                state.watched = passed.max(version);
            }
            match state.objects.get_mut(&key) {
                Some(entry) if version != 0 && entry.version >= version => {
                    entry.watched |= watched;
                    return;
                }
                // The watch is already past this write and doesn't know the object: it has been deleted since.
                None if !watched && version <= passed => return,
                _ => {}
            }
            let new = Arc::new(object);
            let old = state.insert(key, Arc::clone(&new), version, watched);
            (old, new)
        };
        let replaced = old
            .as_ref()
            .is_some_and(|old| old.meta().uid != new.meta().uid);
        if replaced {
            self.tell(old.as_ref(), None);
            self.tell(None, Some(&new));
        } else {
            self.tell(old.as_ref(), Some(&new));
        }
    }

    fn remove(&self, object: &K) {
        let key = ObjectKey::of(object.meta());
        let old = {
            let mut state = self.state.write();
            state.watched = state.watched.max(version_of(object.meta()));
            let same = state
                .objects
                .get(&key)
                .is_some_and(|entry| entry.object.meta().uid == object.meta().uid);
            if same { state.take(&key) } else { None }
        };
        if old.is_some() {
            self.tell(old.as_ref(), None);
        }
    }

    /// Takes in a whole list; what it lacks is gone, unless we wrote it after the list was made.
    fn replace_all(&self, listed: Vec<K>) {
        let newest = listed.iter().map(|object| version_of(object.meta())).max();
        let keys: BTreeSet<_> = listed
            .iter()
            .map(|object| ObjectKey::of(object.meta()))
            .collect();
        let gone: Vec<_> = {
            let mut state = self.state.write();
            state.watched = state.watched.max(newest.unwrap_or(0));
            let passed = state.watched;
            let lost: Vec<_> = state
                .objects
                .iter()
                .filter(|(key, entry)| {
                    !keys.contains(key) && (entry.watched || entry.version <= passed)
                })
                .map(|(key, _)| key.clone())
                .collect();
            lost.iter().filter_map(|key| state.take(key)).collect()
        };
        for old in &gone {
            self.tell(Some(old), None);
        }
        for object in listed {
            self.put(object, true);
        }
    }

    /// Remembers that an object is on its way out, when the answer to a deletion doesn't say so.
    fn mark_deleting(&self, key: &ObjectKey, uid: Option<&str>) {
        let changed = {
            let mut state = self.state.write();
            let Some(entry) = state.objects.get(key) else {
                return;
            };
            let meta = entry.object.meta();
            if meta.deletion_timestamp.is_some() || meta.uid.as_deref() != uid {
                return;
            }
            let old = Arc::clone(&entry.object);
            let mut new = K::clone(&old);
            new.meta_mut().deletion_timestamp = Some(now());
            let (version, watched) = (entry.version, entry.watched);
            let new = Arc::new(new);
            state.insert(key.clone(), Arc::clone(&new), version, watched);
            (old, new)
        };
        self.tell(Some(&changed.0), Some(&changed.1));
    }

    fn tell(&self, old: Option<&Arc<K>>, new: Option<&Arc<K>>) {
        for listener in self.listeners.read().iter() {
            listener(old, new);
        }
    }
}

impl<K: Kind> State<K> {
    fn insert(
        &mut self,
        key: ObjectKey,
        object: Arc<K>,
        version: u64,
        watched: bool,
    ) -> Option<Arc<K>> {
        let old = self.take(&key);
        if let Some(group) = (self.index_of)(&object) {
            self.index.entry(group).or_default().insert(key.clone());
        }
        let entry = Entry {
            object,
            version,
            watched,
        };
        self.objects.insert(key, entry);
        old
    }

    fn take(&mut self, key: &ObjectKey) -> Option<Arc<K>> {
        let old = self.objects.remove(key)?.object;
        if let Some(group) = (self.index_of)(&old)
            && let Some(keys) = self.index.get_mut(&group)
        {
            keys.remove(key);
            if keys.is_empty() {
                self.index.remove(&group);
            }
        }
        Some(old)
    }
}

#[cfg(test)]
mod tests;
