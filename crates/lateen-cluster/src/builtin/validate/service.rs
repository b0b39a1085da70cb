//! Services.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::{Value, json};

use super::{Check, invalid, labels, one_of, port, text};
use crate::builtin::read::{at, int, list, text as text_at};
use crate::field::FieldError;

/// A Service.
pub(in crate::builtin) fn service(check: &Check<'_>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let spec = at(check.object, "/spec");
    if let Some(old) = check.old {
        addresses_update(&mut errors, spec, at(old, "/spec"));
    }
    let type_ = text_at(spec, "/type");
    let headless = text_at(spec, "/clusterIP") == "None";
    let ports = list(spec, "/ports");
    if ports.is_empty() && !headless && type_ != "ExternalName" {
        errors.push(FieldError::required("spec.ports", ""));
    }
    by_type(&mut errors, spec, type_, headless);
    let mut names = BTreeSet::new();
    for (index, port) in ports.iter().enumerate() {
        service_port(
            &mut errors,
            port,
            ports.len() > 1,
            &mut names,
            &format!("spec.ports[{index}]"),
        );
    }
    labels(&mut errors, at(spec, "/selector"), "spec.selector");
    one_of(
        &mut errors,
        text_at(spec, "/sessionAffinity"),
        &["ClientIP", "None"],
        "spec.sessionAffinity".to_owned(),
    );
    if let Some(seconds) = at(spec, "/sessionAffinityConfig/clientIP/timeoutSeconds").as_i64()
        && !(1..=86_400).contains(&seconds)
    {
        errors.push(FieldError::invalid(
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds",
            json!(seconds),
            "must be greater than 0 and less than 86400",
        ));
    }
    addresses(&mut errors, spec);
    one_of(
        &mut errors,
        type_,
        &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"],
        "spec.type".to_owned(),
    );
    port_uniqueness(&mut errors, ports, type_);
    policies(&mut errors, spec, type_);
    errors
}

fn by_type(errors: &mut Vec<FieldError>, spec: &Value, type_: &str, headless: bool) {
    match type_ {
        "LoadBalancer" | "NodePort" if headless => errors.push(FieldError::invalid(
            "spec.clusterIPs[0]",
            json!("None"),
            format!("may not be set to 'None' for {type_} services"),
        )),
        "ExternalName" => {
            for name in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                if !spec[name].is_null() {
                    errors.push(FieldError::forbidden(
                        format!("spec.{name}"),
                        "may not be set for ExternalName services",
                    ));
                }
            }
            let name = text_at(spec, "/externalName");
            let name = name.strip_suffix('.').unwrap_or(name);
            if name.is_empty() {
                errors.push(FieldError::required("spec.externalName", ""));
            } else {
                invalid(errors, "spec.externalName", name, text::dns_subdomain(name));
            }
        }
        _ => {}
    }
}

fn service_port<'a>(
    errors: &mut Vec<FieldError>,
    port: &'a Value,
    name_required: bool,
    names: &mut BTreeSet<&'a str>,
    path: &str,
) {
    let name = text_at(port, "/name");
    if name.is_empty() {
        if name_required {
            errors.push(FieldError::required(format!("{path}.name"), ""));
        }
    } else {
        invalid(errors, &format!("{path}.name"), name, text::dns_label(name));
        if !names.insert(name) {
            errors.push(FieldError::duplicate(format!("{path}.name"), json!(name)));
        }
    }
    port::number(errors, int(port, "/port"), format!("{path}.port"));
    port::protocol(errors, port, path);
    port::number_or_name(errors, &port["targetPort"], &format!("{path}.targetPort"));
    port::app_protocol(errors, port, path);
}

