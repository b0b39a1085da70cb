//! An allocator that counts what is allocated, for tests that bound the memory something takes.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The system's allocator with a count of the bytes that are in use. A test binary sets it with `#[global_allocator]`.
/// It counts for all threads, so such a binary holds one test, or tests that take turns.
#[derive(Debug, Default)]
pub struct CountingAllocator {
    used: AtomicUsize,
    peak: AtomicUsize,
}

impl CountingAllocator {
    /// Nothing is counted yet.
    pub const fn new() -> Self {
        Self {
            used: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
        }
    }

    /// Bytes in use.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::SeqCst)
    }

    /// What `run` returns, and the most bytes in use while it ran beyond those before it.
    pub fn peak_of<T>(&self, run: impl FnOnce() -> T) -> (T, usize) {
        let before = self.used();
        self.peak.store(before, Ordering::SeqCst);
        let result = run();
        let peak = self.peak.load(Ordering::SeqCst);
        (result, peak.saturating_sub(before))
    }

    fn add(&self, bytes: usize) {
        let used = self.used.fetch_add(bytes, Ordering::SeqCst) + bytes;
        self.peak.fetch_max(used, Ordering::SeqCst);
    }
}

// SAFETY: memory comes from `System` and goes back to it with the layout that it was asked for; counting touches none.
// `realloc` is the trait's own, which allocates, copies and frees: while it copies, both count, as they may in any
// allocator.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `alloc`, which is that of `System`.
        let pointer = unsafe { System.alloc(layout) };
        if !pointer.is_null() {
            self.add(layout.size());
        }
        pointer
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        self.used.fetch_sub(layout.size(), Ordering::SeqCst);
        // SAFETY: the pointer came from `System.alloc` with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_what_was_in_use_at_once() {
        let allocator = CountingAllocator::new();
        let take = |size: usize| {
            let layout = Layout::from_size_align(size, 8).unwrap();
            // SAFETY: the size is not zero.
            let pointer = unsafe { allocator.alloc(layout) };
            (pointer, layout)
        };
        let give = |(pointer, layout): (*mut u8, Layout)| {
            // SAFETY: it came from this allocator with this layout.
            unsafe { allocator.dealloc(pointer, layout) }
        };
        let kept = take(100);
        let ((), peak) = allocator.peak_of(|| {
            give(take(1000));
            let (one, other) = (take(300), take(400));
            give(one);
            give(other);
        });
        assert_eq!(peak, 1000);
        assert_eq!(allocator.used(), 100);
        give(kept);
        assert_eq!(allocator.used(), 0);
    }
}
