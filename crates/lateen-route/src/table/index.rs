//! An index over the routes of a virtual host that keeps the first match of the list.
//!
//! Routes are filed by their path condition: exact paths and prefixes in hash maps, everything else in an ordered
//! rest. A request collects the few lists that its path can match and takes the smallest position whose other
//! conditions hold, so the answer is the same as trying the routes one by one.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::RequestView;
use crate::path_match::PathMatch;
use crate::route::Route;

/// Positions of routes, ascending.
type Positions = Vec<u32>;

#[derive(Debug, Default)]
pub(crate) struct RouteIndex {
    exact: HashMap<String, Positions>,
    /// Prefix text by the hash of its bytes. Different texts with the same hash share a list: every candidate's path
    /// is compared anyway.
    prefixes: HashMap<u64, Positions, BuildHasherDefault<Identity>>,
    /// Lengths of the prefixes, ascending.
    lengths: Vec<usize>,
    rest: Positions,
}

impl RouteIndex {
    pub(crate) fn build(routes: &[Route]) -> Self {
        let mut index = Self::default();
        for (position, route) in routes.iter().enumerate() {
            let position = u32::try_from(position).unwrap_or(u32::MAX);
            match &route.path {
                PathMatch::Exact(path) if route.case_sensitive => {
                    index.exact.entry(path.clone()).or_default().push(position);
                }
                PathMatch::Prefix(prefix) | PathMatch::SeparatedPrefix(prefix)
                    if route.case_sensitive =>
                {
                    let hash = prefix.bytes().fold(HASH_START, hash_byte);
                    index.prefixes.entry(hash).or_default().push(position);
                    index.lengths.push(prefix.len());
                }
                _ => index.rest.push(position),
            }
        }
        index.lengths.sort_unstable();
        index.lengths.dedup();
        index
    }

    /// The position of the first route in list order that matches.
    pub(crate) fn find(
        &self,
        routes: &[Route],
        request: &RequestView<'_>,
        random: u64,
    ) -> Option<usize> {
        let path = request.path_only();
        let mut best = u32::MAX;
        if let Some(positions) = self.exact.get(path) {
            first_match(positions, routes, request, random, &mut best);
        }
        let mut hash = HASH_START;
        let mut hashed = 0;
        for &length in &self.lengths {
            let Some(part) = path.as_bytes().get(hashed..length) else {
                break;
            };
            hash = part.iter().copied().fold(hash, hash_byte);
            hashed = length;
            if let Some(positions) = self.prefixes.get(&hash) {
                first_match(positions, routes, request, random, &mut best);
            }
        }
        first_match(&self.rest, routes, request, random, &mut best);
        (best != u32::MAX).then_some(best as usize)
    }
}

/// Lowers `best` to the first position of the list that matches, looking no further than `best`.
fn first_match(
    positions: &[u32],
    routes: &[Route],
    request: &RequestView<'_>,
    random: u64,
    best: &mut u32,
) {
    for &position in positions.iter().take_while(|position| **position < *best) {
        if routes[position as usize].matches(request, random) {
            *best = position;
            return;
        }
    }
}

/// FNV-1a, because it is computed byte by byte while the path is walked.
const HASH_START: u64 = 0xcbf2_9ce4_8422_2325;

fn hash_byte(hash: u64, byte: u8) -> u64 {
    (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
}

/// The keys are hashes already.
#[derive(Debug, Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only u64 keys are hashed");
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}
