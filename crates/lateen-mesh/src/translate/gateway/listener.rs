//! Listeners of gateways.

use std::collections::{BTreeMap, BTreeSet};
use std::slice::from_ref;

use lateen_api::VirtualService;
use lateen_xds::pb::envoy::config::{
    core::v3::TrafficDirection,
    listener::v3::{FilterChain, FilterChainMatch, Listener},
};

use super::servers::{Served, Shared, merged};
use crate::{
    Index, Proxy,
    index::host_matches,
    names::ClusterName,
    protocol::Protocol,
    translate::{
        access_log,
        build::{address, number},
        destination,
        filter::{MESH_PROTOCOLS, service_chain, tcp_proxy, tls_inspector},
        http_manager::{Routes, Side, http_manager},
        tls,
    },
};

/// Address when none is said.
const ANY_ADDRESS: &str = "0.0.0.0";

/// All listeners of a gateway.
pub(in crate::translate) fn listeners(index: &Index, proxy: &Proxy) -> Vec<Listener> {
    let merged = merged(index, proxy);
    let mut chains: BTreeMap<(&str, u32), Vec<FilterChain>> = BTreeMap::new();
    // Server names that an earlier rule of a port has: a proxy refuses a listener with doubles.
    let mut taken: BTreeMap<u32, BTreeSet<(String, &str)>> = BTreeMap::new();
    for shared in &merged.shared {
        let bind = match shared.bind {
            "" => ANY_ADDRESS,
            bind => bind,
        };
        let taken = taken.entry(shared.port).or_default();
        let found = filter_chains(index, proxy, shared, bind, taken);
        chains.entry((bind, shared.port)).or_default().extend(found);
    }
    let filled = chains.into_iter().filter(|(_, chains)| !chains.is_empty());
    filled
        .map(|((bind, port), chains)| listener(index, proxy, bind, port, chains))
        .collect()
}

fn listener(
    index: &Index,
    proxy: &Proxy,
    bind: &str,
    port: u32,
    filter_chains: Vec<FilterChain>,
) -> Listener {
    let filter_chains = distinct(filter_chains);
    let inspected = filter_chains.iter().any(|chain| {
        let named = chain.filter_chain_match.as_ref();
        chain.transport_socket.is_some()
            || named.is_some_and(|matching| !matching.server_names.is_empty())
    });
    Listener {
        name: format!("{bind}_{port}"),
        address: address(bind, port),
        filter_chains,
        listener_filters: inspected.then(tls_inspector).into_iter().collect(),
        traffic_direction: TrafficDirection::Outbound.into(),
        access_log: access_log::listener_logs(index, proxy),
        max_connections_to_accept_per_socket_event: number(1),
        ..Listener::default()
    }
}

/// Leaves out chains for connections that an earlier chain takes: a proxy refuses a listener with doubles. They come
/// from servers whose hosts differ by namespace only.
fn distinct(chains: Vec<FilterChain>) -> Vec<FilterChain> {
    let mut taken = BTreeSet::new();
    let mut kept = Vec::new();
    for chain in chains {
        let matching = chain.filter_chain_match.as_ref();
        let mut names = matching.map_or_else(Vec::new, |matching| matching.server_names.clone());
        if names.is_empty() {
            names.push(String::new());
        }
        let protocols =
            matching.map_or_else(Vec::new, |matching| matching.application_protocols.clone());
        let mut conditions = names.into_iter().map(|name| (name, protocols.clone()));
        if conditions
            .clone()
            .all(|condition| !taken.contains(&condition))
        {
            taken.extend(&mut conditions);
            kept.push(chain);
        }
    }
    kept
}

