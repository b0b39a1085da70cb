//! Listeners and route configurations of gateways.

use std::collections::BTreeMap;

use lateen_api::{
    Gateway, VirtualService,
    common::{ServerTlsMode, labels_match},
    networking::gateway::Server,
};
use lateen_xds::pb::envoy::config::{
    core::v3::TrafficDirection,
    listener::v3::{FilterChainMatch, Listener},
    route::v3::{Route, RouteConfiguration, VirtualHost, virtual_host::TlsRequirementType},
};

use super::{
    access_log,
    build::{address, number},
    destination,
    filter::{service_chain, tls_inspector},
    http_manager::{Routes, Side, http_manager},
    http_match,
    http_route::{self, Place},
    route_config::{configuration, virtual_host, without_duplicates},
};
use crate::{Index, Proxy, index::host_matches, protocol::Protocol};

/// A server of a gateway that applies to a proxy.
struct Served<'a> {
    gateway: &'a Gateway,
    server: &'a Server,
    protocol: Protocol,
    /// Port that the proxy listens on.
    port: u32,
}

impl Served<'_> {
    /// `namespace/name` of the gateway.
    fn gateway_name(&self) -> String {
        format!("{}/{}", self.gateway.namespace(), self.gateway.name())
    }

    fn redirects(&self) -> bool {
        self.server
            .tls
            .as_ref()
            .is_some_and(|tls| tls.https_redirect)
    }

    /// Whether TLS passes to the destination untouched.
    fn passes_tls(&self) -> bool {
        let mode = self
            .server
            .tls
            .as_ref()
            .map(|tls| tls.mode.unwrap_or_default());
        self.protocol == Protocol::Tls && mode.is_none_or(|mode| mode == ServerTlsMode::Passthrough)
    }

    /// Whether requests are routed one by one without TLS being ended here.
    fn is_plain_http(&self) -> bool {
        self.protocol.is_http()
    }
}

/// The servers of all gateways that select a proxy, older gateways first.
fn servers<'a>(index: &'a Index, proxy: &Proxy) -> Vec<Served<'a>> {
    let mut gateways: Vec<&Gateway> = index
        .gateways()
        .filter(|gateway| labels_match(&gateway.spec.selector, &proxy.labels))
        .collect();
    gateways.sort_by_key(|gateway| {
        (
            gateway.created(),
            gateway.name().to_owned(),
            gateway.namespace().to_owned(),
        )
    });
    gateways
        .into_iter()
        .flat_map(|gateway| {
            gateway.spec.servers.iter().map(move |server| Served {
                gateway,
                server,
                protocol: Protocol::of_name(&server.port.protocol),
                port: target_port(index, proxy, server.port.number),
            })
        })
        .collect()
}

/// The port that the gateway's pod listens on for a port of its service.
fn target_port(index: &Index, proxy: &Proxy, number: u32) -> u32 {
    let services = index.services_of(proxy).into_iter();
    let mut targets =
        services.filter_map(|service| index.own_port(proxy, service, service.port(number)?));
    targets.next().unwrap_or(number)
}

fn bind(server: &Server) -> &str {
    if server.bind.is_empty() {
        "0.0.0.0"
    } else {
        &server.bind
    }
}

/// All listeners of a gateway.
pub(super) fn listeners(index: &Index, proxy: &Proxy) -> Vec<Listener> {
    let servers = servers(index, proxy);
    let mut by_address: BTreeMap<(&str, u32), Vec<&Served<'_>>> = BTreeMap::new();
    for served in &servers {
        by_address
            .entry((bind(served.server), served.port))
            .or_default()
            .push(served);
    }
    by_address
        .into_iter()
        .filter_map(|((bind, port), servers)| listener(index, proxy, bind, port, &servers))
        .collect()
}

