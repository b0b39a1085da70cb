//! Endpoints among which one algorithm chooses: plain pools, localities by weight, or a consistent table.

use super::bounded::Bounds;
use super::consistent::{self, Maglev, Ring};
use super::schedule::Schedule;
use super::{Member, Part, Pick, Policy, Settings};

/// One part of a cluster's endpoints with what choices need.
#[derive(Debug)]
pub(super) struct Group {
    kind: Kind,
    /// Shares of the endpoints in a consistent table, which add up to one.
    shares: Vec<(usize, f64)>,
    bounds: Option<Bounds>,
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

/// Positions of a group that change with each choice.
#[derive(Debug, Default)]
pub(super) struct GroupState {
    locality: Option<Schedule>,
    pools: Vec<PoolState>,
}

#[derive(Debug, Default)]
struct PoolState {
    position: Option<u64>,
    schedule: Option<Schedule>,
}

impl Group {
    pub(super) fn build(settings: &Settings, members: &[Member], part: &Part) -> Self {
        let localities = settings.locality_weights.as_deref();
        let chosen = &part.members;
        let hosts = || normalised(members, chosen, localities);
        let mut shares = Vec::new();
        let mut share = |hosts: &[consistent::Host<'_>]| {
            shares = hosts
                .iter()
                .map(|host| (host.member, host.weight))
                .collect();
        };
        let kind = match settings.policy {
            Policy::RingHash {
                minimum,
                maximum,
                function,
            } => {
                let hosts = hosts();
                share(&hosts);
                Kind::Ring(Ring::build(&hosts, minimum, maximum, function))
            }
            Policy::Maglev { size } => {
                let hosts = hosts();
                share(&hosts);
                Kind::Maglev(Maglev::build(&hosts, size))
            }
            // In panic all endpoints take part alike, wherever they are.
            _ => match localities.filter(|_| !part.panic) {
                Some(weights) => by_locality(settings, members, part, weights),
                None => Kind::Plain(Pool::build(members, chosen.clone())),
            },
        };
        Self {
            kind,
            shares,
            bounds: None,
        }
    }

    /// Limits the load that consistent choices put on an endpoint.
    pub(super) fn bound(&mut self, factor: u32) {
        self.bounds = Some(Bounds::new(factor, std::mem::take(&mut self.shares)));
    }

    pub(super) fn pick(
        &self,
        settings: &Settings,
        state: &mut GroupState,
        pick: &mut Pick<'_>,
    ) -> Option<usize> {
        match &self.kind {
            Kind::Ring(_) | Kind::Maglev(_) => {
                let hash = pick.hash.unwrap_or_else(|| (pick.random)());
                let chosen = match &self.kind {
                    Kind::Ring(ring) => ring.pick(hash, pick.attempt),
                    Kind::Maglev(table) => table.pick(hash, pick.attempt),
                    Kind::Plain(_) | Kind::Localities { .. } => None,
                }?;
                Some(match &self.bounds {
                    Some(bounds) => bounds.within(chosen, hash, pick.load),
                    None => chosen,
                })
            }
            Kind::Plain(pool) => {
                state.pools.resize_with(1, PoolState::default);
                pool.pick(settings, &mut state.pools[0], pick)
            }
            Kind::Localities { weights, pools } => {
                state.pools.resize_with(pools.len(), PoolState::default);
                let schedule = state
                    .locality
                    .get_or_insert_with(|| Schedule::new(weights, (pick.random)()));
                let locality = schedule.next(|index| weights[index])?;
                pools[locality].pick(settings, &mut state.pools[locality], pick)
            }
        }
    }
}

/// Localities share traffic by their weight, reduced by what they lack in health beyond the overprovisioning.
fn by_locality(settings: &Settings, members: &[Member], part: &Part, weights: &[u32]) -> Kind {
    let mut effective = Vec::new();
    let mut pools = Vec::new();
    for (locality, weight) in weights.iter().enumerate() {
        let in_locality = |index: &&usize| members[**index].locality == locality;
        let usable: Vec<usize> = part.members.iter().filter(in_locality).copied().collect();
        let all = members
            .iter()
            .filter(|member| member.locality == locality && member.priority == part.priority)
            .count();
        if usable.is_empty() || *weight == 0 {
            continue;
        }
        let share = usable.len() as f64 / all.max(1) as f64;
        let overprovisioning = f64::from(settings.overprovisioning) / 100.0;
        effective.push(f64::from(*weight) * (overprovisioning * share).min(1.0));
        pools.push(Pool::build(members, usable));
    }
    if pools.is_empty() {
        // Without any weight there is nothing to share by.
        return Kind::Plain(Pool::build(members, part.members.clone()));
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

    fn pick(
        &self,
        settings: &Settings,
        state: &mut PoolState,
        pick: &mut Pick<'_>,
    ) -> Option<usize> {
        let count = self.members.len() as u64;
        if count == 0 {
            return None;
        }
        let policy = settings.policy;
        if policy == Policy::Random {
            return self.at((pick.random)() % count);
        }
        let slow = settings.slow_start.as_ref().zip(pick.age);
        if self.equal && slow.is_none() {
            // What a slow start left behind is not what the next one starts from.
            state.schedule = None;
            return match policy {
                Policy::LeastRequest { choices, .. } => self.least_of(choices, pick),
                _ => {
                    let position = state.position.get_or_insert_with(|| (pick.random)());
                    let chosen = *position % count;
                    *position = position.wrapping_add(1);
                    self.at(chosen)
                }
            };
        }
        let load = pick.load;
        let weight = |index: usize| {
            let member = self.members[index];
            let share = slow.map_or(1.0, |(start, age)| start.factor(age(member)));
            let weight = match policy {
                // Weights that do not change are only read, as raising to a power is slow.
                Policy::LeastRequest { bias, .. } if bias > 0.0 => {
                    let active = f64::from(load(member)) + 1.0;
                    let divisor = if bias == 1.0 {
                        active
                    } else {
                        active.powf(bias)
                    };
                    self.weights[index] / divisor
                }
                _ => self.weights[index],
            };
            weight * share
        };
        let schedule = match &mut state.schedule {
            Some(schedule) => schedule,
            none => {
                let weights: Vec<f64> = (0..self.members.len()).map(weight).collect();
                none.insert(Schedule::new(&weights, (pick.random)()))
            }
        };
        let chosen = schedule.next(weight)?;
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
