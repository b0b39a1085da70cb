//! What a DestinationRule changes in a cluster: load balancing, limits, outlier detection, HTTP options.

use std::collections::HashMap;

use lateen_api::networking::traffic_policy::{
    ConnectionPool, ConsistentHash, H2UpgradePolicy, LoadBalancer,
    OutlierDetection as OutlierSettings, ProxyProtocol, ProxyProtocolVersion, RetryBudget,
    SimpleLoadBalancer,
};
use lateen_xds::pb::{
    envoy::{
        config::{
            cluster::v3::{
                Cluster, OutlierDetection, UpstreamConnectionOptions,
                circuit_breakers::thresholds::RetryBudget as BudgetMessage,
                cluster::{
                    ClusterDiscoveryType, CommonLbConfig, DiscoveryType, LbConfig, LbPolicy,
                    LeastRequestLbConfig, MaglevLbConfig, RingHashLbConfig, RoundRobinLbConfig,
                    SlowStartConfig,
                },
            },
            core::v3::{
                Http1ProtocolOptions, Http2ProtocolOptions,
                HttpProtocolOptions as CommonHttpOptions, KeepaliveSettings, ProxyProtocolConfig,
                RuntimeDouble, TcpKeepalive, TransportSocket, UpstreamHttpProtocolOptions,
                proxy_protocol_config,
            },
        },
        extensions::{
            transport_sockets::proxy_protocol::v3::ProxyProtocolUpstreamTransport,
            upstreams::http::v3::{
                HttpProtocolOptions,
                http_protocol_options::{
                    ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig,
                    explicit_http_config::ProtocolConfig,
                },
            },
        },
        r#type::v3::Percent,
    },
    google::protobuf::{Any, Duration},
};

use super::{
    build::{any, duration, large_number, number, ordered, positive, transport_socket},
    policy::Policy,
    tls,
};
use crate::protocol::Protocol;

/// Key of the HTTP options of a cluster.
const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
/// Name of the transport socket that begins with a PROXY protocol header.
const PROXY_PROTOCOL: &str = "envoy.transport_sockets.upstream_proxy_protocol";
/// Share of requests that may be retries when a budget does not say, in percent.
const RETRY_PERCENT: f64 = 20.0;
/// Retries at a time that a budget allows always when it does not say.
const RETRY_CONCURRENCY: u32 = 3;
/// Smallest ring when nothing is said.
const RING_SIZE: u64 = 1024;

/// What is spoken to the endpoints.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Upstream {
    /// HTTP/1.1, or no HTTP at all.
    #[default]
    Http1,
    /// HTTP/2.
    Http2,
    /// The version that the client used.
    AsClient,
}

impl Upstream {
    /// What follows from the protocol of a port.
    pub(super) fn of(protocol: Protocol, _inbound: bool) -> Self {
        match protocol {
            Protocol::Auto => Self::AsClient,
            protocol if protocol.is_http2() => Self::Http2,
            _ => Self::Http1,
        }
    }
}

/// HTTP options of a cluster.
#[derive(Debug, Default)]
pub(super) struct HttpOptions {
    pub(super) upstream: Upstream,
    pub(super) idle_timeout: Option<Duration>,
    pub(super) max_requests_per_connection: Option<u32>,
    pub(super) max_concurrent_streams: Option<u32>,
    pub(super) keep_alive: Option<KeepaliveSettings>,
    /// The server name follows the authority of the request.
    pub(super) auto_server_name: bool,
    /// The server's certificate must be for the server name.
    pub(super) auto_name_check: bool,
}

