//! Containers and what belongs to them.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{environment, invalid, nonnegative, one_of, port, text};
use crate::builtin::read::{at, int, list, members, text as text_at};
use crate::field::{FieldError, FieldErrorKind};
use crate::schema::quantity::Quantity;

/// The containers of a pod.
pub(super) fn containers(
    errors: &mut Vec<FieldError>,
    spec: &Value,
    volumes: &BTreeSet<String>,
    path: &str,
) {
    let containers = list(spec, "/containers");
    let path = format!("{path}.containers");
    if containers.is_empty() {
        errors.push(FieldError::required(path, ""));
        return;
    }
    let mut names = BTreeSet::new();
    for (index, container) in containers.iter().enumerate() {
        let path = format!("{path}[{index}]");
        common(errors, container, volumes, &path);
        let name = text_at(container, "/name");
        if !names.insert(name) {
            errors.push(FieldError::duplicate(format!("{path}.name"), json!(name)));
        }
        long_running(errors, container, &path);
        if let Some(policy) = container["restartPolicy"].as_str()
            && !matches!(policy, "Always" | "OnFailure" | "Never")
        {
            errors.push(FieldError::not_supported(
                format!("{path}.restartPolicy"),
                json!(policy),
                &["Always", "Never", "OnFailure"],
            ));
        }
    }
    host_port_conflicts(errors, containers, &path);
}

/// The containers that run before the others, sidecars among them.
pub(super) fn init_containers(
    errors: &mut Vec<FieldError>,
    spec: &Value,
    volumes: &BTreeSet<String>,
    path: &str,
) {
    let path = format!("{path}.initContainers");
    let mut names: BTreeSet<&str> = list(spec, "/containers")
        .iter()
        .map(|container| text_at(container, "/name"))
        .collect();
    for (index, container) in list(spec, "/initContainers").iter().enumerate() {
        let path = format!("{path}[{index}]");
        common(errors, container, volumes, &path);
        let name = text_at(container, "/name");
        if names.contains(name) {
            errors.push(FieldError::duplicate(format!("{path}.name"), json!(name)));
        } else if !name.is_empty() {
            names.insert(name);
        }
        if container["restartPolicy"] == "Always" {
            long_running(errors, container, &path);
            continue;
        }
        for field in [
            "lifecycle",
            "livenessProbe",
            "readinessProbe",
            "startupProbe",
        ] {
            if container[field].is_object() {
                errors.push(FieldError::forbidden(
                    format!("{path}.{field}"),
                    "may not be set for init containers without restartPolicy=Always",
                ));
            }
        }
    }
}

/// What only containers have that run beside others.
fn long_running(errors: &mut Vec<FieldError>, container: &Value, path: &str) {
    for hook in ["postStart", "preStop"] {
        let handler_value = at(container, &format!("/lifecycle/{hook}"));
        if handler_value.is_object() {
            handler(errors, handler_value, &format!("{path}.lifecycle.{hook}"));
        }
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let found = &container[name];
        if !found.is_object() {
            continue;
        }
        let path = format!("{path}.{name}");
        probe(errors, found, &path);
        if name != "readinessProbe" && int(found, "/successThreshold") != 1 {
            errors.push(FieldError::invalid(
                format!("{path}.successThreshold"),
                found["successThreshold"].clone(),
                "must be 1",
            ));
        }
        if name == "readinessProbe" && !found["terminationGracePeriodSeconds"].is_null() {
            errors.push(FieldError::invalid(
                format!("{path}.terminationGracePeriodSeconds"),
                found["terminationGracePeriodSeconds"].clone(),
                "must not be set for readinessProbes",
            ));
        }
    }
}

fn common(errors: &mut Vec<FieldError>, container: &Value, volumes: &BTreeSet<String>, path: &str) {
    let name = text_at(container, "/name");
    if name.is_empty() {
        errors.push(FieldError::required(format!("{path}.name"), ""));
    } else {
        invalid(errors, &format!("{path}.name"), name, text::dns_label(name));
    }
    let image = text_at(container, "/image");
    if image.is_empty() {
        errors.push(FieldError::required(format!("{path}.image"), ""));
    }
    one_of(
        errors,
        text_at(container, "/terminationMessagePolicy"),
        &["File", "FallbackToLogsOnError"],
        format!("{path}.terminationMessagePolicy"),
    );
    ports(errors, list(container, "/ports"), path);
    environment::environment(errors, container, path);
    mounts(errors, list(container, "/volumeMounts"), volumes, path);
    one_of(
        errors,
        text_at(container, "/imagePullPolicy"),
        &["Always", "IfNotPresent", "Never"],
        format!("{path}.imagePullPolicy"),
    );
    resources(
        errors,
        at(container, "/resources"),
        &format!("{path}.resources"),
    );
}

fn ports(errors: &mut Vec<FieldError>, ports: &[Value], path: &str) {
    let mut names = BTreeSet::new();
    for (index, port) in ports.iter().enumerate() {
        let path = format!("{path}.ports[{index}]");
        let name = text_at(port, "/name");
        if !name.is_empty() {
            let faults = text::port_name(name);
            if faults.is_empty() && !names.insert(name) {
                errors.push(FieldError::duplicate(format!("{path}.name"), json!(name)));
            }
            invalid(errors, &format!("{path}.name"), name, faults);
        }
        let number = int(port, "/containerPort");
        if number == 0 {
            errors.push(FieldError::required(format!("{path}.containerPort"), ""));
        } else {
            port::number(errors, number, format!("{path}.containerPort"));
        }
        let host = int(port, "/hostPort");
        if host != 0 {
            port::number(errors, host, format!("{path}.hostPort"));
        }
        port::protocol(errors, port, &path);
    }
}

