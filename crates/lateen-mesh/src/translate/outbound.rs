//! Listeners of a sidecar for what its application sends.

use std::collections::{BTreeMap, BTreeSet};

use lateen_api::VirtualService;
use lateen_xds::{
    Names,
    pb::envoy::config::{
        core::v3::TrafficDirection,
        listener::v3::{FilterChain, FilterChainMatch, Listener},
    },
};

use super::{
    access_log,
    build::{address, flag, number, seconds},
    cluster::{BLACK_HOLE, PASSTHROUGH},
    destination::{self, L4Rule},
    filter::{chain, http_inspector, plain_http, service_chain, tcp_proxy, tls_inspector},
    http_manager::{Routes, Side, http_manager},
};
use crate::{
    Index, Proxy,
    index::{Service, ServicePort},
    protocol::Protocol,
};

/// Port that redirected connections arrive at.
pub(super) const OUTBOUND_PORT: u32 = 15001;
/// Name of the listener that redirected connections arrive at.
const CATCH_ALL: &str = "virtualOutbound";
/// Address of listeners that serve every destination address.
const WILDCARD: &str = "0.0.0.0";

/// What a listener is made of while services are added to it.
#[derive(Default)]
struct Draft {
    /// Requests on this listener are routed one by one.
    http: Option<FilterChain>,
    /// Chains by server name.
    tls: Vec<FilterChain>,
    /// Everything else.
    tcp: Option<FilterChain>,
}

/// The listeners for what the application sends, of those that are named.
pub(super) fn listeners(index: &Index, proxy: &Proxy, names: &Names) -> Vec<Listener> {
    let rules = index.virtual_services(proxy, "mesh");
    let mut drafts: BTreeMap<(String, u32), Draft> = BTreeMap::new();
    let ports = named_ports(names);
    for service in index.visible_services(proxy) {
        for port in &service.ports {
            if ports
                .as_ref()
                .is_none_or(|ports| ports.contains(&port.number))
            {
                add_service(index, proxy, service, port, &rules, &mut drafts);
            }
        }
    }
    let mut listeners = Vec::new();
    if names.contains(CATCH_ALL) {
        listeners.push(catch_all(index, proxy));
    }
    drafts.retain(|(bind, port), _| names.contains(&format!("{bind}_{port}")));
    let drafts = drafts
        .into_iter()
        .map(|((bind, port), draft)| draft.finish(index, proxy, &bind, port));
    listeners.extend(drafts);
    listeners
}

/// Ports of the listeners that are named; `None` when all are.
fn named_ports(names: &Names) -> Option<BTreeSet<u32>> {
    let Names::Only(names) = names else {
        return None;
    };
    let port = |name: &String| name.rsplit_once('_')?.1.parse().ok();
    Some(names.iter().filter_map(port).collect())
}

/// Whether a listener for what the application is sent may be among those that are named.
pub(super) fn may_be_inbound(index: &Index, proxy: &Proxy, names: &Names) -> bool {
    // A Sidecar may open listeners of any name.
    let opened = || {
        let sidecar = index.sidecar(proxy);
        sidecar.is_some_and(|sidecar| !sidecar.spec.ingress.is_empty())
    };
    names.contains("virtualInbound") || opened()
}

