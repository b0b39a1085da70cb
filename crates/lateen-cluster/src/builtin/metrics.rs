//! Metrics of a HorizontalPodAutoscaler in the form that `autoscaling/v1` keeps in annotations.

use serde_json::{Map, Value, json};

use super::read::at;

/// Where one field of a metric stands in `autoscaling/v2` (a pointer below the source) and what `v1` calls it.
type Field = (&'static str, &'static str);

const SPEC: &[(&str, &[Field])] = &[
    (
        "object",
        &[
            ("/describedObject", "target"),
            ("/metric/name", "metricName"),
            ("/target/value", "targetValue"),
            ("/metric/selector", "selector"),
            ("/target/averageValue", "averageValue"),
        ],
    ),
    (
        "pods",
        &[
            ("/metric/name", "metricName"),
            ("/target/averageValue", "targetAverageValue"),
            ("/metric/selector", "selector"),
        ],
    ),
    (
        "resource",
        &[
            ("/name", "name"),
            ("/target/averageUtilization", "targetAverageUtilization"),
            ("/target/averageValue", "targetAverageValue"),
        ],
    ),
    (
        "containerResource",
        &[
            ("/name", "name"),
            ("/target/averageUtilization", "targetAverageUtilization"),
            ("/target/averageValue", "targetAverageValue"),
            ("/container", "container"),
        ],
    ),
    (
        "external",
        &[
            ("/metric/name", "metricName"),
            ("/metric/selector", "metricSelector"),
            ("/target/value", "targetValue"),
            ("/target/averageValue", "targetAverageValue"),
        ],
    ),
];

const STATUS: &[(&str, &[Field])] = &[
    (
        "object",
        &[
            ("/describedObject", "target"),
            ("/metric/name", "metricName"),
            ("/current/value", "currentValue"),
            ("/metric/selector", "selector"),
            ("/current/averageValue", "averageValue"),
        ],
    ),
    (
        "pods",
        &[
            ("/metric/name", "metricName"),
            ("/current/averageValue", "currentAverageValue"),
            ("/metric/selector", "selector"),
        ],
    ),
    (
        "resource",
        &[
            ("/name", "name"),
            ("/current/averageUtilization", "currentAverageUtilization"),
            ("/current/averageValue", "currentAverageValue"),
        ],
    ),
    (
        "containerResource",
        &[
            ("/name", "name"),
            ("/current/averageUtilization", "currentAverageUtilization"),
            ("/current/averageValue", "currentAverageValue"),
            ("/container", "container"),
        ],
    ),
    (
        "external",
        &[
            ("/metric/name", "metricName"),
            ("/metric/selector", "metricSelector"),
            ("/current/value", "currentValue"),
            ("/current/averageValue", "currentAverageValue"),
        ],
    ),
];

/// A wished metric of `v2` in the form of `v1`.
pub(super) fn spec_to_v1(metric: &Value) -> Value {
    to_v1(metric, SPEC)
}

/// An observed metric of `v2` in the form of `v1`.
pub(super) fn status_to_v1(metric: &Value) -> Value {
    to_v1(metric, STATUS)
}

/// A wished metric of `v1` in the form of `v2`. What kind of target it is follows from what it gives.
pub(super) fn spec_from_v1(metric: &Value) -> Value {
    let mut metric = from_v1(metric, SPEC);
    for (source, _) in SPEC {
        let Some(target) = metric
            .get_mut(*source)
            .and_then(|source| source.get_mut("target"))
        else {
            continue;
        };
        let type_ = if !target["averageUtilization"].is_null() {
            "Utilization"
        } else if !target["averageValue"].is_null() {
            "AverageValue"
        } else {
            "Value"
        };
        target["type"] = json!(type_);
    }
    metric
}

/// An observed metric of `v1` in the form of `v2`.
pub(super) fn status_from_v1(metric: &Value) -> Value {
    from_v1(metric, STATUS)
}

fn to_v1(metric: &Value, table: &[(&str, &[Field])]) -> Value {
    let mut converted = json!({"type": metric["type"]});
    for (source, fields) in table
        .iter()
        .filter(|(source, _)| metric[*source].is_object())
    {
        let mut members = Map::new();
        for (pointer, name) in *fields {
            let value = at(&metric[*source], pointer);
            if !value.is_null() {
                members.insert((*name).to_owned(), value.clone());
            }
        }
        converted[*source] = Value::Object(members);
    }
    converted
}

fn from_v1(metric: &Value, table: &[(&str, &[Field])]) -> Value {
    let mut converted = json!({"type": metric["type"]});
    for (source, fields) in table
        .iter()
        .filter(|(source, _)| metric[*source].is_object())
    {
        let mut members = json!({});
        for (pointer, name) in *fields {
            let value = &metric[*source][*name];
            if value.is_null() {
                continue;
            }
            let mut place = &mut members;
            for step in pointer.split('/').skip(1) {
                place = &mut place[step];
            }
            *place = value.clone();
        }
        converted[*source] = members;
    }
    converted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_survive_the_old_form() {
        for metric in [
            json!({"type": "Resource", "resource": {"name": "memory", "target": {"averageValue": "100Mi", "type": "AverageValue"}}}),
            json!({"type": "Pods", "pods": {"metric": {"name": "waves"}, "target": {"averageValue": "7", "type": "AverageValue"}}}),
            json!({"type": "External", "external": {"metric": {"name": "wind", "selector": {"matchLabels": {"a": "b"}}}, "target": {"value": "3", "type": "Value"}}}),
        ] {
            assert_eq!(spec_from_v1(&spec_to_v1(&metric)), metric);
        }
        assert_eq!(
            spec_to_v1(
                &json!({"type": "Pods", "pods": {"metric": {"name": "waves"}, "target": {"averageValue": "7"}}})
            ),
            json!({"type": "Pods", "pods": {"metricName": "waves", "targetAverageValue": "7"}})
        );
    }
}
