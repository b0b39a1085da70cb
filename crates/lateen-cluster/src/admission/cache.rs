//! Things made from stored objects, made again only when one of the objects changed.

use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::watch;

use crate::store::Store;

/// What was made from all objects of some resources.
pub(crate) struct Compiled<T> {
    /// Names under which the objects are stored, and what tells of their changes.
    sources: Vec<(&'static str, watch::Receiver<u64>)>,
    make: fn(&[Vec<Arc<Value>>]) -> T,
    latest: Mutex<Option<(Vec<u64>, Arc<T>)>>,
}

impl<T> Compiled<T> {
    /// What `make` makes from the objects of `resources`, of each in order of names.
    pub(crate) fn new(
        store: &Store,
        resources: &[&'static str],
        make: fn(&[Vec<Arc<Value>>]) -> T,
    ) -> Self {
        let sources = resources
            .iter()
            .map(|name| (*name, store.subscribe(name)))
            .collect();
        Self {
            sources,
            make,
            latest: Mutex::new(None),
        }
    }

    /// The thing as of now.
    pub(crate) fn get(&self, store: &Store) -> Arc<T> {
        // Read before the objects: a change in between makes the next call look again.
        let revisions: Vec<u64> = self
            .sources
            .iter()
            .map(|(_, changes)| *changes.borrow())
            .collect();
        let mut latest = self.latest.lock();
        if let Some((known, made)) = latest.as_ref()
            && *known == revisions
        {
            return made.clone();
        }
        let objects: Vec<Vec<Arc<Value>>> = self
            .sources
            .iter()
            .map(|(name, _)| store.list(name, None, None).0)
            .collect();
        let made = Arc::new((self.make)(&objects));
        *latest = Some((revisions, made.clone()));
        made
    }
}
