//! Clusters: one for each port of each service and subset, those of the workload itself, and the catch-alls.

use lateen_xds::pb::envoy::config::{
    cluster::v3::{
        CircuitBreakers, Cluster,
        circuit_breakers::Thresholds,
        cluster::{
            ClusterDiscoveryType, CommonLbConfig, DiscoveryType, DnsLookupFamily, EdsClusterConfig,
            LbConfig, LbPolicy, OriginalDstLbConfig, TransportSocketMatch,
        },
    },
    core::v3::{BindConfig, SocketAddress, TypedExtensionConfig, socket_address::PortSpecifier},
    endpoint::v3::ClusterLoadAssignment,
};
use lateen_xds::pb::envoy::{
    extensions::network::dns_resolver::cares::v3::CaresDnsResolverConfig, r#type::v3::Percent,
};
use lateen_xds::pb::google::protobuf::Duration;

use lateen_api::{
    networking::{
        destination_rule::Subset,
        traffic_policy::{ClientTlsMode, SimpleLoadBalancer},
    },
    security::MutualTlsMode,
};

use super::{
    build::{
        UNLIMITED, any, boolean, config_metadata, fields, from_ads, metadata, number, seconds, text,
    },
    cluster_policy::{self, HttpOptions, Upstream},
    endpoint,
    locality::Preference,
    policy::Policy,
    sticky_session, tls,
    workload::InboundPort,
};
use crate::{
    Index, Proxy, ProxyKind,
    index::{Discovery, MergedRule, Service, ServicePort, TargetPort, host_matches},
    names::ClusterName,
    protocol::Protocol,
};

/// Traffic that no route knows.
pub(super) const BLACK_HOLE: &str = "BlackHoleCluster";
/// Traffic to the address that the client connected to.
pub(super) const PASSTHROUGH: &str = "PassthroughCluster";
/// Accepted traffic to a port that no service declares.
pub(super) const INBOUND_PASSTHROUGH: &str = "InboundPassthroughCluster";

/// Source address of accepted connections, so that they are not redirected once more.
const INBOUND_SOURCE: &str = "127.0.0.6";
/// Longest time that Envoy accepts: connections to the application's own address are never cleaned up.
const NEVER: i64 = 9_223_372_035;
/// Idle time of connections to unknown destinations in seconds.
const PASSTHROUGH_IDLE: i64 = 300;

/// The clusters of a service: one for each port and subset, and for a gateway that passes TLS on by its server name
/// (`by_server_name`: for which hosts) those with that name.
pub(super) fn of_service(
    index: &Index,
    proxy: &Proxy,
    service: &Service,
    by_server_name: &[String],
) -> Vec<Cluster> {
    if service.alias_for().is_some() {
        return Vec::new();
    }
    let rule = index.destination_rule(proxy, service);
    let subsets = rule.iter().flat_map(|rule| &rule.subsets);
    let subsets: Vec<Option<&Subset>> = std::iter::once(None)
        .chain(subsets.copied().map(Some))
        .collect();
    let named = !service.external
        && by_server_name
            .iter()
            .any(|host| host_matches(host, &service.host));
    let ports = service.ports.iter();
    let mut clusters = Vec::new();
    for port in ports.filter(|port| port.protocol != Protocol::Udp) {
        for subset in &subsets {
            let cluster = outbound(index, proxy, service, port, rule.as_ref(), *subset);
            if named {
                let subset = subset.map_or("", |subset| subset.name.as_str());
                let name = ClusterName::outbound(port.number, subset, &service.host);
                clusters.push(renamed(cluster.clone(), name.server_name()));
            }
            clusters.push(cluster);
        }
    }
    clusters
}

/// The same cluster under another name. TLS is the client's.
fn renamed(mut cluster: Cluster, name: String) -> Cluster {
    cluster.transport_socket = None;
    cluster.transport_socket_matches.clear();
    if let Some(discovery) = &mut cluster.eds_cluster_config {
        discovery.service_name.clone_from(&name);
    }
    cluster.alt_stat_name = format!("{name};");
    cluster.name = name;
    cluster
}

