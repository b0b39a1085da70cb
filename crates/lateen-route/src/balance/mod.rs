//! Load balancing: which endpoint of a cluster takes a request.
//!
//! A [`Balancer`] is built once per state of a cluster's endpoints and shared; what changes with each choice (round
//! robin positions, schedules) lives in a [`State`] that each worker keeps for itself.

mod consistent;
mod priority;
mod schedule;

use consistent::{Maglev, Ring};
use schedule::Schedule;

/// The algorithm of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// In turn, by weight.
    RoundRobin,
    /// The least loaded of some random candidates.
    LeastRequest {
        /// How many candidates are drawn, at least 2.
        choices: u32,
    },
    /// Uniformly at random.
    Random,
    /// Consistent hashing on a ring.
    RingHash {
        /// Fewest entries of the ring.
        minimum: u64,
        /// Most entries of the ring.
        maximum: u64,
    },
    /// Consistent hashing with a lookup table.
    Maglev {
        /// Entries of the table, a prime.
        size: u64,
    },
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
    /// What consistent hashing hashes: a configured key, else `ip:port`.
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
}

/// A balancer over a fixed set of endpoints.
#[derive(Debug)]
pub struct Balancer {
    policy: Policy,
    groups: Vec<Group>,
    /// `(group, percent)` in the order in which they are drawn; the percents add up to 100.
    loads: Vec<(usize, u32)>,
}

/// Endpoints among which one algorithm chooses.
#[derive(Debug)]
struct Group {
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Plain(Pool),
    /// One pool per locality, chosen by weight.
    Localities {
        weights: Vec<f64>,
        pools: Vec<Pool>,
    },
    Ring(Ring),
    Maglev(Maglev),
}

/// A plain list of endpoints.
#[derive(Debug)]
struct Pool {
    members: Vec<usize>,
    weights: Vec<f64>,
    equal: bool,
}

/// What a choice depends on.
pub struct Pick<'p> {
    /// Hash of the request, if it has one.
    pub hash: Option<u64>,
    /// Source of random numbers.
    pub random: &'p mut dyn FnMut() -> u64,
    /// Active requests of an endpoint.
    pub load: &'p dyn Fn(usize) -> u32,
    /// How often a host was chosen already for this attempt, to move on in consistent choices.
    pub attempt: u64,
}

/// The part of a balancer that changes with each choice. One per worker.
#[derive(Debug, Default)]
pub struct State {
    groups: Vec<GroupState>,
}

#[derive(Debug, Default)]
struct GroupState {
    locality: Option<Schedule>,
    pools: Vec<PoolState>,
}

#[derive(Debug, Default)]
struct PoolState {
    position: Option<u64>,
    schedule: Option<Schedule>,
}

impl Balancer {
    /// Builds a balancer. Positions in `members` are what [`Balancer::pick`] returns.
    pub fn build(settings: &Settings, members: &[Member]) -> Self {
        let plan = priority::plan(settings, members);
        let mut balancer = Self {
            policy: settings.policy,
            groups: Vec::new(),
            loads: Vec::new(),
        };
        for (chosen, percent) in plan {
            if percent > 0 {
                balancer.loads.push((balancer.groups.len(), percent));
                balancer
                    .groups
                    .push(Group::build(settings, members, chosen));
            }
        }
        balancer
    }

