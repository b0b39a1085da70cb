//! How the endpoints of a cluster are found.

use std::net::SocketAddr;
use std::time::Duration;

use lateen_route::{Invalid, Within, refuse_rest};
use lateen_xds::pb::envoy::config::cluster::v3 as pb;
use lateen_xds::pb::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, DiscoveryType, DnsLookupFamily, LbConfig, OriginalDstLbConfig,
};
use lateen_xds::pb::envoy::config::core::v3::{Address, DnsResolverOptions, TypedExtensionConfig};
use lateen_xds::pb::envoy::extensions::network::dns_resolver::cares::v3::CaresDnsResolverConfig;
use lateen_xds::pb::google::protobuf;

use super::ClusterSpec;
use crate::cluster::{Discovery, OriginalDestination};
use crate::config::{aggregated, decode, duration, positive, socket_address};
use crate::dns::{DnsSettings, Family, ResolverSettings};

const CARES: &str =
    "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig";
const CLEANUP_INTERVAL: Duration = Duration::from_secs(5);
const REFRESH: Duration = Duration::from_secs(5);
const ORIGINAL_DESTINATION_HEADER: &str = "x-envoy-original-dst-host";

impl ClusterSpec {
    pub(super) fn discovery(&mut self, message: &mut pb::Cluster) -> Result<(), Invalid> {
        let kind = match message.cluster_discovery_type.take() {
            Some(ClusterDiscoveryType::Type(kind)) => DiscoveryType::try_from(kind).ok(),
            None => Some(DiscoveryType::Static),
            Some(ClusterDiscoveryType::ClusterType(_)) => None,
        };
        let cleanup = message.cleanup_interval.take().map(positive).transpose();
        let cleanup = cleanup.within("cleanup_interval")?;
        // Checked whatever the kind, but of use only to clusters that resolve names.
        let dns = dns(message)?;
        match kind {
            Some(DiscoveryType::Static) => {
                if self.inline.is_none() {
                    self.inline = Some(Default::default());
                }
            }
            Some(DiscoveryType::Eds) => {
                let eds = message
                    .eds_cluster_config
                    .take()
                    .ok_or_else(|| Invalid::new("eds_cluster_config", "is required"))?;
                aggregated(eds.eds_config).within("eds_cluster_config.eds_config")?;
                let name = if eds.service_name.is_empty() {
                    self.name.clone()
                } else {
                    eds.service_name
                };
                self.assignment_name = Some(name);
                if self.inline.is_some() {
                    return Err(Invalid::new("load_assignment", "must not be set with EDS"));
                }
            }
            Some(DiscoveryType::StrictDns) => self.dns = Some(dns),
            Some(DiscoveryType::LogicalDns) => {
                self.dns = Some(DnsSettings {
                    logical: true,
                    ..dns
                });
                let assignment = self.inline.iter().flat_map(|inline| &inline.endpoints);
                let endpoints: usize = assignment.map(|group| group.lb_endpoints.len()).sum();
                if endpoints != 1 {
                    return Err(Invalid::new(
                        "load_assignment",
                        "must have exactly one endpoint for LOGICAL_DNS",
                    ));
                }
            }
            Some(DiscoveryType::OriginalDst) => {
                if self.inline.is_some() {
                    return Err(Invalid::new(
                        "load_assignment",
                        "must not be set with ORIGINAL_DST",
                    ));
                }
                let config = match message.lb_config.take() {
                    None => OriginalDstLbConfig::default(),
                    Some(LbConfig::OriginalDstLbConfig(config)) => config,
                    Some(_) => return Err(Invalid::unsupported("lb_config")),
                };
                let config = original_destination(config, cleanup.unwrap_or(CLEANUP_INTERVAL));
                self.discovery =
                    Discovery::OriginalDestination(config.within("original_dst_lb_config")?);
            }
            None => return Err(Invalid::unsupported("type")),
        }
        Ok(())
    }
}

fn original_destination(
    mut config: OriginalDstLbConfig,
    cleanup: Duration,
) -> Result<OriginalDestination, Invalid> {
    let by_header = std::mem::take(&mut config.use_http_header);
    let name = std::mem::take(&mut config.http_header_name);
    let name = if name.is_empty() {
        ORIGINAL_DESTINATION_HEADER.to_owned()
    } else {
        name
    };
    let header = name
        .parse()
        .map_err(|_| Invalid::new("http_header_name", "is not a valid header name"))?;
    let port = match config.upstream_port_override.take() {
        None => None,
        Some(port) => Some(
            u16::try_from(port.value)
                .map_err(|_| Invalid::new("upstream_port_override", "must be at most 65535"))?,
        ),
    };
    refuse_rest(&config)?;
    Ok(OriginalDestination {
        header: by_header.then_some(header),
        port,
        cleanup,
    })
}

