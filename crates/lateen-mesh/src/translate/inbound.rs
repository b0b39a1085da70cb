//! The listener of a sidecar for what its application is sent.

use std::collections::BTreeMap;

use lateen_api::security::MutualTlsMode;
use lateen_xds::pb::envoy::config::{
    core::v3::{Address, TrafficDirection, TransportSocket},
    listener::v3::{FilterChain, FilterChainMatch, Listener, ListenerFilter},
    route::v3::{
        Decorator, RetryPolicy, Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost,
        route::Action,
        route_action::{ClusterSpecifier, MaxStreamDuration},
        route_match::PathSpecifier,
    },
};

use super::{
    access_log,
    build::{address, flag, number, seconds},
    cluster::{BLACK_HOLE, INBOUND_PASSTHROUGH},
    filter::{
        MESH_PROTOCOLS, PLAIN_HTTP, chain, disabled_for, enabled_for, http_inspector,
        original_destination, tcp_proxy, tls_inspector,
    },
    http_manager::{Routes, Side, http_manager},
    tls,
    workload::{InboundPort, accepted_mode},
};
use crate::{Index, Proxy, names::ClusterName, protocol::Protocol};

/// Port that redirected connections arrive at.
const INBOUND_PORT: u32 = 15006;
/// Protocols that other sidecars announce for HTTP inside mutual TLS.
const MESH_HTTP: [&str; 3] = ["istio-http/1.0", "istio-http/1.1", "istio-h2"];
/// Protocols that other sidecars announce for other bytes inside mutual TLS.
const MESH_TCP: [&str; 2] = ["istio-peer-exchange", "istio"];

/// What a filter chain is for: which connections, and whether their content is routed as HTTP.
struct Variant {
    transport: &'static str,
    protocols: Vec<&'static str>,
    /// Ends mutual TLS of the mesh.
    mutual: bool,
    http: bool,
}

/// The filter chains of a port, by protocol and by what is accepted.
fn variants(protocol: Protocol, mode: MutualTlsMode) -> Vec<Variant> {
    let mesh = |protocols: &[&'static str], http| Variant {
        transport: "tls",
        protocols: protocols.to_vec(),
        mutual: true,
        http,
    };
    let plain = |protocols: &[&'static str], http| Variant {
        transport: "raw_buffer",
        protocols: protocols.to_vec(),
        mutual: false,
        http,
    };
    // TLS of the application itself passes untouched.
    let own_tls = || Variant {
        transport: "tls",
        protocols: Vec::new(),
        mutual: false,
        http: false,
    };
    let http = protocol.is_http();
    match (mode, protocol) {
        (MutualTlsMode::Strict, Protocol::Auto) => vec![mesh(&MESH_HTTP, true), mesh(&[], false)],
        (MutualTlsMode::Strict, _) => vec![mesh(&[], http)],
        (MutualTlsMode::Disable, Protocol::Auto) => {
            vec![plain(&PLAIN_HTTP, true), plain(&[], false)]
        }
        (MutualTlsMode::Disable, _) => vec![plain(&[], http)],
        (_, Protocol::Auto) => vec![
            mesh(&MESH_HTTP, true),
            plain(&PLAIN_HTTP, true),
            mesh(&MESH_TCP, false),
            plain(&[], false),
            own_tls(),
        ],
        (_, protocol) if protocol.is_http() => vec![mesh(&MESH_PROTOCOLS, true), plain(&[], true)],
        _ => vec![mesh(&MESH_PROTOCOLS, false), own_tls(), plain(&[], false)],
    }
}

