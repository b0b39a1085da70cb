//! Memory of bodies that are held: read before their requests go on, or kept to be sent again.

use std::cell::Cell;
use std::rc::Rc;

use crate::worker::Worker;

/// Bytes that a worker holds.
#[derive(Debug, Default)]
pub(crate) struct HeldBytes(Cell<usize>);

/// The share of one request, given back when dropped.
pub(super) struct Held {
    worker: Rc<Worker>,
    bytes: usize,
}

impl Held {
    pub(super) fn new(worker: &Rc<Worker>) -> Self {
        Self {
            worker: worker.clone(),
            bytes: 0,
        }
    }

    /// Takes room for more bytes. False when the worker has none left.
    pub(super) fn grow(&mut self, bytes: usize) -> bool {
        let used = &self.worker.held_bytes.0;
        if used.get() + bytes > self.worker.shared.most_held_bytes {
            return false;
        }
        used.set(used.get() + bytes);
        self.bytes += bytes;
        true
    }

    /// Takes room that nobody else is likely to need: half of what the worker has is left to those that cannot do without.
    /// False when there is none.
    pub(super) fn grow_if_spare(&mut self, bytes: usize) -> bool {
        let used = self.worker.held_bytes.0.get();
        used + bytes <= self.worker.shared.most_held_bytes / 2 && self.grow(bytes)
    }

    /// Gives room back for bytes that are kept no longer.
    pub(super) fn shrink(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        let used = &self.worker.held_bytes.0;
        used.set(used.get() - bytes);
        self.bytes -= bytes;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shrink(self.bytes);
    }
}
