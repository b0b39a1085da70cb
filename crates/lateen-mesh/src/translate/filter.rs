//! Listener filters, network filters and filter chains.

use lateen_xds::pb::envoy::{
    config::listener::v3::{
        Filter, FilterChain, FilterChainMatch, ListenerFilter, ListenerFilterChainMatchPredicate,
        filter, listener_filter,
        listener_filter_chain_match_predicate::{MatchSet, Rule},
    },
    extensions::filters::{
        listener::{
            http_inspector::v3::HttpInspector, original_dst::v3::OriginalDst,
            tls_inspector::v3::TlsInspector,
        },
        network::tcp_proxy::v3::{
            TcpProxy,
            tcp_proxy::{
                ClusterSpecifier, TunnelingConfig, WeightedCluster, weighted_cluster::ClusterWeight,
            },
        },
    },
    r#type::v3::{
        HashPolicy, Int32Range,
        hash_policy::{PolicySpecifier, SourceIp},
    },
};
use prost::{Message, Name};

use super::{
    access_log,
    build::{any, duration, number, seconds},
    destination::ConnectionSettings,
};
use crate::{Index, Proxy};

/// Protocols by which plain HTTP is told from other bytes.
pub(super) const PLAIN_HTTP: [&str; 2] = ["http/1.1", "h2c"];
/// Protocols that clients of the mesh announce inside mutual TLS.
pub(super) const MESH_PROTOCOLS: [&str; 5] = [
    "istio",
    "istio-peer-exchange",
    "istio-http/1.0",
    "istio-http/1.1",
    "istio-h2",
];

/// A network filter.
pub(super) fn network<M: Message + Name>(name: &str, message: &M) -> Filter {
    Filter {
        name: name.to_owned(),
        config_type: Some(filter::ConfigType::TypedConfig(any(message))),
    }
}

/// Forwards bytes to one cluster, logged unless they go nowhere.
pub(super) fn tcp_proxy(index: &Index, proxy: &Proxy, cluster: &str) -> Filter {
    tcp_proxy_with(index, proxy, cluster, &ConnectionSettings::default())
}

/// Forwards bytes to one cluster as the settings say.
pub(super) fn tcp_proxy_with(
    index: &Index,
    proxy: &Proxy,
    cluster: &str,
    settings: &ConnectionSettings,
) -> Filter {
    let to = ClusterSpecifier::Cluster(cluster.to_owned());
    tcp_proxy_to(index, proxy, cluster, to, settings)
}

/// Forwards bytes to one of several clusters, by weight.
pub(super) fn tcp_proxy_weighted(
    index: &Index,
    proxy: &Proxy,
    prefix: &str,
    clusters: Vec<(String, u32)>,
    settings: &ConnectionSettings,
) -> Filter {
    let clusters = clusters.into_iter().map(|(name, weight)| ClusterWeight {
        name,
        weight,
        metadata_match: None,
    });
    let weighted = WeightedCluster {
        clusters: clusters.collect(),
    };
    tcp_proxy_to(
        index,
        proxy,
        prefix,
        ClusterSpecifier::WeightedClusters(weighted),
        settings,
    )
}

fn tcp_proxy_to(
    index: &Index,
    proxy: &Proxy,
    prefix: &str,
    clusters: ClusterSpecifier,
    settings: &ConnectionSettings,
) -> Filter {
    let by_source = HashPolicy {
        policy_specifier: Some(PolicySpecifier::SourceIp(SourceIp {})),
    };
    let tunnel = settings
        .tunnel
        .as_ref()
        .map(|(target, post)| TunnelingConfig {
            hostname: target.clone(),
            use_post: *post,
            ..TunnelingConfig::default()
        });
    let nowhere = prefix == super::cluster::BLACK_HOLE;
    network(
        "envoy.filters.network.tcp_proxy",
        &TcpProxy {
            stat_prefix: prefix.to_owned(),
            cluster_specifier: Some(clusters),
            idle_timeout: settings.idle_timeout.and_then(duration),
            max_downstream_connection_duration: settings.max_duration.and_then(duration),
            hash_policy: settings
                .by_source
                .then_some(by_source)
                .into_iter()
                .collect(),
            tunneling_config: tunnel,
            access_log: if nowhere {
                Vec::new()
            } else {
                access_log::logs(index, proxy)
            },
            ..TcpProxy::default()
        },
    )
}

/// A filter chain for connections that look a certain way.
pub(super) fn chain(
    name: &str,
    matching: Option<FilterChainMatch>,
    filters: Vec<Filter>,
) -> FilterChain {
    FilterChain {
        name: name.to_owned(),
        filter_chain_match: matching,
        filters,
        ..FilterChain::default()
    }
}

/// A filter chain of a service: TLS handshakes have a limit.
pub(super) fn service_chain(
    matching: Option<FilterChainMatch>,
    filters: Vec<Filter>,
) -> FilterChain {
    FilterChain {
        transport_socket_connect_timeout: seconds(15),
        ..chain("", matching, filters)
    }
}

/// Connections that were told to be plain HTTP.
pub(super) fn plain_http() -> FilterChainMatch {
    FilterChainMatch {
        transport_protocol: "raw_buffer".to_owned(),
        application_protocols: PLAIN_HTTP.map(str::to_owned).to_vec(),
        ..FilterChainMatch::default()
    }
}

fn listener_filter<M: Message + Name>(name: &str, message: &M) -> ListenerFilter {
    ListenerFilter {
        name: name.to_owned(),
        filter_disabled: None,
        config_type: Some(listener_filter::ConfigType::TypedConfig(any(message))),
    }
}

/// Tells HTTP from other bytes.
pub(super) fn http_inspector() -> ListenerFilter {
    listener_filter("envoy.filters.listener.http_inspector", &HttpInspector {})
}

/// Tells TLS from other bytes and reads the server name.
pub(super) fn tls_inspector() -> ListenerFilter {
    let inspector = TlsInspector {
        initial_read_buffer_size: number(512),
        ..TlsInspector::default()
    };
    listener_filter("envoy.filters.listener.tls_inspector", &inspector)
}

/// Restores the address that the client connected to.
pub(super) fn original_destination() -> ListenerFilter {
    listener_filter("envoy.filters.listener.original_dst", &OriginalDst {})
}

/// Switches a listener filter off for some ports, in the order given.
pub(super) fn disabled_for(filter: ListenerFilter, ports: &[u32]) -> ListenerFilter {
    let filter_disabled = match ports {
        [] => None,
        ports => Some(one_of_ports(ports)),
    };
    ListenerFilter {
        filter_disabled,
        ..filter
    }
}

/// Leaves a listener filter on for some ports only.
pub(super) fn enabled_for(filter: ListenerFilter, ports: &[u32]) -> ListenerFilter {
    let rule = Rule::NotMatch(Box::new(one_of_ports(ports)));
    ListenerFilter {
        filter_disabled: Some(ListenerFilterChainMatchPredicate { rule: Some(rule) }),
        ..filter
    }
}

fn one_of_ports(ports: &[u32]) -> ListenerFilterChainMatchPredicate {
    let range = |port: u32| {
        // Ports fit, they are below 65536; the end is exclusive.
        let start = i32::try_from(port).unwrap_or(i32::MAX - 1);
        Rule::DestinationPortRange(Int32Range {
            start,
            end: start + 1,
        })
    };
    let predicate = |rule| ListenerFilterChainMatchPredicate { rule: Some(rule) };
    match ports {
        [port] => predicate(range(*port)),
        ports => predicate(Rule::OrMatch(MatchSet {
            rules: ports.iter().map(|port| predicate(range(*port))).collect(),
        })),
    }
}
