//! Load balancers: the choices that Envoy 1.40 makes for the same keys, exactly; the others by their distribution.

use std::time::Duration;

use lateen_route::balance::{
    Balancer, HashFunction, Health, Member, Pick, Policy, Previous, Settings, SlowStart, State,
};
use lateen_route::hash::xx64;

const RING: Policy = Policy::RingHash {
    minimum: 1024,
    maximum: 8 << 20,
    function: HashFunction::XxHash,
};
const LEAST: Policy = Policy::LeastRequest {
    choices: 2,
    bias: 1.0,
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
    Settings::new(policy)
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
                age: None,
                previous: None,
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
            age: None,
            previous: None,
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
    let tally = tally(&settings(LEAST), &members(&[1, 1, 1]), 900, &load);
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

/// How often each priority is drawn for a retry after attempts at `tried` priorities.
fn priorities_after(tried: &[u32], frequency: usize, healthy: &[bool]) -> Vec<usize> {
    let mut all = members(&vec![1; healthy.len()]);
    for (index, member) in all.iter_mut().enumerate() {
        member.priority = index as u32;
        if !healthy[index] {
            member.health = Health::Unhealthy;
        }
    }
    let balancer = Balancer::build(&settings(Policy::Random), &all);
    let (mut state, mut random) = (State::default(), counter());
    let mut tally = vec![0; healthy.len()];
    for _ in 0..100 {
        let mut pick = Pick {
            hash: None,
            random: &mut random,
            load: &|_| 0,
            attempt: 0,
            age: None,
            previous: Some(Previous { tried, frequency }),
        };
        if let Some(chosen) = balancer.pick(&mut state, &mut pick) {
            tally[chosen] += 1;
        }
    }
    tally
}

#[test]
fn retries_leave_tried_priorities_out() {
    for (tried, frequency, healthy, expected) in [
        (&[][..], 1, &[true, true, true][..], &[100, 0, 0][..]),
        (&[0], 1, &[true, true, true], &[0, 100, 0]),
        (&[0], 2, &[true, true, true], &[100, 0, 0]),
        (&[0, 0], 2, &[true, true, true], &[0, 100, 0]),
        (&[0, 0, 1], 2, &[true, true, true], &[0, 100, 0]),
        (&[0, 1], 1, &[true, true, true], &[0, 0, 100]),
        // When all were tried, it begins anew.
        (&[0, 1, 2], 1, &[true, true, true], &[100, 0, 0]),
        (&[0, 1, 2, 0], 1, &[true, true, true], &[0, 100, 0]),
        (&[0], 1, &[true, false, true], &[0, 0, 100]),
        (&[0], 1, &[true, false, false], &[100, 0, 0]),
    ] {
        assert_eq!(
            priorities_after(tried, frequency, healthy),
            expected,
            "{tried:?} every {frequency}, {healthy:?}"
        );
    }
}

#[test]
fn new_endpoints_start_slowly() {
    let start = |aggression, minimum| SlowStart {
        window: Duration::from_secs(100),
        aggression,
        minimum,
    };
    for (slow, age, expected) in [
        (start(1.0, 0.1), 50, 0.5),
        (start(1.0, 0.1), 5, 0.1),
        (start(1.0, 0.0), 5, 0.05),
        (start(2.0, 0.1), 25, 0.5),
        (start(0.5, 0.1), 50, 0.25),
        (start(1.0, 0.1), 100, 1.0),
        (start(1.0, 0.1), 500, 1.0),
    ] {
        let factor = slow.factor(Duration::from_secs(age));
        assert!((factor - expected).abs() < 1e-9, "{slow:?} {age}: {factor}");
    }
    let settings = Settings {
        slow_start: Some(start(1.0, 0.1)),
        ..settings(Policy::RoundRobin)
    };
    for policy in [Policy::RoundRobin, LEAST] {
        let settings = Settings {
            policy,
            ..settings.clone()
        };
        let balancer = Balancer::build(&settings, &members(&[1, 1]));
        let (mut state, mut random) = (State::default(), counter());
        let mut tally = [0; 2];
        for _ in 0..600 {
            let mut pick = Pick {
                hash: None,
                random: &mut random,
                load: &|_| 0,
                attempt: 0,
                age: Some(&|member| Duration::from_secs(if member == 0 { 500 } else { 20 })),
                previous: None,
            };
            tally[balancer.pick(&mut state, &mut pick).unwrap()] += 1;
        }
        assert_eq!(tally, [500, 100], "{policy:?}");
    }
}

#[test]
fn panic_ignores_the_weights_of_localities() {
    let mut all = members(&[1, 1, 1, 1]);
    for member in &mut all[1..] {
        member.locality = 1;
        member.health = Health::Unhealthy;
    }
    let split = Settings {
        locality_weights: Some(vec![90, 10]),
        ..settings(Policy::RoundRobin)
    };
    assert_eq!(tally(&split, &all, 400, &|_| 0), [100; 4]);
}

#[test]
fn active_requests_count_by_their_bias() {
    let load = |member: usize| if member == 0 { 3 } else { 0 };
    for (bias, expected) in [(0.0, [400, 200]), (1.0, [200, 400]), (0.5, [300, 300])] {
        let policy = Policy::LeastRequest { choices: 2, bias };
        let tally = tally(&settings(policy), &members(&[2, 1]), 600, &load);
        let near = |(count, wanted): (&usize, &usize)| count.abs_diff(*wanted) <= 2;
        assert!(tally.iter().zip(&expected).all(near), "{bias}: {tally:?}");
    }
}
