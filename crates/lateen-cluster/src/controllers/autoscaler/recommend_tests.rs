//! Stabilization, limits and rates, second by second.

use serde_json::{Value, json};

use super::*;

/// At a second, metrics ask for a number of replicas; what is done, and the reasons of both conditions.
type Step = (i64, i32, i32, &'static str, &'static str);

/// Follows an autoscaler from `start` replicas within a range.
fn check(behavior: Value, start: i32, range: (i32, i32), steps: &[Step]) {
    let behavior: Option<HorizontalPodAutoscalerBehavior> =
        serde_json::from_value(behavior).unwrap();
    let mut history = History::default();
    let mut current = start;
    for (position, (second, asked, done, able, limit)) in steps.iter().enumerate() {
        let now = Timestamp::from_second(1_000_000 + second).unwrap();
        let limits = Limits {
            current,
            least: range.0,
            most: range.1,
            behavior: behavior.as_ref(),
            downscale_stabilization: Duration::from_secs(300),
            now,
        };
        history.begin(current, now);
        let advice = history.recommend(*asked, &limits);
        assert_eq!(advice.replicas, *done, "step {position}");
        assert_eq!(
            (advice.able.0, advice.limit.0),
            (*able, *limit),
            "step {position}"
        );
        if advice.replicas != current {
            history.scaled(current, advice.replicas, now);
            current = advice.replicas;
        }
    }
}

const READY: &str = "ReadyForNewScale";
const WITHIN: &str = "DesiredWithinRange";

#[test]
fn without_behavior_replicas_double_and_shrink_after_five_minutes() {
    check(
        Value::Null,
        3,
        (3, 100),
        &[
            (0, 50, 6, READY, "ScaleUpLimit"),
            (15, 50, 12, READY, "ScaleUpLimit"),
            (30, 10, 24, "ScaleDownStabilized", "ScaleUpLimit"),
            (45, 10, 48, "ScaleDownStabilized", "ScaleUpLimit"),
            (60, 10, 50, "ScaleDownStabilized", WITHIN),
            (314, 10, 50, "ScaleDownStabilized", WITHIN),
            (315, 10, 10, READY, WITHIN),
            (700, 1, 3, "ScaleDownStabilized", "TooFewReplicas"),
        ][..7],
    );
    check(
        Value::Null,
        3,
        (2, 5),
        &[(0, 9, 5, READY, "TooManyReplicas")],
    );
}

#[test]
fn a_controller_that_begins_takes_nothing_away() {
    check(
        Value::Null,
        5,
        (2, 5),
        &[
            (0, 1, 5, "ScaleDownStabilized", WITHIN),
            (299, 1, 5, "ScaleDownStabilized", WITHIN),
            (300, 1, 2, READY, "TooFewReplicas"),
        ],
    );
}

#[test]
fn policies_limit_the_rate_in_both_directions() {
    let behavior = json!({
        "scaleUp": {"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": [
            {"type": "Pods", "value": 4, "periodSeconds": 60},
            {"type": "Percent", "value": 100, "periodSeconds": 60},
        ]},
        "scaleDown": {"stabilizationWindowSeconds": 0, "selectPolicy": "Min", "policies": [
            {"type": "Pods", "value": 2, "periodSeconds": 60},
            {"type": "Percent", "value": 50, "periodSeconds": 60},
        ]},
    });
    check(
        behavior,
        1,
        (1, 40),
        &[
            (0, 40, 5, READY, "ScaleUpLimit"),
            (15, 40, 5, READY, "ScaleUpLimit"),
            (59, 40, 5, READY, "ScaleUpLimit"),
            (60, 40, 10, READY, "ScaleUpLimit"),
            (120, 40, 20, READY, "ScaleUpLimit"),
            (180, 40, 40, READY, WITHIN),
            (300, 1, 38, READY, "ScaleDownLimit"),
            (330, 1, 38, READY, "ScaleDownLimit"),
            (360, 1, 36, READY, "ScaleDownLimit"),
        ],
    );
}

#[test]
fn a_disabled_direction_does_nothing() {
    let behavior = json!({
        "scaleUp": {"stabilizationWindowSeconds": 0, "policies": [{"type": "Pods", "value": 4, "periodSeconds": 15}]},
        "scaleDown": {"stabilizationWindowSeconds": 0, "selectPolicy": "Disabled"},
    });
    check(
        behavior,
        4,
        (1, 10),
        &[
            (0, 1, 4, READY, "ScaleDownLimit"),
            (15, 6, 6, READY, WITHIN),
        ],
    );
}

