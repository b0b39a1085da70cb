//! Listeners of a sidecar for what its application sends.

use std::collections::{BTreeMap, BTreeSet};

use lateen_api::{
    VirtualService,
    networking::sidecar::{CaptureMode, EgressListener},
};
use lateen_xds::{
    Names,
    pb::envoy::config::{
        core::v3::TrafficDirection,
        listener::v3::{FilterChain, FilterChainMatch, Listener},
    },
};

use super::{
    access_log,
    build::{address, fields, flag, metadata, number, seconds, text},
    cluster::{BLACK_HOLE, PASSTHROUGH},
    destination::{self, L4Rule},
    filter::{chain, http_inspector, plain_http, service_chain, tcp_proxy, tls_inspector},
    http_manager::{Routes, Side, http_manager},
};
use crate::{
    Index, Proxy,
    index::{Service, ServicePort, TargetPort},
    protocol::Protocol,
};

/// Port that redirected connections arrive at.
pub(super) const OUTBOUND_PORT: u32 = 15001;
/// Name of the listener that redirected connections arrive at.
const CATCH_ALL: &str = "virtualOutbound";
/// Address of listeners that the application connects to by itself.
const LOOPBACK: &str = "127.0.0.1";
/// Address of listeners that serve every destination address.
const WILDCARD: &str = "0.0.0.0";

/// What a listener is made of while services are added to it.
#[derive(Default)]
struct Draft {
    /// Requests on this listener are routed one by one.
    http: Option<FilterChain>,
    /// Chains by server name and network.
    others: Vec<(Told, FilterChain)>,
    /// Whether the application connects to it without being redirected.
    bound: bool,
}

/// What tells connections apart: server names and networks.
type Told = (BTreeSet<String>, BTreeSet<String>);

