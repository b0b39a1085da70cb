//! The TCP proxy filter.

use std::time::Duration;

use lateen_route::constraint::not_empty;
use lateen_route::format::Template;
use lateen_route::mutate::HeaderMutations;
use lateen_route::{Invalid, Within, refuse_rest};
use lateen_xds::pb::envoy::extensions::filters::network::tcp_proxy::v3 as pb;
use lateen_xds::pb::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::{
    ClusterSpecifier, TunnelingConfig,
};
use lateen_xds::pb::envoy::r#type::v3::hash_policy::PolicySpecifier;

use super::context::Context;
use super::{access_log, limit};
use crate::http::tunnel::TunnelSettings;
use crate::tcp::TcpProxy;

/// Connections without any byte in either direction are closed after this time.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);

/// Shorter times between lines about an open connection are refused, as in Envoy.
const LEAST_LOG_INTERVAL: Duration = Duration::from_millis(1);

/// Compiles the filter.
pub(crate) fn compile(
    mut message: pb::TcpProxy,
    context: &Context<'_>,
) -> Result<TcpProxy, Invalid> {
    let stat_prefix = std::mem::take(&mut message.stat_prefix);
    let mut clusters = Vec::new();
    match message.cluster_specifier.take() {
        Some(ClusterSpecifier::Cluster(name)) => clusters.push((name, 1)),
        Some(ClusterSpecifier::WeightedClusters(weighted)) => {
            for (index, cluster) in weighted.clusters.into_iter().enumerate() {
                if cluster.metadata_match.is_some() || cluster.weight == 0 {
                    return Err(Invalid::new(
                        "",
                        "must have a positive weight and no metadata_match",
                    ))
                    .within_item("weighted_clusters.clusters", index);
                }
                clusters.push((cluster.name, u64::from(cluster.weight)));
            }
        }
        None => {}
    }
    if clusters.is_empty() {
        return Err(Invalid::new("cluster_specifier", "is required"));
    }
    let mut hash_source_ip = false;
    for (index, policy) in std::mem::take(&mut message.hash_policy)
        .into_iter()
        .enumerate()
    {
        match policy.policy_specifier {
            Some(PolicySpecifier::SourceIp(_)) => hash_source_ip = true,
            _ => {
                return Err(Invalid::unsupported("filter_state")).within_item("hash_policy", index);
            }
        }
    }
    let longest = message.max_downstream_connection_duration.take();
    let longest = limit(longest, None).within("max_downstream_connection_duration")?;
    // Where the older fields for the same were moved to.
    let mut options = message.access_log_options.take().unwrap_or_default();
    let interval = options.access_log_flush_interval.take();
    let interval = interval.or_else(|| message.access_log_flush_interval.take());
    let log_interval = limit(interval, None).within("access_log_flush_interval")?;
    if log_interval.is_some_and(|interval| interval < LEAST_LOG_INTERVAL) {
        return Err(Invalid::new(
            "access_log_flush_interval",
            "must be at least 1ms",
        ));
    }
    let log_when_connected = std::mem::take(&mut options.flush_access_log_on_connected)
        || std::mem::take(&mut message.flush_access_log_on_connected);
    refuse_rest(&options).within("access_log_options")?;
    let idle_timeout =
        limit(message.idle_timeout.take(), Some(IDLE_TIMEOUT)).within("idle_timeout")?;
    let access_log = access_log::compile(std::mem::take(&mut message.access_log), context)?;
    let connect_attempts = message
        .max_connect_attempts
        .take()
        .map_or(1, |value| value.value.max(1));
    let tunnel = message
        .tunneling_config
        .take()
        .map(tunnel)
        .transpose()
        .within("tunneling_config")?;
    refuse_rest(&message)?;
    let stats = context.tcp_stats(&stat_prefix);
    Ok(TcpProxy {
        clusters,
        hash_source_ip,
        idle_timeout,
        longest,
        log_interval,
        log_when_connected,
        connect_attempts,
        tunnel,
        access_log,
        stats,
    })
}

/// How tunnels are asked for.
fn tunnel(mut message: TunnelingConfig) -> Result<TunnelSettings, Invalid> {
    let host = std::mem::take(&mut message.hostname);
    not_empty("hostname", &host)?;
    let path = std::mem::take(&mut message.post_path);
    let use_post = std::mem::take(&mut message.use_post);
    if !use_post && !path.is_empty() {
        return Err(Invalid::new("post_path", "is for use_post only"));
    }
    let headers = std::mem::take(&mut message.headers_to_add);
    // Nothing that could look at what the endpoint answers exists here.
    message.propagate_response_headers = false;
    message.propagate_response_trailers = false;
    refuse_rest(&message)?;
    Ok(TunnelSettings {
        host: Template::parse(&host).within("hostname")?,
        post: use_post.then(|| {
            if path.is_empty() {
                "/".to_owned()
            } else {
                path
            }
        }),
        headers: HeaderMutations::compile(("headers_to_add", headers), ("", Vec::new()))?,
    })
}