impl HttpOptions {
    /// The options as the cluster carries them; nothing when they say nothing.
    pub(super) fn encoded(&self) -> HashMap<String, Any> {
        let common = CommonHttpOptions {
            idle_timeout: self.idle_timeout,
            max_requests_per_connection: self.max_requests_per_connection.and_then(number),
            ..CommonHttpOptions::default()
        };
        let has_common = common != CommonHttpOptions::default();
        let auto_names = self.auto_server_name || self.auto_name_check;
        if self.upstream == Upstream::Http1 && !has_common && !auto_names {
            return HashMap::new();
        }
        let http2 = Http2ProtocolOptions {
            max_concurrent_streams: self.max_concurrent_streams.and_then(number),
            connection_keepalive: self.keep_alive,
            ..Http2ProtocolOptions::default()
        };
        let protocol = match self.upstream {
            Upstream::AsClient => {
                UpstreamProtocolOptions::UseDownstreamProtocolConfig(UseDownstreamHttpConfig {
                    http_protocol_options: Some(Http1ProtocolOptions::default()),
                    http2_protocol_options: Some(http2),
                    ..UseDownstreamHttpConfig::default()
                })
            }
            Upstream::Http2 => explicit(ProtocolConfig::Http2ProtocolOptions(http2)),
            Upstream::Http1 => explicit(ProtocolConfig::HttpProtocolOptions(
                Http1ProtocolOptions::default(),
            )),
        };
        let options = HttpProtocolOptions {
            common_http_protocol_options: has_common.then_some(common),
            upstream_http_protocol_options: auto_names.then(|| UpstreamHttpProtocolOptions {
                auto_sni: self.auto_server_name,
                auto_san_validation: self.auto_name_check,
                ..UpstreamHttpProtocolOptions::default()
            }),
            upstream_protocol_options: Some(protocol),
            ..HttpProtocolOptions::default()
        };
        ordered([(HTTP_OPTIONS.to_owned(), any(&options))])
    }
}

fn explicit(config: ProtocolConfig) -> UpstreamProtocolOptions {
    UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
        protocol_config: Some(config),
    })
}

/// Applies all but TLS.
pub(super) fn apply(cluster: &mut Cluster, options: &mut HttpOptions, policy: &Policy<'_>) {
    if let Some(pool) = policy.connection_pool {
        apply_connection_pool(cluster, options, pool);
    }
    if let Some(settings) = policy.outlier_detection {
        apply_outlier_detection(cluster, settings);
    }
    if let Some(budget) = policy.retry_budget {
        apply_retry_budget(cluster, budget);
    }
    apply_load_balancer(cluster, policy.load_balancer);
}

/// The share of requests that may be retries.
fn apply_retry_budget(cluster: &mut Cluster, budget: &RetryBudget) {
    let concurrency = budget.min_retry_concurrency.filter(|count| *count > 0);
    let budget = BudgetMessage {
        budget_percent: Some(Percent {
            value: budget.percent.unwrap_or(RETRY_PERCENT),
        }),
        min_retry_concurrency: number(concurrency.unwrap_or(RETRY_CONCURRENCY)),
        ..BudgetMessage::default()
    };
    let breakers = cluster.circuit_breakers.iter_mut();
    for threshold in breakers.flat_map(|breakers| &mut breakers.thresholds) {
        threshold.retry_budget = Some(budget);
    }
}

/// Begins connections with a PROXY protocol header, before TLS if there is any.
pub(super) fn apply_proxy_protocol(cluster: &mut Cluster, settings: &ProxyProtocol) {
    let version = match settings.version {
        ProxyProtocolVersion::V1 => proxy_protocol_config::Version::V1,
        ProxyProtocolVersion::V2 => proxy_protocol_config::Version::V2,
    };
    let wrapped = |inner: Option<TransportSocket>| {
        let message = ProxyProtocolUpstreamTransport {
            config: Some(ProxyProtocolConfig {
                version: version.into(),
                ..ProxyProtocolConfig::default()
            }),
            transport_socket: Some(inner.unwrap_or_else(tls::plain)),
            ..ProxyProtocolUpstreamTransport::default()
        };
        Some(transport_socket(PROXY_PROTOCOL, &message))
    };
    if cluster.transport_socket_matches.is_empty() {
        cluster.transport_socket = wrapped(cluster.transport_socket.take());
    }
    for socket in &mut cluster.transport_socket_matches {
        socket.transport_socket = wrapped(socket.transport_socket.take());
    }
}

