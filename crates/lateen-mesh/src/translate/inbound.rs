//! The listener of a sidecar for what its application is sent.

use std::collections::{BTreeMap, btree_map::Entry};

use lateen_api::security::MutualTlsMode;
use lateen_xds::pb::envoy::config::{
    core::v3::TrafficDirection,
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
        PLAIN_HTTP, chain, disabled_for, enabled_for, http_inspector, original_destination,
        tcp_proxy, tls_inspector,
    },
    http_manager::{Routes, Side, http_manager},
    tls,
    workload::{InboundPort, accepted_mode, declared_ports},
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
    // The order is Istio's; it has no meaning.
    let mesh_any: Vec<&'static str> = MESH_TCP.iter().rev().chain(&MESH_HTTP).copied().collect();
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
        (_, protocol) if protocol.is_http() => vec![mesh(&mesh_any, true), plain(&[], true)],
        _ => vec![mesh(&mesh_any, false), own_tls(), plain(&[], false)],
    }
}

/// The listener that redirected connections arrive at.
pub(super) fn listener(index: &Index, proxy: &Proxy, ports: &[InboundPort<'_>]) -> Listener {
    let looped = FilterChainMatch {
        destination_port: number(INBOUND_PORT),
        ..FilterChainMatch::default()
    };
    let mut filter_chains = vec![chain(
        "virtualInbound-blackhole",
        Some(looped),
        vec![tcp_proxy(index, proxy, BLACK_HOLE)],
    )];
    let rest = Accepted {
        port: None,
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
    let labels = index.labels_of(proxy);
    let mode = |port| accepted_mode(index, proxy, port);
    let rest_mode = mode(0);
    filter_chains.extend(chains(index, proxy, Protocol::Auto, rest_mode, &rest));
    // Ports that no service declares, but a policy has its own rule for.
    let mut modes: BTreeMap<u32, MutualTlsMode> =
        ports.iter().map(|port| (port.target, port.mode)).collect();
    for port in index.ports_with_own_mode(&proxy.namespace, labels) {
        if let Entry::Vacant(vacant) = modes.entry(port) {
            vacant.insert(mode(port));
            let own = Accepted {
                port: Some(port),
                ..rest.clone()
            };
            filter_chains.extend(chains(index, proxy, Protocol::Auto, mode(port), &own));
        }
    }
    for port in ports {
        let cluster = ClusterName::inbound(port.target).to_string();
        let accepted = Accepted {
            port: Some(port.target),
            stat_prefix: format!("inbound_0.0.0.0_{};", port.target),
            routes: routes(&cluster, &cluster, port.number, &port.host, port.protocol),
            cluster,
        };
        filter_chains.extend(chains(index, proxy, port.protocol, port.mode, &accepted));
    }
    let mut declared: Vec<u32> = declared_ports(ports).into_iter().collect();
    declared.push(INBOUND_PORT);
    let mut listener_filters = vec![original_destination()];
    if proxy.supports_tls() {
        listener_filters.extend(tls_detection(rest_mode, &modes));
    }
    listener_filters.push(disabled_for(http_inspector(), &declared));
    Listener {
        name: "virtualInbound".to_owned(),
        address: address("0.0.0.0", INBOUND_PORT),
        filter_chains,
        listener_filters,
        listener_filters_timeout: seconds(0),
        continue_on_listener_filters_timeout: true,
        traffic_direction: TrafficDirection::Inbound.into(),
        access_log: access_log::listener_logs(index, proxy),
        max_connections_to_accept_per_socket_event: number(1),
        ..Listener::default()
    }
}

/// Tells TLS from other bytes wherever it matters: a port that accepts plain text only takes all bytes as they are.
fn tls_detection(
    rest: MutualTlsMode,
    modes: &BTreeMap<u32, MutualTlsMode>,
) -> Option<ListenerFilter> {
    let ports = |plain: bool| {
        let ports = modes
            .iter()
            .filter(move |(_, mode)| (**mode == MutualTlsMode::Disable) == plain);
        ports.map(|(port, _)| *port)
    };
    if rest == MutualTlsMode::Disable {
        let detected: Vec<u32> = ports(false).collect();
        return (!detected.is_empty()).then(|| enabled_for(tls_inspector(), &detected));
    }
    let plain: Vec<u32> = ports(true).chain([INBOUND_PORT]).collect();
    Some(disabled_for(tls_inspector(), &plain))
}

/// What accepted connections of one port, or of all undeclared ones, are given to.
#[derive(Clone)]
struct Accepted {
    port: Option<u32>,
    cluster: String,
    stat_prefix: String,
    routes: RouteConfiguration,
}

fn chains(
    index: &Index,
    proxy: &Proxy,
    protocol: Protocol,
    mode: MutualTlsMode,
    to: &Accepted,
) -> Vec<FilterChain> {
    let name = |http| match to.port {
        Some(port) => format!("0.0.0.0_{port}"),
        None if http => "virtualInbound-catchall-http".to_owned(),
        None => "virtualInbound".to_owned(),
    };
    if mode == MutualTlsMode::Strict && !proxy.supports_tls() {
        let matching = to.port.map(|port| FilterChainMatch {
            destination_port: number(port),
            ..FilterChainMatch::default()
        });
        let nowhere = tcp_proxy(index, proxy, BLACK_HOLE);
        return vec![chain(&name(false), matching, vec![nowhere])];
    }
    let variants = variants(protocol, mode).into_iter();
    let chains = variants.map(|variant| {
        let filter = if variant.http {
            let routes = Routes::Inline(Box::new(to.routes.clone()));
            http_manager(index, proxy, Side::Inbound, &to.stat_prefix, routes)
        } else {
            tcp_proxy(index, proxy, &to.cluster)
        };
        let name = name(variant.http);
        let matching = FilterChainMatch {
            destination_port: to.port.and_then(number),
            transport_protocol: variant.transport.to_owned(),
            application_protocols: variant.protocols.iter().map(ToString::to_string).collect(),
            ..FilterChainMatch::default()
        };
        let mut chain = chain(&name, Some(matching), vec![filter]);
        chain.transport_socket = variant
            .mutual
            .then(|| tls::mesh_server(&index.mesh().trust_domain));
        chain
    });
    chains.collect()
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