fn add_service(
    index: &Index,
    proxy: &Proxy,
    service: &Service,
    port: &ServicePort,
    rules: &[&VirtualService],
    drafts: &mut BTreeMap<(String, u32), Draft>,
) {
    let address = service.addresses.first().map(String::as_str);
    let protocol = port.protocol;
    if protocol == Protocol::Udp {
        return;
    }
    // Requests name their host, so one listener serves all HTTP services of a port; other bytes are told apart by
    // the destination address alone.
    let binds: Vec<String> = match address {
        _ if protocol.is_http() => vec![WILDCARD.to_owned()],
        Some(address) => vec![address.to_owned()],
        // Clients of headless services connect to the pods; the proxy's own one is never reached this way.
        None if service.is_headless() => index
            .endpoints(service, port)
            .into_iter()
            .map(|endpoint| endpoint.address)
            .filter(|address| *address != proxy.address)
            .collect(),
        None => vec![WILDCARD.to_owned()],
    };
    for bind in binds {
        let wildcard = bind == WILDCARD;
        let draft = drafts.entry((bind.clone(), port.number)).or_default();
        if protocol.is_http() || protocol == Protocol::Auto {
            let name = if wildcard {
                port.number.to_string()
            } else {
                format!("{}:{}", service.host, port.number)
            };
            draft.http.get_or_insert_with(|| {
                let prefix = format!("outbound_{bind}_{};", port.number);
                let manager =
                    http_manager(index, proxy, Side::Outbound, &prefix, Routes::Named(name));
                service_chain(Some(plain_http()), vec![manager])
            });
        }
        match protocol {
            Protocol::Tls => {
                let chains = destination::tls_rules(index, proxy, service, port, rules, "mesh");
                for rule in chains {
                    let names = if rule.server_names.is_empty() && wildcard {
                        vec![service.host.clone()]
                    } else {
                        rule.server_names.clone()
                    };
                    let taken = draft.tls.iter().any(|chain| {
                        chain
                            .filter_chain_match
                            .as_ref()
                            .map_or(&[][..], |matching| &matching.server_names)
                            == names
                    });
                    if !taken {
                        let matching = FilterChainMatch {
                            server_names: names,
                            ..FilterChainMatch::default()
                        };
                        draft.tls.push(service_chain(
                            Some(matching),
                            vec![rule.filter(index, proxy)],
                        ));
                    }
                }
            }
            // Without an address of their own, bytes of undeclared protocol go where the client wanted to go.
            Protocol::Auto if wildcard => {}
            Protocol::Tcp | Protocol::Auto if draft.tcp.is_none() => {
                let rule: L4Rule =
                    destination::tcp_rule(index, proxy, service, port, rules, "mesh");
                draft.tcp = Some(service_chain(None, vec![rule.filter(index, proxy)]));
            }
            _ => {}
        }
    }
}

impl Draft {
    fn finish(self, index: &Index, proxy: &Proxy, bind: &str, port: u32) -> Listener {
        let mut listener_filters = Vec::new();
        if !self.tls.is_empty() {
            listener_filters.push(tls_inspector());
        }
        if self.http.is_some() {
            listener_filters.push(http_inspector());
        }
        let sniffed = !listener_filters.is_empty();
        let (mut filter_chains, mut default_filter_chain) = (self.tls, None);
        filter_chains.extend(self.http);
        match self.tcp {
            // Nothing to tell apart: all connections take the one chain.
            Some(tcp) if !sniffed => filter_chains.push(tcp),
            Some(tcp) => default_filter_chain = Some(tcp),
            None if bind == WILDCARD => default_filter_chain = Some(pass(index, proxy)),
            None => {}
        }
        Listener {
            name: format!("{bind}_{port}"),
            address: address(bind, port),
            filter_chains,
            default_filter_chain,
            listener_filters,
            listener_filters_timeout: seconds(0),
            continue_on_listener_filters_timeout: true,
            traffic_direction: TrafficDirection::Outbound.into(),
            bind_to_port: flag(false),
            ..Listener::default()
        }
    }
}

/// What is not for any known service.
fn pass(index: &Index, proxy: &Proxy) -> FilterChain {
    let cluster = if index.allows_any(proxy) {
        PASSTHROUGH
    } else {
        BLACK_HOLE
    };
    let matching = Some(FilterChainMatch::default());
    chain(
        "PassthroughFilterChain",
        matching,
        vec![tcp_proxy(index, proxy, cluster)],
    )
}

/// The listener that redirected connections arrive at. It hands them over to the one for their destination.
fn catch_all(index: &Index, proxy: &Proxy) -> Listener {
    let cluster = if index.allows_any(proxy) {
        PASSTHROUGH
    } else {
        BLACK_HOLE
    };
    let looped = FilterChainMatch {
        destination_port: number(OUTBOUND_PORT),
        ..FilterChainMatch::default()
    };
    Listener {
        name: CATCH_ALL.to_owned(),
        address: address(WILDCARD, OUTBOUND_PORT),
        filter_chains: vec![
            // A connection to the listener itself would be forwarded to itself for ever.
            chain(
                "virtualOutbound-blackhole",
                Some(looped),
                vec![tcp_proxy(index, proxy, BLACK_HOLE)],
            ),
            chain(
                "virtualOutbound-catchall-tcp",
                None,
                vec![tcp_proxy(index, proxy, cluster)],
            ),
        ],
        use_original_dst: flag(true),
        traffic_direction: TrafficDirection::Outbound.into(),
        access_log: access_log::listener_logs(index, proxy),
        max_connections_to_accept_per_socket_event: number(1),
        ..Listener::default()
    }
}
