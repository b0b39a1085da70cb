//! HorizontalPodAutoscalers and PodDisruptionBudgets.

use serde_json::{Value, json};

use super::workload::int_or_percent;
use super::{Check, label_selector, text};
use crate::builtin::read::{at, int, list, text as text_at};
use crate::field::FieldError;
use crate::schema::quantity::Quantity;

const SOURCES: &[&str] = &[
    "ContainerResource",
    "External",
    "Object",
    "Pods",
    "Resource",
];

/// Longest window of stabilisation, in seconds.
const MAX_WINDOW: i64 = 3600;

/// Longest period of a scaling policy, in seconds.
const MAX_PERIOD: i64 = 1800;

/// A HorizontalPodAutoscaler.
pub(in crate::builtin) fn autoscaler(check: &Check<'_>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let spec = at(check.object, "/spec");
    let least = spec["minReplicas"].as_i64();
    let most = int(spec, "/maxReplicas");
    if let Some(least) = least.filter(|least| *least < 1) {
        errors.push(FieldError::invalid(
            "spec.minReplicas",
            json!(least),
            "must be greater than or equal to 1",
        ));
    }
    if most == 0 {
        errors.push(FieldError::required(
            "spec.maxReplicas",
            "must be set and greater than 0",
        ));
    } else if most < 0 {
        errors.push(FieldError::invalid(
            "spec.maxReplicas",
            json!(most),
            "must be greater than or equal to 1",
        ));
    }
    if least.is_some_and(|least| most < least) {
        errors.push(FieldError::invalid(
            "spec.maxReplicas",
            json!(most),
            "must be greater than or equal to `minReplicas`",
        ));
    }
    target(
        &mut errors,
        at(spec, "/scaleTargetRef"),
        "spec.scaleTargetRef",
        true,
    );
    for (index, metric) in list(spec, "/metrics").iter().enumerate() {
        metric_spec(&mut errors, metric, &format!("spec.metrics[{index}]"));
    }
    let from_outside = list(spec, "/metrics")
        .iter()
        .any(|metric| matches!(text_at(metric, "/type"), "Object" | "External"));
    if least == Some(0) && !from_outside {
        errors.push(FieldError::forbidden(
            "spec.metrics",
            "must specify at least one Object or External metric to support scaling to zero replicas",
        ));
    }
    for direction in ["scaleUp", "scaleDown"] {
        let rules = at(spec, &format!("/behavior/{direction}"));
        if rules.is_object() {
            scaling_rules(&mut errors, rules, &format!("spec.behavior.{direction}"));
        }
    }
    errors
}

/// A reference to an object of any version; one that is only measured may be of the core group.
fn target(errors: &mut Vec<FieldError>, reference: &Value, path: &str, scales: bool) {
    for name in ["kind", "name"] {
        let value = reference[name].as_str().unwrap_or_default();
        if value.is_empty() {
            errors.push(FieldError::required(format!("{path}.{name}"), ""));
        } else {
            super::invalid(
                errors,
                &format!("{path}.{name}"),
                value,
                text::path_segment(value),
            );
        }
    }
    let version = text_at(reference, "/apiVersion");
    let kind = text_at(reference, "/kind");
    if version.matches('/').count() > 1 {
        errors.push(FieldError::invalid(
            format!("{path}.apiVersion"),
            json!(version),
            format!("unexpected GroupVersion string: {version}"),
        ));
    } else if scales && !version.contains('/') && kind != "ReplicationController" {
        // The core group has nothing else that can be scaled.
        errors.push(FieldError::invalid(
            format!("{path}.apiVersion"),
            json!(version),
            "apiVersion must specify API group",
        ));
    }
}

fn metric_spec(errors: &mut Vec<FieldError>, metric: &Value, path: &str) {
    let type_ = text_at(metric, "/type");
    if type_.is_empty() {
        errors.push(FieldError::required(
            format!("{path}.type"),
            "must specify a metric source type",
        ));
    }
    if !SOURCES.contains(&type_) {
        errors.push(FieldError::not_supported(
            format!("{path}.type"),
            json!(type_),
            SOURCES,
        ));
        return;
    }
    let mut letters = type_.chars();
    let expected: String = letters
        .next()
        .map(|letter| letter.to_ascii_lowercase())
        .into_iter()
        .chain(letters)
        .collect();
    let sources = [
        "object",
        "external",
        "pods",
        "resource",
        "containerResource",
    ];
    for name in sources.iter().filter(|name| metric[**name].is_object()) {
        if **name == expected {
            source(errors, &metric[*name], name, &format!("{path}.{name}"));
        } else {
            errors.push(FieldError::forbidden(
                format!("{path}.{name}"),
                "must populate the given metric source only",
            ));
        }
    }
    if !metric[&expected].is_object() {
        errors.push(FieldError::required(
            format!("{path}.{expected}"),
            "must populate information for the given metric source",
        ));
    }
}