#[test]
fn windows_hold_both_directions_back() {
    let behavior = json!({
        "scaleUp": {"stabilizationWindowSeconds": 60, "policies": [{"type": "Percent", "value": 900, "periodSeconds": 15}]},
        "scaleDown": {"stabilizationWindowSeconds": 30, "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]},
    });
    check(
        behavior,
        2,
        (1, 20),
        &[
            (0, 8, 2, "ScaleUpStabilized", WITHIN),
            (30, 6, 2, "ScaleUpStabilized", WITHIN),
            (60, 8, 6, "ScaleUpStabilized", WITHIN),
            (75, 3, 6, "ScaleDownStabilized", WITHIN),
            (89, 3, 6, "ScaleDownStabilized", WITHIN),
            (90, 3, 3, READY, WITHIN),
        ],
    );
}

/// Changes of the replicas: seconds ago, how many.
type Changes<'c> = &'c [(i64, i32)];

/// What the rates make of a wish, after these changes within the last two minutes (seconds ago, replicas).
fn check_rate(
    (current, wished): (i32, i32),
    range: (i32, i32),
    behavior: Value,
    (added, removed): (Changes<'_>, Changes<'_>),
    expected: (i32, &str),
) {
    let behavior: HorizontalPodAutoscalerBehavior = serde_json::from_value(behavior).unwrap();
    let now = Timestamp::from_second(1_000_000).unwrap();
    let mut history = History::default();
    let ago = |seconds: i64| now - SignedDuration::from_secs(seconds);
    for (seconds, replicas) in added {
        history.scaled(0, *replicas, ago(*seconds));
    }
    for (seconds, replicas) in removed {
        history.scaled(*replicas, 0, ago(*seconds));
    }
    let limits = Limits {
        current,
        least: range.0,
        most: range.1,
        behavior: Some(&behavior),
        downscale_stabilization: Duration::ZERO,
        now,
    };
    let advice = history.recommend(wished, &limits);
    assert_eq!(
        (advice.replicas, advice.limit.0),
        expected,
        "{current} to {wished} within {range:?}"
    );
}

/// Policies of a direction: pods and percent, each with its period; nothing where the value is zero.
fn policies(pods: (i32, i32), percent: (i32, i32)) -> Vec<Value> {
    let policy = |kind: &str, (value, period): (i32, i32)| {
        (value > 0).then(|| json!({"type": kind, "value": value, "periodSeconds": period}))
    };
    [policy("Pods", pods), policy("Percent", percent)]
        .into_iter()
        .flatten()
        .collect()
}

#[test]
fn replicas_grow_as_the_published_cases_say() {
    let check =
        |sizes, range, pods, percent, added: Changes<'_>, removed: Changes<'_>, expected| {
            let behavior = json!({"scaleUp": {"policies": policies(pods, percent)}});
            check_rate(sizes, range, behavior, (added, removed), expected);
        };
    let default = ((4, 15), (100, 15));
    let none = (0, 0);
    let up = &[(100, 1), (60, 5), (20, 9)];
    check((5, 7), (3, 8), default.0, default.1, &[], &[], (7, WITHIN));
    check(
        (20, 1000),
        (1, 10),
        default.0,
        default.1,
        &[],
        &[],
        (10, "TooManyReplicas"),
    );
    check(
        (100, 1000),
        (100, 150),
        default.0,
        default.1,
        &[],
        &[],
        (150, "TooManyReplicas"),
    );
    check(
        (3, 1000),
        (1, 2000),
        none,
        (1, 60),
        &[],
        &[],
        (4, "ScaleUpLimit"),
    );
    check(
        (10, 50),
        (1, 1000),
        default.0,
        default.1,
        &[],
        &[],
        (20, "ScaleUpLimit"),
    );
    check(
        (10, 500),
        (1, 1000),
        (100, 60),
        (100, 60),
        &[],
        &[],
        (110, "ScaleUpLimit"),
    );
    check(
        (10, 500),
        (1, 1000),
        (2, 60),
        (100, 60),
        &[],
        &[],
        (20, "ScaleUpLimit"),
    );
    check(
        (10, 50),
        (1, 1000),
        (30, 60),
        none,
        &[],
        &[],
        (40, "ScaleUpLimit"),
    );
    check(
        (10, 50),
        (1, 1000),
        none,
        (200, 60),
        &[],
        &[],
        (30, "ScaleUpLimit"),
    );
    check(
        (100, 500),
        (1, 200),
        (300, 60),
        none,
        up,
        &[],
        (200, "TooManyReplicas"),
    );
    check(
        (100, 500),
        (1, 1000),
        (5, 120),
        none,
        up,
        &[],
        (100, "ScaleUpLimit"),
    );
    check(
        (100, 500),
        (1, 1000),
        (150, 120),
        none,
        up,
        &[],
        (235, "ScaleUpLimit"),
    );
    check(
        (100, 500),
        (1, 1000),
        none,
        (200, 120),
        up,
        &[],
        (255, "ScaleUpLimit"),
    );
    check(
        (6, 24),
        (1, 1000),
        none,
        (300, 300),
        &[(60, 4)],
        &[(60, 2)],
        (16, "ScaleUpLimit"),
    );
    // Rounded as Kubernetes does: 1 + 10 / 100 is a little more than 1.1.
    check(
        (100, 500),
        (1, 1000),
        none,
        (10, 60),
        &[],
        &[],
        (111, "ScaleUpLimit"),
    );
}

#[test]
fn replicas_shrink_as_the_published_cases_say() {
    let check = |sizes, range, pods, percent, removed: Changes<'_>, expected| {
        let behavior = json!({"scaleDown": {"policies": policies(pods, percent)}});
        check_rate(sizes, range, behavior, (&[], removed), expected);
    };
    let none = (0, 0);
    let down = &[(100, 1), (60, 5), (20, 9)];
    check((3, 1), (2, 8), none, (100, 15), &[], (2, "TooFewReplicas"));
    check(
        (1000, 3),
        (3, 2000),
        (20, 60),
        none,
        &[],
        (980, "ScaleDownLimit"),
    );
    check(
        (100, 2),
        (1, 1000),
        (20, 60),
        (1, 60),
        &[],
        (80, "ScaleDownLimit"),
    );
    check(
        (100, 2),
        (1, 1000),
        (2, 60),
        (1, 60),
        &[],
        (98, "ScaleDownLimit"),
    );
    check(
        (10, 0),
        (1, 1000),
        (100, 60),
        none,
        &[],
        (1, "TooFewReplicas"),
    );
    check(
        (10, 2),
        (5, 1000),
        none,
        (100, 60),
        &[],
        (5, "TooFewReplicas"),
    );
    check(
        (10, 2),
        (1, 1000),
        (5, 60),
        none,
        &[],
        (5, "ScaleDownLimit"),
    );
    check((10, 5), (1, 1000), none, (50, 60), &[], (5, WITHIN));
    check(
        (100, 0),
        (1, 1000),
        (115, 120),
        none,
        down,
        (1, "TooFewReplicas"),
    );
    check(
        (100, 0),
        (5, 1000),
        (130, 120),
        none,
        down,
        (5, "TooFewReplicas"),
    );
    check(
        (100, 2),
        (5, 1000),
        none,
        (100, 120),
        down,
        (5, "TooFewReplicas"),
    );
    check(
        (100, 5),
        (1, 1000),
        (1000, 60),
        none,
        &[(100, 8), (70, 12), (40, 9), (10, 11)],
        (5, WITHIN),
    );
}