/// Limits of connections.
pub(super) fn apply_connection_pool(
    cluster: &mut Cluster,
    options: &mut HttpOptions,
    pool: &ConnectionPool,
) {
    let threshold = cluster
        .circuit_breakers
        .as_mut()
        .and_then(|breakers| breakers.thresholds.first_mut());
    if let (Some(http), Some(threshold)) = (&pool.http, threshold) {
        let mut limit = |field: fn(&mut _) -> &mut _, value: Option<i32>| {
            if let Some(value) = positive(value) {
                *field(threshold) = number(value);
            }
        };
        limit(|threshold: &mut lateen_xds::pb::envoy::config::cluster::v3::circuit_breakers::Thresholds| &mut threshold.max_pending_requests, http.http1_max_pending_requests);
        limit(
            |threshold| &mut threshold.max_requests,
            http.http2_max_requests,
        );
        limit(|threshold| &mut threshold.max_retries, http.max_retries);
        options.idle_timeout = http
            .idle_timeout
            .and_then(duration)
            .or(options.idle_timeout);
        options.max_requests_per_connection = positive(http.max_requests_per_connection);
        options.max_concurrent_streams = positive(http.max_concurrent_streams);
        options.keep_alive = http
            .http2_keep_alive
            .as_ref()
            .map(|settings| KeepaliveSettings {
                interval: settings.interval.and_then(duration),
                timeout: settings.timeout.and_then(duration),
                ..KeepaliveSettings::default()
            });
        if http.use_client_protocol {
            options.upstream = Upstream::AsClient;
        } else if http.h2_upgrade_policy == Some(H2UpgradePolicy::Upgrade)
            && options.upstream == Upstream::Http1
        {
            options.upstream = Upstream::Http2;
        }
    }
    let Some(tcp) = &pool.tcp else {
        return;
    };
    if let (Some(limit), Some(breakers)) = (
        positive(tcp.max_connections),
        cluster.circuit_breakers.as_mut(),
    ) {
        for threshold in &mut breakers.thresholds {
            threshold.max_connections = number(limit);
        }
    }
    if let Some(timeout) = tcp.connect_timeout {
        cluster.connect_timeout = duration(timeout);
    }
    if options.idle_timeout.is_none() {
        options.idle_timeout = tcp.idle_timeout.and_then(duration);
    }
    if let Some(probes) = &tcp.tcp_keepalive {
        let whole_seconds = |time: Option<lateen_api::Duration>| {
            time.and_then(|time| u32::try_from(time.seconds()).ok())
                .and_then(number)
        };
        cluster.upstream_connection_options = Some(UpstreamConnectionOptions {
            tcp_keepalive: Some(TcpKeepalive {
                keepalive_probes: probes.probes.and_then(number),
                keepalive_time: whole_seconds(probes.time),
                keepalive_interval: whole_seconds(probes.interval),
            }),
            ..UpstreamConnectionOptions::default()
        });
    }
}

/// When endpoints are left out. Success rates are never looked at, as in Istio.
fn apply_outlier_detection(cluster: &mut Cluster, settings: &OutlierSettings) {
    // A count of 0 switches that kind of detection off.
    let enforcing = |count: u32| number(if count > 0 { 100 } else { 0 });
    let nonzero = |count: u32| if count > 0 { number(count) } else { None };
    let mut detection = OutlierDetection {
        interval: settings.interval.and_then(duration),
        base_ejection_time: settings.base_ejection_time.and_then(duration),
        max_ejection_percent: positive(settings.max_ejection_percent).and_then(number),
        enforcing_success_rate: number(0),
        split_external_local_origin_errors: settings.split_external_local_origin_errors,
        ..OutlierDetection::default()
    };
    if let Some(count) = settings.consecutive_5xx_errors {
        detection.consecutive_5xx = nonzero(count);
        detection.enforcing_consecutive_5xx = enforcing(count);
    }
    if let Some(count) = settings.consecutive_gateway_errors {
        detection.consecutive_gateway_failure = nonzero(count);
        detection.enforcing_consecutive_gateway_failure = enforcing(count);
    }
    if let Some(count) = settings.consecutive_local_origin_failures {
        detection.consecutive_local_origin_failure = nonzero(count);
        detection.enforcing_consecutive_local_origin_failure = enforcing(count);
    }
    // Split success rates would be compared by default, as whole ones are.
    if detection.split_external_local_origin_errors {
        detection.enforcing_local_origin_success_rate = number(0);
    }
    cluster.outlier_detection = Some(detection);
    let percent = settings.min_health_percent.unwrap_or_default().max(0);
    let common = cluster
        .common_lb_config
        .get_or_insert_with(CommonLbConfig::default);
    common.healthy_panic_threshold = Some(Percent {
        value: f64::from(percent),
    });
}