fn filter_chains<'a>(
    index: &Index,
    proxy: &Proxy,
    shared: &Shared<'a>,
    bind: &str,
    taken: &mut BTreeSet<(String, &'a str)>,
) -> Vec<FilterChain> {
    let prefix = format!("outbound_{bind}_{};", shared.port);
    // The servers are those whose requests the connection manager takes.
    let manager = |prefix: &str, route: &str, servers: &[Served<'_>]| {
        let routes = Routes::Named(route.to_owned());
        let gateways = servers.iter().map(|served| served.gateway);
        let policies = index.body_policies_of_gateways(gateways);
        http_manager(index, proxy, Side::Gateway, prefix, routes, &policies)
    };
    if shared.is_plain_http() {
        let first = shared.servers.first();
        let route = first.map(|served| served.route_name.as_str());
        let filter = manager(&prefix, route.unwrap_or_default(), &shared.servers);
        return vec![service_chain(None, vec![filter])];
    }
    let mut chains = Vec::new();
    for served in &shared.servers {
        let ended = || {
            let settings = served.server.tls.as_ref();
            settings.and_then(tls::own_server)
        };
        if served.ends_https() {
            let prefix = match served.server.name.as_str() {
                "" => &prefix,
                name => name,
            };
            chains.push(FilterChain {
                transport_socket: ended(),
                ..service_chain(
                    by_server_names(&served.server_names()),
                    vec![manager(prefix, &served.route_name, from_ref(served))],
                )
            });
        } else if served.is_auto_passthrough() {
            chains.extend(auto_passthrough(index, proxy, served));
        } else if served.passes_tls() {
            chains.extend(passthrough(index, proxy, served, taken));
        } else if let Some(filter) = first_tcp_route(index, proxy, served) {
            let names = match served.server.tls {
                Some(_) => by_server_names(&served.server_names()),
                None => None,
            };
            chains.push(FilterChain {
                transport_socket: ended(),
                ..service_chain(names, vec![filter])
            });
        }
    }
    chains
}

/// Connections with one of the server names; all when one of them is `*`.
fn by_server_names(names: &[String]) -> Option<FilterChainMatch> {
    let any = names.is_empty() || names.iter().any(|name| name == "*");
    (!any).then(|| {
        let mut server_names = names.to_vec();
        server_names.sort();
        FilterChainMatch {
            server_names,
            ..FilterChainMatch::default()
        }
    })
}

fn rules_of<'a>(index: &'a Index, proxy: &Proxy, served: &Served<'_>) -> Vec<&'a VirtualService> {
    let mut rules = index.virtual_services(proxy, &served.gateway_name());
    rules.retain(|rules| {
        let namespace = rules.namespace();
        let hosts: Vec<String> = rules
            .spec
            .hosts
            .iter()
            .map(|host| index.resolve(host, namespace))
            .collect();
        served.covers_any(&hosts, namespace)
    });
    rules
}

fn first_tcp_route(
    index: &Index,
    proxy: &Proxy,
    served: &Served<'_>,
) -> Option<lateen_xds::pb::envoy::config::listener::v3::Filter> {
    let rules = rules_of(index, proxy, served);
    let gateway = served.gateway_name();
    let number = served.server.port.number;
    let rules = destination::all_tcp_rules(index, proxy, &rules, &gateway, number, &[]);
    rules.first().map(|rule| rule.filter(index, proxy))
}

/// TLS that is routed by its server name, as the rules say.
fn passthrough<'a>(
    index: &Index,
    proxy: &Proxy,
    served: &Served<'a>,
    taken: &mut BTreeSet<(String, &'a str)>,
) -> Vec<FilterChain> {
    let rules = rules_of(index, proxy, served);
    let gateway = served.gateway_name();
    let number = served.server.port.number;
    let bind = served.server.bind.as_str();
    let mut chains = Vec::new();
    for rule in destination::all_tls_rules(index, proxy, &rules, &gateway, number, &[]) {
        let names = || rule.server_names.iter().map(|name| (name.clone(), bind));
        if names().any(|name| taken.contains(&name)) {
            continue;
        }
        taken.extend(names());
        chains.push(service_chain(
            by_server_names(&rule.server_names),
            vec![rule.filter(index, proxy)],
        ));
    }
    chains
}

/// TLS whose server name is the name of a cluster. Only mutual TLS of the mesh is let through.
fn auto_passthrough(index: &Index, proxy: &Proxy, served: &Served<'_>) -> Vec<FilterChain> {
    let hosts = served.server_names();
    let mut chains = Vec::new();
    for service in index.visible_services(proxy) {
        let covered = hosts
            .iter()
            .any(|pattern| host_matches(pattern, &service.host));
        if service.external || !covered {
            continue;
        }
        let rule = index.destination_rule(proxy, service);
        let subsets = rule.iter().flat_map(|rule| &rule.subsets);
        let subsets: Vec<&str> = std::iter::once("")
            .chain(subsets.map(|subset| subset.name.as_str()))
            .collect();
        let ports = service.ports.iter();
        for port in ports.filter(|port| port.protocol != Protocol::Udp) {
            for subset in &subsets {
                let name = ClusterName::outbound(port.number, subset, &service.host).server_name();
                let matching = FilterChainMatch {
                    server_names: vec![name.clone()],
                    application_protocols: MESH_PROTOCOLS.map(str::to_owned).to_vec(),
                    ..FilterChainMatch::default()
                };
                chains.push(service_chain(
                    Some(matching),
                    vec![tcp_proxy(index, proxy, &name)],
                ));
            }
        }
    }
    chains
}
