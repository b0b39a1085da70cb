//! HorizontalPodAutoscalers and PodDisruptionBudgets.

use serde_json::{Value, json};

use super::{AGE, NAME, Table, age, field_column, name, text_column};
use crate::builtin::read::{at, int, list, text};

/// Metrics shown at most.
const SHOWN: usize = 2;

pub(in crate::builtin) const AUTOSCALER: Table = Table {
    columns: &[
        NAME,
        field_column("Reference", "string", &["spec", "scaleTargetRef"]),
        field_column("Targets", "string", &["spec", "metrics"]),
        field_column("MinPods", "string", &["spec", "minReplicas"]),
        field_column("MaxPods", "string", &["spec", "maxReplicas"]),
        field_column("Replicas", "string", &["status", "currentReplicas"]),
        AGE,
    ],
    row: |autoscaler, now| {
        let target = at(autoscaler, "/spec/scaleTargetRef");
        let least = at(autoscaler, "/spec/minReplicas")
            .as_i64()
            .map_or_else(|| "<unset>".to_owned(), |least| least.to_string());
        vec![
            name(autoscaler),
            json!(format!(
                "{}/{}",
                text(target, "/kind"),
                text(target, "/name")
            )),
            json!(metrics(autoscaler)),
            json!(least),
            json!(int(autoscaler, "/spec/maxReplicas")),
            json!(int(autoscaler, "/status/currentReplicas")),
            age(autoscaler, now),
        ]
    },
};

fn metrics(autoscaler: &Value) -> String {
    let wished = list(autoscaler, "/spec/metrics");
    if wished.is_empty() {
        return "<none>".to_owned();
    }
    let current = list(autoscaler, "/status/currentMetrics");
    let texts: Vec<String> = wished
        .iter()
        .enumerate()
        .map(|(index, metric)| describe(metric, current.get(index).unwrap_or(&Value::Null)))
        .collect();
    let shown = texts
        .get(..SHOWN.min(texts.len()))
        .unwrap_or_default()
        .join(", ");
    if texts.len() > SHOWN {
        format!("{shown} + {} more...", texts.len() - SHOWN)
    } else {
        shown
    }
}

/// One metric: what is, and what is wished.
fn describe(metric: &Value, status: &Value) -> String {
    let (source, per_resource) = match text(metric, "/type") {
        "Resource" => ("resource", true),
        "ContainerResource" => ("containerResource", true),
        "External" => ("external", false),
        "Object" => ("object", false),
        "Pods" => ("pods", false),
        _ => return "<unknown type>".to_owned(),
    };
    let target = at(metric, &format!("/{source}/target"));
    let now = |field: &str| match at(status, &format!("/{source}/current/{field}")) {
        Value::String(text) => text.clone(),
        _ => "<unknown>".to_owned(),
    };
    let average = target["averageValue"].as_str();
    if per_resource {
        let resource = text(metric, &format!("/{source}/name"));
        if let Some(average) = average {
            return format!("{resource}: {}/{average}", now("averageValue"));
        }
        let current = at(status, &format!("/{source}/current/averageUtilization"))
            .as_i64()
            .map_or_else(
                || "<unknown>".to_owned(),
                |percentage| format!("{percentage}%"),
            );
        let wished = target["averageUtilization"].as_i64().map_or_else(
            || "<auto>".to_owned(),
            |percentage| format!("{percentage}%"),
        );
        return format!("{resource}: {current}/{wished}");
    }
    match (source, average) {
        ("pods", average) => format!("{}/{}", now("averageValue"), average.unwrap_or_default()),
        (_, Some(average)) => format!("{}/{average} (avg)", now("averageValue")),
        (_, None) => format!("{}/{}", now("value"), text(target, "/value")),
    }
}

pub(in crate::builtin) const DISRUPTION_BUDGET: Table = Table {
    columns: &[
        NAME,
        text_column(
            "Min Available",
            "string",
            "The minimum number of pods that must be available.",
        ),
        text_column(
            "Max Unavailable",
            "string",
            "The maximum number of pods that may be unavailable.",
        ),
        text_column(
            "Allowed Disruptions",
            "integer",
            "Calculated number of pods that may be disrupted at this time.",
        ),
        AGE,
    ],
    row: |budget, now| {
        let amount = |field: &str| match at(budget, field) {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => "N/A".to_owned(),
        };
        vec![
            name(budget),
            json!(amount("/spec/minAvailable")),
            json!(amount("/spec/maxUnavailable")),
            json!(int(budget, "/status/disruptionsAllowed")),
            age(budget, now),
        ]
    },
};