fn apply_load_balancer(cluster: &mut Cluster, balancer: Option<&LoadBalancer>) {
    if cluster.lb_policy == i32::from(LbPolicy::ClusterProvided) {
        return;
    }
    let slow_start = balancer.and_then(slow_start);
    let simple = balancer
        .and_then(|balancer| balancer.simple)
        .unwrap_or_default();
    if let Some(hash) = balancer.and_then(|balancer| balancer.consistent_hash.as_ref()) {
        return apply_consistent_hash(cluster, hash);
    }
    match simple {
        SimpleLoadBalancer::Unspecified
        | SimpleLoadBalancer::LeastConn
        | SimpleLoadBalancer::LeastRequest => {
            cluster.lb_policy = LbPolicy::LeastRequest.into();
            cluster.lb_config = slow_start.map(|slow_start| {
                LbConfig::LeastRequestLbConfig(LeastRequestLbConfig {
                    slow_start_config: Some(slow_start),
                    ..LeastRequestLbConfig::default()
                })
            });
        }
        SimpleLoadBalancer::RoundRobin => {
            cluster.lb_policy = LbPolicy::RoundRobin.into();
            cluster.lb_config = slow_start.map(|slow_start| {
                LbConfig::RoundRobinLbConfig(RoundRobinLbConfig {
                    slow_start_config: Some(slow_start),
                })
            });
        }
        SimpleLoadBalancer::Random => cluster.lb_policy = LbPolicy::Random.into(),
        SimpleLoadBalancer::Passthrough => {
            cluster.lb_policy = LbPolicy::ClusterProvided.into();
            cluster.cluster_discovery_type = Some(ClusterDiscoveryType::Type(
                DiscoveryType::OriginalDst.into(),
            ));
            cluster.eds_cluster_config = None;
        }
    }
}

fn apply_consistent_hash(cluster: &mut Cluster, hash: &ConsistentHash) {
    if let Some(maglev) = &hash.maglev {
        cluster.lb_policy = LbPolicy::Maglev.into();
        cluster.lb_config = Some(LbConfig::MaglevLbConfig(MaglevLbConfig {
            table_size: maglev.table_size.and_then(large_number),
        }));
        return;
    }
    let size = hash
        .ring_hash
        .as_ref()
        .and_then(|ring| ring.minimum_ring_size)
        .or(hash.minimum_ring_size);
    cluster.lb_policy = LbPolicy::RingHash.into();
    cluster.lb_config = Some(LbConfig::RingHashLbConfig(RingHashLbConfig {
        minimum_ring_size: large_number(size.filter(|size| *size > 0).unwrap_or(RING_SIZE)),
        ..RingHashLbConfig::default()
    }));
}

fn slow_start(balancer: &LoadBalancer) -> Option<SlowStartConfig> {
    let (window, aggression, minimum) = match (&balancer.warmup, balancer.warmup_duration_secs) {
        (Some(warmup), _) => (warmup.duration, warmup.aggression, warmup.minimum_percent),
        (None, Some(duration)) => (duration, None, None),
        (None, None) => return None,
    };
    Some(SlowStartConfig {
        slow_start_window: duration(window),
        aggression: aggression.map(|value| RuntimeDouble {
            default_value: value,
            ..RuntimeDouble::default()
        }),
        min_weight_percent: minimum.map(|value| Percent { value }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_never_compared_by_success_rate() {
        for split in [false, true] {
            let settings = OutlierSettings {
                split_external_local_origin_errors: split,
                ..OutlierSettings::default()
            };
            let mut cluster = Cluster::default();
            apply_outlier_detection(&mut cluster, &settings);
            let detection = cluster.outlier_detection.unwrap_or_default();
            let enforced = (
                detection.enforcing_success_rate,
                detection.enforcing_local_origin_success_rate,
            );
            // The second has no effect without the split, and istiod leaves it out then.
            assert_eq!(enforced, (number(0), split.then(|| number(0)).flatten()));
        }
    }
}