    /// Chooses an endpoint; nothing when none is usable.
    pub fn pick(&self, state: &mut State, pick: &mut Pick<'_>) -> Option<usize> {
        let group = match self.loads.as_slice() {
            [] => return None,
            [(group, _)] => *group,
            loads => {
                let number = match (self.policy, pick.hash) {
                    (Policy::RingHash { .. } | Policy::Maglev { .. }, Some(hash)) => hash,
                    _ => (pick.random)(),
                };
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
        self.groups[group].pick(self.policy, &mut state.groups[group], pick)
    }
}

impl Group {
    fn build(settings: &Settings, members: &[Member], chosen: Vec<usize>) -> Self {
        let localities = settings.locality_weights.as_deref();
        let kind = match settings.policy {
            Policy::RingHash { minimum, maximum } => {
                let hosts = normalised(members, &chosen, localities);
                Kind::Ring(Ring::build(&hosts, minimum, maximum))
            }
            Policy::Maglev { size } => Kind::Maglev(Maglev::build(
                &normalised(members, &chosen, localities),
                size,
            )),
            _ => match localities {
                Some(weights) => by_locality(settings, members, &chosen, weights),
                None => Kind::Plain(Pool::build(members, chosen)),
            },
        };
        Self { kind }
    }

    fn pick(&self, policy: Policy, state: &mut GroupState, pick: &mut Pick<'_>) -> Option<usize> {
        match &self.kind {
            Kind::Ring(ring) => {
                ring.pick(pick.hash.unwrap_or_else(|| (pick.random)()), pick.attempt)
            }
            Kind::Maglev(table) => {
                table.pick(pick.hash.unwrap_or_else(|| (pick.random)()), pick.attempt)
            }
            Kind::Plain(pool) => {
                state.pools.resize_with(1, PoolState::default);
                pool.pick(policy, &mut state.pools[0], pick)
            }
            Kind::Localities { weights, pools } => {
                state.pools.resize_with(pools.len(), PoolState::default);
                let schedule = state
                    .locality
                    .get_or_insert_with(|| Schedule::new(weights, (pick.random)()));
                let locality = schedule.next(|index| weights[index])?;
                pools[locality].pick(policy, &mut state.pools[locality], pick)
            }
        }
    }
}

/// Localities share traffic by their weight, reduced by what they lack in health beyond the overprovisioning.
fn by_locality(settings: &Settings, members: &[Member], chosen: &[usize], weights: &[u32]) -> Kind {
    let priority = chosen.first().map_or(0, |first| members[*first].priority);
    let mut effective = Vec::new();
    let mut pools = Vec::new();
    for (locality, weight) in weights.iter().enumerate() {
        let in_locality = |index: &&usize| members[**index].locality == locality;
        let usable: Vec<usize> = chosen.iter().filter(in_locality).copied().collect();
        let all = members
            .iter()
            .filter(|member| member.locality == locality && member.priority == priority)
            .count();
        if usable.is_empty() || *weight == 0 {
            continue;
        }
        let share = usable.len() as f64 / all.max(1) as f64;
        let overprovisioning = f64::from(settings.overprovisioning) / 100.0;
        effective.push(f64::from(*weight) * (overprovisioning * share).min(1.0));
        pools.push(Pool::build(members, usable));
    }
    Kind::Localities {
        weights: effective,
        pools,
    }
}

/// Keys and weights that add up to one, as the consistent tables want them.
fn normalised<'m>(
    members: &'m [Member],
    chosen: &[usize],
    localities: Option<&[u32]>,
) -> Vec<consistent::Host<'m>> {
    let locality_sum = |locality: usize| -> f64 {
        let within = chosen
            .iter()
            .filter(|index| members[**index].locality == locality);
        within.map(|index| f64::from(members[*index].weight)).sum()
    };
    let raw: Vec<f64> = chosen
        .iter()
        .map(|index| {
            let member = &members[*index];
            let weight = f64::from(member.weight);
            localities.map_or(weight, |weights| {
                let locality = f64::from(weights.get(member.locality).copied().unwrap_or(0));
                locality * weight / locality_sum(member.locality)
            })
        })
        .collect();
    let sum: f64 = raw.iter().sum();
    chosen
        .iter()
        .zip(raw)
        .filter(|(_, weight)| *weight > 0.0)
        .map(|(index, weight)| consistent::Host {
            member: *index,
            key: &members[*index].key,
            weight: weight / sum,
        })
        .collect()
}

impl Pool {
    fn build(members: &[Member], chosen: Vec<usize>) -> Self {
        let weights: Vec<f64> = chosen
            .iter()
            .map(|index| f64::from(members[*index].weight))
            .collect();
        let equal = weights.windows(2).all(|pair| pair[0] == pair[1]);
        Self {
            members: chosen,
            weights,
            equal,
        }
    }

    fn pick(&self, policy: Policy, state: &mut PoolState, pick: &mut Pick<'_>) -> Option<usize> {
        let count = self.members.len() as u64;
        if count == 0 {
            return None;
        }
        if policy == Policy::Random {
            return self.at((pick.random)() % count);
        }
        if self.equal {
            return match policy {
                Policy::LeastRequest { choices } => self.least_of(choices, pick),
                _ => {
                    let position = state.position.get_or_insert_with(|| (pick.random)());
                    let chosen = *position % count;
                    *position = position.wrapping_add(1);
                    self.at(chosen)
                }
            };
        }
        let schedule = state
            .schedule
            .get_or_insert_with(|| Schedule::new(&self.weights, (pick.random)()));
        let chosen = schedule.next(|index| match policy {
            Policy::LeastRequest { .. } => {
                let load = (pick.load)(self.members[index]);
                self.weights[index] / (f64::from(load) + 1.0)
            }
            _ => self.weights[index],
        })?;
        self.at(chosen as u64)
    }

    /// Draws some candidates; the least loaded wins, the first drawn among equals.
    fn least_of(&self, choices: u32, pick: &mut Pick<'_>) -> Option<usize> {
        let count = self.members.len() as u64;
        let mut best = self.at((pick.random)() % count)?;
        for _ in 1..choices.max(2) {
            let candidate = self.at((pick.random)() % count)?;
            if (pick.load)(candidate) < (pick.load)(best) {
                best = candidate;
            }
        }
        Some(best)
    }

    fn at(&self, position: u64) -> Option<usize> {
        self.members.get(usize::try_from(position).ok()?).copied()
    }
}
