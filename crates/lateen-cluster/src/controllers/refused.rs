//! Owners whose pods the server refused, and when it is worth asking again.
//!
//! Pods are mostly refused because an admission webhook isn't up yet. Its endpoints and its configuration tell when it
//! is, so that those who were refused don't sit out their delay.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;

use super::Shared;
use super::meta::ObjectKey;
use super::queue::Queue;

/// The owners whose pods were refused.
#[derive(Default)]
pub(super) struct Refused {
    keys: Mutex<HashSet<ObjectKey>>,
}

impl Refused {
    /// None yet. Those that are noted come back into `queue` when a webhook may have come up or gone.
    pub(super) fn start(shared: &Shared, queue: &Arc<Queue<ObjectKey>>) -> Arc<Self> {
        let refused = Arc::new(Self::default());
        let again = {
            let (refused, to) = (Arc::clone(&refused), Arc::clone(queue));
            move || {
                for key in refused.keys.lock().drain() {
                    to.add(key);
                }
            }
        };
        let also = again.clone();
        shared.endpoint_slices.on_change(move |_, _| again());
        shared.webhooks.on_change(move |_, _| also());
        refused
    }

    /// A pod of this owner was refused.
    pub(super) fn note(&self, key: &ObjectKey) {
        self.keys.lock().insert(key.clone());
    }

    /// The owner is gone.
    pub(super) fn forget(&self, key: &ObjectKey) {
        self.keys.lock().remove(key);
    }
}
