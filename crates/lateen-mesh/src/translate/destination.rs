//! Where traffic goes: clusters of destinations, and the rules for connections that are not HTTP.

use lateen_api::{
    Duration, VirtualService,
    common::labels_match,
    networking::virtual_service::{Destination, RouteDestination},
};
use lateen_xds::pb::envoy::config::{
    core::v3::CidrRange,
    listener::v3::{Filter, FilterChainMatch},
};

use super::{
    build::{config_metadata, number},
    filter::{tcp_proxy_weighted, tcp_proxy_with},
};
use crate::{
    Index, Proxy,
    index::{Service, ServicePort, gateway_name, host_matches},
    names::ClusterName,
    protocol::Protocol,
};

/// The cluster of a destination. Without a port it is the only one of the service, else that which the client used.
pub(super) fn cluster_of(
    destination: &Destination,
    host: &str,
    service: Option<&Service>,
    listener_port: u32,
) -> String {
    // Another name has no cluster of its own.
    let host = service.and_then(Service::alias_for).unwrap_or(host);
    let port = match (
        &destination.port,
        service.map(|service| service.ports.as_slice()),
    ) {
        (Some(port), _) => port.number,
        (None, Some([only])) => only.number,
        _ => listener_port,
    };
    ClusterName::outbound(port, &destination.subset, host).to_string()
}

/// A rule for connections: which server names, and where they go.
#[derive(Debug, Clone)]
pub(super) struct L4Rule {
    /// Server names; any when empty.
    pub(super) server_names: Vec<String>,
    /// Networks of the destination address; any when empty.
    pub(super) networks: Vec<String>,
    /// The virtual service that it is of, as metadata has it.
    pub(super) origin: Option<String>,
    /// Settings of connections, of the first destination.
    settings: ConnectionSettings,
    /// Prefix of statistics when there are several clusters.
    prefix: String,
    /// Clusters and weights.
    clusters: Vec<(String, u32)>,
}

impl L4Rule {
    /// The network filter that does it.
    pub(super) fn filter(&self, index: &Index, proxy: &Proxy) -> Filter {
        match self.clusters.as_slice() {
            [(only, _)] => tcp_proxy_with(index, proxy, only, &self.settings),
            clusters => {
                let clusters = clusters.to_vec();
                tcp_proxy_weighted(index, proxy, &self.prefix, clusters, &self.settings)
            }
        }
    }

    /// What tells its connections from others.
    pub(super) fn matching(&self) -> Option<FilterChainMatch> {
        let matching = FilterChainMatch {
            server_names: sorted(&self.server_names),
            prefix_ranges: sorted(&self.networks)
                .iter()
                .filter_map(|network| prefix_range(network))
                .collect(),
            ..FilterChainMatch::default()
        };
        (matching != FilterChainMatch::default()).then_some(matching)
    }

    fn of_routes(
        index: &Index,
        proxy: &Proxy,
        rules: &VirtualService,
        routes: &[RouteDestination],
        port: u32,
        server_names: Vec<String>,
        networks: &[String],
    ) -> Self {
        let cluster = |route: &RouteDestination| {
            let host = index.resolve(&route.destination.host, rules.namespace());
            let service = index.service_seen_from(&host, &proxy.namespace);
            cluster_of(&route.destination, &host, service, port)
        };
        let clusters = match routes {
            [only] => vec![(cluster(only), 100)],
            several => several
                .iter()
                .filter(|route| route.weight > 0)
                .map(|route| (cluster(route), route.weight.unsigned_abs()))
                .collect(),
        };
        let settings = routes.first().map(|first| {
            let host = index.resolve(&first.destination.host, rules.namespace());
            let subset = match routes {
                [only] => only.destination.subset.as_str(),
                _ => "",
            };
            match index.service_seen_from(&host, &proxy.namespace) {
                Some(service) => ConnectionSettings::of(index, proxy, service, subset),
                None => ConnectionSettings::default(),
            }
        });
        Self {
            server_names,
            networks: networks.to_vec(),
            origin: Some(config_metadata(
                "virtual-service",
                rules.namespace(),
                rules.name(),
            )),
            settings: settings.unwrap_or_default(),
            prefix: format!("{}.{}", rules.name(), rules.namespace()),
            clusters,
        }
    }
}

/// What a client must be for a rule to apply.
struct Client<'a> {
    gateways: &'a [String],
    source_labels: &'a std::collections::BTreeMap<String, String>,
    source_namespace: &'a str,
    port: u32,
}

