//! What a CustomResourceDefinition may say of its names, scope and versions.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::field::FieldError;

use super::version;
use super::{list, text};
use crate::builtin::{dns_1035_label, dns_subdomain};

/// All faults of a definition; `old` is the one before an update.
pub(super) fn check(object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let spec = &object["spec"];
    let group = text(&spec["group"]);
    let names = &spec["names"];
    if old.is_none() {
        let name = text(&object["metadata"]["name"]);
        for fault in dns_subdomain(name) {
            errors.push(FieldError::invalid("metadata.name", json!(name), fault));
        }
        if name != format!("{}.{group}", text(&names["plural"])) {
            let detail = "must be spec.names.plural+\".\"+spec.group";
            errors.push(FieldError::invalid("metadata.name", json!(name), detail));
        }
    }
    if group.is_empty() {
        errors.push(FieldError::required("spec.group", ""));
    } else {
        let faults = dns_subdomain(group);
        if !faults.is_empty() {
            errors.push(FieldError::invalid(
                "spec.group",
                json!(group),
                faults.join(","),
            ));
        } else if !group.contains('.') {
            let detail = "should be a domain with at least one dot";
            errors.push(FieldError::invalid("spec.group", json!(group), detail));
        }
    }
    match text(&spec["scope"]) {
        "" => errors.push(FieldError::required("spec.scope", "")),
        "Cluster" | "Namespaced" => {}
        _ => errors.push(FieldError::not_supported(
            "spec.scope",
            spec["scope"].clone(),
            &["Cluster", "Namespaced"],
        )),
    }
    check_versions(list(&spec["versions"]), &mut errors);
    for key in ["plural", "singular", "kind", "listKind"] {
        if text(&names[key]).is_empty() {
            errors.push(FieldError::required(format!("spec.names.{key}"), ""));
        }
    }
    check_names(names, &mut errors);
    check_conversion(&spec["conversion"], &mut errors);
    if let Some(old) = old {
        check_unchanged(spec, old, &mut errors);
        check_stored(object, &mut errors);
    }
    if spec["preserveUnknownFields"] == true {
        errors.push(FieldError::invalid(
            "spec.preserveUnknownFields",
            json!(true),
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead",
        ));
    }
    check_approval(object, group, &mut errors);
    errors
}

fn check_versions(versions: &[Value], errors: &mut Vec<FieldError>) {
    for (index, version) in versions.iter().enumerate() {
        if !version["schema"]["openAPIV3Schema"].is_object() {
            let field = format!("spec.versions[{index}].schema.openAPIV3Schema");
            errors.push(FieldError::required(field, ""));
        }
    }
    let mut seen = HashSet::new();
    let mut unique = true;
    for (index, version) in versions.iter().enumerate() {
        let at = format!("spec.versions[{index}]");
        let name = text(&version["name"]);
        unique &= seen.insert(name);
        let faults = dns_1035_label(name);
        if !faults.is_empty() {
            errors.push(FieldError::invalid(
                format!("{at}.name"),
                json!(name),
                faults.join(","),
            ));
        }
        version::check(version, &at, errors);
    }
    let whole = || Value::Array(versions.to_vec());
    if !unique {
        errors.push(FieldError::invalid(
            "spec.versions",
            whole(),
            "must contain unique version names",
        ));
    }
    if versions
        .iter()
        .filter(|version| version["storage"] == true)
        .count()
        != 1
    {
        let detail = "must have exactly one version marked as storage version";
        errors.push(FieldError::invalid("spec.versions", whole(), detail));
    }
}

