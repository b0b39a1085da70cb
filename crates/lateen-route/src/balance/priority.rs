//! Priorities, overprovisioning and panic: which endpoints take part, and with which share of the traffic.

use super::{Health, Member, Previous, Settings};

/// Highest priority of a valid load assignment.
const HIGHEST: u32 = 128;

/// The parts of a cluster's endpoints, and what the shares of traffic are computed from.
#[derive(Debug)]
pub(super) struct Levels {
    pub(super) parts: Vec<Part>,
    /// Position of each priority's parts for healthy and for degraded endpoints. The same in panic.
    places: Vec<[usize; 2]>,
    /// Percent of capacity that is healthy and that is degraded, with overprovisioning, per priority.
    availability: Vec<[u32; 2]>,
    /// Shares when nothing is available.
    without: Vec<(usize, u32)>,
}

/// Endpoints among which one algorithm chooses.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) members: Vec<usize>,
    pub(super) priority: u32,
    /// Health is ignored.
    pub(super) panic: bool,
}

/// Endpoints of one priority by health.
#[derive(Default)]
struct Level {
    all: Vec<usize>,
    healthy: Vec<usize>,
    degraded: Vec<usize>,
}

impl Levels {
    pub(super) fn new(settings: &Settings, members: &[Member]) -> Self {
        let levels = by_priority(members);
        let percent = |part: usize, level: &Level| -> u32 {
            let scaled = u64::from(settings.overprovisioning) * part as u64;
            let of_all = scaled.checked_div(level.all.len() as u64);
            u32::try_from(of_all.unwrap_or(0).min(100)).unwrap_or(100)
        };
        let availability: Vec<[u32; 2]> = levels
            .iter()
            .map(|level| {
                [
                    percent(level.healthy.len(), level),
                    percent(level.degraded.len(), level),
                ]
            })
            .collect();
        let available: u32 = availability.iter().flatten().sum();
        let mut made = Self {
            parts: Vec::new(),
            places: Vec::new(),
            availability,
            without: Vec::new(),
        };
        if available == 0 {
            made.total_panic(settings, levels);
            return made;
        }
        for (priority, level) in levels.into_iter().enumerate() {
            let priority = priority as u32;
            let panic = panics(settings, &level, available);
            let first = made.parts.len();
            let part = |members| Part {
                members,
                priority,
                panic,
            };
            if panic {
                made.parts.push(part(level.all));
                made.places.push([first, first]);
            } else if settings.policy.is_consistent() {
                // Tables are made of healthy endpoints only, whoever the draw meant, as in Envoy.
                made.parts.push(part(level.healthy));
                made.places.push([first, first]);
            } else {
                made.parts.push(part(level.healthy));
                made.parts.push(part(level.degraded));
                made.places.push([first, first + 1]);
            }
        }
        made
    }

    /// Parts with their percent of the traffic, in the order in which they are drawn. `excluded` priorities get none;
    /// nothing when no other is available.
    pub(super) fn loads(&self, excluded: &[bool]) -> Option<Vec<(usize, u32)>> {
        if self.places.is_empty() {
            return excluded.is_empty().then(|| self.without.clone());
        }
        let available = |priority: usize, health: usize| -> u32 {
            let out = excluded.get(priority).copied().unwrap_or(false);
            if out {
                0
            } else {
                self.availability[priority][health]
            }
        };
        let count = self.places.len();
        let sum: u32 = (0..count)
            .map(|priority| available(priority, 0) + available(priority, 1))
            .sum();
        let norm = sum.min(100);
        if norm == 0 {
            return None;
        }
        let mut remaining = 100;
        let mut share = |health: u32| {
            let load = (health * 100 / norm).min(remaining);
            remaining -= load;
            load
        };
        let mut loads: Vec<(usize, u32)> = Vec::with_capacity(2 * count);
        // All healthy shares come before the first degraded one.
        for health in 0..2 {
            for priority in 0..count {
                let load = share(available(priority, health));
                if load > 0 {
                    loads.push((self.places[priority][health], load));
                }
            }
        }
        // What rounding leaves over goes to the first priority that takes any.
        if let Some(first) = loads.first_mut() {
            first.1 += remaining;
        }
        Some(loads)
    }

    /// Shares for a retry that avoids the priorities of earlier attempts; nothing when they are the usual ones. When
    /// every priority was tried, it begins anew. Envoy's `envoy.retry_priorities.previous_priorities`.
    pub(super) fn avoiding(&self, previous: Previous<'_>) -> Option<Vec<(usize, u32)>> {
        let frequency = previous.frequency.max(1);
        let mut excluded = vec![false; self.places.len()];
        let (mut since, mut loads) = (0, None);
        for (position, _) in previous.tried.iter().enumerate() {
            if !(position + 1 - since).is_multiple_of(frequency) {
                continue;
            }
            for priority in &previous.tried[since..=position] {
                if let Some(out) = excluded.get_mut(*priority as usize) {
                    *out = true;
                }
            }
            loads = self.loads(&excluded);
            if loads.is_none() {
                excluded.fill(false);
                since = position + 1;
            }
        }
        loads
    }

    /// Nothing is usable anywhere: with a threshold, all endpoints share by their number; without one, nobody does.
    fn total_panic(&mut self, settings: &Settings, levels: Vec<Level>) {
        let count: usize = levels.iter().map(|level| level.all.len()).sum();
        if settings.panic_threshold == 0 || count == 0 {
            return;
        }
        let mut remaining = 100;
        for (priority, level) in levels.into_iter().enumerate() {
            if level.all.is_empty() {
                continue;
            }
            let load = u32::try_from(level.all.len() * 100 / count)
                .unwrap_or(100)
                .min(remaining);
            remaining -= load;
            self.without.push((self.parts.len(), load));
            self.parts.push(Part {
                members: level.all,
                priority: priority as u32,
                panic: true,
            });
        }
        if let Some(first) = self.without.first_mut() {
            first.1 += remaining;
        }
    }
}

fn by_priority(members: &[Member]) -> Vec<Level> {
    let priorities = members.iter().map(|member| member.priority);
    let highest = priorities.max().unwrap_or(0);
    let mut levels: Vec<Level> = Vec::new();
    levels.resize_with(highest.min(HIGHEST) as usize + 1, Level::default);
    for (index, member) in members.iter().enumerate() {
        let Some(level) = levels.get_mut(member.priority as usize) else {
            continue;
        };
        level.all.push(index);
        match member.health {
            Health::Healthy => level.healthy.push(index),
            Health::Degraded => level.degraded.push(index),
            Health::Unhealthy => {}
        }
    }
    levels
}

/// Whether so few endpoints of a level are usable, with no other level to make up for it, that health is ignored.
fn panics(settings: &Settings, level: &Level, available: u32) -> bool {
    let usable = (level.healthy.len() + level.degraded.len()) * 100;
    !level.all.is_empty()
        && available < 100
        && usable / level.all.len() < settings.panic_threshold as usize
}