impl Client<'_> {
    fn matches(&self, proxy: &Proxy, rules: &VirtualService, gateway: &str, port: u32) -> bool {
        if self.port != 0 && self.port != port {
            return false;
        }
        // Gateways of the condition replace the other conditions on the client.
        if !self.gateways.is_empty() {
            return self
                .gateways
                .iter()
                .any(|name| gateway_name(name, rules.namespace()) == gateway);
        }
        (self.source_namespace.is_empty() || self.source_namespace == proxy.namespace)
            && labels_match(self.source_labels, &proxy.labels)
    }
}

/// The TCP rules of virtual services for a gateway (`mesh` for sidecars) and port, in order. Nothing follows one for all
/// destination addresses. `networks`: where connections of the service itself go.
pub(super) fn all_tcp_rules(
    index: &Index,
    proxy: &Proxy,
    rules: &[&VirtualService],
    gateway: &str,
    port: u32,
    networks: &[String],
) -> Vec<L4Rule> {
    let mut found = Vec::new();
    for virtual_service in rules {
        for route in &virtual_service.spec.tcp {
            if route.route.is_empty() {
                continue;
            }
            let rule = |networks: &[String]| {
                let routes = &route.route;
                let names = Vec::new();
                L4Rule::of_routes(index, proxy, virtual_service, routes, port, names, networks)
            };
            let mut subnets: Vec<String> = Vec::new();
            let mut always = route.r#match.is_empty();
            for condition in &route.r#match {
                let client = Client {
                    gateways: &condition.gateways,
                    source_labels: &condition.source_labels,
                    source_namespace: &condition.source_namespace,
                    port: condition.port,
                };
                if client.matches(proxy, virtual_service, gateway, port) {
                    always |= condition.destination_subnets.is_empty();
                    subnets.extend(condition.destination_subnets.iter().cloned());
                }
            }
            if always {
                found.push(rule(networks));
                return found;
            }
            if !subnets.is_empty() {
                found.push(rule(&subnets));
            }
        }
    }
    found
}

/// The TLS rules of virtual services for a gateway (`mesh` for sidecars) and port, in order.
pub(super) fn all_tls_rules(
    index: &Index,
    proxy: &Proxy,
    rules: &[&VirtualService],
    gateway: &str,
    port: u32,
    networks: &[String],
) -> Vec<L4Rule> {
    let mut found = Vec::new();
    for virtual_service in rules {
        let routes = virtual_service.spec.tls.iter();
        for route in routes.filter(|route| !route.route.is_empty()) {
            for condition in &route.r#match {
                let client = Client {
                    gateways: &condition.gateways,
                    source_labels: &condition.source_labels,
                    source_namespace: &condition.source_namespace,
                    port: condition.port,
                };
                if !client.matches(proxy, virtual_service, gateway, port) {
                    continue;
                }
                let any = condition.sni_hosts.iter().any(|name| name == "*");
                let names = if any {
                    Vec::new()
                } else {
                    condition.sni_hosts.clone()
                };
                let networks = match condition.destination_subnets.as_slice() {
                    [] => networks,
                    subnets => subnets,
                };
                found.push(L4Rule::of_routes(
                    index,
                    proxy,
                    virtual_service,
                    &route.route,
                    port,
                    names,
                    networks,
                ));
            }
        }
    }
    found
}

/// The rules for connections to a service: those of virtual services, else straight to it. `by_name`: TLS to it is told
/// by its host alone, as nothing else does.
pub(super) fn rules_of_service(
    index: &Index,
    proxy: &Proxy,
    (service, port): (&Service, &ServicePort),
    rules: &[&VirtualService],
    networks: &[String],
    by_name: bool,
) -> Vec<L4Rule> {
    let rules = for_host(index, rules, &service.host);
    let mut found = match port.protocol {
        Protocol::Tls => all_tls_rules(index, proxy, &rules, "mesh", port.number, networks),
        _ => all_tcp_rules(index, proxy, &rules, "mesh", port.number, networks),
    };
    let complete = match port.protocol {
        Protocol::Tls => !found.is_empty(),
        _ => found
            .last()
            .is_some_and(|last| sorted(&last.networks) == sorted(networks)),
    };
    if !complete {
        // A Sidecar may open another port: then the service's only one is meant.
        let number = match service.ports.as_slice() {
            [only] => only.number,
            _ => port.number,
        };
        let cluster = ClusterName::outbound(number, "", &service.host).to_string();
        let named = by_name && port.protocol == Protocol::Tls;
        found.push(L4Rule {
            server_names: named.then(|| service.host.clone()).into_iter().collect(),
            networks: networks.to_vec(),
            origin: None,
            settings: ConnectionSettings::of(index, proxy, service, ""),
            prefix: cluster.clone(),
            clusters: vec![(cluster, 100)],
        });
    }
    found
}