fn host_port_conflicts(errors: &mut Vec<FieldError>, containers: &[Value], path: &str) {
    let mut taken = BTreeSet::new();
    for (index, container) in containers.iter().enumerate() {
        for (place, port) in list(container, "/ports").iter().enumerate() {
            let host = int(port, "/hostPort");
            if host == 0 {
                continue;
            }
            let key = format!(
                "{}/{}/{host}",
                text_at(port, "/protocol"),
                text_at(port, "/hostIP")
            );
            if !taken.insert(key.clone()) {
                errors.push(FieldError::duplicate(
                    format!("{path}[{index}].ports[{place}].hostPort"),
                    json!(key),
                ));
            }
        }
    }
}

fn mounts(errors: &mut Vec<FieldError>, mounts: &[Value], volumes: &BTreeSet<String>, path: &str) {
    let mut paths = BTreeSet::new();
    for (index, mount) in mounts.iter().enumerate() {
        let all = format!("{path}.volumeMounts");
        let path = format!("{all}[{index}]");
        let name = text_at(mount, "/name");
        if name.is_empty() {
            errors.push(FieldError::required(format!("{path}.name"), ""));
        }
        if !volumes.contains(name) {
            errors.push(FieldError {
                field: format!("{path}.name"),
                kind: FieldErrorKind::NotFound,
                value: json!(name),
                detail: String::new(),
            });
        }
        let target = text_at(mount, "/mountPath");
        if target.is_empty() {
            errors.push(FieldError::required(format!("{path}.mountPath"), ""));
        }
        if !paths.insert(target) {
            errors.push(FieldError::invalid(
                format!("{path}.mountPath"),
                json!(target),
                "must be unique",
            ));
        }
        let below = text_at(mount, "/subPath");
        if below.starts_with('/') {
            errors.push(FieldError::invalid(
                format!("{all}.subPath"),
                json!(below),
                "must be a relative path",
            ));
        }
        if below.split('/').any(|part| part == "..") {
            errors.push(FieldError::invalid(
                format!("{all}.subPath"),
                json!(below),
                "must not contain '..'",
            ));
        }
    }
}

fn probe(errors: &mut Vec<FieldError>, probe: &Value, path: &str) {
    handler(errors, probe, path);
    for name in [
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
    ] {
        nonnegative(errors, &probe[name], &format!("{path}.{name}"));
    }
    if let Some(period) = probe["terminationGracePeriodSeconds"]
        .as_i64()
        .filter(|period| *period <= 0)
    {
        errors.push(FieldError::invalid(
            format!("{path}.terminationGracePeriodSeconds"),
            json!(period),
            "must be greater than 0",
        ));
    }
}

fn handler(errors: &mut Vec<FieldError>, handler: &Value, path: &str) {
    let mut handlers = 0;
    for name in ["exec", "httpGet", "tcpSocket", "grpc", "sleep"] {
        let action = &handler[name];
        if !action.is_object() {
            continue;
        }
        let path = format!("{path}.{name}");
        handlers += 1;
        if handlers > 1 {
            errors.push(FieldError::forbidden(
                path,
                "may not specify more than 1 handler type",
            ));
            continue;
        }
        match name {
            "exec" if list(action, "/command").is_empty() => {
                errors.push(FieldError::required(format!("{path}.command"), ""));
            }
            "httpGet" => {
                port::number_or_name(errors, &action["port"], &format!("{path}.port"));
                let scheme = text_at(action, "/scheme");
                if !matches!(scheme, "HTTP" | "HTTPS") {
                    errors.push(FieldError::not_supported(
                        format!("{path}.scheme"),
                        json!(scheme),
                        &["HTTP", "HTTPS"],
                    ));
                }
                for header in list(action, "/httpHeaders") {
                    let name = text_at(header, "/name");
                    invalid(
                        errors,
                        &format!("{path}.httpHeaders"),
                        name,
                        text::header_name(name),
                    );
                }
            }
            "tcpSocket" | "grpc" => {
                port::number_or_name(errors, &action["port"], &format!("{path}.port"))
            }
            _ => {}
        }
    }
    if handlers == 0 {
        errors.push(FieldError::required(path, "must specify a handler type"));
    }
}

/// Limits and requests.
pub(super) fn resources(errors: &mut Vec<FieldError>, resources: &Value, path: &str) {
    for kind in ["limits", "requests"] {
        for (name, amount) in members(resources, &format!("/{kind}")) {
            let at_name = format!("{path}.{kind}[{name}]");
            let faults = text::qualified_name(name);
            if faults.is_empty() && !name.contains('/') && !is_standard(name) {
                for fault in [
                    "must be a standard resource type or fully qualified",
                    "must be a standard resource for containers",
                ] {
                    errors.push(FieldError::invalid(at_name.clone(), json!(name), fault));
                }
            }
            invalid(errors, &at_name, name, faults);
            let Ok(quantity) = Quantity::parse(amount.as_str().unwrap_or_default()) else {
                continue;
            };
            if quantity.is_negative() {
                errors.push(FieldError::invalid(
                    at_name.clone(),
                    amount.clone(),
                    "must be greater than or equal to 0",
                ));
            }
            if kind == "requests" {
                let limit = at(resources, "/limits").get(name);
                if let Some(limit) = limit.and_then(|limit| Quantity::parse(limit.as_str()?).ok())
                    && quantity > limit
                {
                    errors.push(FieldError::invalid(
                        format!("{path}.requests"),
                        json!(quantity.canonical()),
                        format!(
                            "must be less than or equal to {name} limit of {}",
                            limit.canonical()
                        ),
                    ));
                }
            }
        }
    }
}

fn is_standard(name: &str) -> bool {
    matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-")
}
