//! Earliest deadline first: weighted turns that are smooth and exact.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// A schedule over entries `0..n`.
#[derive(Debug)]
pub(super) struct Schedule {
    queue: BinaryHeap<Entry>,
    now: f64,
    order: u64,
}

#[derive(Debug)]
struct Entry {
    deadline: f64,
    order: u64,
    index: usize,
}

impl Schedule {
    /// Starts with every entry queued, after a random number of turns, so that workers do not walk in step.
    pub(super) fn new(weights: &[f64], random: u64) -> Self {
        let mut schedule = Self {
            queue: BinaryHeap::new(),
            now: 0.0,
            order: 0,
        };
        for (index, weight) in weights.iter().enumerate() {
            schedule.push(index, *weight);
        }
        for _ in 0..random % (weights.len().max(1) as u64) {
            schedule.next(|index| weights[index]);
        }
        schedule
    }

    /// The entry whose turn it is. `weight` is asked for its current weight to queue it again.
    pub(super) fn next(&mut self, weight: impl Fn(usize) -> f64) -> Option<usize> {
        let entry = self.queue.pop()?;
        self.now = entry.deadline;
        self.push(entry.index, weight(entry.index));
        Some(entry.index)
    }

    fn push(&mut self, index: usize, weight: f64) {
        self.order += 1;
        let deadline = self.now + 1.0 / weight.max(f64::MIN_POSITIVE);
        self.queue.push(Entry {
            deadline,
            order: self.order,
            index,
        });
    }
}

/// Reversed, as the heap gives the greatest first: the earliest deadline wins, then the one queued first.
impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        other
            .deadline
            .total_cmp(&self.deadline)
            .then(other.order.cmp(&self.order))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Entry {}
