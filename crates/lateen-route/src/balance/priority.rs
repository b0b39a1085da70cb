//! Priorities, overprovisioning and panic: which endpoints take part, and with which share of the traffic.

use super::{Health, Member, Settings};

/// Endpoints of one priority by health.
#[derive(Default)]
struct Level {
    all: Vec<usize>,
    healthy: Vec<usize>,
    degraded: Vec<usize>,
}

/// Groups of endpoints with their percent of the traffic, in the order in which they are drawn.
pub(super) fn plan(settings: &Settings, members: &[Member]) -> Vec<(Vec<usize>, u32)> {
    let highest = members
        .iter()
        .map(|member| member.priority)
        .max()
        .unwrap_or(0);
    // Priorities have no gaps in valid resources; a stray high number must not allocate.
    let mut levels: Vec<Level> = Vec::new();
    levels.resize_with((highest as usize).min(members.len()) + 1, Level::default);
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
    let percent = |part: usize, level: &Level| -> u32 {
        if level.all.is_empty() {
            return 0;
        }
        let scaled = u64::from(settings.overprovisioning) * part as u64 / level.all.len() as u64;
        u32::try_from(scaled.min(100)).unwrap_or(100)
    };
    let healthy: Vec<u32> = levels
        .iter()
        .map(|level| percent(level.healthy.len(), level))
        .collect();
    let degraded: Vec<u32> = levels
        .iter()
        .map(|level| percent(level.degraded.len(), level))
        .collect();
    let available: u32 = healthy.iter().chain(&degraded).sum();
    let norm = available.min(100);
    if norm == 0 {
        return total_panic(settings, levels);
    }
    let mut remaining = 100;
    let mut share = |health: &u32| {
        let load = (health * 100 / norm).min(remaining);
        remaining -= load;
        load
    };
    let mut healthy_loads: Vec<u32> = healthy.iter().map(&mut share).collect();
    let mut degraded_loads: Vec<u32> = degraded.iter().map(&mut share).collect();
    // What rounding leaves over goes to the first priority that takes any.
    if let Some(first) = healthy_loads.iter().position(|load| *load > 0) {
        healthy_loads[first] += remaining;
    } else if let Some(first) = degraded_loads.iter().position(|load| *load > 0) {
        degraded_loads[first] += remaining;
    }
    let mut plan = Vec::new();
    let mut later = Vec::new();
    for (level, (healthy_load, degraded_load)) in levels
        .into_iter()
        .zip(healthy_loads.into_iter().zip(degraded_loads))
    {
        if panics(settings, &level, available) {
            plan.push((level.all, healthy_load + degraded_load));
        } else {
            plan.push((level.healthy, healthy_load));
            later.push((level.degraded, degraded_load));
        }
    }
    plan.extend(later);
    plan
}

/// Whether so few endpoints of a level are usable, with no other level to make up for it, that health is ignored.
fn panics(settings: &Settings, level: &Level, available: u32) -> bool {
    let usable = (level.healthy.len() + level.degraded.len()) * 100;
    !level.all.is_empty()
        && available < 100
        && usable / level.all.len() < settings.panic_threshold as usize
}

/// Nothing is usable anywhere: with a threshold, all endpoints share by their number; without one, nobody does.
fn total_panic(settings: &Settings, levels: Vec<Level>) -> Vec<(Vec<usize>, u32)> {
    let count: usize = levels.iter().map(|level| level.all.len()).sum();
    if settings.panic_threshold == 0 || count == 0 {
        return Vec::new();
    }
    let mut remaining = 100;
    let mut plan: Vec<(Vec<usize>, u32)> = levels
        .into_iter()
        .filter(|level| !level.all.is_empty())
        .map(|level| {
            let load = u32::try_from(level.all.len() * 100 / count)
                .unwrap_or(100)
                .min(remaining);
            remaining -= load;
            (level.all, load)
        })
        .collect();
    if let Some(first) = plan.first_mut() {
        first.1 += remaining;
    }
    plan
}