/// The clusters of the workload itself, and the catch-alls.
pub(super) fn own(index: &Index, proxy: &Proxy, inbound: &[InboundPort<'_>]) -> Vec<Cluster> {
    let mut clusters = vec![black_hole()];
    if proxy.kind == ProxyKind::Sidecar {
        clusters.push(original_destination(PASSTHROUGH, false));
        clusters.push(original_destination(INBOUND_PASSTHROUGH, true));
        let ports = inbound.iter();
        clusters.extend(ports.map(|port| inbound_cluster(index, proxy, port)));
    }
    clusters
}

fn named(name: &str, kind: DiscoveryType) -> Cluster {
    Cluster {
        name: name.to_owned(),
        alt_stat_name: format!("{name};"),
        connect_timeout: seconds(10),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(kind.into())),
        ..Cluster::default()
    }
}

fn black_hole() -> Cluster {
    named(BLACK_HOLE, DiscoveryType::Static)
}

fn original_destination(name: &str, inbound: bool) -> Cluster {
    let options = HttpOptions {
        idle_timeout: seconds(PASSTHROUGH_IDLE),
        upstream: Upstream::AsClient,
        ..HttpOptions::default()
    };
    Cluster {
        lb_policy: LbPolicy::ClusterProvided.into(),
        circuit_breakers: Some(unlimited()),
        typed_extension_protocol_options: options.encoded(),
        upstream_bind_config: inbound.then(bind_inbound),
        // Both are counted together, as Istio does.
        alt_stat_name: format!("{PASSTHROUGH};"),
        ..named(name, DiscoveryType::OriginalDst)
    }
}

fn bind_inbound() -> BindConfig {
    BindConfig {
        source_address: Some(SocketAddress {
            address: INBOUND_SOURCE.to_owned(),
            port_specifier: Some(PortSpecifier::PortValue(0)),
            ..SocketAddress::default()
        }),
        ..BindConfig::default()
    }
}

/// No limits: Envoy's own defaults are too low for a mesh.
pub(super) fn unlimited() -> CircuitBreakers {
    CircuitBreakers {
        thresholds: vec![Thresholds {
            max_connections: number(UNLIMITED),
            max_pending_requests: number(UNLIMITED),
            max_requests: number(UNLIMITED),
            max_retries: number(UNLIMITED),
            ..Thresholds::default()
        }],
        ..CircuitBreakers::default()
    }
}

/// The cluster of a port of the workload itself. Connection limits of the service's own rule apply here too.
fn inbound_cluster(index: &Index, proxy: &Proxy, inbound: &InboundPort<'_>) -> Cluster {
    let name = ClusterName::inbound(inbound.target).to_string();
    let rule = inbound
        .service
        .and_then(|service| index.destination_rule(proxy, service));
    let policy = Policy::of(rule.as_ref(), None, inbound.number);
    let mut cluster = Cluster {
        circuit_breakers: Some(unlimited()),
        common_lb_config: Some(CommonLbConfig::default()),
        upstream_bind_config: Some(bind_inbound()),
        ..named(&name, DiscoveryType::OriginalDst)
    };
    match inbound
        .ingress
        .map_or("", |listener| &listener.default_endpoint)
    {
        // A port alone names no other address than the one that was wanted.
        target if target.is_empty() || target.starts_with(':') => {
            cluster.lb_policy = LbPolicy::ClusterProvided.into();
            cluster.cleanup_interval = seconds(NEVER);
        }
        target => send_to(&mut cluster, target, &proxy.address),
    }
    let mut options = HttpOptions {
        upstream: Upstream::of(inbound.protocol, true),
        ..HttpOptions::default()
    };
    for pool in [policy.connection_pool, inbound.connection_pool]
        .into_iter()
        .flatten()
    {
        cluster_policy::apply_connection_pool(&mut cluster, &mut options, pool);
    }
    cluster.typed_extension_protocol_options = options.encoded();
    cluster
}

/// Sends what is accepted to an address of the workload: `127.0.0.1:PORT`, `0.0.0.0:PORT` (its own) or `unix:///PATH`.
fn send_to(cluster: &mut Cluster, target: &str, own_address: &str) {
    let (host, port) = match target.rsplit_once(':') {
        Some((host, port)) if !target.starts_with("unix:") => {
            let number = port.parse().unwrap_or_default();
            (host.trim_matches(['[', ']']), number)
        }
        _ => (target, 0),
    };
    let host = match host {
        "0.0.0.0" | "::" => own_address,
        host => host,
    };
    if matches!(host, "127.0.0.1" | "::1") {
        // Connections to the local address are not redirected, whatever their source.
        cluster.upstream_bind_config = None;
    }
    cluster.cluster_discovery_type = Some(ClusterDiscoveryType::Type(DiscoveryType::Static.into()));
    cluster.load_assignment = Some(endpoint::single(&cluster.name, host, port));
}

