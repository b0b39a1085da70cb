//! Deployments and ReplicaSets.

use serde_json::{Map, Value, json};

use super::{Check, immutable, label_selector, nonnegative, pod, text};
use crate::builtin::read::{at, int, list, members, text as text_at};
use crate::field::FieldError;

/// A Deployment.
pub(in crate::builtin) fn deployment(check: &Check<'_>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let spec = at(check.object, "/spec");
    nonnegative(&mut errors, &spec["replicas"], "spec.replicas");
    selector_and_template(&mut errors, spec, &WORDS);
    strategy(&mut errors, at(spec, "/strategy"), "spec.strategy");
    for name in [
        "minReadySeconds",
        "revisionHistoryLimit",
        "progressDeadlineSeconds",
    ] {
        nonnegative(&mut errors, &spec[name], &format!("spec.{name}"));
    }
    if let Some(deadline) = spec["progressDeadlineSeconds"].as_i64()
        && deadline <= int(spec, "/minReadySeconds")
    {
        errors.push(FieldError::invalid(
            "spec.progressDeadlineSeconds",
            json!(deadline),
            "must be greater than minReadySeconds",
        ));
    }
    if let Some(old) = check.old {
        immutable(
            &mut errors,
            &spec["selector"],
            at(old, "/spec/selector"),
            "spec.selector",
        );
    }
    errors
}

/// A ReplicaSet.
pub(in crate::builtin) fn replica_set(check: &Check<'_>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let spec = at(check.object, "/spec");
    nonnegative(&mut errors, &spec["replicas"], "spec.replicas");
    nonnegative(
        &mut errors,
        &spec["minReadySeconds"],
        "spec.minReadySeconds",
    );
    selector_and_template(&mut errors, spec, &WORDS);
    if let Some(old) = check.old {
        immutable(
            &mut errors,
            &spec["selector"],
            at(old, "/spec/selector"),
            "spec.selector",
        );
    }
    errors
}

/// How errors of a selector and a template call the kind.
pub(super) struct Words {
    /// The kind whose selector is empty.
    pub(super) selecting: &'static str,
    /// The kind whose pods may not have a deadline.
    pub(super) running: &'static str,
}

/// Deployments and ReplicaSets share their words.
const WORDS: Words = Words {
    selecting: "deployment",
    running: "ReplicaSet",
};

/// The selector, and the template of pods that it must select.
pub(super) fn selector_and_template(errors: &mut Vec<FieldError>, spec: &Value, words: &Words) {
    let selector = &spec["selector"];
    if selector.is_null() {
        errors.push(FieldError::required("spec.selector", ""));
        // No selector selects nothing.
        mismatch(errors, spec);
    } else {
        label_selector(errors, selector, "spec.selector");
        let empty = at(selector, "/matchLabels")
            .as_object()
            .is_none_or(Map::is_empty)
            && list(selector, "/matchExpressions").is_empty();
        if empty {
            errors.push(FieldError::invalid(
                "spec.selector",
                selector.clone(),
                format!("empty selector is invalid for {}", words.selecting),
            ));
        }
        if !empty && !selects(selector, at(spec, "/template/metadata/labels")) {
            mismatch(errors, spec);
        }
    }
    pod::template(errors, at(spec, "/template"), "spec.template");
    let policy = text_at(spec, "/template/spec/restartPolicy");
    if policy != "Always" {
        errors.push(FieldError::not_supported(
            "spec.template.spec.restartPolicy",
            json!(policy),
            &["Always"],
        ));
    }
    if !at(spec, "/template/spec/activeDeadlineSeconds").is_null() {
        errors.push(FieldError::forbidden(
            "spec.template.spec.activeDeadlineSeconds",
            format!(
                "activeDeadlineSeconds in {} is not Supported",
                words.running
            ),
        ));
    }
}

fn mismatch(errors: &mut Vec<FieldError>, spec: &Value) {
    errors.push(FieldError::invalid(
        "spec.template.metadata.labels",
        at(spec, "/template/metadata/labels").clone(),
        "`selector` does not match template `labels`",
    ));
}

/// Whether a label selector with labels and expressions selects `labels`.
fn selects(selector: &Value, labels: &Value) -> bool {
    members(selector, "/matchLabels").all(|(key, value)| labels.get(key) == Some(value))
        && list(selector, "/matchExpressions")
            .iter()
            .all(|expression| {
                let label = labels.get(text_at(expression, "/key"));
                let listed = label.is_some_and(|label| list(expression, "/values").contains(label));
                match text_at(expression, "/operator") {
                    "In" => listed,
                    "NotIn" => !listed,
                    "Exists" => label.is_some(),
                    "DoesNotExist" => label.is_none(),
                    _ => true,
                }
            })
}

fn strategy(errors: &mut Vec<FieldError>, strategy: &Value, path: &str) {
    match text_at(strategy, "/type") {
        "Recreate" => {
            if strategy["rollingUpdate"].is_object() {
                errors.push(FieldError::forbidden(
                    format!("{path}.rollingUpdate"),
                    "may not be specified when strategy `type` is 'Recreate'",
                ));
            }
        }
        "RollingUpdate" => {
            let rolling = &strategy["rollingUpdate"];
            let path = format!("{path}.rollingUpdate");
            for name in ["maxUnavailable", "maxSurge"] {
                int_or_percent(errors, &rolling[name], &format!("{path}.{name}"));
            }
            if amount(&rolling["maxUnavailable"]) == 0 && amount(&rolling["maxSurge"]) == 0 {
                errors.push(FieldError::invalid(
                    format!("{path}.maxUnavailable"),
                    rolling["maxUnavailable"].clone(),
                    "may not be 0 when `maxSurge` is 0",
                ));
            }
            at_most_all(
                errors,
                &rolling["maxUnavailable"],
                &format!("{path}.maxUnavailable"),
            );
        }
        type_ => {
            // Kubernetes shows its own struct here.
            let shown = json!({"Type": type_, "RollingUpdate": strategy["rollingUpdate"]});
            errors.push(FieldError::not_supported(
                path,
                shown,
                &["Recreate", "RollingUpdate"],
            ));
        }
    }
}

/// A count or a percentage.
pub(super) fn int_or_percent(errors: &mut Vec<FieldError>, value: &Value, path: &str) {
    match value {
        Value::String(percentage) => {
            super::invalid(errors, path, percentage, text::percent(percentage))
        }
        other => nonnegative(errors, other, path),
    }
}

/// A percentage of at most 100.
pub(super) fn at_most_all(errors: &mut Vec<FieldError>, value: &Value, path: &str) {
    if value.is_string() && amount(value) > 100 {
        errors.push(FieldError::invalid(
            path,
            value.clone(),
            "must not be greater than 100%",
        ));
    }
}

/// The number of a count or of a percentage.
pub(super) fn amount(value: &Value) -> i64 {
    match value {
        Value::String(percentage) => percentage.trim_end_matches('%').parse().unwrap_or(0),
        other => other.as_i64().unwrap_or(0),
    }
}
