//! Checks of virtual services.

use std::collections::BTreeSet;

use super::{
    Problems, http_route,
    names::{export_to, is_address, is_dns_label, is_network, is_port, is_wildcard_host},
};
use crate::networking::virtual_service::{Destination, RouteDestination, VirtualServiceSpec};

/// Checks a specification.
pub fn specification(spec: &VirtualServiceSpec, problems: &mut Problems) {
    if spec.hosts.is_empty() {
        return delegate(spec, problems);
    }
    let mesh = spec.gateways.is_empty() || spec.gateways.iter().any(|gateway| gateway == "mesh");
    problems.each("gateways", &spec.gateways, |problems, gateway| {
        check_gateway(gateway, problems)
    });
    let mut seen = BTreeSet::new();
    problems.each("hosts", &spec.hosts, |problems, host| {
        if !is_wildcard_host(host) && !is_address(host) {
            problems.add(format!(
                "{host:?} is not a host name; wildcards stand at the beginning, *.example.com"
            ));
        }
        if mesh && host == "*" {
            problems
                .add("the wildcard * alone is for gateways; sidecars (gateway mesh) need a host");
        }
        if !seen.insert(host.to_ascii_lowercase()) {
            problems.add(format!("{host:?} is there twice"));
        }
    });
    if spec.http.is_empty() && spec.tcp.is_empty() && spec.tls.is_empty() {
        problems.add("one of http, tcp and tls must have a rule");
    }
    problems.each("http", &spec.http, |problems, rule| {
        http_route::rule(rule, problems);
        problems.demand(
            !mesh || !http_route::asks_for_claims(rule),
            "match",
            "claims of tokens are for gateways, not for sidecars (gateway mesh)",
        );
    });
    problems.each("tls", &spec.tls, |problems, rule| {
        problems.demand(
            !rule.r#match.is_empty(),
            "match",
            "a TLS rule needs a condition",
        );
        problems.each("match", &rule.r#match, |problems, condition| {
            problems.demand(
                !condition.sni_hosts.is_empty(),
                "sniHosts",
                "at least one server name is needed",
            );
            problems.each("sniHosts", &condition.sni_hosts, |problems, name| {
                // Clients that send an address are against the rules of TLS, but there are some.
                if is_address(name) {
                    return;
                }
                if !is_wildcard_host(name) {
                    problems.add(format!("{name:?} is not a host name"));
                }
                if !spec.hosts.iter().any(|host| covers(host, name)) {
                    problems.add(format!("{name:?} is not covered by any of the hosts"));
                }
            });
            l4(
                &condition.destination_subnets,
                condition.port,
                &condition.gateways,
                problems,
            );
        });
        routes(&rule.route, problems);
    });
    problems.each("tcp", &spec.tcp, |problems, rule| {
        problems.each("match", &rule.r#match, |problems, condition| {
            l4(
                &condition.destination_subnets,
                condition.port,
                &condition.gateways,
                problems,
            );
        });
        routes(&rule.route, problems);
    });
    export_to(&spec.export_to, problems);
}

/// Checks rules that another virtual service refers to: they have no hosts and no gateways.
fn delegate(spec: &VirtualServiceSpec, problems: &mut Problems) {
    problems.demand(
        spec.gateways.is_empty(),
        "gateways",
        "rules without hosts (delegates) have no gateways",
    );
    problems.demand(
        spec.tcp.is_empty() && spec.tls.is_empty(),
        "hosts",
        "at least one host is needed; only delegates, with HTTP rules alone, have none",
    );
    problems.demand(
        !spec.http.is_empty(),
        "hosts",
        "at least one host is needed",
    );
    problems.each("http", &spec.http, |problems, rule| {
        http_route::delegated_rule(rule, problems)
    });
    export_to(&spec.export_to, problems);
}

fn covers(pattern: &str, name: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(suffix) => name.strip_prefix('*').unwrap_or(name).ends_with(suffix),
        None => pattern.eq_ignore_ascii_case(name),
    }
}

/// Checks the name of a gateway: `name`, `namespace/name` or `mesh`.
pub(super) fn check_gateway(gateway: &str, problems: &mut Problems) {
    let valid = match gateway.split_once('/') {
        Some((namespace, name)) => is_dns_label(namespace) && is_object_name(name),
        None => is_object_name(gateway),
    };
    if !valid {
        problems.add(format!(
            "{gateway:?} is not the name of a gateway: use name, namespace/name or mesh"
        ));
    }
}

fn is_object_name(name: &str) -> bool {
    !name.is_empty() && name.split('.').all(is_dns_label)
}

fn l4(subnets: &[String], port: u32, gateways: &[String], problems: &mut Problems) {
    problems.each("destinationSubnets", subnets, |problems, subnet| {
        if !is_network(subnet) {
            problems.add(format!("{subnet:?} is neither an address nor a network"));
        }
    });
    problems.demand(
        port == 0 || is_port(port),
        "port",
        format!("{port} is not a port: use 1 to 65535"),
    );
    problems.each("gateways", gateways, |problems, gateway| {
        check_gateway(gateway, problems)
    });
}

fn routes(routes: &[RouteDestination], problems: &mut Problems) {
    problems.demand(
        !routes.is_empty(),
        "route",
        "at least one destination is needed",
    );
    problems.each("route", routes, |problems, route| {
        problems.field("destination", |problems| {
            destination(&route.destination, problems)
        });
        problems.demand(route.weight >= 0, "weight", "a weight is 0 or more");
    });
    weights(routes.iter().map(|route| route.weight), problems);
}

/// Checks that several destinations get something.
pub(super) fn weights(weights: impl Iterator<Item = i32>, problems: &mut Problems) {
    let weights: Vec<i32> = weights.collect();
    if weights.len() > 1 && weights.iter().all(|weight| *weight == 0) {
        problems.add_to("route", "the weights of several destinations add up to 0");
    }
}

/// Checks a destination.
pub fn destination(destination: &Destination, problems: &mut Problems) {
    let host = destination.host.as_str();
    if host == "*" {
        problems.add_to("host", "* is no destination");
    } else if !is_wildcard_host(host) {
        problems.add_to("host", format!("{host:?} is not a host name"));
    }
    if !destination.subset.is_empty() {
        problems.demand(
            is_dns_label(&destination.subset),
            "subset",
            "a subset's name has letters, digits and dashes",
        );
    }
    if let Some(port) = &destination.port {
        problems.field("port", |problems| {
            problems.demand(
                is_port(port.number),
                "number",
                format!("{} is not a port: use 1 to 65535", port.number),
            );
        });
    }
}
