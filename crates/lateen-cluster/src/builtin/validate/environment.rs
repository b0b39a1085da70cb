//! Environment variables.

use serde_json::{Value, json};

use super::{invalid, text};
use crate::builtin::read::{list, text as text_at};
use crate::field::FieldError;

/// Fields of a pod that an environment variable can hold.
const ENV_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// `env` and `envFrom` of a container.
pub(super) fn environment(errors: &mut Vec<FieldError>, container: &Value, path: &str) {
    for (index, variable) in list(container, "/env").iter().enumerate() {
        let path = format!("{path}.env[{index}]");
        let name = text_at(variable, "/name");
        if name.is_empty() {
            errors.push(FieldError::required(format!("{path}.name"), ""));
        } else {
            invalid(
                errors,
                &format!("{path}.name"),
                name,
                text::variable_name(name),
            );
        }
        if variable["valueFrom"].is_object() {
            value_from(errors, variable, &format!("{path}.valueFrom"));
        }
    }
    for (index, source) in list(container, "/envFrom").iter().enumerate() {
        let whole = format!("{path}.envFrom");
        let path = format!("{whole}[{index}]");
        let prefix = text_at(source, "/prefix");
        if !prefix.is_empty() {
            invalid(
                errors,
                &format!("{path}.prefix"),
                prefix,
                text::variable_name(prefix),
            );
        }
        let mut sources = 0;
        for name in ["configMapRef", "secretRef"] {
            if !source[name].is_object() {
                continue;
            }
            sources += 1;
            let referred = text_at(&source[name], "/name");
            if referred.is_empty() {
                errors.push(FieldError::required(format!("{path}.{name}.name"), ""));
            } else {
                invalid(
                    errors,
                    &format!("{path}.{name}.name"),
                    referred,
                    text::dns_subdomain(referred),
                );
            }
        }
        if sources == 0 {
            errors.push(FieldError::invalid(
                whole,
                json!(""),
                "must specify one of: `configMapRef` or `secretRef`",
            ));
        } else if sources > 1 {
            errors.push(FieldError::invalid(
                whole,
                json!(""),
                "may not have more than one field specified at a time",
            ));
        }
    }
}

fn value_from(errors: &mut Vec<FieldError>, variable: &Value, path: &str) {
    let from = &variable["valueFrom"];
    let mut sources = 0;
    if from["fieldRef"].is_object() {
        sources += 1;
        field_reference(
            errors,
            &from["fieldRef"],
            ENV_FIELDS,
            &format!("{path}.fieldRef"),
        );
    }
    if from["resourceFieldRef"].is_object() {
        sources += 1;
        if text_at(from, "/resourceFieldRef/resource").is_empty() {
            errors.push(FieldError::required(
                format!("{path}.resourceFieldRef.resource"),
                "",
            ));
        }
    }
    for name in ["configMapKeyRef", "secretKeyRef"] {
        if !from[name].is_object() {
            continue;
        }
        sources += 1;
        let referred = text_at(&from[name], "/name");
        invalid(
            errors,
            &format!("{path}.{name}.name"),
            referred,
            text::dns_subdomain(referred),
        );
        let key = text_at(&from[name], "/key");
        if key.is_empty() {
            errors.push(FieldError::required(format!("{path}.{name}.key"), ""));
        } else {
            invalid(
                errors,
                &format!("{path}.{name}.key"),
                key,
                text::config_key(key),
            );
        }
    }
    if from["fileKeyRef"].is_object() {
        sources += 1;
    }
    let fault = if sources == 0 {
        "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"
    } else if !text_at(variable, "/value").is_empty() {
        "may not be specified when `value` is not empty"
    } else if sources > 1 {
        "may not have more than one field specified at a time"
    } else {
        return;
    };
    errors.push(FieldError::invalid(path, json!(""), fault));
}

/// A reference to a field of the pod, possibly to one label or annotation.
fn field_reference(errors: &mut Vec<FieldError>, reference: &Value, fields: &[&str], path: &str) {
    let field = text_at(reference, "/fieldPath");
    if field.is_empty() {
        errors.push(FieldError::required(format!("{path}.fieldPath"), ""));
        return;
    }
    if let Some((whole, key)) = field
        .strip_suffix("']")
        .and_then(|field| field.split_once("['"))
    {
        match whole {
            "metadata.annotations" => {
                invalid(errors, path, key, text::qualified_name(&key.to_lowercase()))
            }
            "metadata.labels" => invalid(errors, path, key, text::qualified_name(key)),
            _ => errors.push(FieldError::invalid(
                path,
                json!(whole),
                "does not support subscript",
            )),
        }
        return;
    }
    let known = fields.contains(&field)
        || matches!(
            field,
            "metadata.annotations" | "metadata.labels" | "spec.restartPolicy" | "status.phase"
        );
    if !known {
        errors.push(FieldError::invalid(
            format!("{path}.fieldPath"),
            json!(field),
            format!("error converting fieldPath: field label not supported: {field}"),
        ));
    } else if !fields.contains(&field) {
        errors.push(FieldError::not_supported(
            format!("{path}.fieldPath"),
            json!(field),
            fields,
        ));
    }
}
