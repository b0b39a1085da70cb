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
            now,
        };
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