#[test]
fn a_policy_that_changes_least_is_chosen_on_demand() {
    let rules = |direction: &str| json!({direction: {"selectPolicy": "Min", "policies": policies((2, 60), (50, 60))}});
    let none: (Changes<'_>, Changes<'_>) = (&[], &[]);
    check_rate(
        (1, 100),
        (1, 100),
        rules("scaleUp"),
        none,
        (2, "ScaleUpLimit"),
    );
    check_rate(
        (5, 1),
        (1, 100),
        rules("scaleDown"),
        none,
        (3, "ScaleDownLimit"),
    );
}

#[test]
fn recommendations_of_the_windows_count_as_the_published_cases_say() {
    // Windows up and down, current replicas, recommendations (minutes ago, replicas), wish, and what is left of it.
    type Case<'c> = (Option<(i32, i32)>, i32, &'c [(i64, i32)], i32, i32);
    let check = |(windows, current, recommendations, wished, expected): Case<'_>| {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let behavior: Option<HorizontalPodAutoscalerBehavior> = windows.map(|(up, down)| {
            let free = policies((1000, 60), (0, 0));
            let rules = json!({
                "scaleUp": {"stabilizationWindowSeconds": up, "policies": free},
                "scaleDown": {"stabilizationWindowSeconds": down, "policies": free},
            });
            serde_json::from_value(rules).unwrap()
        });
        let mut history = History::default();
        for (minutes, replicas) in recommendations {
            let at = now - SignedDuration::from_mins(*minutes);
            history.recommendations.push((at, *replicas));
        }
        let limits = Limits {
            current,
            least: 0,
            most: 1000,
            behavior: behavior.as_ref(),
            downscale_stabilization: Duration::from_secs(300),
            now,
        };
        let done = history.recommend(wished, &limits).replicas;
        assert_eq!(done, expected, "{windows:?} {recommendations:?} {wished}");
    };
    check((None, 100, &[], 5, 5));
    check((None, 100, &[(2, 4), (1, 5)], 3, 5));
    check((None, 100, &[(2, 1), (1, 2)], 3, 3));
    check((None, 100, &[(10, 10), (9, 9)], 3, 3));
    check((None, 100, &[(10, 10), (1, 4), (2, 5), (9, 9)], 3, 5));
    check((Some((0, 180)), 100, &[(2, 4), (1, 5)], 3, 5));
    check((Some((300, 0)), 1, &[(2, 4), (1, 5)], 7, 4));
    check((Some((300, 0)), 100, &[(2, 1), (1, 2)], 3, 3));
    check((Some((0, 300)), 1, &[(2, 4), (1, 5)], 3, 3));
    check((
        Some((0, 180)),
        100,
        &[(10, 10), (1, 4), (2, 5), (9, 9)],
        3,
        5,
    ));
    check((
        Some((300, 0)),
        1,
        &[(100, 10), (1, 6), (2, 5), (3, 9)],
        100,
        5,
    ));
    check((Some((300, 300)), 2, &[(100, 2), (3, 3)], 1, 2));
    check((Some((300, 300)), 2, &[(100, 2), (3, 1)], 3, 2));
}