fn source(errors: &mut Vec<FieldError>, source: &Value, name: &str, path: &str) {
    let target = &source["target"];
    let path_of_target = format!("{path}.target");
    match name {
        "resource" | "containerResource" => {
            if text_at(source, "/name").is_empty() {
                errors.push(FieldError::required(
                    format!("{path}.name"),
                    "must specify a resource name",
                ));
            }
            if name == "containerResource" && text_at(source, "/container").is_empty() {
                errors.push(FieldError::required(
                    format!("{path}.container"),
                    "must specify a container",
                ));
            }
            metric_target(errors, target, &path_of_target);
            match (
                target["averageUtilization"].is_null(),
                target["averageValue"].is_null(),
            ) {
                (true, true) => errors.push(FieldError::required(
                    format!("{path_of_target}.averageUtilization"),
                    "must set either a target raw value or a target utilization",
                )),
                (false, false) => errors.push(FieldError::forbidden(
                    format!("{path_of_target}.averageValue"),
                    "may not set both a target raw value and a target utilization",
                )),
                _ => {}
            }
        }
        _ => {
            if name == "object" {
                let object = at(source, "/describedObject");
                self::target(errors, object, &format!("{path}.describedObject"), false);
            }
            let metric = text_at(source, "/metric/name");
            if metric.is_empty() {
                errors.push(FieldError::required(
                    format!("{path}.metric.name"),
                    "must specify a metric name",
                ));
            } else {
                super::invalid(
                    errors,
                    &format!("{path}.metric.name"),
                    metric,
                    text::path_segment(metric),
                );
            }
            metric_target(errors, target, &path_of_target);
            let (value, average) = (
                !target["value"].is_null(),
                !target["averageValue"].is_null(),
            );
            let missing = match name {
                "pods" if !average => "must specify a positive target averageValue",
                "object" if !value && !average => "must set either a target value or averageValue",
                "external" if !value && !average => {
                    "must set either a target value for metric or a per-pod target"
                }
                _ => "",
            };
            if !missing.is_empty() {
                errors.push(FieldError::required(
                    format!("{path_of_target}.averageValue"),
                    missing,
                ));
            }
            if name == "external" && value && average {
                errors.push(FieldError::forbidden(
                    format!("{path_of_target}.value"),
                    "may not set both a target value for metric and a per-pod target",
                ));
            }
        }
    }
}

fn metric_target(errors: &mut Vec<FieldError>, target: &Value, path: &str) {
    let type_ = text_at(target, "/type");
    if type_.is_empty() {
        errors.push(FieldError::required(
            format!("{path}.type"),
            "must specify a metric target type",
        ));
    }
    if !matches!(type_, "Utilization" | "Value" | "AverageValue") {
        errors.push(FieldError::invalid(
            format!("{path}.type"),
            json!(type_),
            "must be either Utilization, Value, or AverageValue",
        ));
    }
    for name in ["value", "averageValue"] {
        let amount = target[name]
            .as_str()
            .and_then(|text| Quantity::parse(text).ok());
        if amount.is_some_and(|amount| amount.is_negative() || amount.milli() == 0) {
            errors.push(FieldError::invalid(
                format!("{path}.{name}"),
                target[name].clone(),
                "must be positive",
            ));
        }
    }
    if target["averageUtilization"]
        .as_i64()
        .is_some_and(|percentage| percentage < 1)
    {
        errors.push(FieldError::invalid(
            format!("{path}.averageUtilization"),
            target["averageUtilization"].clone(),
            "must be greater than 0",
        ));
    }
}

fn scaling_rules(errors: &mut Vec<FieldError>, rules: &Value, path: &str) {
    let window = rules["stabilizationWindowSeconds"].as_i64();
    if let Some(window) = window.filter(|window| *window < 0) {
        errors.push(FieldError::invalid(
            format!("{path}.stabilizationWindowSeconds"),
            json!(window),
            "must be greater than or equal to zero",
        ));
    }
    if let Some(window) = window.filter(|window| *window > MAX_WINDOW) {
        errors.push(FieldError::invalid(
            format!("{path}.stabilizationWindowSeconds"),
            json!(window),
            format!("must be less than or equal to {MAX_WINDOW}"),
        ));
    }
    let select = text_at(rules, "/selectPolicy");
    if !select.is_empty() && !matches!(select, "Max" | "Min" | "Disabled") {
        errors.push(FieldError::not_supported(
            format!("{path}.selectPolicy"),
            json!(select),
            &["Disabled", "Max", "Min"],
        ));
    }
    let policies = list(rules, "/policies");
    if policies.is_empty() {
        errors.push(FieldError::required(
            format!("{path}.policies"),
            "must specify at least one Policy",
        ));
    }
    for (index, policy) in policies.iter().enumerate() {
        let path = format!("{path}.policies[{index}]");
        let type_ = text_at(policy, "/type");
        if !matches!(type_, "Pods" | "Percent") {
            errors.push(FieldError::not_supported(
                format!("{path}.type"),
                json!(type_),
                &["Percent", "Pods"],
            ));
        }
        for name in ["value", "periodSeconds"] {
            let number = policy[name].as_i64().unwrap_or(0);
            if number <= 0 {
                errors.push(FieldError::invalid(
                    format!("{path}.{name}"),
                    json!(number),
                    "must be greater than zero",
                ));
            }
        }
        let period = int(policy, "/periodSeconds");
        if period > MAX_PERIOD {
            errors.push(FieldError::invalid(
                format!("{path}.periodSeconds"),
                json!(period),
                format!("must be less than or equal to {MAX_PERIOD}"),
            ));
        }
    }
}

/// A PodDisruptionBudget.
pub(in crate::builtin) fn disruption_budget(check: &Check<'_>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let spec = at(check.object, "/spec");
    if !spec["minAvailable"].is_null() && !spec["maxUnavailable"].is_null() {
        // Kubernetes shows its own struct here.
        let shown = json!({
            "MinAvailable": spec["minAvailable"],
            "Selector": spec["selector"],
            "MaxUnavailable": spec["maxUnavailable"],
            "UnhealthyPodEvictionPolicy": spec["unhealthyPodEvictionPolicy"],
        });
        errors.push(FieldError::invalid(
            "spec",
            shown,
            "minAvailable and maxUnavailable cannot be both set",
        ));
    }
    for name in ["minAvailable", "maxUnavailable"] {
        if !spec[name].is_null() {
            int_or_percent(&mut errors, &spec[name], &format!("spec.{name}"));
        }
    }
    label_selector(&mut errors, at(spec, "/selector"), "spec.selector");
    errors
}
