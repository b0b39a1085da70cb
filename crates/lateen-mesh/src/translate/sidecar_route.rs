//! Route configurations of sidecars: by port, or for one service whose protocol is told from the first bytes.

use std::collections::{BTreeMap, BTreeSet};

use lateen_api::VirtualService;
use lateen_xds::pb::envoy::config::route::v3::{Route, RouteConfiguration, VirtualHost};

use super::{
    cluster::PASSTHROUGH,
    http_route::{self, Place},
    route_config::{
        configuration as route_configuration, unknown_hosts, virtual_host, without_duplicates,
    },
};
use crate::{
    Index, Proxy,
    index::{Service, host_matches, is_of_gateway_api},
    protocol::Protocol,
};

/// Port on which hosts of virtual services are served that no service is known for.
const DEFAULT_PORT: u32 = 80;

/// A route configuration by name: `8000`, or `httpbin.default.svc.cluster.local:8000`.
pub(super) fn configuration(
    index: &Index,
    proxy: &Proxy,
    name: &str,
) -> Option<RouteConfiguration> {
    let (only, port) = match name.rsplit_once(':') {
        Some((host, port)) => (Some(host), port),
        None => (None, name),
    };
    let port: u32 = port.parse().ok()?;
    // A port that a Sidecar opens is for the hosts of that entry, all others for those of the entry without a port.
    let egress = index.egress(proxy);
    let of_port = egress
        .iter()
        .find(|one| {
            one.of_port()
                .is_some_and(|(_, opened)| opened.number == port)
        })
        .or_else(|| egress.iter().find(|one| one.of_port().is_none()))?;
    let mut services: Vec<&Service> = index
        .visible_services(proxy)
        .into_iter()
        .filter(|service| of_port.imports(service))
        .filter(|service| match only {
            Some(host) => service.host == host && service.port(port).is_some(),
            // Sniffed services with an address have a route configuration of their own.
            None => service.port(port).is_some_and(|port| {
                port.protocol.is_http()
                    || (port.protocol == Protocol::Auto && service.addresses.is_empty())
            }),
        })
        .collect();
    services.sort_by(|a, b| a.host.cmp(&b.host));
    if only.is_some() && services.is_empty() {
        return None;
    }
    let known: BTreeMap<&str, &Service> = services
        .iter()
        .map(|service| (service.host.as_str(), *service))
        .collect();
    let lookup = |host: &str| known.get(host).copied();
    let mesh = ["mesh".to_owned()];
    let place = Place {
        index,
        proxy,
        gateways: &mesh,
        port,
        tls: false,
        services: &lookup,
    };

    let mut hosts = Vec::new();
    let mut taken: BTreeSet<&str> = BTreeSet::new();
    let rules = index.virtual_services(proxy, "mesh");
    let by_host = RulesByHost::of(index, &rules);
    for service in &services {
        // Rules may be for other ports or clients: then the next ones count.
        let mut routes = by_host
            .find(&service.host)
            .map(|rules| http_route::routes(&place, rules));
        if let Some(routes) = routes.find(|routes| !routes.is_empty()) {
            hosts.push(service_host(&place, service, routes, only.is_some()));
            taken.insert(&service.host);
        }
    }
    if only.is_none() {
        hosts.extend(unknown_hosts_of_rules(&place, &rules, &known));
    }
    for service in &services {
        if !taken.contains(service.host.as_str()) && service.alias_for().is_none() {
            let route = http_route::default_route(index, proxy, service, port);
            hosts.push(service_host(&place, service, vec![route], only.is_some()));
        }
    }
    hosts.sort_by(|a, b| a.name.cmp(&b.name));
    if only.is_none() {
        hosts.push(unknown_hosts(index.cluster_of_unknown(proxy, PASSTHROUGH)));
    }
    Some(route_configuration(name, without_duplicates(hosts)))
}

/// Virtual services by host, so that looking one up does not cost all of them.
struct RulesByHost<'a> {
    /// The first to be asked first.
    exact: BTreeMap<String, Vec<&'a VirtualService>>,
    /// Longest first; the oldest of equally long ones first.
    wildcards: Vec<(String, &'a VirtualService)>,
}

