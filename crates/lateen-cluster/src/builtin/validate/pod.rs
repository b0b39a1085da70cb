//! Pods and pod templates.

use serde_json::{Value, json};

use super::{Check, annotations, container, invalid, labels, one_of, text, volume};
use crate::builtin::read::{at, int, list, remove, text as text_at};
use crate::field::FieldError;

/// What is wrong with a text.
type Rule = fn(&str) -> Vec<String>;

const GRACE_PERIOD: &str = "terminationGracePeriodSeconds";

/// A pod.
pub(in crate::builtin) fn pod(check: &Check<'_>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let spec = at(check.object, "/spec");
    pod_spec(&mut errors, spec, "spec");
    for containers in ["containers", "initContainers"] {
        for (index, container) in list(spec, &format!("/{containers}")).iter().enumerate() {
            let image = text_at(container, "/image");
            if image.trim() != image {
                errors.push(FieldError::invalid(
                    format!("spec.{containers}[{index}].image"),
                    json!(image),
                    "must not have leading or trailing whitespace",
                ));
            }
        }
    }
    if let Some(old) = check.old {
        update(&mut errors, spec, at(old, "/spec"));
    }
    errors
}

/// The template of a controller.
pub(super) fn template(errors: &mut Vec<FieldError>, template: &Value, path: &str) {
    labels(
        errors,
        at(template, "/metadata/labels"),
        &format!("{path}.labels"),
    );
    annotations(
        errors,
        at(template, "/metadata/annotations"),
        &format!("{path}.annotations"),
    );
    pod_spec(errors, at(template, "/spec"), &format!("{path}.spec"));
    if !list(template, "/spec/ephemeralContainers").is_empty() {
        errors.push(FieldError::forbidden(
            format!("{path}.spec.ephemeralContainers"),
            "ephemeral containers not allowed in pod template",
        ));
    }
}

fn pod_spec(errors: &mut Vec<FieldError>, spec: &Value, path: &str) {
    let volumes = volume::volumes(errors, spec, path);
    container::containers(errors, spec, &volumes, path);
    container::init_containers(errors, spec, &volumes, path);
    one_of(
        errors,
        text_at(spec, "/restartPolicy"),
        &["Always", "OnFailure", "Never"],
        format!("{path}.restartPolicy"),
    );
    one_of(
        errors,
        text_at(spec, "/dnsPolicy"),
        &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"],
        format!("{path}.dnsPolicy"),
    );
    labels(
        errors,
        at(spec, "/nodeSelector"),
        &format!("{path}.nodeSelector"),
    );
    let names: [(&str, Rule); 5] = [
        ("serviceAccountName", text::dns_subdomain),
        ("nodeName", text::dns_subdomain),
        ("hostname", text::dns_label),
        ("subdomain", text::dns_label),
        ("priorityClassName", text::dns_subdomain),
    ];
    for (name, rule) in names {
        let value = spec[name].as_str().unwrap_or_default();
        if !value.is_empty() {
            invalid(errors, &format!("{path}.{name}"), value, rule(value));
        }
    }
    if let Some(seconds) = spec["activeDeadlineSeconds"].as_i64()
        && !(1..=i64::from(i32::MAX)).contains(&seconds)
    {
        errors.push(FieldError::invalid(
            format!("{path}.activeDeadlineSeconds"),
            json!(seconds),
            text::range(1, i64::from(i32::MAX)),
        ));
    }
    if int(spec, &format!("/{GRACE_PERIOD}")) < 0 {
        errors.push(FieldError::invalid(
            format!("{path}.{GRACE_PERIOD}"),
            spec[GRACE_PERIOD].clone(),
            "must be greater than or equal to 0",
        ));
    }
}

/// Of a pod that exists only images, the deadline, and more tolerations can change.
fn update(errors: &mut Vec<FieldError>, spec: &Value, old: &Value) {
    for containers in ["containers", "initContainers"] {
        if list(spec, &format!("/{containers}")).len() != list(old, &format!("/{containers}")).len()
        {
            errors.push(FieldError::forbidden(
                format!("spec.{containers}"),
                "pod updates may not add or remove containers",
            ));
            return;
        }
    }
    let fixed = |spec: &Value| {
        let mut spec = spec.clone();
        for containers in ["/containers", "/initContainers"] {
            super::super::read::each(&mut spec, containers, |container| {
                drop(remove(container, "image"))
            });
        }
        for name in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
            remove(&mut spec, name);
        }
        // The node binds pods itself: a pod without node gets one by an update.
        if text_at(old, "/nodeName").is_empty() {
            remove(&mut spec, "nodeName");
        }
        spec
    };
    if fixed(spec) != fixed(old) {
        errors.push(FieldError::forbidden(
            "spec",
            "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\n",
        ));
    }
    let kept = list(old, "/tolerations")
        .iter()
        .all(|toleration| list(spec, "/tolerations").contains(toleration));
    if !kept {
        errors.push(FieldError::forbidden(
            "spec.tolerations",
            "existing toleration can not be modified except its tolerationSeconds",
        ));
    }
}