fn for_host<'a>(
    index: &Index,
    rules: &[&'a VirtualService],
    host: &str,
) -> Vec<&'a VirtualService> {
    let covers = |rules: &&&VirtualService| {
        rules
            .spec
            .hosts
            .iter()
            .any(|pattern| host_matches(&index.resolve(pattern, rules.namespace()), host))
    };
    rules.iter().filter(covers).copied().collect()
}

fn sorted(texts: &[String]) -> Vec<String> {
    let mut texts = texts.to_vec();
    texts.sort();
    texts
}

/// A network as a range of prefixes; an address is a network of its own, and the unspecified one is any.
pub(super) fn prefix_range(network: &str) -> Option<CidrRange> {
    let (address, length) = match network.split_once('/') {
        Some((address, length)) => (address, length.parse().ok()?),
        None if network.contains(':') => (network, 128),
        None => (network, 32),
    };
    let parsed: std::net::IpAddr = address.parse().ok()?;
    (!parsed.is_unspecified()).then(|| CidrRange {
        address_prefix: address.to_owned(),
        prefix_len: number(length),
    })
}

/// The network of a text with what does not count left out, so that equal networks are equal texts.
pub(super) fn masked(network: &str) -> String {
    let (address, length) = network.split_once('/').unwrap_or((network, "128"));
    let length: u32 = length.parse().unwrap_or(128);
    match address.parse::<std::net::IpAddr>() {
        Ok(std::net::IpAddr::V4(address)) => {
            let kept = u32::MAX.checked_shl(32 - length.min(32)).unwrap_or(0);
            let bits = std::net::Ipv4Addr::from(u32::from(address) & kept);
            format!("{bits}/{}", length.min(32))
        }
        Ok(std::net::IpAddr::V6(address)) => {
            let kept = u128::MAX.checked_shl(128 - length.min(128)).unwrap_or(0);
            let bits = std::net::Ipv6Addr::from(u128::from(address) & kept);
            format!("{bits}/{}", length.min(128))
        }
        Err(_) => network.to_owned(),
    }
}

/// Settings of connections that are forwarded as bytes. They are of the whole rule for the destination, as in Istio.
#[derive(Debug, Clone, Default)]
pub(super) struct ConnectionSettings {
    pub(super) idle_timeout: Option<Duration>,
    pub(super) max_duration: Option<Duration>,
    /// The client's address chooses the endpoint.
    pub(super) by_source: bool,
    /// Host and port at the end of a tunnel, and whether it is made by POST.
    pub(super) tunnel: Option<(String, bool)>,
}

impl ConnectionSettings {
    fn of(index: &Index, proxy: &Proxy, service: &Service, subset: &str) -> Self {
        let Some(rule) = index.destination_rule(proxy, service) else {
            return Self::default();
        };
        let pool = rule
            .policy
            .and_then(|policy| policy.connection_pool.as_ref());
        let tcp = pool.and_then(|pool| pool.tcp.as_ref());
        let chosen = rule.subsets.iter().find(|one| one.name == subset);
        let of_subset = chosen.and_then(|one| one.traffic_policy.as_ref());
        let balancer = of_subset
            .and_then(|policy| policy.load_balancer.as_ref())
            .or_else(|| rule.policy.and_then(|policy| policy.load_balancer.as_ref()));
        let hash = balancer.and_then(|balancer| balancer.consistent_hash.as_ref());
        let tunnel = of_subset
            .and_then(|policy| policy.tunnel.as_ref())
            .or_else(|| rule.policy.and_then(|policy| policy.tunnel.as_ref()));
        Self {
            idle_timeout: tcp.and_then(|tcp| tcp.idle_timeout),
            max_duration: tcp.and_then(|tcp| tcp.max_connection_duration),
            by_source: hash.is_some_and(|hash| hash.use_source_ip == Some(true)),
            tunnel: tunnel.map(|tunnel| {
                let target = format!("{}:{}", tunnel.target_host, tunnel.target_port);
                (target, tunnel.protocol == "POST")
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_equal_whatever_their_rest_says() {
        let check = |text: &str, expected: &str| assert_eq!(masked(text), expected, "{text}");
        check("10.1.2.3/8", "10.0.0.0/8");
        check("10.1.2.3", "10.1.2.3/32");
        check("1.2.3.4/0", "0.0.0.0/0");
        check("1234:1f1:123::1/16", "1234::/16");
        check("::1", "::1/128");
    }
}