fn addresses(errors: &mut Vec<FieldError>, spec: &Value) {
    let ips = list(spec, "/clusterIPs");
    let single = text_at(spec, "/clusterIP");
    if !single.is_empty()
        && let Some(first) = ips.first()
        && first != single
    {
        errors.push(FieldError::invalid(
            "spec.clusterIPs",
            json!(ips),
            "first value must match `clusterIP`",
        ));
    }
    for (index, ip) in ips.iter().enumerate() {
        let ip = ip.as_str().unwrap_or_default();
        if ip != "None" && ip.parse::<IpAddr>().is_err() {
            errors.push(FieldError::invalid(
                format!("spec.clusterIPs[{index}]"),
                json!(ip),
                "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            ));
        }
    }
    for (index, ip) in list(spec, "/externalIPs").iter().enumerate() {
        let ip = ip.as_str().unwrap_or_default();
        if ip.parse::<IpAddr>().is_err() {
            errors.push(FieldError::invalid(
                format!("spec.externalIPs[{index}]"),
                json!(ip),
                "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            ));
        }
    }
}

/// Addresses stay once they are given.
fn addresses_update(errors: &mut Vec<FieldError>, spec: &Value, old: &Value) {
    if text_at(spec, "/type") == "ExternalName" || text_at(old, "/type") == "ExternalName" {
        return;
    }
    let (new, before) = (list(spec, "/clusterIPs"), list(old, "/clusterIPs"));
    let Some(first) = before.first() else { return };
    match new.first() {
        None => errors.push(FieldError::invalid(
            "spec.clusterIPs[0]",
            json!(new),
            "primary clusterIP can not be unset",
        )),
        Some(now) if now != first => errors.push(FieldError::invalid(
            "spec.clusterIPs[0]",
            json!(new),
            "may not change once set",
        )),
        Some(_) => {}
    }
}

fn port_uniqueness(errors: &mut Vec<FieldError>, ports: &[Value], type_: &str) {
    if type_ == "ClusterIP" {
        for (index, port) in ports.iter().enumerate() {
            if int(port, "/nodePort") != 0 {
                errors.push(FieldError::forbidden(
                    format!("spec.ports[{index}].nodePort"),
                    "may not be used when `type` is 'ClusterIP'",
                ));
            }
        }
    }
    let mut node_ports = BTreeSet::new();
    for (index, port) in ports.iter().enumerate() {
        let number = int(port, "/nodePort");
        if number != 0 && !node_ports.insert((text_at(port, "/protocol"), number)) {
            errors.push(FieldError::duplicate(
                format!("spec.ports[{index}].nodePort"),
                json!(number),
            ));
        }
    }
    let mut numbers = BTreeSet::new();
    for (index, port) in ports.iter().enumerate() {
        let (protocol, number) = (text_at(port, "/protocol"), int(port, "/port"));
        if !numbers.insert((protocol, number)) {
            // Kubernetes shows its own struct here, with all fields.
            let shown = json!({
                "Name": "", "Protocol": protocol, "AppProtocol": null, "Port": number, "TargetPort": 0, "NodePort": 0});
            errors.push(FieldError::duplicate(format!("spec.ports[{index}]"), shown));
        }
    }
}

fn policies(errors: &mut Vec<FieldError>, spec: &Value, type_: &str) {
    if type_ != "LoadBalancer" && !spec["allocateLoadBalancerNodePorts"].is_null() {
        errors.push(FieldError::forbidden(
            "spec.allocateLoadBalancerNodePorts",
            "may only be used when `type` is 'LoadBalancer'",
        ));
    }
    if type_ != "LoadBalancer" && !spec["loadBalancerClass"].is_null() {
        errors.push(FieldError::forbidden(
            "spec.loadBalancerClass",
            "may only be used when `type` is 'LoadBalancer'",
        ));
    }
    let external = text_at(spec, "/externalTrafficPolicy");
    let reachable = matches!(type_, "LoadBalancer" | "NodePort")
        || (type_ == "ClusterIP" && !list(spec, "/externalIPs").is_empty());
    if reachable {
        one_of(
            errors,
            external,
            &["Cluster", "Local"],
            "spec.externalTrafficPolicy".to_owned(),
        );
    } else if !external.is_empty() {
        errors.push(FieldError::invalid(
            "spec.externalTrafficPolicy",
            json!(external),
            "may only be set for externally-accessible services",
        ));
    }
    let internal = &spec["internalTrafficPolicy"];
    if let Some(policy) = internal.as_str()
        && !matches!(policy, "Cluster" | "Local")
    {
        errors.push(FieldError::not_supported(
            "spec.internalTrafficPolicy",
            internal.clone(),
            &["Cluster", "Local"],
        ));
    }
}