fn check_names(names: &Value, errors: &mut Vec<FieldError>) {
    let mut label = |key: &str, shown: &str, checked: &str, before: &str| {
        let faults = dns_1035_label(checked);
        if !shown.is_empty() && !faults.is_empty() {
            let detail = format!("{before}{}", faults.join(","));
            errors.push(FieldError::invalid(
                format!("spec.names.{key}"),
                json!(shown),
                detail,
            ));
        }
    };
    for key in ["plural", "singular"] {
        let name = text(&names[key]);
        label(key, name, name, "");
    }
    for key in ["kind", "listKind"] {
        let name = text(&names[key]);
        let before = "may have mixed case, but should otherwise match: ";
        label(key, name, &name.to_lowercase(), before);
    }
    for key in ["shortNames", "categories"] {
        for (index, name) in list(&names[key]).iter().enumerate() {
            label(&format!("{key}[{index}]"), text(name), text(name), "");
        }
    }
    let kind = text(&names["kind"]);
    if !kind.is_empty() && names["listKind"] == kind {
        let detail = "kind and listKind may not be the same";
        errors.push(FieldError::invalid(
            "spec.names.listKind",
            json!(kind),
            detail,
        ));
    }
}

fn check_conversion(conversion: &Value, errors: &mut Vec<FieldError>) {
    match text(&conversion["strategy"]) {
        "None" => {
            if !conversion["webhook"].is_null() {
                let detail = "should not be set when strategy is not set to Webhook";
                errors.push(FieldError::forbidden(
                    "spec.conversion.webhookClientConfig",
                    detail,
                ));
            }
        }
        "" if conversion.is_null() => {}
        "" => errors.push(FieldError::required("spec.conversion.strategy", "")),
        "Webhook" => errors.push(FieldError::invalid(
            "spec.conversion.strategy",
            json!("Webhook"),
            "this server does not call conversion webhooks: use None, or serve one version",
        )),
        other => errors.push(FieldError::not_supported(
            "spec.conversion.strategy",
            json!(other),
            &["None", "Webhook"],
        )),
    }
}

/// What objects in the store depend on cannot change.
fn check_unchanged(spec: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    let established = list(&old["status"]["conditions"])
        .iter()
        .any(|condition| condition["type"] == "Established" && condition["status"] == "True");
    let mut fixed = |field: &str, new: &Value, old: &Value| {
        if new != old {
            let field = format!("spec.{field}");
            errors.push(FieldError::invalid(
                field,
                new.clone(),
                "field is immutable",
            ));
        }
    };
    let old = &old["spec"];
    if established {
        fixed("scope", &spec["scope"], &old["scope"]);
        fixed("names.kind", &spec["names"]["kind"], &old["names"]["kind"]);
    }
    fixed("group", &spec["group"], &old["group"]);
    fixed(
        "names.plural",
        &spec["names"]["plural"],
        &old["names"]["plural"],
    );
}

fn check_stored(object: &Value, errors: &mut Vec<FieldError>) {
    let versions = list(&object["spec"]["versions"]);
    for (index, stored) in list(&object["status"]["storedVersions"]).iter().enumerate() {
        if !versions.iter().any(|version| version["name"] == *stored) {
            let name = text(stored);
            let detail = format!(
                "missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in {name} and removes {name} from status.storedVersions"
            );
            let field = format!("status.storedVersions[{index}]");
            errors.push(FieldError::invalid(field, stored.clone(), detail));
        }
    }
}

/// Groups of the Kubernetes community need a note of their approval.
fn check_approval(object: &Value, group: &str, errors: &mut Vec<FieldError>) {
    const ANNOTATION: &str = "api-approved.kubernetes.io";
    let protected = group == "k8s.io"
        || group == "kubernetes.io"
        || group.ends_with(".k8s.io")
        || group.ends_with(".kubernetes.io");
    if !protected {
        return;
    }
    let field = format!("metadata.annotations[{ANNOTATION}]");
    let value = text(&object["metadata"]["annotations"][ANNOTATION]);
    if value.is_empty() {
        let detail = format!(
            "protected groups must have approval annotation {ANNOTATION:?}, see https://github.com/kubernetes/enhancements/pull/1111"
        );
        errors.push(FieldError::required(field, detail));
    } else if !(value.starts_with("unapproved") || value.contains("://")) {
        let detail = format!(
            "protected groups must have approval annotation {ANNOTATION:?} with either a URL or a reason starting with \"unapproved\", see https://github.com/kubernetes/enhancements/pull/1111"
        );
        errors.push(FieldError::invalid(field, json!(value), detail));
    }
}
