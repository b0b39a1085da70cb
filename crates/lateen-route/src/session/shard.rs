//! One part of a session table: entries in a vector, found by a hash table of their positions, and linked in the
//! order of their last use. An entry costs about 130 bytes with a short key.

use std::net::SocketAddr;

use hashbrown::HashTable;

/// The position of no entry.
const NONE: u32 = u32::MAX;

/// Sessions in the order of their last use.
#[derive(Debug)]
pub(super) struct Shard {
    positions: HashTable<u32>,
    entries: Vec<Entry>,
    /// Most entries.
    most: u32,
    latest: u32,
    oldest: u32,
}

/// A session.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: Box<[u8]>,
    pub(super) endpoint: SocketAddr,
    pub(super) last_use: u64,
    later: u32,
    earlier: u32,
}

impl Shard {
    pub(super) fn new(most: u32) -> Self {
        Self {
            positions: HashTable::new(),
            entries: Vec::new(),
            most,
            latest: NONE,
            oldest: NONE,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Position of a key's entry. Positions change when an entry is removed.
    pub(super) fn find(&self, hash: u64, key: &[u8]) -> Option<u32> {
        let same = |position: &u32| *self.entries[*position as usize].key == *key;
        self.positions.find(hash, same).copied()
    }

    pub(super) fn endpoint(&self, position: u32) -> SocketAddr {
        self.entries[position as usize].endpoint
    }

    pub(super) fn set_endpoint(&mut self, position: u32, endpoint: SocketAddr) {
        self.entries[position as usize].endpoint = endpoint;
    }

    pub(super) fn last_use(&self, position: u32) -> u64 {
        self.entries[position as usize].last_use
    }

    /// Position of the entry that was not used for the longest time.
    pub(super) fn oldest(&self) -> Option<u32> {
        (self.oldest != NONE).then_some(self.oldest)
    }

    /// All entries, the latest used first.
    pub(super) fn latest(&self) -> impl Iterator<Item = &Entry> {
        let next = |position: u32| self.entries.get(position as usize);
        std::iter::successors(next(self.latest), move |entry| next(entry.earlier))
    }

    /// Makes an entry the latest used one.
    pub(super) fn touch(&mut self, position: u32, now: u64) {
        self.entries[position as usize].last_use = now;
        if self.latest != position {
            self.unlink(position);
            self.link(position);
        }
    }

    /// Adds an entry for a key that has none. Returns whether another one had to go.
    pub(super) fn insert(
        &mut self,
        hash: u64,
        key: &[u8],
        endpoint: SocketAddr,
        now: u64,
        rehash: &impl Fn(&[u8]) -> u64,
    ) -> bool {
        let is_full = self.entries.len() >= self.most as usize;
        if is_full && let Some(oldest) = self.oldest() {
            self.remove(oldest, rehash);
        }
        let position = self.entries.len() as u32;
        self.entries.push(Entry {
            key: key.into(),
            endpoint,
            last_use: now,
            later: NONE,
            earlier: NONE,
        });
        self.link(position);
        let entries = &self.entries;
        self.positions.insert_unique(hash, position, |other| {
            rehash(&entries[*other as usize].key)
        });
        is_full
    }

    /// Removes an entry. The last one takes its position.
    pub(super) fn remove(&mut self, position: u32, rehash: &impl Fn(&[u8]) -> u64) {
        self.unlink(position);
        self.forget_position(position, rehash);
        let last = self.entries.len() as u32 - 1;
        if position != last {
            let hash = rehash(&self.entries[last as usize].key);
            if let Ok(moved) = self.positions.find_entry(hash, |other| *other == last) {
                *moved.into_mut() = position;
            }
            let Entry { later, earlier, .. } = self.entries[last as usize];
            self.set_earlier(later, position);
            self.set_later(earlier, position);
        }
        self.entries.swap_remove(position as usize);
    }

    fn forget_position(&mut self, position: u32, rehash: &impl Fn(&[u8]) -> u64) {
        let hash = rehash(&self.entries[position as usize].key);
        if let Ok(found) = self.positions.find_entry(hash, |other| *other == position) {
            found.remove();
        }
    }

    fn link(&mut self, position: u32) {
        let before = self.latest;
        let entry = &mut self.entries[position as usize];
        (entry.later, entry.earlier) = (NONE, before);
        self.set_later(before, position);
        self.latest = position;
    }

    fn unlink(&mut self, position: u32) {
        let Entry { later, earlier, .. } = self.entries[position as usize];
        self.set_earlier(later, earlier);
        self.set_later(earlier, later);
    }

    /// What comes before `position` in the order of use; the end of the list when there is no such entry.
    fn set_earlier(&mut self, position: u32, earlier: u32) {
        match self.entries.get_mut(position as usize) {
            Some(entry) => entry.earlier = earlier,
            None => self.latest = earlier,
        }
    }

    fn set_later(&mut self, position: u32, later: u32) {
        match self.entries.get_mut(position as usize) {
            Some(entry) => entry.later = later,
            None => self.oldest = later,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::hash::{BuildHasher, RandomState};

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever is done, the shard holds what a plain list would, in the same order.
        #[test]
        fn agrees_with_a_plain_list(most in 1_u32..8, keys in prop::collection::vec((0_u8..12, any::<bool>()), 0..80)) {
            let hashing = RandomState::new();
            let rehash = |key: &[u8]| hashing.hash_one(key);
            let endpoint = SocketAddr::from(([127, 0, 0, 1], 1));
            let (mut shard, mut plain) = (Shard::new(most), VecDeque::new());
            for (now, (key, removes)) in keys.into_iter().enumerate() {
                let hash = rehash(&[key]);
                let found = shard.find(hash, &[key]);
                prop_assert_eq!(found.is_some(), plain.contains(&key));
                plain.retain(|other| *other != key);
                match (found, removes) {
                    (Some(position), true) => shard.remove(position, &rehash),
                    (Some(position), false) => shard.touch(position, now as u64),
                    (None, _) => {
                        let evicts = plain.len() == most as usize;
                        prop_assert_eq!(shard.insert(hash, &[key], endpoint, now as u64, &rehash), evicts);
                        plain.truncate(most as usize - 1);
                    }
                }
                if !(found.is_some() && removes) {
                    plain.push_front(key);
                }
                let held: Vec<u8> = shard.latest().map(|entry| entry.key[0]).collect();
                prop_assert_eq!(&held, &plain.iter().copied().collect::<Vec<_>>());
                let oldest = shard.oldest().map(|position| shard.entries[position as usize].key[0]);
                prop_assert_eq!(oldest, plain.back().copied());
            }
        }
    }
}
