//! Where traffic goes: clusters of destinations, and the rules for connections that are not HTTP.

use lateen_api::{
    VirtualService,
    common::labels_match,
    networking::virtual_service::{Destination, RouteDestination},
};
use lateen_xds::pb::envoy::config::listener::v3::Filter;

use super::filter::{tcp_proxy, tcp_proxy_weighted};
use crate::{
    Index, Proxy,
    index::{Service, ServicePort, gateway_name, host_matches},
    names::ClusterName,
};

/// The cluster of a destination. Without a port it is the only one of the service, else that which the client used.
pub(super) fn cluster_of(
    destination: &Destination,
    host: &str,
    service: Option<&Service>,
    listener_port: u32,
) -> String {
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
    /// Prefix of statistics when there are several clusters.
    prefix: String,
    /// Clusters and weights.
    clusters: Vec<(String, u32)>,
}

impl L4Rule {
    /// The network filter that does it.
    pub(super) fn filter(&self, index: &Index, proxy: &Proxy) -> Filter {
        match self.clusters.as_slice() {
            [(only, _)] => tcp_proxy(index, proxy, only),
            clusters => tcp_proxy_weighted(index, proxy, &self.prefix, clusters.to_vec()),
        }
    }

    fn of_routes(
        index: &Index,
        proxy: &Proxy,
        rules: &VirtualService,
        routes: &[RouteDestination],
        port: u32,
        server_names: Vec<String>,
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
        Self {
            server_names,
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

/// The first TCP rule of virtual services for a gateway (`mesh` for sidecars) and port.
pub(super) fn first_tcp_rule(
    index: &Index,
    proxy: &Proxy,
    rules: &[&VirtualService],
    gateway: &str,
    port: u32,
) -> Option<L4Rule> {
    for virtual_service in rules {
        for route in &virtual_service.spec.tcp {
            let mut conditions = route.r#match.iter().map(|condition| Client {
                gateways: &condition.gateways,
                source_labels: &condition.source_labels,
                source_namespace: &condition.source_namespace,
                port: condition.port,
            });
            if route.r#match.is_empty()
                || conditions.any(|client| client.matches(proxy, virtual_service, gateway, port))
            {
                return Some(L4Rule::of_routes(
                    index,
                    proxy,
                    virtual_service,
                    &route.route,
                    port,
                    Vec::new(),
                ));
            }
        }
    }
    None
}

/// The TLS rules of virtual services for a gateway (`mesh` for sidecars) and port, in order.
pub(super) fn all_tls_rules(
    index: &Index,
    proxy: &Proxy,
    rules: &[&VirtualService],
    gateway: &str,
    port: u32,
) -> Vec<L4Rule> {
    let mut found = Vec::new();
    for virtual_service in rules {
        for route in &virtual_service.spec.tls {
            for condition in &route.r#match {
                let client = Client {
                    gateways: &condition.gateways,
                    source_labels: &condition.source_labels,
                    source_namespace: &condition.source_namespace,
                    port: condition.port,
                };
                if client.matches(proxy, virtual_service, gateway, port) {
                    let names = condition
                        .sni_hosts
                        .iter()
                        .filter(|name| *name != "*")
                        .cloned()
                        .collect();
                    found.push(L4Rule::of_routes(
                        index,
                        proxy,
                        virtual_service,
                        &route.route,
                        port,
                        names,
                    ));
                }
            }
        }
    }
    found
}

/// The rules for TLS connections to a service: those of virtual services, else straight to it.
pub(super) fn tls_rules(
    index: &Index,
    proxy: &Proxy,
    service: &Service,
    port: &ServicePort,
    rules: &[&VirtualService],
    gateway: &str,
) -> Vec<L4Rule> {
    let found = all_tls_rules(
        index,
        proxy,
        &for_host(index, rules, &service.host),
        gateway,
        port.number,
    );
    if found.is_empty() {
        vec![straight(service, port)]
    } else {
        found
    }
}

/// The rule for other connections to a service: the first of a virtual service, else straight to it.
pub(super) fn tcp_rule(
    index: &Index,
    proxy: &Proxy,
    service: &Service,
    port: &ServicePort,
    rules: &[&VirtualService],
    gateway: &str,
) -> L4Rule {
    let rules = for_host(index, rules, &service.host);
    first_tcp_rule(index, proxy, &rules, gateway, port.number)
        .unwrap_or_else(|| straight(service, port))
}

fn straight(service: &Service, port: &ServicePort) -> L4Rule {
    let cluster = ClusterName::outbound(port.number, "", &service.host).to_string();
    L4Rule {
        server_names: Vec::new(),
        prefix: cluster.clone(),
        clusters: vec![(cluster, 100)],
    }
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