/// The listeners for what the application sends, of those that are named.
pub(super) fn listeners(index: &Index, proxy: &Proxy, names: &Names) -> Vec<Listener> {
    let rules = index.virtual_services(proxy, "mesh");
    let mut drafts: BTreeMap<(String, u32), Draft> = BTreeMap::new();
    let ports = named_ports(names);
    let named = |port: u32| ports.as_ref().is_none_or(|ports| ports.contains(&port));
    let services = index.visible_services(proxy);
    for egress in index.egress(proxy) {
        // What the entries before have opened is theirs alone.
        let taken: BTreeSet<(String, u32)> = drafts.keys().cloned().collect();
        let imported = services.iter().copied().filter(|one| egress.imports(one));
        for service in imported {
            let mut add = |port: &ServicePort, own: Option<&EgressListener>| {
                if !named(port.number) {
                    return;
                }
                for place in places(index, proxy, service, port, own) {
                    if !taken.contains(&(place.bind.clone(), port.number)) {
                        let to = (service, port);
                        add_service(index, proxy, to, &rules, place, &mut drafts);
                    }
                }
            };
            match egress.of_port() {
                Some((listener, port)) => {
                    let port = ServicePort {
                        name: port.name.clone(),
                        number: port.number,
                        protocol: Protocol::of_name(&port.protocol),
                        target: TargetPort::Number(port.number),
                        target_given: false,
                    };
                    add(&port, Some(listener));
                }
                None => service.ports.iter().for_each(|port| add(port, None)),
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
    (service, port): (&Service, &ServicePort),
    rules: &[&VirtualService],
    place: Place,
    drafts: &mut BTreeMap<(String, u32), Draft>,
) {
    let protocol = port.protocol;
    if protocol == Protocol::Udp || service.alias_for().is_some() {
        return;
    }
    let wildcard = place.bind == WILDCARD;
    let draft = drafts.entry((place.bind.clone(), port.number)).or_default();
    draft.bound = place.bound;
    if protocol.is_http() || protocol == Protocol::Auto {
        // A listener that a Sidecar opens is for all of its hosts.
        let name = if wildcard || place.listed {
            port.number.to_string()
        } else {
            format!("{}:{}", service.host, port.number)
        };
        draft.http.get_or_insert_with(|| {
            let prefix = format!("outbound_{}_{};", place.bind, port.number);
            let manager = http_manager(
                index,
                proxy,
                Side::Outbound,
                &prefix,
                Routes::Named(name),
                &[],
            );
            let alone = place.listed && protocol.is_http() && !wildcard;
            let matching = (!alone).then(plain_http);
            service_chain(matching, vec![manager])
        });
    }
    // Without an address of their own, bytes of undeclared protocol go where the client wanted to go.
    let passes = protocol == Protocol::Auto && wildcard && place.networks.is_empty();
    if protocol.is_http() || passes {
        return;
    }
    let to = (service, port);
    let found = destination::rules_of_service(index, proxy, to, rules, &place.networks, wildcard);
    for rule in found {
        draft.add(index, proxy, &rule);
    }
}

/// Where a listener of a service is.
struct Place {
    bind: String,
    /// Networks that it is for, when the address does not say.
    networks: Vec<String>,
    /// Whether a Sidecar opens it.
    listed: bool,
    /// Whether the application connects to it without being redirected.
    bound: bool,
}

/// Requests name their host, so one listener serves all HTTP services of a port; other bytes are told apart by the
/// destination address alone.
fn places(
    index: &Index,
    proxy: &Proxy,
    service: &Service,
    port: &ServicePort,
    listener: Option<&EgressListener>,
) -> Vec<Place> {
    let capture = listener.and_then(|listener| listener.capture_mode);
    let bound = capture == Some(CaptureMode::None);
    let at = |bind: &str| Place {
        bind: bind.to_owned(),
        networks: Vec::new(),
        listed: listener.is_some(),
        bound,
    };
    match listener.map(|listener| listener.bind.as_str()) {
        Some("") if bound => return vec![at(LOOPBACK)],
        Some("") | None => {}
        Some(bind) => return vec![at(bind)],
    }
    if port.protocol.is_http() {
        return vec![at(WILDCARD)];
    }
    if service.is_headless() {
        // Clients of headless services connect to the pods; the proxy's own one is never reached this way.
        let endpoints = index.endpoints(service, port).into_iter();
        let others = endpoints.filter(|endpoint| endpoint.address != proxy.address);
        return others.map(|endpoint| at(&endpoint.address)).collect();
    }
    // Services of Kubernetes have further addresses of other families only.
    let most = if service.kubernetes { 1 } else { usize::MAX };
    let addresses = service.addresses.iter().take(most);
    let mut places: Vec<Place> = addresses.map(|address| at(address)).collect();
    places.extend(service.networks.iter().map(|network| Place {
        networks: vec![network.clone()],
        ..at(WILDCARD)
    }));
    if places.is_empty() {
        places.push(at(WILDCARD));
    }
    places
}

impl Draft {
    /// Adds a chain, unless an earlier one takes its connections.
    fn add(&mut self, index: &Index, proxy: &Proxy, rule: &L4Rule) {
        let names = rule.server_names.iter().cloned().collect();
        let networks = rule.networks.iter();
        let networks = networks
            .map(|network| destination::masked(network))
            .collect();
        let told: Told = (names, networks);
        if self.others.iter().any(|(other, _)| *other == told) {
            return;
        }
        let metadata = rule
            .origin
            .as_ref()
            .and_then(|origin| metadata("istio", fields([("config", text(origin.as_str()))])));
        let chain = FilterChain {
            metadata,
            ..service_chain(rule.matching(), vec![rule.filter(index, proxy)])
        };
        self.others.push((told, chain));
    }

    fn finish(self, index: &Index, proxy: &Proxy, bind: &str, port: u32) -> Listener {
        let named = self.others.iter().any(|((names, _), _)| !names.is_empty());
        let mut listener_filters = Vec::new();
        if named {
            listener_filters.push(tls_inspector());
        }
        if self.http.is_some() {
            listener_filters.push(http_inspector());
        }
        let (rest, told): (Vec<_>, Vec<_>) = self
            .others
            .into_iter()
            .map(|(_, chain)| chain)
            .partition(|chain| chain.filter_chain_match.is_none());
        let mut filter_chains = told;
        let alone = self
            .http
            .as_ref()
            .is_some_and(|chain| chain.filter_chain_match.is_none());
        filter_chains.extend(self.http);
        let mut default_filter_chain = None;
        match rest.into_iter().next() {
            // Nothing to tell apart: all connections take the one chain.
            Some(chain) if filter_chains.is_empty() => filter_chains.push(chain),
            Some(chain) => default_filter_chain = Some(chain),
            // Everything on a listener of a Sidecar's own is what it says.
            None if alone => {}
            // What a listener of all addresses does not know passes, also beside chains of networks or names.
            None => default_filter_chain = Some(pass(index, proxy)),
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
            bind_to_port: if self.bound { None } else { flag(false) },
            max_connections_to_accept_per_socket_event: number(1).filter(|_| self.bound),
            ..Listener::default()
        }
    }
}

/// What is not for any known service.
fn pass(index: &Index, proxy: &Proxy) -> FilterChain {
    let cluster = index.cluster_of_unknown(proxy, PASSTHROUGH);
    let cluster = cluster.as_deref().unwrap_or(BLACK_HOLE);
    let matching = Some(FilterChainMatch::default());
    chain(
        "PassthroughFilterChain",
        matching,
        vec![tcp_proxy(index, proxy, cluster)],
    )
}

/// The listener that redirected connections arrive at. It hands them over to the one for their destination.
fn catch_all(index: &Index, proxy: &Proxy) -> Listener {
    let cluster = index.cluster_of_unknown(proxy, PASSTHROUGH);
    let cluster = cluster.as_deref().unwrap_or(BLACK_HOLE);
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
