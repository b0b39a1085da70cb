//! Services and their endpoints.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{AGE, NAME, Table, age, field_column, name, some_of, wide};
use crate::builtin::read::{int, list, members, text};

/// Endpoints shown at most.
const SHOWN: usize = 3;

pub(in crate::builtin) const SERVICE: Table = Table {
    columns: &[
        NAME,
        field_column("Type", "string", &["spec", "type"]),
        field_column("Cluster-IP", "string", &["spec", "clusterIP"]),
        field_column("External-IP", "string", &["spec", "externalIPs"]),
        field_column("Port(s)", "string", &["spec", "ports"]),
        AGE,
        wide(field_column("Selector", "string", &["spec", "selector"])),
    ],
    row: |service, now| {
        let ip = match text(service, "/spec/clusterIPs/0") {
            "" => "<none>",
            ip => ip,
        };
        let ports: Vec<String> = list(service, "/spec/ports").iter().map(port).collect();
        let ports = if ports.is_empty() {
            "<none>".to_owned()
        } else {
            ports.join(",")
        };
        vec![
            name(service),
            json!(text(service, "/spec/type")),
            json!(ip),
            json!(external_ip(service)),
            json!(ports),
            age(service, now),
            json!(labels(service)),
        ]
    },
};

/// `80:30080/TCP`.
fn port(port: &Value) -> String {
    let (number, protocol) = (int(port, "/port"), text(port, "/protocol"));
    match int(port, "/nodePort") {
        0 => format!("{number}/{protocol}"),
        node => format!("{number}:{node}/{protocol}"),
    }
}

fn external_ip(service: &Value) -> String {
    let given: Vec<&str> = list(service, "/spec/externalIPs")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    match text(service, "/spec/type") {
        "ExternalName" => text(service, "/spec/externalName").to_owned(),
        "LoadBalancer" => {
            let assigned: BTreeSet<&str> = list(service, "/status/loadBalancer/ingress")
                .iter()
                .map(|ingress| match text(ingress, "/ip") {
                    "" => text(ingress, "/hostname"),
                    ip => ip,
                })
                .filter(|address| !address.is_empty())
                .collect();
            let all: Vec<&str> = assigned.into_iter().chain(given).collect();
            if all.is_empty() {
                "<pending>".to_owned()
            } else {
                all.join(",")
            }
        }
        "ClusterIP" | "NodePort" if given.is_empty() => "<none>".to_owned(),
        "ClusterIP" | "NodePort" => given.join(","),
        _ => "<unknown>".to_owned(),
    }
}

fn labels(service: &Value) -> String {
    let mut pairs: Vec<String> = members(service, "/spec/selector")
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    pairs.sort();
    if pairs.is_empty() {
        "<none>".to_owned()
    } else {
        pairs.join(",")
    }
}

pub(in crate::builtin) const ENDPOINTS: Table = Table {
    columns: &[NAME, field_column("Endpoints", "string", &["subsets"]), AGE],
    row: |endpoints, now| {
        let mut shown = Vec::new();
        for subset in list(endpoints, "/subsets") {
            let ips = list(subset, "/addresses")
                .iter()
                .map(|address| text(address, "/ip"));
            let ports = list(subset, "/ports");
            if ports.is_empty() {
                shown.extend(ips.clone().map(str::to_owned));
            }
            for port in ports {
                let number = int(port, "/port");
                shown.extend(ips.clone().map(|ip| {
                    if ip.contains(':') {
                        format!("[{ip}]:{number}")
                    } else {
                        format!("{ip}:{number}")
                    }
                }));
            }
        }
        let none = if list(endpoints, "/subsets").is_empty() {
            "<none>"
        } else {
            ""
        };
        vec![
            name(endpoints),
            json!(some_of(&shown, SHOWN, none)),
            age(endpoints, now),
        ]
    },
};

pub(in crate::builtin) const ENDPOINT_SLICE: Table = Table {
    columns: &[
        NAME,
        field_column("AddressType", "string", &["addressType"]),
        field_column("Ports", "string", &["ports"]),
        field_column("Endpoints", "string", &["endpoints"]),
        AGE,
    ],
    row: |slice, now| {
        let ports: Vec<String> = list(slice, "/ports")
            .iter()
            .map(
                |port| match (port["port"].as_i64(), port["name"].as_str()) {
                    (Some(number), _) => number.to_string(),
                    (None, Some(name)) => name.to_owned(),
                    (None, None) => "*".to_owned(),
                },
            )
            .collect();
        let addresses: Vec<String> = list(slice, "/endpoints")
            .iter()
            .flat_map(|endpoint| list(endpoint, "/addresses"))
            .filter_map(|address| address.as_str().map(str::to_owned))
            .collect();
        vec![
            name(slice),
            json!(text(slice, "/addressType")),
            json!(some_of(&ports, SHOWN, "<unset>")),
            json!(some_of(&addresses, SHOWN, "<unset>")),
            age(slice, now),
        ]
    },
};
