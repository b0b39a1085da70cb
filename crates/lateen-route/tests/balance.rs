//! Load balancers: the choices that Envoy 1.40 makes for the same keys, exactly; the others by their distribution.

use lateen_route::balance::{Balancer, Health, Member, Pick, Policy, Settings, State};
use lateen_route::hash::xx64;

const RING: Policy = Policy::RingHash {
    minimum: 1024,
    maximum: 8 << 20,
};
const MAGLEV: Policy = Policy::Maglev { size: 65_537 };

fn members(weights: &[u32]) -> Vec<Member> {
    let member = |(index, weight): (usize, &u32)| Member {
        key: format!("127.0.0.1:1910{}", index + 1),
        weight: *weight,
        health: Health::Healthy,
        priority: 0,
        locality: 0,
    };
    weights.iter().enumerate().map(member).collect()
}

fn settings(policy: Policy) -> Settings {
    Settings {
        policy,
        overprovisioning: 140,
        panic_threshold: 50,
        locality_weights: None,
    }
}

/// Counts up, so that tests repeat.
fn counter() -> impl FnMut() -> u64 {
    let mut state = 0u64;
    move || {
        state += 1;
        xx64(&state.to_le_bytes(), 0)
    }
}

/// The choices for the keys `user-0`, `user-7919`, ... as digits.
fn choices(policy: Policy, weights: &[u32], attempt: u64) -> String {
    let balancer = Balancer::build(&settings(policy), &members(weights));
    let (mut state, mut random) = (State::default(), counter());
    (0..32)
        .map(|number| {
            let key = format!("user-{}", number * 7919);
            let mut pick = Pick {
                hash: Some(xx64(key.as_bytes(), 0)),
                random: &mut random,
                load: &|_| 0,
                attempt,
            };
            balancer.pick(&mut state, &mut pick).unwrap().to_string()
        })
        .collect()
}

#[test]
fn consistent_choices_equal_envoys() {
    for (policy, weights, attempt, expected) in [
        (RING, &[1, 1, 1, 1], 0, "21122020223213021330122133231130"),
        (RING, &[1, 1, 1, 1], 1, "10033003000222310020021212320213"),
        (RING, &[1, 2, 3, 7], 0, "21122323323233021333123333233133"),
        (MAGLEV, &[1, 1, 1, 1], 0, "22001023231022003301321230231323"),
        (MAGLEV, &[1, 2, 3, 7], 0, "32003033231022333321323233331323"),
    ] {
        assert_eq!(
            choices(policy, weights, attempt),
            expected,
            "{policy:?} {weights:?} {attempt}"
        );
    }
}

/// How often each of the members is chosen.
fn tally(
    settings: &Settings,
    members: &[Member],
    picks: usize,
    load: &dyn Fn(usize) -> u32,
) -> Vec<usize> {
    let balancer = Balancer::build(settings, members);
    let (mut state, mut random) = (State::default(), counter());
    let mut tally = vec![0; members.len()];
    for _ in 0..picks {
        let mut pick = Pick {
            hash: None,
            random: &mut random,
            load,
            attempt: 0,
        };
        if let Some(chosen) = balancer.pick(&mut state, &mut pick) {
            tally[chosen] += 1;
        }
    }
    tally
}

#[test]
fn weighted_round_robin_is_exact() {
    assert_eq!(
        tally(
            &settings(Policy::RoundRobin),
            &members(&[1, 2, 3, 7]),
            130,
            &|_| 0
        ),
        [10, 20, 30, 70]
    );
    assert_eq!(
        tally(
            &settings(Policy::RoundRobin),
            &members(&[1, 1, 1]),
            30,
            &|_| 0
        ),
        [10, 10, 10]
    );
}

#[test]
fn least_request_avoids_the_loaded_endpoint() {
    let load = |member: usize| if member == 0 { 100 } else { 1 };
    let tally = tally(
        &settings(Policy::LeastRequest { choices: 2 }),
        &members(&[1, 1, 1]),
        900,
        &load,
    );
    // The loaded one is chosen only when both draws hit it: one in nine.
    assert!((60..=140).contains(&tally[0]), "{tally:?}");
}

#[test]
fn priorities_take_over_as_health_is_lost() {
    let make = |healthy0: usize, of0: usize, healthy1: usize, of1: usize| {
        let mut all = members(&vec![1; of0 + of1]);
        for (index, member) in all.iter_mut().enumerate() {
            let (priority, position, healthy) = if index < of0 {
                (0, index, healthy0)
            } else {
                (1, index - of0, healthy1)
            };
            member.priority = priority;
            member.health = if position < healthy {
                Health::Healthy
            } else {
                Health::Unhealthy
            };
        }
        all
    };
    let random = settings(Policy::Random);
    let share = |members: &[Member], of0: usize| {
        let tally = tally(&random, members, 2000, &|_| 0);
        tally[..of0].iter().sum::<usize>() as f64 / tally.iter().sum::<usize>().max(1) as f64
    };
    assert!((share(&make(2, 2, 2, 2), 2) - 1.0).abs() < 1e-9);
    assert!((share(&make(1, 2, 2, 2), 2) - 0.7).abs() < 0.05);
    assert!(share(&make(0, 2, 2, 2), 2).abs() < 1e-9);
}

#[test]
fn panic_uses_everyone_and_a_zero_threshold_nobody() {
    let mut all = members(&[1, 1, 1]);
    all[0].health = Health::Unhealthy;
    all[1].health = Health::Unhealthy;
    let panicking = tally(&settings(Policy::RoundRobin), &all, 30, &|_| 0);
    assert!(panicking.iter().all(|count| *count == 10), "{panicking:?}");
    let strict = Settings {
        panic_threshold: 0,
        ..settings(Policy::RoundRobin)
    };
    assert_eq!(tally(&strict, &all, 30, &|_| 0), [0, 0, 30]);
    all[2].health = Health::Unhealthy;
    assert_eq!(tally(&strict, &all, 30, &|_| 0), [0, 0, 0]);
}

#[test]
fn localities_share_by_weight() {
    let mut all = members(&[1, 1, 1]);
    all[1].locality = 1;
    all[2].locality = 1;
    let split = Settings {
        locality_weights: Some(vec![80, 20]),
        ..settings(Policy::RoundRobin)
    };
    assert_eq!(tally(&split, &all, 600, &|_| 0), [480, 60, 60]);
}
