//! Table tests of the sizes that a rollout gives.

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::*;

fn bounds_of(replicas: i32, surge: Value, unavailable: Value) -> (i32, i32) {
    let deployment = serde_json::from_value(json!({"spec": {
        "replicas": replicas,
        "selector": {},
        "template": {},
        "strategy": {"type": "RollingUpdate",
            "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}},
    }}));
    let bounds = Bounds::of(&deployment.unwrap());
    (bounds.surge, bounds.unavailable)
}

#[test]
fn percentages_are_rounded_in_favour_of_progress_and_availability() {
    let cases = [
        ((10, json!("25%"), json!("25%")), (3, 2)),
        ((1, json!("25%"), json!("25%")), (1, 0)),
        ((3, json!("25%"), json!("25%")), (1, 0)),
        ((0, json!("25%"), json!("25%")), (0, 0)),
        ((4, json!(2), json!("50%")), (2, 2)),
        ((2, json!(0), json!(5)), (0, 2)),
        ((3, json!(0), json!("10%")), (0, 1)),
        ((3, json!("200%"), json!(0)), (6, 0)),
    ];
    for ((replicas, surge, unavailable), expected) in cases {
        let got = bounds_of(replicas, surge.clone(), unavailable.clone());
        assert_eq!(got, expected, "{replicas} {surge} {unavailable}");
    }
}

/// A ReplicaSet called `name`, the later in the alphabet the younger.
fn size(name: &str, wanted: i32, available: i32) -> Size {
    let second = i64::from(name.as_bytes()[0]);
    Size {
        name: name.to_owned(),
        created: Some(Time(Timestamp::from_second(second).unwrap())),
        wanted,
        available,
        ..Size::default()
    }
}

fn rolling(replicas: i32, surge: i32, unavailable: i32) -> Bounds {
    Bounds {
        replicas,
        surge,
        unavailable,
        rolling: true,
    }
}

#[test]
fn the_new_replica_set_grows_into_the_room() {
    // replicas, surge, old sizes, present size of the new one -> next
    let cases: [(i32, i32, &[i32], i32, i32); 7] = [
        (3, 1, &[], 0, 3),
        (3, 1, &[3], 0, 1),
        (3, 1, &[3], 1, 1),
        (3, 1, &[2], 1, 2),
        (10, 3, &[10], 0, 3),
        (10, 3, &[0], 8, 10),
        (2, 1, &[1], 4, 2),
    ];
    for (replicas, surge, old, present, expected) in cases {
        let mut all: Vec<Size> = old
            .iter()
            .map(|wanted| size("a", *wanted, *wanted))
            .collect();
        all.push(size("n", present, present));
        let got = new_size(&rolling(replicas, surge, 0), &all, present);
        assert_eq!(
            got, expected,
            "{replicas}+{surge}, old {old:?}, new {present}"
        );
    }
}

/// Checks which old ReplicaSets shrink. Sizes are (wanted, available); old ones are called a, b, c from the oldest.
fn check_shrink(bounds: Bounds, old: &[(i32, i32)], new: (i32, i32), expected: &[(&str, i32)]) {
    let names = ["a", "b", "c"];
    let old: Vec<Size> = names
        .iter()
        .zip(old)
        .map(|(name, (wanted, available))| size(name, *wanted, *available))
        .collect();
    let got = shrink_old(&bounds, &old, Some(&size("n", new.0, new.1)));
    let got: Vec<(&str, i32)> = got.iter().map(|(name, to)| (name.as_str(), *to)).collect();
    assert_eq!(got, expected, "{bounds:?} {old:?} {new:?}");
}

#[test]
fn old_replica_sets_shrink_as_far_as_enough_stay_available() {
    check_shrink(rolling(3, 1, 0), &[(3, 3)], (1, 0), &[]);
    check_shrink(rolling(3, 1, 0), &[(3, 3)], (1, 1), &[("a", 2)]);
    check_shrink(rolling(4, 0, 1), &[(4, 4)], (0, 0), &[("a", 3)]);
    check_shrink(rolling(10, 3, 2), &[(10, 10)], (3, 0), &[("a", 8)]);
    check_shrink(rolling(3, 1, 0), &[(0, 0)], (3, 3), &[]);
}

#[test]
fn pods_that_are_not_available_go_first() {
    check_shrink(rolling(3, 1, 0), &[(3, 0)], (1, 1), &[("a", 2)]);
    check_shrink(rolling(3, 1, 1), &[(2, 0), (1, 1)], (1, 1), &[("a", 0)]);
    check_shrink(rolling(2, 1, 0), &[(1, 1), (1, 1)], (1, 1), &[("a", 0)]);
}

/// Checks how a changed number of replicas is spread. `before` is the most pods when the ReplicaSets were last scaled.
fn check_spread(
    bounds: Bounds,
    before: i32,
    new: Option<(i32, i32)>,
    old: &[(i32, i32)],
    expected: &[(&str, i32)],
) {
    let annotated = |mut size: Size| {
        size.most = Some(before);
        size.desired = Some(before - bounds.surge);
        size
    };
    let names = ["a", "b", "c"];
    let old: Vec<Size> = names
        .iter()
        .zip(old)
        .map(|(name, (wanted, available))| annotated(size(name, *wanted, *available)))
        .collect();
    let new = new.map(|(wanted, available)| annotated(size("n", wanted, available)));
    let mut got = spread(&bounds, new.as_ref(), &old);
    got.sort();
    let got: Vec<(&str, i32)> = got.iter().map(|(name, to)| (name.as_str(), *to)).collect();
    assert_eq!(got, expected, "{bounds:?} {new:?} {old:?}");
}

#[test]
fn a_changed_number_of_replicas_is_spread_over_the_replica_sets() {
    check_spread(rolling(5, 0, 1), 3, Some((3, 3)), &[], &[("n", 5)]);
    check_spread(rolling(5, 0, 1), 5, Some((5, 5)), &[], &[]);
    check_spread(rolling(5, 0, 1), 3, None, &[(0, 0), (3, 3)], &[("b", 5)]);
    check_spread(rolling(2, 0, 1), 0, None, &[(0, 0), (0, 0)], &[("b", 2)]);
    // Kubernetes' own documentation: 10 replicas, surge 3, unavailable 2, 8 old and 5 new pods, scaled to 15.
    check_spread(
        rolling(15, 3, 2),
        13,
        Some((5, 0)),
        &[(8, 8)],
        &[("a", 11), ("n", 7)],
    );
    check_spread(
        rolling(5, 0, 1),
        10,
        Some((5, 5)),
        &[(5, 5)],
        &[("a", 2), ("n", 3)],
    );
    check_spread(
        rolling(0, 0, 0),
        10,
        Some((4, 4)),
        &[(6, 6)],
        &[("a", 0), ("n", 0)],
    );
}

#[test]
fn a_complete_new_replica_set_takes_over_when_scaled() {
    let mut new = size("n", 3, 3);
    new.desired = Some(3);
    let got = spread(&rolling(3, 1, 0), Some(&new), &[size("a", 2, 2)]);
    assert_eq!(got, [("a".to_owned(), 0)]);
}