/// The cluster of a port of a service, or of a subset of it.
fn outbound(
    index: &Index,
    proxy: &Proxy,
    service: &Service,
    port: &ServicePort,
    rule: Option<&MergedRule<'_>>,
    subset: Option<&Subset>,
) -> Cluster {
    let subset_name = subset
        .map(|subset| subset.name.as_str())
        .unwrap_or_default();
    let name = ClusterName::outbound(port.number, subset_name, &service.host);
    let policy = Policy::of(rule, subset, port.number);
    let text_name = name.to_string();
    let mut cluster = Cluster {
        circuit_breakers: Some(unlimited()),
        common_lb_config: Some(CommonLbConfig {
            healthy_panic_threshold: Some(Percent::default()),
            ..CommonLbConfig::default()
        }),
        ..named(&text_name, DiscoveryType::Eds)
    };
    let preference = Preference::of(index, proxy, &policy);
    // Clients of a gateway never wanted to reach an endpoint, but the gateway.
    let router = proxy.kind == ProxyKind::Router;
    match &service.discovery {
        Discovery::Slices if service.is_headless() && !router => be_original(&mut cluster),
        Discovery::Alias(_) => be_original(&mut cluster),
        Discovery::Original if !router => {
            be_original(&mut cluster);
            if let TargetPort::Number(target) = port.target
                && port.target_given
            {
                cluster.lb_config = Some(LbConfig::OriginalDstLbConfig(OriginalDstLbConfig {
                    upstream_port_override: number(target),
                    ..OriginalDstLbConfig::default()
                }));
            }
        }
        Discovery::Slices
        | Discovery::Static(_)
        | Discovery::Workloads(_)
        | Discovery::Original => {
            cluster.eds_cluster_config = Some(EdsClusterConfig {
                eds_config: from_ads(),
                service_name: text_name,
            });
        }
        Discovery::Dns { first_only, .. } => {
            look_up(&mut cluster, *first_only);
            cluster.load_assignment = Some(ClusterLoadAssignment {
                cluster_name: text_name,
                ..endpoint::assignment(index, proxy, service, port, subset, &preference)
            });
        }
    }
    let sniffed = port.protocol == Protocol::Auto && proxy.kind == ProxyKind::Sidecar;
    let protocol = if sniffed || port.protocol != Protocol::Auto {
        port.protocol
    } else {
        Protocol::Tcp
    };
    let mut options = HttpOptions {
        upstream: Upstream::of(protocol, false),
        ..HttpOptions::default()
    };
    cluster_policy::apply(&mut cluster, &mut options, &policy);
    if !is_original(&cluster)
        && let Some(common) = &mut cluster.common_lb_config
    {
        common.locality_config_specifier = preference.weighted();
    }

    let mut notes = Vec::new();
    if let Some(rule) = rule {
        let path = config_metadata(
            "destination-rule",
            rule.first.namespace(),
            rule.first.name(),
        );
        notes.push(("config", text(path)));
    }
    if service.external {
        notes.push(("external", boolean(true)));
    }
    if !subset_name.is_empty() {
        notes.push(("subset", text(subset_name)));
    }
    let http2 = options.upstream == Upstream::Http2;
    match policy.tls {
        Some(settings) => match settings.mode {
            ClientTlsMode::Disable => {}
            ClientTlsMode::Simple | ClientTlsMode::Mutual => {
                let selects = rule.is_some_and(|rule| rule.first.spec.workload_selector.is_some());
                let client = tls::Client {
                    alternative_names: &service.subject_alt_names,
                    http2,
                    reads_secrets: selects || proxy.kind == ProxyKind::Router,
                };
                cluster.transport_socket = tls::own_client(settings, &client);
                notes.push(("alpn_override", text("false")));
                if cluster.transport_socket.is_some() {
                    options.auto_server_name = settings.sni.is_empty();
                    options.auto_name_check = settings.sni.is_empty()
                        && settings.subject_alt_names.is_empty()
                        && settings.insecure_skip_verify != Some(true);
                }
            }
            // Also to a proxy without TLS: it refuses the cluster, as it must not send plain text instead.
            ClientTlsMode::IstioMutual => {
                let names = match settings.subject_alt_names.as_slice() {
                    [] => identities(index, service),
                    names => names.to_vec(),
                };
                cluster.transport_socket = Some(tls::mesh_client(
                    &server_name(&name, settings),
                    &names,
                    http2,
                ));
            }
        },
        None if auto_mtls(index, proxy, service, port, &policy) => {
            let identities = identities(index, service);
            let mutual = tls::mesh_client(&name.server_name(), &identities, http2);
            if is_original(&cluster) {
                // There is nothing to tell endpoints apart by; all of them have a sidecar.
                cluster.transport_socket = Some(mutual);
            } else {
                cluster.transport_socket_matches = vec![
                    TransportSocketMatch {
                        name: "tlsMode-istio".to_owned(),
                        r#match: Some(fields([("tlsMode", text("istio"))])),
                        transport_socket: Some(mutual),
                    },
                    TransportSocketMatch {
                        name: "tlsMode-disabled".to_owned(),
                        r#match: Some(fields::<&str>([])),
                        transport_socket: Some(tls::plain()),
                    },
                ];
            }
        }
        None => {}
    }
    if let Some(settings) = policy.proxy_protocol {
        cluster_policy::apply_proxy_protocol(&mut cluster, settings);
    }
    if !notes.is_empty() {
        cluster.metadata = metadata("istio", fields(notes));
    }
    cluster.typed_extension_protocol_options = options.encoded();
    sticky_session::apply(index, proxy, service, subset_name, &mut cluster);
    cluster
}