impl<'a> RulesByHost<'a> {
    fn of(index: &Index, rules: &[&'a VirtualService]) -> Self {
        let mut exact: BTreeMap<String, Vec<&VirtualService>> = BTreeMap::new();
        let mut wildcards = Vec::new();
        for rules in rules.iter().filter(|rules| !rules.spec.http.is_empty()) {
            for host in &rules.spec.hosts {
                let host = index.resolve(host, rules.namespace());
                if host.starts_with('*') {
                    wildcards.push((host, *rules));
                } else {
                    exact.entry(host).or_default().push(*rules);
                }
            }
        }
        // Stable: age decides among hosts of one length.
        wildcards.sort_by_key(|(host, _)| std::cmp::Reverse(host.len()));
        Self { exact, wildcards }
    }

    /// The virtual services for a host, in the order in which they are asked: those of the host itself, else the one of
    /// the most specific wildcard. Nothing is merged for sidecars.
    fn find(&self, host: &str) -> impl Iterator<Item = &'a VirtualService> {
        let exact = self.exact.get(host);
        let wildcard = || {
            let mut covering = self.wildcards.iter();
            let found = covering.find(|(pattern, _)| host_matches(pattern, host));
            found.map(|(_, rules)| *rules)
        };
        let wildcard = exact.is_none().then(wildcard).flatten();
        exact.into_iter().flatten().copied().chain(wildcard)
    }
}

/// Virtual hosts for the hosts of virtual services that no service of the port has: on the port of plain HTTP, and
/// wherever another host of the same rules is a service.
fn unknown_hosts_of_rules(
    place: &Place<'_, '_>,
    rules: &[&VirtualService],
    known: &BTreeMap<&str, &Service>,
) -> Vec<VirtualHost> {
    let mut seen = BTreeSet::new();
    let mut hosts = Vec::new();
    for rules in rules.iter().filter(|rules| !rules.spec.http.is_empty()) {
        // Routes of the Gateway API are for services that exist.
        if is_of_gateway_api(rules) {
            continue;
        }
        let names = rules
            .spec
            .hosts
            .iter()
            .map(|host| place.index.resolve(host, rules.namespace()));
        let names: Vec<String> = names.collect();
        let served = |host: &String| known.keys().any(|known| host_matches(host, known));
        // On other ports they come along with a host that is a service there.
        if place.port != DEFAULT_PORT && !names.iter().any(served) {
            continue;
        }
        let unknown: Vec<String> = names
            .into_iter()
            .filter(|host| !known.keys().any(|known| host_matches(host, known)))
            .filter(|host| seen.insert(host.clone()))
            .collect();
        if unknown.is_empty() {
            continue;
        }
        let routes = http_route::routes(place, rules);
        if routes.is_empty() {
            continue;
        }
        for host in unknown {
            hosts.push(virtual_host(
                format!("{host}:{}", place.port),
                vec![host],
                routes.clone(),
            ));
        }
    }
    hosts
}

fn service_host(
    place: &Place<'_, '_>,
    service: &Service,
    routes: Vec<Route>,
    sniffed: bool,
) -> VirtualHost {
    let domains = if sniffed {
        vec!["*".to_owned()]
    } else {
        domains(place.index, place.proxy, service)
    };
    virtual_host(format!("{}:{}", service.host, place.port), domains, routes)
}

/// The names that a client may use for a service, those of its aliases included.
fn domains(index: &Index, proxy: &Proxy, service: &Service) -> Vec<String> {
    let mut names = own_names(proxy, service);
    for alias in index.aliases_of(&service.host, &proxy.namespace) {
        names.extend(own_names(proxy, alias));
    }
    if service.is_headless() {
        // Pods of headless services have names of their own.
        let below: Vec<String> = names.iter().map(|name| format!("*.{name}")).collect();
        names.extend(below);
    }
    names.extend(service.addresses.iter().cloned());
    names
}

fn own_names(proxy: &Proxy, service: &Service) -> Vec<String> {
    let host = &service.host;
    let mut names = vec![host.clone(), format!("{host}.")];
    if service.kubernetes {
        let (name, namespace) = (&service.name, &service.namespace);
        if *namespace == proxy.namespace {
            names.push(name.clone());
        }
        names.push(format!("{name}.{namespace}.svc"));
        names.push(format!("{name}.{namespace}"));
    }
    if host.starts_with('*') {
        // A wildcard with a dot at its end is no domain that Envoy knows.
        names.retain(|name| !name.ends_with('.'));
    }
    names
}
