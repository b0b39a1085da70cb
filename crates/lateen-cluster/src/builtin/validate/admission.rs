//! Admission webhooks and admission policies.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Check, invalid, label_selector, text};
use crate::builtin::read::{at, int, list, text as text_at};
use crate::field::FieldError;

/// A Mutating- or ValidatingWebhookConfiguration.
pub(in crate::builtin) fn webhooks(check: &Check<'_>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut names = BTreeSet::new();
    for (index, webhook) in list(check.object, "/webhooks").iter().enumerate() {
        let path = format!("webhooks[{index}]");
        let name = text_at(webhook, "/name");
        webhook_name(&mut errors, name, &format!("{path}.name"));
        for (rule_index, rule) in list(webhook, "/rules").iter().enumerate() {
            webhook_rule(&mut errors, rule, &format!("{path}.rules[{rule_index}]"));
        }
        for (field, words) in [
            ("failurePolicy", &["Fail", "Ignore"]),
            ("matchPolicy", &["Equivalent", "Exact"]),
        ] {
            let word = &webhook[field];
            if !words.iter().any(|known| word == known) {
                errors.push(FieldError::not_supported(
                    format!("{path}.{field}"),
                    word.clone(),
                    words,
                ));
            }
        }
        side_effects(&mut errors, webhook, &path);
        let seconds = int(webhook, "/timeoutSeconds");
        if !(1..=30).contains(&seconds) {
            let fault = "the timeout value must be between 1 and 30 seconds";
            errors.push(FieldError::invalid(
                format!("{path}.timeoutSeconds"),
                json!(seconds),
                fault,
            ));
        }
        for selector in ["namespaceSelector", "objectSelector"] {
            label_selector(
                &mut errors,
                &webhook[selector],
                &format!("{path}.{selector}"),
            );
        }
        client_config(
            &mut errors,
            at(webhook, "/clientConfig"),
            &format!("{path}.clientConfig"),
        );
        review_versions(
            &mut errors,
            list(webhook, "/admissionReviewVersions"),
            &path,
        );
        if !name.is_empty() && !names.insert(name) {
            errors.push(FieldError::duplicate(format!("{path}.name"), json!(name)));
        }
    }
    errors
}

/// Names of webhooks are host names with at least three labels.
fn webhook_name(errors: &mut Vec<FieldError>, name: &str, path: &str) {
    if name.is_empty() {
        errors.push(FieldError::required(path, ""));
        return;
    }
    let faults = text::dns_subdomain(name);
    if faults.is_empty() && name.split('.').count() < 3 {
        errors.push(FieldError::invalid(
            path,
            json!(name),
            "should be a domain with at least three segments separated by dots",
        ));
    }
    invalid(errors, path, name, faults);
}

fn webhook_rule(errors: &mut Vec<FieldError>, rule: &Value, path: &str) {
    const OPERATIONS: &[&str] = &["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
    for (field, noun) in [
        ("operations", "operations"),
        ("apiGroups", "API groups"),
        ("apiVersions", "API versions"),
        ("resources", ""),
    ] {
        let values = list(rule, &format!("/{field}"));
        if values.is_empty() {
            errors.push(FieldError::required(format!("{path}.{field}"), ""));
        }
        if !noun.is_empty() && values.len() > 1 && values.contains(&json!("*")) {
            errors.push(FieldError::invalid(
                format!("{path}.{field}"),
                json!(values),
                format!("if '*' is present, must not specify other {noun}"),
            ));
        }
        let unknown = |value: &&Value| !OPERATIONS.iter().any(|known| **value == *known);
        for (index, operation) in values
            .iter()
            .enumerate()
            .filter(|(_, value)| unknown(value))
        {
            if field == "operations" {
                errors.push(FieldError::not_supported(
                    format!("{path}.operations[{index}]"),
                    operation.clone(),
                    OPERATIONS,
                ));
            }
        }
    }
    const SCOPES: &[&str] = &["*", "Cluster", "Namespaced"];
    let scope = &rule["scope"];
    if !SCOPES.iter().any(|known| scope == known) {
        errors.push(FieldError::not_supported(
            format!("{path}.scope"),
            scope.clone(),
            SCOPES,
        ));
    }
}

fn side_effects(errors: &mut Vec<FieldError>, webhook: &Value, path: &str) {
    match webhook["sideEffects"].as_str() {
        None => errors.push(FieldError::required(
            format!("{path}.sideEffects"),
            "must specify one of None, NoneOnDryRun",
        )),
        Some("None" | "NoneOnDryRun") => {}
        Some(other) => errors.push(FieldError::not_supported(
            format!("{path}.sideEffects"),
            json!(other),
            &["None", "NoneOnDryRun"],
        )),
    }
}

fn client_config(errors: &mut Vec<FieldError>, config: &Value, path: &str) {
    let url = &config["url"];
    let service = &config["service"];
    if url.is_null() == service.is_null() {
        errors.push(FieldError::required(
            path,
            "exactly one of url or service is required",
        ));
        return;
    }
    if let Some(url) = url.as_str()
        && !url.starts_with("https://")
    {
        errors.push(FieldError::invalid(
            format!("{path}.url"),
            json!(url.split_once("://").map_or("", |(scheme, _)| scheme)),
            "'https' is the only allowed URL scheme; desired format: https://host[/path]",
        ));
    }
    if service.is_object() {
        for name in ["name", "namespace"] {
            if service[name].as_str().unwrap_or_default().is_empty() {
                errors.push(FieldError::required(
                    format!("{path}.service.{name}"),
                    format!("service {name} is required"),
                ));
            }
        }
        let port = int(service, "/port");
        for fault in text::port_number(port) {
            errors.push(FieldError::invalid(
                format!("{path}.service.port"),
                json!(port),
                format!("port is not valid: {fault}"),
            ));
        }
    }
}

fn review_versions(errors: &mut Vec<FieldError>, versions: &[Value], path: &str) {
    let path = format!("{path}.admissionReviewVersions");
    if versions.is_empty() {
        errors.push(FieldError::required(
            path,
            "must specify one of v1, v1beta1",
        ));
        return;
    }
    if !versions
        .iter()
        .any(|version| version == "v1" || version == "v1beta1")
    {
        errors.push(FieldError::invalid(
            path,
            json!(versions),
            "must include at least one of v1, v1beta1",
        ));
    }
}

/// A ValidatingAdmissionPolicy.
pub(in crate::builtin) fn policy(check: &Check<'_>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let spec = at(check.object, "/spec");
    let validations = list(spec, "/validations");
    if validations.is_empty() && list(spec, "/auditAnnotations").is_empty() {
        errors.push(FieldError::required(
            "spec.validations",
            "validations or auditAnnotations must contain at least one item",
        ));
    }
    for (index, validation) in validations.iter().enumerate() {
        if text_at(validation, "/expression").trim().is_empty() {
            errors.push(FieldError::required(
                format!("spec.validations[{index}].expression"),
                "expression is not specified",
            ));
        }
    }
    if spec["matchConstraints"].is_null() {
        errors.push(FieldError::required("spec.matchConstraints", ""));
    } else if list(spec, "/matchConstraints/resourceRules").is_empty() {
        errors.push(FieldError::required(
            "spec.matchConstraints.resourceRules",
            "",
        ));
    }
    errors
}
