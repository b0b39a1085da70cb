//! A queue of keys to reconcile: each key waits at most once, is worked on by one worker at a time, and comes back with
//! growing delays when its reconciliation fails.
//!
//! The queue is bounded by the number of objects, since a key that waits already is not added again.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fmt::Debug;
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::error::Error;

/// First delay after a failure.
const FIRST_RETRY: Duration = Duration::from_millis(5);
/// Growth per further failure. Gentler than Kubernetes' doubling: what a laptop's pods wait for (a webhook that comes
/// up, say) takes a second, and then the wait adds at most a quarter to it.
const RETRY_GROWTH: f64 = 1.3;
/// Longest delay between tries.
const LAST_RETRY: Duration = Duration::from_secs(30);

/// The queue; shared by those who add and the workers.
pub(super) struct Queue<K> {
    state: Mutex<State<K>>,
    wake: Notify,
}

struct State<K> {
    ready: VecDeque<K>,
    /// Keys in `ready`, and keys that changed while being worked on.
    dirty: HashSet<K>,
    working: HashSet<K>,
    /// Keys that become ready later, by time; the number keeps equal times apart.
    delayed: BTreeMap<(Instant, u64), K>,
    due: HashMap<K, (Instant, u64)>,
    failures: HashMap<K, u32>,
    next_number: u64,
}

impl<K: Clone + Eq + Hash + Debug + Send + 'static> Queue<K> {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                ready: VecDeque::new(),
                dirty: HashSet::new(),
                working: HashSet::new(),
                delayed: BTreeMap::new(),
                due: HashMap::new(),
                failures: HashMap::new(),
                next_number: 0,
            }),
            wake: Notify::new(),
        })
    }

    /// The key needs work now.
    pub(super) fn add(&self, key: K) {
        self.state.lock().add(key);
        self.wake.notify_one();
    }

    /// The key needs work after `delay`, or earlier when that was asked for before.
    pub(super) fn add_after(&self, key: K, delay: Duration) {
        let mut state = self.state.lock();
        let at = Instant::now() + delay;
        if let Some(&(earlier, number)) = state.due.get(&key) {
            if earlier <= at {
                return;
            }
            state.delayed.remove(&(earlier, number));
        }
        let slot = (at, state.next_number);
        state.next_number += 1;
        state.due.insert(key.clone(), slot);
        state.delayed.insert(slot, key);
        drop(state);
        self.wake.notify_one();
    }

    /// Runs `workers` tasks that reconcile keys until `stop`. `reconcile` gets each key alone.
    pub(super) fn run<F, R>(
        self: &Arc<Self>,
        name: &'static str,
        workers: usize,
        tasks: &TaskTracker,
        stop: &CancellationToken,
        reconcile: F,
    ) where
        F: Fn(K) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), Error>> + Send,
    {
        let reconcile = Arc::new(reconcile);
        for _ in 0..workers {
            let queue = Arc::clone(self);
            let reconcile = Arc::clone(&reconcile);
            let stop = stop.clone();
            tasks.spawn(async move {
                loop {
                    let key = tokio::select! {
                        () = stop.cancelled() => return,
                        key = queue.next() => key,
                    };
                    let outcome = reconcile(key.clone()).await;
                    if let Err(error) = &outcome {
                        if error.is_conflict() || error.is_not_found() {
                            tracing::debug!(controller = name, ?key, %error, "trying again");
                        } else {
                            tracing::warn!(controller = name, ?key, %error, "trying again");
                        }
                    }
                    queue.finish(&key, outcome.is_err());
                }
            });
        }
    }

    /// Waits for a key to work on; [`Self::finish`] must follow.
    async fn next(&self) -> K {
        loop {
            let due = {
                let mut state = self.state.lock();
                state.promote(Instant::now());
                if let Some(key) = state.ready.pop_front() {
                    state.dirty.remove(&key);
                    state.working.insert(key.clone());
                    // A notification wakes one worker; hand the rest of the work on.
                    if !state.ready.is_empty() {
                        self.wake.notify_one();
                    }
                    return key;
                }
                state.delayed.keys().next().map(|(at, _)| *at)
            };
            match due {
                Some(at) => tokio::select! {
                    () = self.wake.notified() => {}
                    () = tokio::time::sleep_until(at) => {}
                },
                None => self.wake.notified().await,
            }
        }
    }

    fn finish(&self, key: &K, failed: bool) {
        let mut state = self.state.lock();
        state.working.remove(key);
        if state.dirty.contains(key) {
            state.ready.push_back(key.clone());
            self.wake.notify_one();
        }
        if !failed {
            state.failures.remove(key);
            return;
        }
        let failures = state.failures.entry(key.clone()).or_insert(0);
        let delay = retry_delay(*failures);
        *failures = failures.saturating_add(1);
        drop(state);
        self.add_after(key.clone(), delay);
    }
}

impl<K: Clone + Eq + Hash> State<K> {
    fn add(&mut self, key: K) {
        if self.dirty.insert(key.clone()) && !self.working.contains(&key) {
            self.ready.push_back(key);
        }
    }

    fn promote(&mut self, now: Instant) {
        while let Some(entry) = self.delayed.first_entry() {
            if entry.key().0 > now {
                return;
            }
            let key = entry.remove();
            self.due.remove(&key);
            self.add(key);
        }
    }
}

fn retry_delay(failures: u32) -> Duration {
    let factor = RETRY_GROWTH.powi(i32::try_from(failures.min(64)).unwrap_or(64));
    FIRST_RETRY.mul_f64(factor).min(LAST_RETRY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_key_waits_once_and_comes_back_when_it_changes_during_work() {
        let queue = Queue::new();
        queue.add("a");
        queue.add("a");
        queue.add("b");
        assert_eq!(queue.next().await, "a");
        queue.add("a");
        assert_eq!(queue.next().await, "b");
        queue.finish(&"b", false);
        assert!(queue.state.lock().ready.is_empty(), "a is worked on");
        queue.finish(&"a", false);
        assert_eq!(queue.next().await, "a");
    }

    #[tokio::test]
    async fn a_failed_key_comes_back_after_its_delay() {
        let queue = Queue::new();
        queue.add("a");
        for failures in 0..4 {
            let before = Instant::now();
            assert_eq!(queue.next().await, "a");
            if failures > 0 {
                assert!(before.elapsed() >= retry_delay(failures - 1));
            }
            queue.finish(&"a", true);
        }
    }

    #[tokio::test]
    async fn the_earliest_of_two_delays_counts() {
        let queue = Queue::new();
        queue.add_after("a", Duration::from_secs(500));
        queue.add_after("a", Duration::from_millis(5));
        queue.add_after("a", Duration::from_secs(900));
        let next = tokio::time::timeout(Duration::from_secs(60), queue.next());
        assert_eq!(next.await, Ok("a"));
        queue.finish(&"a", false);
        assert!(queue.state.lock().delayed.is_empty());
    }

    #[test]
    fn delays_grow_up_to_a_limit() {
        assert_eq!(retry_delay(0), FIRST_RETRY);
        assert!((1..30).all(|failures| retry_delay(failures) > retry_delay(failures - 1)));
        assert_eq!(retry_delay(u32::MAX), LAST_RETRY);
    }
}
