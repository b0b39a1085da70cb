//! Ring hash and maglev with exactly Envoy's tables, so that the same key reaches the same endpoint through either
//! proxy.

use super::HashFunction;
use crate::hash::{murmur64, xx64};

/// An endpoint with its share of the table. Shares add up to one.
pub(super) struct Host<'m> {
    pub(super) member: usize,
    pub(super) key: &'m str,
    pub(super) weight: f64,
}

/// Sorted hashes with the endpoint each belongs to.
#[derive(Debug)]
pub(super) struct Ring {
    entries: Vec<(u64, usize)>,
}

impl Ring {
    pub(super) fn build(
        hosts: &[Host<'_>],
        minimum: u64,
        maximum: u64,
        function: HashFunction,
    ) -> Self {
        let smallest = hosts.iter().map(|host| host.weight).fold(1.0, f64::min);
        // Every endpoint gets a whole number of entries for its weight, if the maximum allows.
        let scale = ((smallest * minimum as f64).ceil() / smallest).min(maximum as f64);
        let mut entries = Vec::with_capacity(scale.ceil() as usize);
        let (mut current, mut target) = (0.0, 0.0);
        let mut text = String::new();
        for host in hosts {
            target += scale * host.weight;
            let mut number = 0u64;
            while current < target {
                text.clear();
                text.push_str(host.key);
                text.push('_');
                text.push_str(&number.to_string());
                let hash = match function {
                    HashFunction::XxHash => xx64(text.as_bytes(), 0),
                    HashFunction::Murmur2 => murmur64(text.as_bytes()),
                };
                entries.push((hash, host.member));
                number += 1;
                current += 1.0;
            }
        }
        entries.sort_unstable_by_key(|(hash, _)| *hash);
        Self { entries }
    }

    /// The first entry at or after the hash; each attempt moves one further.
    pub(super) fn pick(&self, hash: u64, attempt: u64) -> Option<usize> {
        let size = self.entries.len();
        if size == 0 {
            return None;
        }
        let found = self.entries.partition_point(|(entry, _)| *entry < hash) % size;
        let moved = (found + usize::try_from(attempt % size as u64).unwrap_or(0)) % size;
        Some(self.entries[moved].1)
    }
}

/// A lookup table filled in turns.
#[derive(Debug)]
pub(super) struct Maglev {
    table: Vec<u32>,
    members: Vec<usize>,
}

impl Maglev {
    pub(super) fn build(hosts: &[Host<'_>], size: u64) -> Self {
        struct Turn {
            position: u32,
            offset: u64,
            skip: u64,
            weight: f64,
            target: f64,
            next: u64,
        }
        const FREE: u32 = u32::MAX;
        let members = hosts.iter().map(|host| host.member).collect();
        if hosts.is_empty() {
            return Self {
                table: Vec::new(),
                members,
            };
        }
        let mut turns: Vec<(&str, Turn)> = hosts
            .iter()
            .zip(0u32..)
            .map(|(host, position)| {
                let key = host.key.as_bytes();
                let turn = Turn {
                    position,
                    offset: xx64(key, 0) % size,
                    skip: xx64(key, 1) % (size - 1) + 1,
                    weight: host.weight,
                    target: 0.0,
                    next: 0,
                };
                (host.key, turn)
            })
            .collect();
        turns.sort_by(|left, right| left.0.cmp(right.0));
        let greatest = hosts.iter().map(|host| host.weight).fold(0.0, f64::max);
        let mut table = vec![FREE; usize::try_from(size).unwrap_or(0)];
        let mut filled = 0;
        let mut round = 1.0;
        while filled < size {
            for (_, turn) in &mut turns {
                if round * turn.weight < turn.target {
                    continue;
                }
                turn.target += greatest;
                let slot = loop {
                    let candidate = ((turn.offset + turn.skip * turn.next) % size) as usize;
                    turn.next += 1;
                    if table[candidate] == FREE {
                        break candidate;
                    }
                };
                table[slot] = turn.position;
                filled += 1;
                if filled == size {
                    break;
                }
            }
            round += 1.0;
        }
        Self { table, members }
    }

    /// The entry of the hash; each attempt uses another one.
    pub(super) fn pick(&self, mut hash: u64, attempt: u64) -> Option<usize> {
        if self.table.is_empty() {
            return None;
        }
        if attempt > 0 {
            hash ^= (!0u64).wrapping_sub(attempt).wrapping_add(1);
        }
        let entry = self.table[usize::try_from(hash % self.table.len() as u64).unwrap_or(0)];
        self.members.get(entry as usize).copied()
    }
}
