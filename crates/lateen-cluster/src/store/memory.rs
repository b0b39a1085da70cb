//! The store's state in memory: objects in order, and per resource a ring of the latest events.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use parking_lot::RwLock;
use serde_json::Value;
use tokio::sync::watch;

use super::Key;

/// Events that are kept for each resource. A watcher that falls behind by more has to list again.
const RING: usize = 4096;

/// One change of one object.
#[derive(Debug, Clone)]
pub struct Event {
    /// Revision of the change.
    pub revision: u64,
    /// The state after the change; for a removal the last state, with the removal's revision.
    pub object: Arc<Value>,
    /// The state before; `None` for a new object.
    pub previous: Option<Arc<Value>>,
    /// Whether the object was removed.
    pub removed: bool,
}

/// The events that were asked for are no longer kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too old resource version: {asked} ({oldest})")]
pub struct Expired {
    /// The revision that was asked for.
    pub asked: u64,
    /// The oldest revision that can be asked for.
    pub oldest: u64,
}

struct Collection {
    objects: BTreeMap<(String, String), Arc<Value>>,
    events: VecDeque<Event>,
    /// Everything behind this revision is in `events`.
    floor: u64,
    changed: watch::Sender<u64>,
}

impl Collection {
    fn new(floor: u64) -> Self {
        Self {
            objects: BTreeMap::new(),
            events: VecDeque::new(),
            floor,
            changed: watch::channel(floor).0,
        }
    }
}

struct State {
    collections: HashMap<Arc<str>, Collection>,
    revision: u64,
    /// The revision at start: no older event is known.
    start: u64,
}

/// All objects and the latest events.
pub(super) struct Memory {
    state: RwLock<State>,
}

impl Memory {
    pub(super) fn new(objects: Vec<(Key, Arc<Value>)>, revision: u64) -> Self {
        let mut collections = HashMap::new();
        for (key, object) in objects {
            collections
                .entry(key.resource)
                .or_insert_with(|| Collection::new(revision))
                .objects
                .insert((key.namespace, key.name), object);
        }
        Self {
            state: RwLock::new(State {
                collections,
                revision,
                start: revision,
            }),
        }
    }

    pub(super) fn get(&self, key: &Key) -> Option<Arc<Value>> {
        let state = self.state.read();
        let collection = state.collections.get(&key.resource)?;
        // A borrowed pair cannot be looked up in a map of owned pairs.
        let pair = (key.namespace.clone(), key.name.clone());
        collection.objects.get(&pair).cloned()
    }

    pub(super) fn list(
        &self,
        resource: &str,
        namespace: Option<&str>,
        after: Option<(&str, &str)>,
    ) -> (Vec<Arc<Value>>, u64) {
        let state = self.state.read();
        let Some(collection) = state.collections.get(resource) else {
            return (Vec::new(), state.revision);
        };
        let start = match (after, namespace) {
            (Some((namespace, name)), _) => {
                Bound::Excluded((namespace.to_owned(), name.to_owned()))
            }
            (None, Some(namespace)) => Bound::Included((namespace.to_owned(), String::new())),
            (None, None) => Bound::Unbounded,
        };
        let objects = collection
            .objects
            .range((start, Bound::Unbounded))
            .take_while(|((found, _), _)| namespace.is_none_or(|wanted| found == wanted))
            .map(|(_, object)| object.clone())
            .collect();
        (objects, state.revision)
    }

    pub(super) fn revision(&self) -> u64 {
        self.state.read().revision
    }

    pub(super) fn floor(&self, resource: &str) -> u64 {
        let state = self.state.read();
        state
            .collections
            .get(resource)
            .map_or(state.start, |collection| collection.floor)
    }

    pub(super) fn events(&self, resource: &str, after: u64) -> Result<(Vec<Event>, u64), Expired> {
        let state = self.state.read();
        let Some(collection) = state.collections.get(resource) else {
            return Self::check(after, state.start).map(|()| (Vec::new(), state.revision));
        };
        Self::check(after, collection.floor)?;
        let first = collection
            .events
            .partition_point(|event| event.revision <= after);
        let events = collection.events.range(first..).cloned().collect();
        Ok((events, state.revision.max(after)))
    }

    fn check(asked: u64, oldest: u64) -> Result<(), Expired> {
        if asked < oldest {
            Err(Expired { asked, oldest })
        } else {
            Ok(())
        }
    }

    pub(super) fn subscribe(&self, resource: &str) -> watch::Receiver<u64> {
        if let Some(collection) = self.state.read().collections.get(resource) {
            return collection.changed.subscribe();
        }
        let mut state = self.state.write();
        let start = state.start;
        state
            .collections
            .entry(Arc::from(resource))
            .or_insert_with(|| Collection::new(start))
            .changed
            .subscribe()
    }

    /// Makes committed changes visible and wakes watchers. `changes` are in order of revision.
    pub(super) fn publish(&self, changes: Vec<(Key, Event)>) {
        let mut state = self.state.write();
        let start = state.start;
        let mut woken: Vec<(Arc<str>, u64)> = Vec::new();
        for (key, event) in changes {
            state.revision = event.revision;
            let collection = state
                .collections
                .entry(key.resource.clone())
                .or_insert_with(|| Collection::new(start));
            let pair = (key.namespace, key.name);
            if event.removed {
                collection.objects.remove(&pair);
            } else {
                collection.objects.insert(pair, event.object.clone());
            }
            woken.push((key.resource, event.revision));
            collection.events.push_back(event);
            if collection.events.len() > RING
                && let Some(dropped) = collection.events.pop_front()
            {
                collection.floor = dropped.revision;
            }
        }
        for (resource, revision) in woken {
            if let Some(collection) = state.collections.get(&resource) {
                collection.changed.send_replace(revision);
            }
        }
    }
}