/// The listeners for what the application is sent: one that redirected connections arrive at, and those of ports that
/// nothing is redirected to.
pub(super) fn listeners(index: &Index, proxy: &Proxy, ports: &[InboundPort<'_>]) -> Vec<Listener> {
    let looped = FilterChainMatch {
        destination_port: number(INBOUND_PORT),
        ..FilterChainMatch::default()
    };
    let mut redirected = vec![chain(
        "virtualInbound-blackhole",
        Some(looped),
        vec![tcp_proxy(index, proxy, BLACK_HOLE)],
    )];
    redirected.extend(undeclared(index, proxy, ports));
    let mut bound = Vec::new();
    for port in ports {
        let cluster = ClusterName::inbound(port.target).to_string();
        let accepted = Accepted {
            port: Some(port.target),
            names: [0, 1].map(|_| format!("{}_{}", port.bind, port.target)),
            stat_prefix: format!("inbound_{}_{};", port.bind, port.target),
            routes: routes(&cluster, &cluster, port.number, &port.host, port.protocol),
            cluster,
        };
        let chains = match port.own_tls().and_then(tls::own_server) {
            Some(socket) => {
                let http = port.protocol.is_http();
                vec![accepted.chain(index, proxy, &inside_own_tls(http), Some(socket))]
            }
            None => chains(index, proxy, port.protocol, port.mode, &accepted),
        };
        if port.is_bound() {
            let name = format!("{}_{}", port.bind, port.target);
            let bound_to = address(&port.bind, port.target);
            bound.push(Listener {
                listener_filters: inspectors(proxy, &chains),
                ..listener(index, proxy, &name, bound_to, chains)
            });
        } else {
            redirected.extend(chains);
        }
    }
    let mut listener_filters = vec![original_destination()];
    listener_filters.extend(inspectors(proxy, &redirected));
    let bound_to = address("0.0.0.0", INBOUND_PORT);
    let mut listeners = vec![Listener {
        listener_filters,
        ..listener(index, proxy, "virtualInbound", bound_to, redirected)
    }];
    listeners.extend(bound);
    listeners
}

fn listener(
    index: &Index,
    proxy: &Proxy,
    name: &str,
    address: Option<Address>,
    filter_chains: Vec<FilterChain>,
) -> Listener {
    Listener {
        name: name.to_owned(),
        address,
        filter_chains,
        listener_filters_timeout: seconds(0),
        continue_on_listener_filters_timeout: true,
        traffic_direction: TrafficDirection::Inbound.into(),
        access_log: access_log::listener_logs(index, proxy),
        max_connections_to_accept_per_socket_event: number(1),
        ..Listener::default()
    }
}

/// Chains of ports that no service declares; ports for which a policy has a rule of their own come with their number.
fn undeclared(index: &Index, proxy: &Proxy, ports: &[InboundPort<'_>]) -> Vec<FilterChain> {
    let accepted = |port| Accepted {
        port,
        names: ["virtualInbound", "virtualInbound-catchall-http"].map(str::to_owned),
        cluster: INBOUND_PASSTHROUGH.to_owned(),
        stat_prefix: format!("{INBOUND_PASSTHROUGH};"),
        routes: routes(
            INBOUND_PASSTHROUGH,
            INBOUND_PASSTHROUGH,
            0,
            "",
            Protocol::Auto,
        ),
    };
    let mode = |port| accepted_mode(index, proxy, port);
    let mut found = chains(index, proxy, Protocol::Auto, mode(0), &accepted(None));
    for port in index.ports_with_own_mode(&proxy.namespace, index.labels_of(proxy)) {
        if !ports.iter().any(|declared| declared.target == port) {
            let own = accepted(Some(port));
            found.extend(chains(index, proxy, Protocol::Auto, mode(port), &own));
        }
    }
    found
}

/// What tells the chains of a listener apart: TLS from other bytes, and HTTP from others. Each is switched off for the
/// ports where nothing depends on it.
fn inspectors(proxy: &Proxy, chains: &[FilterChain]) -> Vec<ListenerFilter> {
    let (mut tls, mut http): (BTreeMap<u32, bool>, BTreeMap<u32, bool>) = Default::default();
    for matching in chains
        .iter()
        .filter_map(|chain| chain.filter_chain_match.as_ref())
    {
        let port = matching.destination_port.map_or(0, |port| port.value);
        let plain_http = |name: &String| PLAIN_HTTP.contains(&name.as_str());
        *tls.entry(port).or_default() |= matching.transport_protocol == "tls";
        *http.entry(port).or_default() |= matching.application_protocols.iter().any(plain_http);
    }
    let ports = |of: &BTreeMap<u32, bool>, wanted: bool| -> Vec<u32> {
        let named = of.iter().filter(|(port, on)| **port != 0 && **on == wanted);
        named.map(|(port, _)| *port).collect()
    };
    let mut filters = Vec::new();
    if proxy.supports_tls() && tls.values().any(|on| *on) {
        filters.push(if tls.get(&0) == Some(&true) {
            disabled_for(tls_inspector(), &ports(&tls, false))
        } else {
            enabled_for(tls_inspector(), &ports(&tls, true))
        });
    }
    if http.values().any(|on| *on) {
        let mut without = ports(&http, false);
        if http.get(&0) == Some(&false) {
            without.insert(0, 0);
        }
        filters.push(disabled_for(http_inspector(), &without));
    }
    filters
}

/// What accepted connections of one port, or of all undeclared ones, are given to.
struct Accepted {
    port: Option<u32>,
    /// Names of its chains for bytes and for requests.
    names: [String; 2],
    cluster: String,
    stat_prefix: String,
    routes: RouteConfiguration,
}

impl Accepted {
    fn chain(
        &self,
        index: &Index,
        proxy: &Proxy,
        variant: &Variant,
        transport_socket: Option<TransportSocket>,
    ) -> FilterChain {
        let filter = if variant.http {
            let routes = Routes::Inline(Box::new(self.routes.clone()));
            let policies = index.body_policies_of_workload(proxy);
            let prefix = &self.stat_prefix;
            http_manager(index, proxy, Side::Inbound, prefix, routes, &policies)
        } else {
            tcp_proxy(index, proxy, &self.cluster)
        };
        let matching = FilterChainMatch {
            destination_port: self.port.and_then(number),
            transport_protocol: variant.transport.to_owned(),
            application_protocols: variant.protocols.iter().map(ToString::to_string).collect(),
            ..FilterChainMatch::default()
        };
        let name = &self.names[usize::from(variant.http)];
        FilterChain {
            transport_socket,
            ..chain(name, Some(matching), vec![filter])
        }
    }
}

fn chains(
    index: &Index,
    proxy: &Proxy,
    protocol: Protocol,
    mode: MutualTlsMode,
    to: &Accepted,
) -> Vec<FilterChain> {
    if mode == MutualTlsMode::Strict && !proxy.supports_tls() {
        let matching = to.port.map(|port| FilterChainMatch {
            destination_port: number(port),
            ..FilterChainMatch::default()
        });
        let nowhere = tcp_proxy(index, proxy, BLACK_HOLE);
        return vec![chain(&to.names[0], matching, vec![nowhere])];
    }
    let variants = variants(protocol, mode).into_iter();
    let chains = variants.map(|variant| {
        let mesh = || tls::mesh_server(&index.mesh().trust_domain);
        to.chain(index, proxy, &variant, variant.mutual.then(mesh))
    });
    chains.collect()
}

/// TLS that is ended with the workload's own certificates.
fn inside_own_tls(http: bool) -> Variant {
    Variant {
        transport: "tls",
        protocols: Vec::new(),
        mutual: false,
        http,
    }
}

/// The one route of accepted requests: to the application.
fn routes(
    name: &str,
    cluster: &str,
    port: u32,
    host: &str,
    protocol: Protocol,
) -> RouteConfiguration {
    let grpc = matches!(protocol, Protocol::Grpc | Protocol::GrpcWeb);
    let route = Route {
        name: "default".to_owned(),
        r#match: Some(RouteMatch {
            path_specifier: Some(PathSpecifier::Prefix("/".to_owned())),
            ..RouteMatch::default()
        }),
        decorator: Some(Decorator {
            operation: format!("{host}:{port}/*"),
            propagate: None,
        }),
        action: Some(Action::Route(RouteAction {
            cluster_specifier: Some(ClusterSpecifier::Cluster(cluster.to_owned())),
            timeout: seconds(0),
            max_stream_duration: Some(MaxStreamDuration {
                max_stream_duration: seconds(0),
                grpc_timeout_header_max: seconds(0),
                ..MaxStreamDuration::default()
            }),
            // The application may close an idle connection just when a request is sent on it.
            retry_policy: (!grpc).then(|| RetryPolicy {
                retry_on: "reset-before-request".to_owned(),
                num_retries: number(2),
                ..RetryPolicy::default()
            }),
            ..RouteAction::default()
        })),
        ..Route::default()
    };
    RouteConfiguration {
        name: name.to_owned(),
        virtual_hosts: vec![VirtualHost {
            name: format!("inbound|http|{port}"),
            domains: vec!["*".to_owned()],
            routes: vec![route],
            ..VirtualHost::default()
        }],
        validate_clusters: flag(false),
        ..RouteConfiguration::default()
    }
}
