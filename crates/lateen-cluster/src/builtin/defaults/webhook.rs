//! Defaults of admission webhooks and admission policies.

use serde_json::{Value, json};

use crate::builtin::read::{at, each, fill_pointer, text};

/// Webhooks fail closed, see everything, and have ten seconds.
pub(in crate::builtin) fn webhooks(configuration: &mut Value) {
    let mutating = text(configuration, "/kind") == "MutatingWebhookConfiguration";
    each(configuration, "/webhooks", |webhook| {
        fill_pointer(webhook, "failurePolicy", "Fail");
        fill_pointer(webhook, "matchPolicy", "Equivalent");
        fill_pointer(webhook, "namespaceSelector", json!({}));
        fill_pointer(webhook, "objectSelector", json!({}));
        fill_pointer(webhook, "timeoutSeconds", 10);
        if mutating {
            fill_pointer(webhook, "reinvocationPolicy", "Never");
        }
        if at(webhook, "/clientConfig/service").is_object() {
            fill_pointer(&mut webhook["clientConfig"]["service"], "port", 443);
        }
        each(webhook, "/rules", |rule| fill_pointer(rule, "scope", "*"));
    });
}

/// Policies fail closed.
pub(in crate::builtin) fn policy(policy: &mut Value) {
    let Some(spec) = policy.get_mut("spec").filter(|spec| spec.is_object()) else {
        return;
    };
    fill_pointer(spec, "failurePolicy", "Fail");
    match_resources(spec, "matchConstraints");
}

/// What a binding matches.
pub(in crate::builtin) fn policy_binding(binding: &mut Value) {
    if let Some(spec) = binding.get_mut("spec").filter(|spec| spec.is_object()) {
        match_resources(spec, "matchResources");
    }
}

fn match_resources(spec: &mut Value, name: &str) {
    let Some(resources) = spec.get_mut(name).filter(|resources| resources.is_object()) else {
        return;
    };
    fill_pointer(resources, "matchPolicy", "Equivalent");
    fill_pointer(resources, "namespaceSelector", json!({}));
    fill_pointer(resources, "objectSelector", json!({}));
    each(resources, "/resourceRules", |rule| {
        fill_pointer(rule, "scope", "*")
    });
    each(resources, "/excludeResourceRules", |rule| {
        fill_pointer(rule, "scope", "*")
    });
}
