//! Sticky sessions: which endpoint a key belongs to, for as long as its requests keep coming.
//!
//! A [`SessionTable`] remembers the endpoint of every key that was seen within the idle time. Its users choose an
//! endpoint for a new key by ring hash, so that proxies which do not know of each other's sessions agree on most of
//! them. The table has a fixed limit; beyond it the session that was idle longest is given up.

mod key;
mod shard;

use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

pub use key::SessionKey;
use shard::Shard;

/// Longer keys are kept by their beginning and a keyed hash, so that a client cannot fill the memory with them.
const LONGEST_KEY: usize = 128;

/// What is kept of a longer key, in bytes, beside its hash.
const KEPT_OF_LONG_KEY: usize = 64;

/// Tables up to this size have one shard, so that the session given up is exactly the one that was idle longest.
const LARGEST_SINGLE_SHARD: u32 = 1 << 16;

/// Shards of a larger table. Threads rarely meet in one, and each holds its own part of the limit.
const SHARDS: u32 = 16;

/// Sessions of one cluster, shared by all threads.
#[derive(Debug)]
pub struct SessionTable {
    /// In milliseconds.
    idle_timeout: AtomicU64,
    shards: Vec<Mutex<Shard>>,
    hashing: RandomState,
    /// For the second half of long keys' hashes.
    more_hashing: RandomState,
    /// Times are kept as milliseconds since then.
    epoch: Instant,
    counts: Counts,
}

/// How a table was used. The numbers only grow.
#[derive(Debug, Default)]
pub struct Counts {
    /// Keys that got an endpoint because they had none.
    pub created: AtomicU64,
    /// Keys that got another endpoint because theirs was gone or failed.
    pub moved: AtomicU64,
    /// Sessions that ended because no request came in time.
    pub expired: AtomicU64,
    /// Live sessions that were given up because the table was full.
    pub evicted: AtomicU64,
}

/// A live session, for display.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The key; of a long one its beginning and a hash.
    pub key: String,
    /// Where its requests go.
    pub endpoint: SocketAddr,
    /// Time since the last request.
    pub idle: Duration,
}

impl SessionTable {
    /// An empty table. `most` is the greatest number of sessions, at least 1.
    pub fn new(idle_timeout: Duration, most: u32, now: Instant) -> Self {
        let count = if most <= LARGEST_SINGLE_SHARD {
            1
        } else {
            SHARDS
        };
        let shard = || Mutex::new(Shard::new(most.max(1).div_ceil(count)));
        Self {
            idle_timeout: AtomicU64::new(idle_timeout.as_millis() as u64),
            shards: (0..count).map(|_| shard()).collect(),
            hashing: RandomState::new(),
            more_hashing: RandomState::new(),
            epoch: now,
            counts: Counts::default(),
        }
    }

    /// The endpoint of a live session, whose idle time begins anew.
    pub fn renew(&self, key: &[u8], now: Instant) -> Option<SocketAddr> {
        self.with_shard(key, now, |shard, hash, key, millis| {
            let slot = shard.find(hash, key)?;
            shard.touch(slot, millis);
            Some(shard.endpoint(slot))
        })
    }

    /// Takes over what is known elsewhere: the key belongs to this endpoint, and its idle time begins anew.
    pub fn put(&self, key: &[u8], endpoint: SocketAddr, now: Instant) {
        self.with_shard(key, now, |shard, hash, key, millis| {
            match shard.find(hash, key) {
                Some(slot) => {
                    shard.touch(slot, millis);
                    shard.set_endpoint(slot, endpoint);
                }
                None => self.insert(shard, hash, key, endpoint, millis),
            };
        });
    }

    /// Begins a session, or moves it away from the endpoint `instead_of`. Returns where the key belongs now, which
    /// differs from `wanted` when another thread was faster. The idle time begins anew.
    pub fn claim(
        &self,
        key: &[u8],
        wanted: SocketAddr,
        instead_of: Option<SocketAddr>,
        now: Instant,
    ) -> SocketAddr {
        self.with_shard(key, now, |shard, hash, key, millis| {
            let Some(slot) = shard.find(hash, key) else {
                self.counts.created.fetch_add(1, Ordering::Relaxed);
                self.insert(shard, hash, key, wanted, millis);
                return wanted;
            };
            shard.touch(slot, millis);
            let current = shard.endpoint(slot);
            if Some(current) != instead_of || current == wanted {
                return current;
            }
            self.counts.moved.fetch_add(1, Ordering::Relaxed);
            shard.set_endpoint(slot, wanted);
            wanted
        })
    }

    /// Ends what was idle for too long, at most `most` sessions of each shard, so that a call is short.
    pub fn sweep(&self, now: Instant, most: usize) {
        let millis = self.millis(now);
        for shard in &self.shards {
            self.expire(&mut shard.lock(), millis, most);
        }
    }