fn server_name(
    name: &ClusterName<'_>,
    settings: &lateen_api::networking::traffic_policy::ClientTlsSettings,
) -> String {
    if settings.sni.is_empty() {
        name.server_name()
    } else {
        settings.sni.clone()
    }
}

fn identities(index: &Index, service: &Service) -> Vec<String> {
    if service.subject_alt_names.is_empty() {
        index.identities(service).into_iter().collect()
    } else {
        service.subject_alt_names.clone()
    }
}

/// Whether mutual TLS is chosen without being asked for: the namespace's workloads accept it, and so do all endpoints
/// where they cannot be told apart.
fn auto_mtls(
    index: &Index,
    proxy: &Proxy,
    service: &Service,
    port: &ServicePort,
    policy: &Policy<'_>,
) -> bool {
    if !index.mesh().enable_auto_mtls || service.external || !proxy.supports_tls() {
        return false;
    }
    let balancer = policy.load_balancer.and_then(|balancer| balancer.simple);
    let passes = service.is_headless()
        || matches!(service.discovery, Discovery::Original)
        || balancer == Some(SimpleLoadBalancer::Passthrough);
    if passes {
        let endpoints = index.endpoints(service, port);
        if endpoints.is_empty() || !endpoints.iter().all(|endpoint| endpoint.mutual_tls) {
            return false;
        }
    }
    index.mutual_tls_mode_of_namespace(&service.namespace) != MutualTlsMode::Disable
}

fn is_original(cluster: &Cluster) -> bool {
    let original = ClusterDiscoveryType::Type(DiscoveryType::OriginalDst.into());
    cluster.cluster_discovery_type == Some(original)
}

fn be_original(cluster: &mut Cluster) {
    cluster.cluster_discovery_type = Some(ClusterDiscoveryType::Type(
        DiscoveryType::OriginalDst.into(),
    ));
    cluster.lb_policy = LbPolicy::ClusterProvided.into();
}

#[allow(deprecated)] // the successor of these fields is a cluster type that older Envoys lack
fn look_up(cluster: &mut Cluster, first_only: bool) {
    let kind = if first_only {
        DiscoveryType::LogicalDns
    } else {
        DiscoveryType::StrictDns
    };
    cluster.cluster_discovery_type = Some(ClusterDiscoveryType::Type(kind.into()));
    cluster.dns_lookup_family = DnsLookupFamily::V4Only.into();
    cluster.dns_refresh_rate = seconds(60);
    cluster.dns_jitter = Some(Duration {
        seconds: 0,
        nanos: 100_000_000,
    });
    cluster.respect_dns_ttl = true;
    cluster.typed_dns_resolver_config = Some(TypedExtensionConfig {
        name: "envoy.network.dns_resolver.cares".to_owned(),
        typed_config: Some(any(&CaresDnsResolverConfig {
            udp_max_queries: number(100),
            ..CaresDnsResolverConfig::default()
        })),
    });
}
