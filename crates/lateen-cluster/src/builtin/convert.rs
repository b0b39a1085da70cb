//! Conversions between served and stored versions.

use serde_json::{Map, Value, json};

use super::metrics;
use super::read::{at, fill, fill_pointer, remove, text};

/// Where v1 objects keep what only v2 has.
const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

/// The version is the stored one.
pub(super) fn same(_: &mut Value) {}

/// `extensions/v1beta1`: the selector is the labels of the template unless given, and updates are one by one.
pub(super) fn from_extensions(object: &mut Value) {
    legacy_selector(object);
    rolling_update(object, json!(1));
    let Some(spec) = object.get_mut("spec") else {
        return;
    };
    remove(spec, "rollbackTo");
    // Defaults of this version: no deadline and no limit on history.
    if spec.get("strategy").is_some() || spec.get("template").is_some() {
        fill_pointer(spec, "progressDeadlineSeconds", i64::from(i32::MAX));
        fill_pointer(spec, "revisionHistoryLimit", i64::from(i32::MAX));
    }
}

/// `extensions/v1beta1` ReplicaSet.
pub(super) fn from_extensions_replica_set(object: &mut Value) {
    legacy_selector(object);
}

/// `apps/v1beta1`: as `extensions/v1beta1`, with a quarter of the replicas at a time and two old revisions.
pub(super) fn from_apps_beta(object: &mut Value) {
    legacy_selector(object);
    rolling_update(object, json!("25%"));
    let Some(spec) = object.get_mut("spec") else {
        return;
    };
    remove(spec, "rollbackTo");
    fill_pointer(spec, "progressDeadlineSeconds", 600);
    fill_pointer(spec, "revisionHistoryLimit", 2);
}

/// `apps/v1beta1` StatefulSet: the selector is the labels of the template unless given, and pods are updated on deletion.
pub(super) fn from_apps_beta_stateful_set(object: &mut Value) {
    legacy_selector(object);
    let Some(spec) = object.get_mut("spec").filter(|spec| spec.is_object()) else {
        return;
    };
    fill_pointer(spec, "updateStrategy", json!({}));
    fill(&mut spec["updateStrategy"], "type", "OnDelete");
}

fn legacy_selector(object: &mut Value) {
    let labels = at(object, "/spec/template/metadata/labels").clone();
    if labels.as_object().is_none_or(Map::is_empty) {
        return;
    }
    if let Some(spec) = object.get_mut("spec") {
        fill_pointer(spec, "selector", json!({"matchLabels": labels}));
    }
    if at(object, "/metadata/labels")
        .as_object()
        .is_none_or(Map::is_empty)
    {
        object["metadata"]["labels"] = labels;
    }
}

fn rolling_update(object: &mut Value, amount: Value) {
    let Some(spec) = object.get_mut("spec").filter(|spec| spec.is_object()) else {
        return;
    };
    fill_pointer(spec, "strategy", json!({}));
    let strategy = &mut spec["strategy"];
    fill(strategy, "type", "RollingUpdate");
    if strategy["type"] != "RollingUpdate" {
        return;
    }
    fill_pointer(strategy, "rollingUpdate", json!({}));
    fill_pointer(
        &mut strategy["rollingUpdate"],
        "maxUnavailable",
        amount.clone(),
    );
    fill_pointer(&mut strategy["rollingUpdate"], "maxSurge", amount);
}

/// HorizontalPodAutoscaler v1 to v2: the percentage becomes a metric, annotations carry the others.
pub(super) fn autoscaler_from_v1(object: &mut Value) {
    let mut metrics = metrics_of(object, METRICS, metrics::spec_from_v1);
    if let Some(percentage) = object
        .get_mut("spec")
        .and_then(|spec| remove(spec, "targetCPUUtilizationPercentage"))
    {
        metrics.push(json!({"type": "Resource", "resource": {
            "name": "cpu", "target": {"type": "Utilization", "averageUtilization": percentage}}}));
    }
    if !metrics.is_empty() {
        object["spec"]["metrics"] = Value::Array(metrics);
    }
    if let Some(behavior) = annotation(object, BEHAVIOR) {
        object["spec"]["behavior"] = capital_free(behavior);
    }
    let mut current = metrics_of(object, CURRENT_METRICS, metrics::status_from_v1);
    if let Some(percentage) = object
        .get_mut("status")
        .and_then(|status| remove(status, "currentCPUUtilizationPercentage"))
    {
        current.push(json!({"type": "Resource", "resource": {
            "name": "cpu", "current": {"averageUtilization": percentage}}}));
    }
    if !current.is_empty() {
        object["status"]["currentMetrics"] = Value::Array(current);
    }
    if let Some(conditions) = annotation(object, CONDITIONS) {
        object["status"]["conditions"] = conditions;
    }
}