/// Everything about names. Defaults are those of Envoy's `Cluster`.
fn dns(message: &mut pb::Cluster) -> Result<DnsSettings, Invalid> {
    let time =
        |value: Option<protobuf::Duration>, field| value.map(positive).transpose().within(field);
    let refresh = time(message.dns_refresh_rate.take(), "dns_refresh_rate")?.unwrap_or(REFRESH);
    let mut failure = (refresh, refresh.saturating_mul(10));
    if let Some(rate) = message.dns_failure_refresh_rate.take() {
        let base = time(rate.base_interval, "dns_failure_refresh_rate.base_interval")?;
        let Some(base) = base else {
            return Err(Invalid::new(
                "dns_failure_refresh_rate.base_interval",
                "is required",
            ));
        };
        let longest = time(rate.max_interval, "dns_failure_refresh_rate.max_interval")?;
        failure = (base, longest.unwrap_or_else(|| base.saturating_mul(10)));
        if failure.1 < failure.0 {
            return Err(Invalid::new(
                "dns_failure_refresh_rate.max_interval",
                "must be at least base_interval",
            ));
        }
    }
    let family = match DnsLookupFamily::try_from(std::mem::take(&mut message.dns_lookup_family)) {
        Ok(DnsLookupFamily::Auto) => Family::Auto,
        Ok(DnsLookupFamily::V4Only) => Family::V4Only,
        Ok(DnsLookupFamily::V6Only) => Family::V6Only,
        Ok(DnsLookupFamily::V4Preferred) => Family::V4Preferred,
        Ok(DnsLookupFamily::All) => Family::All,
        Err(_) => return Err(Invalid::new("dns_lookup_family", "is not a known family")),
    };
    Ok(DnsSettings {
        logical: false,
        refresh,
        failure,
        jitter: message
            .dns_jitter
            .take()
            .map_or(Ok(Duration::ZERO), duration)
            .within("dns_jitter")?,
        respect_ttl: std::mem::take(&mut message.respect_dns_ttl),
        family,
        resolver: resolver(message)?,
    })
}

/// Which servers are asked: the typed configuration wins over the older fields, as in Envoy.
fn resolver(message: &mut pb::Cluster) -> Result<ResolverSettings, Invalid> {
    let mut settings = ResolverSettings {
        tcp: std::mem::take(&mut message.use_tcp_for_dns_lookups),
        ..ResolverSettings::default()
    };
    let old = std::mem::take(&mut message.dns_resolvers);
    settings.servers = servers(old).within("dns_resolvers")?;
    if let Some(config) = message.dns_resolution_config.take() {
        settings.servers = servers(config.resolvers).within("dns_resolution_config.resolvers")?;
        settings.apply(config.dns_resolver_options);
    }
    if let Some(typed) = message.typed_dns_resolver_config.take() {
        settings = cares(typed).within("typed_dns_resolver_config.typed_config")?;
    }
    Ok(settings)
}

fn cares(typed: TypedExtensionConfig) -> Result<ResolverSettings, Invalid> {
    let Some(any) = typed.typed_config else {
        return Err(Invalid::new("", "is required"));
    };
    if any.type_url != CARES {
        return Err(Invalid::unsupported(""));
    }
    let mut config = decode::<CaresDnsResolverConfig>(&any)?;
    // Every query has a socket of its own, so none is used for long and none has to be reopened.
    config.udp_max_queries = None;
    config.max_udp_channel_duration = None;
    config.reinit_channel_on_timeout = false;
    // Answers are not kept between queries.
    config.qcache_max_ttl = None;
    let mut settings = ResolverSettings {
        servers: servers(std::mem::take(&mut config.resolvers)).within("resolvers")?,
        only_without_system: std::mem::take(&mut config.use_resolvers_as_fallback),
        ..ResolverSettings::default()
    };
    settings.apply(config.dns_resolver_options.take());
    if let Some(seconds) = config.query_timeout_seconds.take() {
        settings.timeout = Some(Duration::from_secs(seconds.value.max(1)));
    }
    if let Some(tries) = config.query_tries.take() {
        settings.tries = Some(tries.value.max(1));
    }
    refuse_rest(&config)?;
    Ok(settings)
}

impl ResolverSettings {
    fn apply(&mut self, options: Option<DnsResolverOptions>) {
        if let Some(options) = options {
            self.tcp |= options.use_tcp_for_dns_lookups;
            self.no_search = options.no_default_search_domain;
        }
    }
}

fn servers(addresses: Vec<Address>) -> Result<Vec<SocketAddr>, Invalid> {
    let server = |address| {
        let mut address = socket_address(Some(address))?;
        if address.port() == 0 {
            address.set_port(53);
        }
        Ok(address)
    };
    addresses.into_iter().map(server).collect()
}
