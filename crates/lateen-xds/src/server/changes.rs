//! Changes that a stream has yet to push.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::{Names, ResourceType};

/// Beyond this many names of a type "all of them" is cheaper to keep and to work off.
const MAX_NAMES: usize = 1024;

/// What changed since a stream last looked: a set, so that changes merge while the client is slow.
#[derive(Debug, Default)]
pub struct Changes {
    marked: Mutex<BTreeMap<ResourceType, Names>>,
    wake: Notify,
}

impl Changes {
    /// Marks resources as changed, added or removed.
    pub fn mark(&self, kind: ResourceType, names: Names) {
        if names.is_empty() {
            return;
        }
        let mut marked = self.marked.lock();
        let entry = marked.entry(kind).or_default();
        entry.extend(names);
        if matches!(entry, Names::Only(names) if names.len() > MAX_NAMES) {
            *entry = Names::All;
        }
        drop(marked);
        self.wake.notify_one();
    }

    /// Takes what is marked, in push order. Empty when nothing is.
    pub fn take(&self) -> BTreeMap<ResourceType, Names> {
        std::mem::take(&mut self.marked.lock())
    }

    /// Whether anything of a type is marked.
    pub fn concern(&self, kind: ResourceType) -> bool {
        self.marked.lock().contains_key(&kind)
    }

    /// Waits until something is marked. Safe to cancel.
    pub async fn marked(&self) {
        loop {
            let woken = self.wake.notified();
            if !self.marked.lock().is_empty() {
                return;
            }
            woken.await;
        }
    }
}
