//! The object store: JSON objects under (resource, namespace, name), one revision for all, on disk before acknowledged.
//!
//! Reads come from memory and never wait for the disk. Writes go to one writer thread, which commits everything that
//! waits in one transaction ([`disk`]), then publishes it to memory and wakes watchers. So a reader or watcher never
//! sees what a crash could take back, and writes that come together share one flush.
//!
//! Every resource keeps its latest events in a bounded ring. A watch from a revision that the ring no longer covers is
//! [`Expired`], and so is one from before the last start, because the ring is not kept on disk.

mod disk;
mod memory;
mod writer;

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::{oneshot, watch};

pub use disk::DiskError;
use memory::Memory;
pub use memory::{Event, Expired};
use writer::{Change, Job, Writer};

/// Where an object lies.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    /// `plural.group`, or `plural` for the core group.
    pub resource: Arc<str>,
    /// Namespace, empty for cluster-scoped resources.
    pub namespace: String,
    /// Name.
    pub name: String,
}

/// Why a write did not happen.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// An object of that name exists.
    #[error("the object exists")]
    Exists,
    /// There is no object of that name.
    #[error("the object does not exist")]
    Missing,
    /// The object has another revision than the writer expected.
    #[error("the object was changed by another writer")]
    Changed,
    /// The object is larger than the store takes.
    #[error("the object has more than {limit} bytes")]
    TooLarge {
        /// The most bytes of an object.
        limit: usize,
    },
    /// The disk refused. Nothing was changed.
    #[error("cannot store: {0}")]
    Disk(String),
    /// The store is shut down.
    #[error("the store is shut down")]
    Closed,
}

/// The store; cheap to clone, all clones are one store.
#[derive(Clone)]
pub struct Store {
    memory: Arc<Memory>,
    writer: Arc<Writer>,
}

impl Store {
    /// Opens the store in the file `path`, which is made when it does not exist.
    pub fn open(path: &Path) -> Result<Self, DiskError> {
        let (disk, objects, revision) = disk::Disk::open(path)?;
        let memory = Arc::new(Memory::new(objects, revision));
        let writer = Arc::new(Writer::start(disk, memory.clone(), revision));
        Ok(Self { memory, writer })
    }

    /// Stores a new object and returns it with its `resourceVersion`.
    pub async fn create(&self, key: Key, object: Value) -> Result<Arc<Value>, WriteError> {
        self.write(key, Change::Create(object)).await
    }

    /// Replaces the object, which must still have the revision `expected`.
    pub async fn update(
        &self,
        key: Key,
        object: Value,
        expected: u64,
    ) -> Result<Arc<Value>, WriteError> {
        self.write(key, Change::Update(object, expected)).await
    }

    /// Removes the object, which must still have the revision `expected`; `last` is its final state. Returns that with
    /// the revision of the removal.
    pub async fn delete(
        &self,
        key: Key,
        last: Value,
        expected: u64,
    ) -> Result<Arc<Value>, WriteError> {
        self.write(key, Change::Delete(last, expected)).await
    }

    /// The object, if there is one.
    pub fn get(&self, key: &Key) -> Option<Arc<Value>> {
        self.memory.get(key)
    }

    /// All objects of a resource in order of namespace and name, and the revision of this state. With `namespace`, only
    /// those in it; with `after`, only those behind (namespace, name).
    pub fn list(
        &self,
        resource: &str,
        namespace: Option<&str>,
        after: Option<(&str, &str)>,
    ) -> (Vec<Arc<Value>>, u64) {
        self.memory.list(resource, namespace, after)
    }

    /// The revision of the latest write.
    pub fn revision(&self) -> u64 {
        self.memory.revision()
    }

    /// The oldest revision from which `resource` can be watched.
    pub fn oldest_watchable(&self, resource: &str) -> u64 {
        self.memory.floor(resource)
    }

    /// Events of `resource` behind the revision `after`, and the revision up to which these are all.
    pub fn events(&self, resource: &str, after: u64) -> Result<(Vec<Event>, u64), Expired> {
        self.memory.events(resource, after)
    }

    /// A channel that changes whenever `resource` has new events.
    pub fn subscribe(&self, resource: &str) -> watch::Receiver<u64> {
        self.memory.subscribe(resource)
    }

    /// Stops the writer after what it was given. Writes that come later fail with [`WriteError::Closed`].
    pub fn close(&self) {
        self.writer.close();
    }

    async fn write(&self, key: Key, change: Change) -> Result<Arc<Value>, WriteError> {
        let (reply, answer) = oneshot::channel();
        self.writer.send(Job { key, change, reply })?;
        answer.await.map_err(|_gone| WriteError::Closed)?
    }
}

/// The revision in `metadata.resourceVersion`; 0 when there is none.
pub fn revision_of(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"]
        .as_str()
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests;
