//! Clusters: one for each port of each service and subset, those of the workload itself, and the catch-alls.

use lateen_xds::pb::envoy::config::{
    cluster::v3::{
        CircuitBreakers, Cluster,
        circuit_breakers::Thresholds,
        cluster::{
            ClusterDiscoveryType, CommonLbConfig, DiscoveryType, DnsLookupFamily, EdsClusterConfig,
            LbPolicy, TransportSocketMatch,
        },
    },
    core::v3::{BindConfig, SocketAddress, TypedExtensionConfig, socket_address::PortSpecifier},
    endpoint::v3::ClusterLoadAssignment,
};
use lateen_xds::pb::envoy::{
    extensions::network::dns_resolver::cares::v3::CaresDnsResolverConfig, r#type::v3::Percent,
};
use lateen_xds::pb::google::protobuf::Duration;

use lateen_api::networking::{destination_rule::Subset, traffic_policy::ClientTlsMode};

use super::{
    build::{
        UNLIMITED, any, boolean, config_metadata, fields, from_ads, metadata, number, seconds, text,
    },
    cluster_policy::{self, HttpOptions, Upstream},
    endpoint,
    policy::Policy,
    tls,
    workload::InboundPort,
};
use crate::{
    Index, Proxy, ProxyKind,
    index::{Discovery, MergedRule, Service, ServicePort},
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

/// All clusters of a proxy.
pub(super) fn clusters(index: &Index, proxy: &Proxy, inbound: &[InboundPort<'_>]) -> Vec<Cluster> {
    let mut clusters = vec![black_hole()];
    for service in index.visible_services(proxy) {
        let rule = index.destination_rule(proxy, service);
        for port in service
            .ports
            .iter()
            .filter(|port| port.protocol != Protocol::Udp)
        {
            clusters.push(outbound(index, proxy, service, port, rule.as_ref(), None));
            for subset in rule.iter().flat_map(|rule| &rule.subsets) {
                clusters.push(outbound(
                    index,
                    proxy,
                    service,
                    port,
                    rule.as_ref(),
                    Some(subset),
                ));
            }
        }
    }
    if proxy.kind == ProxyKind::Sidecar {
        clusters.push(original_destination(PASSTHROUGH, false));
        clusters.push(original_destination(INBOUND_PASSTHROUGH, true));
        clusters.extend(
            inbound
                .iter()
                .map(|port| inbound_cluster(index, proxy, port)),
        );
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
        lb_policy: LbPolicy::ClusterProvided.into(),
        circuit_breakers: Some(unlimited()),
        cleanup_interval: seconds(NEVER),
        common_lb_config: Some(CommonLbConfig::default()),
        upstream_bind_config: Some(bind_inbound()),
        ..named(&name, DiscoveryType::OriginalDst)
    };
    let mut options = HttpOptions {
        upstream: Upstream::of(inbound.protocol, true),
        ..HttpOptions::default()
    };
    if let Some(pool) = policy.connection_pool {
        cluster_policy::apply_connection_pool(&mut cluster, &mut options, pool);
    }
    cluster.typed_extension_protocol_options = options.encoded();
    cluster
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
    match &service.discovery {
        Discovery::Slices if service.is_headless() => be_original(&mut cluster),
        Discovery::Original => be_original(&mut cluster),
        Discovery::Slices | Discovery::Static(_) | Discovery::Workloads(_) => {
            cluster.eds_cluster_config = Some(EdsClusterConfig {
                eds_config: from_ads(),
                service_name: text_name,
            });
        }
        Discovery::Dns { first_only, .. } => {
            look_up(&mut cluster, *first_only);
            cluster.load_assignment = Some(ClusterLoadAssignment {
                cluster_name: text_name,
                ..endpoint::assignment(index, proxy, service, port, subset)
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
                cluster.transport_socket =
                    Some(tls::own_client(settings, &service.subject_alt_names, http2));
                notes.push(("alpn_override", text("false")));
                options.auto_names = settings.sni.is_empty();
            }
            // Also to a proxy without TLS: it refuses the cluster, as it must not send plain text instead.
            ClientTlsMode::IstioMutual => {
                cluster.transport_socket = Some(tls::mesh_client(
                    &server_name(&name, settings),
                    identities(index, service),
                    http2,
                ));
            }
        },
        None if auto_mtls(index, proxy, service, port) => {
            cluster.transport_socket_matches = vec![
                TransportSocketMatch {
                    name: "tlsMode-istio".to_owned(),
                    r#match: Some(fields([("tlsMode", text("istio"))])),
                    transport_socket: Some(tls::mesh_client(
                        &name.server_name(),
                        identities(index, service),
                        http2,
                    )),
                },
                TransportSocketMatch {
                    name: "tlsMode-disabled".to_owned(),
                    r#match: Some(fields::<&str>([])),
                    transport_socket: Some(tls::plain()),
                },
            ];
        }
        None => {}
    }
    if !notes.is_empty() {
        cluster.metadata = metadata("istio", fields(notes));
    }
    cluster.typed_extension_protocol_options = options.encoded();
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

/// Whether mutual TLS is chosen endpoint by endpoint. It needs endpoints that are known one by one.
fn auto_mtls(index: &Index, proxy: &Proxy, service: &Service, port: &ServicePort) -> bool {
    if !index.mesh().enable_auto_mtls || service.external || !proxy.supports_tls() {
        return false;
    }
    match &service.discovery {
        Discovery::Slices if service.is_headless() => {
            let endpoints = index.endpoints(service, port);
            !endpoints.is_empty() && endpoints.iter().all(|endpoint| endpoint.mutual_tls)
        }
        Discovery::Original => false,
        _ => true,
    }
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