/// HorizontalPodAutoscaler v2 to v1.
pub(super) fn autoscaler_to_v1(object: &mut Value) {
    let mut others = Vec::new();
    let mut percentage = None;
    if let Some(Value::Array(metrics)) = object
        .get_mut("spec")
        .and_then(|spec| remove(spec, "metrics"))
    {
        for metric in metrics {
            let utilization = at(&metric, "/resource/target/averageUtilization").clone();
            if percentage.is_none()
                && text(&metric, "/resource/name") == "cpu"
                && !utilization.is_null()
            {
                percentage = Some(utilization);
            } else {
                others.push(metrics::spec_to_v1(&metric));
            }
        }
    }
    if let Some(percentage) = percentage {
        object["spec"]["targetCPUUtilizationPercentage"] = percentage;
    }
    if !others.is_empty() {
        annotate(object, METRICS, &Value::Array(others));
    }
    if let Some(behavior) = object
        .get_mut("spec")
        .and_then(|spec| remove(spec, "behavior"))
    {
        annotate(object, BEHAVIOR, &behavior);
    }
    if let Some(Value::Array(current)) = object
        .get_mut("status")
        .and_then(|status| remove(status, "currentMetrics"))
    {
        let mut others = Vec::new();
        for metric in current {
            let utilization = at(&metric, "/resource/current/averageUtilization").clone();
            if text(&metric, "/resource/name") == "cpu" && !utilization.is_null() {
                object["status"]["currentCPUUtilizationPercentage"] = utilization;
            } else {
                others.push(metrics::status_to_v1(&metric));
            }
        }
        if !others.is_empty() {
            annotate(object, CURRENT_METRICS, &Value::Array(others));
        }
    }
    if let Some(conditions) = object
        .get_mut("status")
        .and_then(|status| remove(status, "conditions"))
    {
        annotate(object, CONDITIONS, &conditions);
    }
}

/// An annotation that holds JSON, taken away.
fn annotation(object: &mut Value, name: &str) -> Option<Value> {
    let annotations = object.pointer_mut("/metadata/annotations")?;
    let text = remove(annotations, name)?;
    serde_json::from_str(text.as_str()?).ok()
}

fn annotate(object: &mut Value, name: &str, value: &Value) {
    fill_pointer(&mut object["metadata"], "annotations", json!({}));
    object["metadata"]["annotations"][name] = json!(value.to_string());
}

/// Older writers used capital field names in these annotations.
fn capital_free(value: Value) -> Value {
    match value {
        Value::Object(members) => Value::Object(
            members
                .into_iter()
                .map(|(name, member)| {
                    let mut letters = name.chars();
                    let first = letters.next().map(|letter| letter.to_ascii_lowercase());
                    (
                        first.into_iter().chain(letters).collect(),
                        capital_free(member),
                    )
                })
                .collect(),
        ),
        Value::Array(items) => Value::Array(items.into_iter().map(capital_free).collect()),
        other => other,
    }
}

/// Metrics that an annotation holds, in the form of v2.
fn metrics_of(object: &mut Value, name: &str, convert: fn(&Value) -> Value) -> Vec<Value> {
    match annotation(object, name).map(capital_free) {
        Some(Value::Array(metrics)) => metrics.iter().map(convert).collect(),
        _ => Vec::new(),
    }
}

/// `events.k8s.io/v1` to the core form that is stored.
pub(super) fn event_from_events(event: &mut Value) {
    for (new, old) in EVENT_FIELDS {
        if let Some(value) = remove(event, new) {
            event[*old] = value;
        }
    }
}

/// A stored core event as `events.k8s.io/v1`.
pub(super) fn event_to_events(event: &mut Value) {
    for (new, old) in EVENT_FIELDS {
        if let Some(value) = remove(event, old) {
            event[*new] = value;
        }
    }
}

const EVENT_FIELDS: &[(&str, &str)] = &[
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
    ("reportingController", "reportingComponent"),
];
