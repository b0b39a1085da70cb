//! Load balancing: which endpoint of a cluster takes a request.
//!
//! A [`Balancer`] is built once per state of a cluster's endpoints and shared; what changes with each choice (round
//! robin positions, schedules) lives in a [`State`] that each worker keeps for itself.

mod bounded;
mod consistent;
mod group;
mod priority;
mod schedule;
pub mod slow_start;
pub mod subset;

pub use slow_start::SlowStart;

use std::time::Duration;

use group::{Group, GroupState};
use priority::{Levels, Part};

/// The algorithm of a cluster.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Policy {
    /// In turn, by weight.
    RoundRobin,
    /// The least loaded of some random candidates.
    LeastRequest {
        /// How many candidates are drawn, at least 2.
        choices: u32,
        /// Exponent of the active requests that divide weights which differ; 0 ignores them, 1 by default.
        bias: f64,
    },
    /// Uniformly at random.
    Random,
    /// Consistent hashing on a ring.
    RingHash {
        /// Fewest entries of the ring.
        minimum: u64,
        /// Most entries of the ring.
        maximum: u64,
        /// How entries of the ring are hashed.
        function: HashFunction,
    },
    /// Consistent hashing with a lookup table.
    Maglev {
        /// Entries of the table, a prime.
        size: u64,
    },
}

impl Policy {
    /// Whether equal hashes choose equal endpoints.
    pub(crate) fn is_consistent(self) -> bool {
        matches!(self, Self::RingHash { .. } | Self::Maglev { .. })
    }
}

/// How entries of a ring are hashed. Requests are always hashed with xxHash64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HashFunction {
    /// xxHash64 with seed 0.
    #[default]
    XxHash,
    /// MurmurHash2, 64 bits, as the C++ library uses it.
    Murmur2,
}

/// Health of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// Takes requests.
    Healthy,
    /// Takes requests when there are not enough healthy ones.
    Degraded,
    /// Takes none.
    Unhealthy,
}

/// An endpoint as balancing sees it.
#[derive(Debug, Clone)]
pub struct Member {
    /// What consistent hashing hashes: a configured key, else `ip:port` or the host name.
    pub key: String,
    /// Share within its locality, at least 1.
    pub weight: u32,
    /// Whether it takes requests.
    pub health: Health,
    /// Lower numbers are preferred.
    pub priority: u32,
    /// Position of its locality in [`Settings::locality_weights`].
    pub locality: usize,
}

/// What a cluster says about balancing.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The algorithm.
    pub policy: Policy,
    /// Percent that healthy capacity counts, 140 by default.
    pub overprovisioning: u32,
    /// Percent of usable endpoints below which health is ignored, 50 by default; 0 never.
    pub panic_threshold: u32,
    /// Weights of the localities when traffic is split by them.
    pub locality_weights: Option<Vec<u32>>,
    /// New endpoints get their share by and by.
    pub slow_start: Option<SlowStart>,
    /// Percent of the average load that consistent choices may put on an endpoint, at least 100.
    pub hash_balance_factor: Option<u32>,
}

impl Settings {
    /// The defaults of Envoy's `Cluster` for an algorithm.
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            overprovisioning: 140,
            panic_threshold: 50,
            locality_weights: None,
            slow_start: None,
            hash_balance_factor: None,
        }
    }
}

/// A balancer over a fixed set of endpoints.
#[derive(Debug)]
pub struct Balancer {
    settings: Settings,
    levels: Levels,
    groups: Vec<Group>,
    /// `(group, percent)` in the order in which they are drawn; the percents add up to 100.
    loads: Vec<(usize, u32)>,
}

/// What a choice depends on.
pub struct Pick<'p> {
    /// Hash of the request, if it has one.
    pub hash: Option<u64>,
    /// Source of random numbers.
    pub random: &'p mut dyn FnMut() -> u64,
    /// Active requests of an endpoint.
    pub load: &'p dyn Fn(usize) -> u32,
    /// Time since an endpoint was added. Nothing when none is new enough to start slowly.
    pub age: Option<&'p dyn Fn(usize) -> Duration>,
    /// How often a host was chosen already for this attempt, to move on in consistent choices.
    pub attempt: u64,
    /// Priorities that earlier attempts used, when retries avoid them.
    pub previous: Option<Previous<'p>>,
}

/// Priorities of earlier attempts, for retries that turn to others.
#[derive(Debug, Clone, Copy)]
pub struct Previous<'p> {
    /// In the order of the attempts.
    pub tried: &'p [u32],
    /// Attempts after which what was tried so far is left out.
    pub frequency: usize,
}

/// The part of a balancer that changes with each choice. One per worker.
#[derive(Debug, Default)]
pub struct State {
    groups: Vec<GroupState>,
}

impl Balancer {
    /// Builds a balancer. Positions in `members` are what [`Balancer::pick`] returns.
    pub fn build(settings: &Settings, members: &[Member]) -> Self {
        let levels = Levels::new(settings, members);
        let mut groups: Vec<Group> = levels
            .parts
            .iter()
            .map(|part| Group::build(settings, members, part))
            .collect();
        if let Some(factor) = settings.hash_balance_factor {
            for group in &mut groups {
                group.bound(factor);
            }
        }
        let loads = levels.loads(&[]).unwrap_or_default();
        Self {
            settings: settings.clone(),
            levels,
            groups,
            loads,
        }
    }

    /// Chooses an endpoint; nothing when none is usable.
    pub fn pick(&self, state: &mut State, pick: &mut Pick<'_>) -> Option<usize> {
        let adjusted = pick
            .previous
            .and_then(|previous| self.levels.avoiding(previous));
        let group = match adjusted.as_deref().unwrap_or(&self.loads) {
            [] => return None,
            [(group, _)] => *group,
            loads => {
                let consistent = self.settings.policy.is_consistent();
                let hash = pick.hash.filter(|_| consistent);
                let number = hash.unwrap_or_else(|| (pick.random)());
                let mut point = u32::try_from(number % 100).unwrap_or(0);
                let drawn = loads.iter().find(|(_, percent)| {
                    let hit = point < *percent;
                    point = point.saturating_sub(*percent);
                    hit
                });
                drawn.or_else(|| loads.last())?.0
            }
        };
        state
            .groups
            .resize_with(self.groups.len(), GroupState::default);
        self.groups[group].pick(&self.settings, &mut state.groups[group], pick)
    }
}