    /// Number of sessions. Those that ended since the last [`SessionTable::sweep`] may be counted still.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    /// Whether there is no session.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Some live sessions, at most `most`: those with the latest requests, the latest first.
    pub fn sessions(&self, now: Instant, most: usize) -> Vec<Session> {
        let millis = self.millis(now);
        let mut all = Vec::new();
        for shard in &self.shards {
            let mut shard = shard.lock();
            self.expire(&mut shard, millis, usize::MAX);
            all.extend(shard.latest().take(most).map(|entry| Session {
                key: String::from_utf8_lossy(&entry.key).into_owned(),
                endpoint: entry.endpoint,
                idle: Duration::from_millis(millis.saturating_sub(entry.last_use)),
            }));
        }
        all.sort_by_key(|session| session.idle);
        all.truncate(most);
        all
    }

    /// How the table was used.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Changes the time without a request after which a session ends, for all that are there, too.
    pub fn set_idle_timeout(&self, time: Duration) {
        self.idle_timeout
            .store(time.as_millis() as u64, Ordering::Relaxed);
    }

    /// A table of another size with the same sessions and counts. When it is smaller, those that were idle longest are
    /// given up.
    pub fn resized(&self, most: u32, now: Instant) -> Self {
        let idle_timeout = Duration::from_millis(self.idle_timeout.load(Ordering::Relaxed));
        let count = |count: &AtomicU64| AtomicU64::new(count.load(Ordering::Relaxed));
        let table = Self {
            hashing: self.hashing.clone(),
            more_hashing: self.more_hashing.clone(),
            epoch: self.epoch,
            counts: Counts {
                created: count(&self.counts.created),
                moved: count(&self.counts.moved),
                expired: count(&self.counts.expired),
                evicted: count(&self.counts.evicted),
            },
            ..Self::new(idle_timeout, most, now)
        };
        let mut all: Vec<_> = Vec::new();
        for shard in &self.shards {
            let shard = shard.lock();
            all.extend(
                shard
                    .latest()
                    .map(|entry| (entry.last_use, entry.endpoint, entry.key.clone())),
            );
        }
        // The oldest first, so that the latest used are linked last and stay when there is not room for all.
        all.sort_unstable_by_key(|(last_use, ..)| *last_use);
        for (last_use, endpoint, key) in all {
            let hash = table.hashing.hash_one(&*key);
            let mut shard = table.shards[table.shard_of(hash)].lock();
            table.insert(&mut shard, hash, &key, endpoint, last_use);
        }
        table
    }