/// One listener. The oldest server of a port decides what the port is for; others of another kind are left out.
fn listener(
    index: &Index,
    proxy: &Proxy,
    bind: &str,
    port: u32,
    servers: &[&Served<'_>],
) -> Option<Listener> {
    let first = servers.first()?;
    let (mut filter_chains, mut listener_filters) = (Vec::new(), Vec::new());
    if first.is_plain_http() {
        let prefix = format!("outbound_{bind}_{port};");
        let routes = Routes::Named(route_name(port));
        filter_chains.push(service_chain(
            None,
            vec![http_manager(index, proxy, Side::Gateway, &prefix, routes)],
        ));
    } else {
        for served in servers {
            let rules = index.virtual_services(proxy, &served.gateway_name());
            let number = served.server.port.number;
            if served.passes_tls() {
                for rule in
                    destination::all_tls_rules(index, proxy, &rules, &served.gateway_name(), number)
                {
                    let matching = FilterChainMatch {
                        server_names: rule.server_names.clone(),
                        ..FilterChainMatch::default()
                    };
                    filter_chains.push(service_chain(
                        Some(matching),
                        vec![rule.filter(index, proxy)],
                    ));
                }
            } else if served.protocol == Protocol::Tcp
                && filter_chains.is_empty()
                && let Some(rule) = destination::first_tcp_rule(
                    index,
                    proxy,
                    &rules,
                    &served.gateway_name(),
                    number,
                )
            {
                filter_chains.push(service_chain(None, vec![rule.filter(index, proxy)]));
            }
        }
        if first.passes_tls() {
            listener_filters.push(tls_inspector());
        }
    }
    if filter_chains.is_empty() {
        return None;
    }
    Some(Listener {
        name: format!("{bind}_{port}"),
        address: address(bind, port),
        filter_chains,
        listener_filters,
        traffic_direction: TrafficDirection::Outbound.into(),
        access_log: access_log::listener_logs(index, proxy),
        max_connections_to_accept_per_socket_event: number(1),
        ..Listener::default()
    })
}

fn route_name(port: u32) -> String {
    format!("http.{port}")
}

/// A route configuration by name, `http.8080`.
pub(super) fn route_configuration(
    index: &Index,
    proxy: &Proxy,
    name: &str,
) -> Option<RouteConfiguration> {
    let port: u32 = name.strip_prefix("http.")?.parse().ok()?;
    let servers: Vec<Served<'_>> = servers(index, proxy)
        .into_iter()
        .filter(|served| served.port == port && served.is_plain_http())
        .collect();
    let number = servers.first()?.server.port.number;
    let lookup = |host: &str| index.service_seen_from(host, &proxy.namespace);
    let mut hosts: Vec<VirtualHost> = Vec::new();
    for served in &servers {
        let gateways = [served.gateway_name()];
        let place = Place {
            index,
            proxy,
            gateways: &gateways,
            port: served.server.port.number,
            services: &lookup,
        };
        for rules in index.virtual_services(proxy, &gateways[0]) {
            let wanted = intersections(index, served, rules);
            if wanted.is_empty() || rules.spec.http.is_empty() {
                continue;
            }
            let routes = http_route::routes(&place, rules);
            for host in wanted {
                add_routes(&mut hosts, &host, number, &routes, served.redirects());
            }
        }
        if served.redirects() {
            // Hosts that nothing is routed for are redirected all the same.
            for host in served
                .server
                .hosts
                .iter()
                .map(|host| host_of(host).to_owned())
            {
                add_routes(&mut hosts, &host, number, &[], true);
            }
        }
    }
    for host in &mut hosts {
        // What takes everything comes last, whichever virtual service it is of.
        host.routes
            .sort_by_key(|route| route.r#match.as_ref().is_some_and(http_match::matches_all));
    }
    if hosts.is_empty() {
        let nothing = virtual_host(
            format!("blackhole:{number}"),
            vec!["*".to_owned()],
            Vec::new(),
        );
        hosts.push(VirtualHost {
            include_request_attempt_count: false,
            ..nothing
        });
    }
    hosts.sort_by(|a, b| a.name.cmp(&b.name));
    Some(configuration(name, without_duplicates(hosts)))
}

fn add_routes(
    hosts: &mut Vec<VirtualHost>,
    host: &str,
    port: u32,
    routes: &[Route],
    redirects: bool,
) {
    let name = format!("{host}:{port}");
    let index = hosts
        .iter()
        .position(|candidate| candidate.name == name)
        .unwrap_or_else(|| {
            hosts.push(virtual_host(name, vec![host.to_owned()], Vec::new()));
            hosts.len() - 1
        });
    hosts[index].routes.extend_from_slice(routes);
    if redirects {
        hosts[index].require_tls = TlsRequirementType::All.into();
    }
}

/// The hosts that both a server and a virtual service have; the more specific one of each pair.
fn intersections(index: &Index, served: &Served<'_>, rules: &VirtualService) -> Vec<String> {
    let mut found = Vec::new();
    for host in &rules.spec.hosts {
        let host = index.resolve(host, rules.namespace());
        for pattern in &served.server.hosts {
            let allowed = match pattern.split_once('/') {
                Some((".", _)) => rules.namespace() == served.gateway.namespace(),
                Some(("*", _)) | None => true,
                Some((namespace, _)) => rules.namespace() == namespace,
            };
            let pattern = index.resolve(host_of(pattern), served.gateway.namespace());
            let common = if !allowed {
                None
            } else if host_matches(&pattern, &host) {
                Some(host.clone())
            } else if host_matches(&host, &pattern) {
                Some(pattern)
            } else {
                None
            };
            found.extend(common.filter(|host| !found.contains(host)));
        }
    }
    found
}

/// The host of `namespace/host`.
fn host_of(pattern: &str) -> &str {
    pattern.split_once('/').map_or(pattern, |(_, host)| host)
}
