//! Checks of service entries.

use std::collections::BTreeSet;

use super::{
    Problems,
    names::{
        is_address, is_dns_label, is_host, is_network, is_port, is_wildcard_host, service_export_to,
    },
};
use crate::networking::service_entry::{Resolution, ServiceEntrySpec, WorkloadEntryBody};

/// Checks a specification.
pub fn specification(spec: &ServiceEntrySpec, problems: &mut Problems) {
    problems.demand(
        !spec.hosts.is_empty(),
        "hosts",
        "at least one host is needed",
    );
    problems.each("hosts", &spec.hosts, |problems, host| {
        if host == "*" {
            problems.add("* alone is no host");
        } else if !is_wildcard_host(host) {
            problems.add(format!("{host:?} is not a host name"));
        }
    });
    let resolution = spec.resolution.unwrap_or_default();
    problems.each("addresses", &spec.addresses, |problems, address| {
        if !is_network(address) {
            problems.add(format!("{address:?} is neither an address nor a network"));
        } else if address.contains('/')
            && !matches!(resolution, Resolution::None | Resolution::Static)
        {
            problems.add("networks are allowed with resolution NONE and STATIC only");
        }
    });
    ports(spec, problems);
    problems.demand(
        spec.endpoints.is_empty() || spec.workload_selector.is_none(),
        "workloadSelector",
        "endpoints are listed or selected, not both",
    );
    let wildcard = spec.hosts.iter().any(|host| host.starts_with('*'));
    match resolution {
        Resolution::None => {
            problems.demand(
                spec.endpoints.is_empty(),
                "endpoints",
                "resolution NONE has no endpoints",
            );
        }
        Resolution::Static => {
            for (index, endpoint) in spec.endpoints.iter().enumerate() {
                problems.field(&format!("endpoints[{index}]"), |problems| {
                    let unix = endpoint.address.starts_with("unix:");
                    let addressed =
                        unix || is_address(&endpoint.address) || !endpoint.network.is_empty();
                    problems.demand(
                        addressed,
                        "address",
                        format!("{:?} is not an address", endpoint.address),
                    );
                });
            }
        }
        Resolution::Dns | Resolution::DnsRoundRobin => {
            problems.demand(
                !wildcard || !spec.endpoints.is_empty(),
                "hosts",
                "wildcards cannot be looked up: list endpoints or use another resolution",
            );
            if resolution == Resolution::DnsRoundRobin {
                problems.demand(
                    spec.endpoints.len() <= 1,
                    "endpoints",
                    "there is at most one with DNS_ROUND_ROBIN",
                );
            }
            for (index, endpoint) in spec.endpoints.iter().enumerate() {
                problems.field(&format!("endpoints[{index}]"), |problems| {
                    let known = is_host(&endpoint.address) || is_address(&endpoint.address);
                    let elsewhere = endpoint.address.is_empty() && !endpoint.network.is_empty();
                    problems.demand(
                        known || elsewhere,
                        "address",
                        format!("{:?} cannot be looked up", endpoint.address),
                    );
                });
            }
        }
        Resolution::DynamicDns => {
            problems.demand(
                wildcard,
                "hosts",
                "resolution DYNAMIC_DNS is for wildcard hosts",
            );
            problems.demand(
                spec.endpoints.is_empty(),
                "endpoints",
                "resolution DYNAMIC_DNS has no endpoints",
            );
            problems.demand(
                spec.addresses.is_empty(),
                "addresses",
                "resolution DYNAMIC_DNS has no addresses",
            );
            problems.each("ports", &spec.ports, |problems, port| {
                let named = matches!(
                    port.protocol.to_ascii_uppercase().as_str(),
                    "HTTP" | "HTTP2" | "GRPC" | "GRPC-WEB" | "HTTPS" | "TLS"
                );
                problems.demand(
                    named,
                    "protocol",
                    "resolution DYNAMIC_DNS needs a protocol that names the host: HTTP or TLS",
                );
            });
        }
    }
    problems.each("endpoints", &spec.endpoints, |problems, one| {
        endpoint(one, spec, problems)
    });
    service_export_to(&spec.export_to, problems);
    if let Some(selector) = &spec.workload_selector {
        problems.demand(
            selector.labels.keys().all(|key| !key.is_empty()),
            "workloadSelector",
            "a label needs a key",
        );
    }
}

fn ports(spec: &ServiceEntrySpec, problems: &mut Problems) {
    let (mut names, mut numbers) = (BTreeSet::new(), BTreeSet::new());
    problems.each("ports", &spec.ports, |problems, port| {
        problems.demand(
            is_port(port.number),
            "number",
            format!("{} is not a port: use 1 to 65535", port.number),
        );
        problems.demand(
            is_dns_label(&port.name),
            "name",
            "a port needs a name of letters, digits and dashes",
        );
        problems.demand(
            names.insert(&port.name),
            "name",
            format!("{:?} is there twice", port.name),
        );
        problems.demand(
            numbers.insert(port.number),
            "number",
            format!("{} is there twice", port.number),
        );
        problems.demand(
            port.target_port == 0 || is_port(port.target_port),
            "targetPort",
            "a port is 1 to 65535",
        );
    });
}

/// Checks an endpoint on its own.
pub fn workload(entry: &WorkloadEntryBody, problems: &mut Problems) {
    let address = entry.address.as_str();
    let unix = address.strip_prefix("unix:");
    let valid = match unix {
        Some(path) => {
            path.trim_start_matches("//").starts_with(['/', '@']) || path.starts_with('/')
        }
        None => is_address(address) || is_host(address) || !entry.network.is_empty(),
    };
    problems.demand(
        valid,
        "address",
        format!("{address:?} is neither an address, a name nor a unix socket"),
    );
}

fn endpoint(endpoint: &WorkloadEntryBody, spec: &ServiceEntrySpec, problems: &mut Problems) {
    if let Some(path) = endpoint.address.strip_prefix("unix:") {
        let path = path.strip_prefix("//").unwrap_or(path);
        problems.demand(
            (path.starts_with('/') || path.starts_with('@')) && !path.ends_with('/'),
            "address",
            "a unix socket has an absolute path or an abstract name",
        );
        problems.demand(
            endpoint.ports.is_empty() && spec.ports.len() <= 1,
            "ports",
            "a unix socket stands for one port and has no numbers",
        );
    }
    for (name, number) in &endpoint.ports {
        let known = spec.ports.iter().any(|port| port.name == *name);
        problems.demand(
            known,
            "ports",
            format!("{name:?} is not the name of a port"),
        );
        problems.demand(
            is_port(*number),
            "ports",
            format!("{number} is not a port: use 1 to 65535"),
        );
    }
}