    fn insert(&self, shard: &mut Shard, hash: u64, key: &[u8], endpoint: SocketAddr, millis: u64) {
        if shard.insert(hash, key, endpoint, millis, &|key| {
            self.hashing.hash_one(key)
        }) {
            self.counts.evicted.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn shard_of(&self, hash: u64) -> usize {
        (hash >> 32) as usize % self.shards.len()
    }

    fn with_shard<T>(
        &self,
        key: &[u8],
        now: Instant,
        work: impl FnOnce(&mut Shard, u64, &[u8], u64) -> T,
    ) -> T {
        let shortened = (key.len() > LONGEST_KEY).then(|| self.shorten(key));
        let key = shortened.as_deref().unwrap_or(key);
        let hash = self.hashing.hash_one(key);
        let millis = self.millis(now);
        let mut shard = self.shards[self.shard_of(hash)].lock();
        // Two at a time: the table shrinks faster than it grows, and no request pays for many.
        self.expire(&mut shard, millis, 2);
        if let Some(slot) = shard.find(hash, key)
            && self.is_over(shard.last_use(slot), millis)
        {
            shard.remove(slot, &|key| self.hashing.hash_one(key));
            self.counts.expired.fetch_add(1, Ordering::Relaxed);
        }
        work(&mut shard, hash, key, millis)
    }

    fn expire(&self, shard: &mut Shard, millis: u64, most: usize) {
        for _ in 0..most {
            let Some(slot) = shard.oldest() else { return };
            if !self.is_over(shard.last_use(slot), millis) {
                return;
            }
            shard.remove(slot, &|key| self.hashing.hash_one(key));
            self.counts.expired.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn is_over(&self, last_use: u64, millis: u64) -> bool {
        millis.saturating_sub(last_use) >= self.idle_timeout.load(Ordering::Relaxed)
    }

    fn millis(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.epoch).as_millis() as u64
    }

    fn shorten(&self, key: &[u8]) -> Vec<u8> {
        let mut short = key[..KEPT_OF_LONG_KEY].to_vec();
        let hashes = (self.hashing.hash_one(key), self.more_hashing.hash_one(key));
        short.extend(format!("...{:016x}{:016x}", hashes.0, hashes.1).bytes());
        short
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(60);

    fn endpoint(number: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, number], 8080))
    }

    /// Steps at seconds of the clock: a request for a key that ring hash would send to an endpoint, and where it went.
    fn check(most: u32, steps: &[(u64, &str, u8, u8)]) {
        let start = Instant::now();
        let table = SessionTable::new(IDLE, most, start);
        for (position, (second, key, wanted, expected)) in steps.iter().enumerate() {
            let now = start + Duration::from_secs(*second);
            let known = table.renew(key.as_bytes(), now);
            let went =
                known.unwrap_or_else(|| table.claim(key.as_bytes(), endpoint(*wanted), None, now));
            assert_eq!(went, endpoint(*expected), "step {position}");
        }
    }

    #[test]
    fn a_key_stays_while_it_is_used_and_is_free_when_idle() {
        check(
            10,
            &[
                (0, "ann", 1, 1),
                (59, "ann", 2, 1),
                (118, "ann", 2, 1),
                (178, "ann", 2, 2),
                (179, "bob", 3, 3),
                (237, "ann", 1, 2),
            ],
        );
    }

    #[test]
    fn a_full_table_gives_up_the_key_that_was_idle_longest() {
        check(
            2,
            &[
                (0, "ann", 1, 1),
                (1, "bob", 2, 2),
                (2, "ann", 9, 1),
                (3, "carl", 3, 3),
                (4, "ann", 9, 1),
                (5, "bob", 9, 9),
                (6, "carl", 8, 8),
            ],
        );
    }

    #[test]
    fn a_key_moves_only_from_the_endpoint_that_is_named() {
        let now = Instant::now();
        let table = SessionTable::new(IDLE, 10, now);
        assert_eq!(table.claim(b"ann", endpoint(1), None, now), endpoint(1));
        assert_eq!(table.claim(b"ann", endpoint(2), None, now), endpoint(1));
        let moved = |to, from| table.claim(b"ann", endpoint(to), Some(endpoint(from)), now);
        assert_eq!(moved(2, 3), endpoint(1));
        assert_eq!(moved(2, 1), endpoint(2));
        // A second request that still saw the first endpoint fail does not move it again.
        assert_eq!(moved(3, 1), endpoint(2));
        assert_eq!(table.counts().moved.load(Ordering::Relaxed), 1);
        assert_eq!(table.counts().created.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn long_keys_are_kept_short_and_apart() {
        let now = Instant::now();
        let table = SessionTable::new(IDLE, 10, now);
        let long = vec![b'a'; 100_000];
        let mut other = long.clone();
        other[99_999] = b'b';
        assert_eq!(table.claim(&long, endpoint(1), None, now), endpoint(1));
        assert_eq!(table.claim(&other, endpoint(2), None, now), endpoint(2));
        assert_eq!(table.renew(&long, now), Some(endpoint(1)));
        assert!(table.sessions(now, 10).iter().all(|s| s.key.len() < 128));
    }

    #[test]
    fn a_table_of_another_size_keeps_the_latest_used_sessions() {
        let start = Instant::now();
        let table = SessionTable::new(IDLE, 100_000, start);
        let at = |millis: u64| start + Duration::from_millis(millis);
        for number in 0..1000_u32 {
            let key = number.to_be_bytes();
            table.claim(&key, endpoint(number as u8), None, at(number.into()));
        }
        let check = |most: u32, kept: std::ops::Range<u32>| {
            let resized = table.resized(most, at(1000));
            assert_eq!(resized.len(), kept.len(), "{most}");
            for number in kept {
                let known = resized.renew(&number.to_be_bytes(), at(1000));
                assert_eq!(known, Some(endpoint(number as u8)), "{most} {number}");
            }
            assert_eq!(resized.counts().created.load(Ordering::Relaxed), 1000);
        };
        check(1 << 20, 0..1000);
        check(2000, 0..1000);
        check(10, 990..1000);
        let latest: Vec<_> = table.sessions(at(1000), 3);
        let idle: Vec<_> = latest
            .iter()
            .map(|session| session.idle.as_millis())
            .collect();
        assert_eq!(idle, [1, 2, 3]);
    }

    #[test]
    fn what_is_known_elsewhere_is_taken_over() {
        let now = Instant::now();
        let table = SessionTable::new(IDLE, 10, now);
        table.put(b"ann", endpoint(1), now);
        table.put(b"ann", endpoint(2), now + IDLE / 2);
        assert_eq!(table.renew(b"ann", now + IDLE), Some(endpoint(2)));
        assert_eq!(table.counts().created.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn what_ended_is_swept_and_counted() {
        let start = Instant::now();
        let table = SessionTable::new(IDLE, 1 << 20, start);
        for number in 0..1000_u32 {
            table.claim(&number.to_be_bytes(), endpoint(1), None, start);
        }
        assert_eq!(table.len(), 1000);
        let half = start + IDLE / 2;
        for number in 0..10_u32 {
            assert!(table.renew(&number.to_be_bytes(), half).is_some());
        }
        let end = start + IDLE;
        table.sweep(end, usize::MAX);
        assert_eq!(table.len(), 10);
        let left = table.sessions(end, 100);
        assert_eq!(left.len(), 10);
        assert!(left.iter().all(|session| session.idle == IDLE / 2));
        assert_eq!(table.counts().expired.load(Ordering::Relaxed), 990);
    }
}
