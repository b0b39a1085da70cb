//! StatefulSets and ControllerRevisions.

use serde_json::{Value, json};

use super::workload::{Words, amount, at_most_all, int_or_percent, selector_and_template};
use super::{Check, immutable, invalid, nonnegative, text};
use crate::builtin::read::{at, list, remove, text as text_at};
use crate::field::FieldError;

/// What may change of a StatefulSet.
const MUTABLE: [&str; 7] = [
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];

/// A StatefulSet.
pub(in crate::builtin) fn stateful_set(check: &Check<'_>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let spec = at(check.object, "/spec");
    management(&mut errors, spec);
    update_strategy(&mut errors, &spec["updateStrategy"], "spec.updateStrategy");
    retention(&mut errors, spec);
    // Nothing makes volumes here, so the pods would wait for them forever.
    if check.old.is_none() && !list(spec, "/volumeClaimTemplates").is_empty() {
        errors.push(FieldError::forbidden(
            "spec.volumeClaimTemplates",
            "this cluster has no persistent volumes: give the template an emptyDir or hostPath volume instead",
        ));
    }
    for name in ["replicas", "minReadySeconds"] {
        nonnegative(&mut errors, &spec[name], &format!("spec.{name}"));
    }
    nonnegative(
        &mut errors,
        at(spec, "/ordinals/start"),
        "spec.ordinals.start",
    );
    let service = text_at(spec, "/serviceName");
    if check.old.is_none() && !service.is_empty() {
        invalid(
            &mut errors,
            "spec.serviceName",
            service,
            text::dns_label(service),
        );
    }
    let words = Words {
        selecting: "statefulset",
        running: "StatefulSet",
    };
    selector_and_template(&mut errors, &without_identity(spec), &words);
    if let Some(old) = check.old
        && fixed(spec) != fixed(at(old, "/spec"))
    {
        errors.push(FieldError::forbidden(
            "spec",
            "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
        ));
    }
    errors
}

fn management(errors: &mut Vec<FieldError>, spec: &Value) {
    const PATH: &str = "spec.podManagementPolicy";
    match text_at(spec, "/podManagementPolicy") {
        "" => errors.push(FieldError::required(PATH, "")),
        "OrderedReady" | "Parallel" => {}
        other => errors.push(FieldError::invalid(
            PATH,
            json!(other),
            "must be 'OrderedReady' or 'Parallel'",
        )),
    }
}

fn update_strategy(errors: &mut Vec<FieldError>, strategy: &Value, path: &str) {
    let rolling = at(strategy, "/rollingUpdate");
    let below = format!("{path}.rollingUpdate");
    match text_at(strategy, "/type") {
        "" => errors.push(FieldError::required(path, "")),
        "OnDelete" if rolling.is_object() => errors.push(FieldError::invalid(
            below,
            shown(rolling),
            "only allowed for updateStrategy 'RollingUpdate'",
        )),
        "OnDelete" => {}
        "RollingUpdate" => {
            let partition = at(rolling, "/partition");
            nonnegative(errors, partition, &format!("{below}.partition"));
            let most = at(rolling, "/maxUnavailable");
            if most.is_null() {
                return;
            }
            let path = format!("{below}.maxUnavailable");
            int_or_percent(errors, most, &path);
            if amount(most) == 0 {
                errors.push(FieldError::invalid(&path, most.clone(), "cannot be 0"));
            }
            at_most_all(errors, most, &path);
        }
        other => errors.push(FieldError::invalid(
            path,
            json!({"Type": other, "RollingUpdate": shown(rolling)}),
            "must be 'RollingUpdate' or 'OnDelete'",
        )),
    }
}

/// How a rolling update stands in errors: Kubernetes shows its own struct.
fn shown(rolling: &Value) -> Value {
    if rolling.is_null() {
        return Value::Null;
    }
    let partition = at(rolling, "/partition").as_i64().unwrap_or(0);
    json!({"Partition": partition, "MaxUnavailable": rolling["maxUnavailable"]})
}

fn retention(errors: &mut Vec<FieldError>, spec: &Value) {
    const NAME: &str = "persistentVolumeClaimRetentionPolicy";
    let policy = &spec[NAME];
    if !policy.is_object() {
        return;
    }
    for name in ["whenDeleted", "whenScaled"] {
        let value = &policy[name];
        if value != "Retain" && value != "Delete" {
            errors.push(FieldError::not_supported(
                format!("spec.{NAME}.{name}"),
                value.clone(),
                &["Retain", "Delete"],
            ));
        }
    }
}

/// The spec without the host name of the template's pods: they get their own.
fn without_identity(spec: &Value) -> Value {
    let mut spec = spec.clone();
    if let Some(pod) = spec.pointer_mut("/template/spec") {
        remove(pod, "hostname");
        remove(pod, "subdomain");
    }
    spec
}

fn fixed(spec: &Value) -> Value {
    let mut spec = spec.clone();
    for name in MUTABLE {
        remove(&mut spec, name);
    }
    spec
}

/// A ControllerRevision.
pub(in crate::builtin) fn controller_revision(check: &Check<'_>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    nonnegative(&mut errors, &check.object["revision"], "revision");
    let data = &check.object["data"];
    if let Some(old) = check.old {
        immutable(&mut errors, data, &old["data"], "data");
    } else if data.is_null() {
        errors.push(FieldError::required("data", "data is mandatory"));
    } else if !data.is_object() {
        errors.push(FieldError::required(
            "data",
            "data must be a valid JSON object",
        ));
    }
    errors
}
