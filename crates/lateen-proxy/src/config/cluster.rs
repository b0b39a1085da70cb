//! Clusters.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use lateen_route::balance::{Policy, Settings};
use lateen_route::{Invalid, Within, refuse_rest};
use lateen_xds::pb::envoy::config::cluster::v3 as pb;
use lateen_xds::pb::envoy::config::cluster::v3::cluster::common_lb_config::LocalityConfigSpecifier;
use lateen_xds::pb::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, DiscoveryType, LbConfig, LbPolicy,
};
use lateen_xds::pb::envoy::config::core::v3::{
    HttpProtocolOptions as Common, RoutingPriority, TransportSocket,
};
use lateen_xds::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use lateen_xds::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::UpstreamProtocolOptions;
use lateen_xds::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::explicit_http_config::ProtocolConfig;
use lateen_xds::pb::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;

use prost::Message;

use super::endpoint::Assignment;
use super::store::Context;
use super::{aggregated, decode, duration, ip_and_port, limit, outlier, telemetry, tls};
use crate::balancing::Balancing;
use crate::cluster::{
    Cluster, ClusterShared, Discovery, Limits, ServerNameRules, UpstreamProtocol,
};
use crate::outlier::OutlierConfig;
use crate::telemetry::peer::ClusterNotes;
use crate::upstream::{Transport, TransportMatch, Transports};

const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);
const LARGEST_RING: u64 = 8 << 20;

/// A cluster without its endpoints.
#[derive(Debug, Clone)]
pub(crate) struct ClusterSpec {
    name: String,
    discovery: Discovery,
    /// Name of the load assignment; nothing when endpoints are not discovered.
    pub(crate) assignment_name: Option<String>,
    /// Endpoints given in the cluster itself.
    pub(crate) inline: Option<ClusterLoadAssignment>,
    connect_timeout: Duration,
    protocol: UpstreamProtocol,
    bind: Option<IpAddr>,
    idle_timeout: Option<Duration>,
    max_requests_per_connection: Option<u32>,
    keepalive: Option<socket2::TcpKeepalive>,
    policy: Policy,
    panic_threshold: u32,
    locality_weighted: bool,
    limits: Limits,
    outlier: Option<OutlierConfig>,
    notes: ClusterNotes,
    tells_peers: bool,
    /// How endpoints are spoken to.
    pub(crate) transports: Transports,
    server_name: ServerNameRules,
}

impl ClusterSpec {
    /// Compiles the resource.
    pub(crate) fn compile(
        mut message: pb::Cluster,
        context: &Context<'_>,
    ) -> Result<Self, Invalid> {
        // Statistics and other tools only. The DNS options and clean-up intervals concern kinds of clusters whose
        // resolution or host list does not exist here.
        message.alt_stat_name.clear();
        let notes = ClusterNotes::read(message.metadata.take().as_ref());
        message.track_cluster_stats = None;
        message.cleanup_interval = None;
        message.wait_for_warm_on_init = None;
        message.dns_lookup_family = 0;
        let name = std::mem::take(&mut message.name);
        if name.is_empty() {
            return Err(Invalid::new("name", "is required"));
        }
        let mut spec = Self {
            name,
            discovery: Discovery::Listed,
            assignment_name: None,
            inline: message.load_assignment.take(),
            connect_timeout: message
                .connect_timeout
                .take()
                .map_or(Ok(CONNECT_TIMEOUT), duration)
                .within("connect_timeout")?,
            protocol: UpstreamProtocol::Http1,
            bind: None,
            idle_timeout: Some(IDLE_TIMEOUT),
            max_requests_per_connection: None,
            keepalive: None,
            policy: Policy::RoundRobin,
            panic_threshold: 50,
            locality_weighted: false,
            limits: Limits::default(),
            outlier: message
                .outlier_detection
                .take()
                .map(outlier::compile)
                .transpose()
                .within("outlier_detection")?,
            notes,
            tells_peers: false,
            transports: Transports::default(),
            server_name: ServerNameRules::default(),
        };
        spec.filters(&mut message)?;
        spec.discovery(&mut message)?;
        spec.balancing(&mut message)?;
        spec.transport(&mut message, context)?;
        spec.connections(&mut message)?;
        refuse_rest(&message)?;
        Ok(spec)
    }

    /// The only filter of connections to endpoints is the exchange of metadata.
    fn filters(&mut self, message: &mut pb::Cluster) -> Result<(), Invalid> {
        for (index, filter) in std::mem::take(&mut message.filters).into_iter().enumerate() {
            let any = filter.typed_config.unwrap_or_default();
            if filter.config_discovery.is_some() || !telemetry::is_exchange(&any)? {
                return Err(Invalid::new(
                    "typed_config",
                    format!("filter `{}` is not supported by this proxy", any.type_url),
                ))
                .within_item("filters", index);
            }
            self.tells_peers = true;
        }
        Ok(())
    }

    fn discovery(&mut self, message: &mut pb::Cluster) -> Result<(), Invalid> {
        let kind = match message.cluster_discovery_type.take() {
            Some(ClusterDiscoveryType::Type(kind)) => DiscoveryType::try_from(kind).ok(),
            None => Some(DiscoveryType::Static),
            Some(ClusterDiscoveryType::ClusterType(_)) => None,
        };
        match kind {
            Some(DiscoveryType::Static) => {}
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
            Some(DiscoveryType::OriginalDst) => self.discovery = Discovery::OriginalDestination,
            _ => return Err(Invalid::unsupported("type")),
        }
        Ok(())
    }

    fn balancing(&mut self, message: &mut pb::Cluster) -> Result<(), Invalid> {
        let config = message.lb_config.take();
        let policy = LbPolicy::try_from(std::mem::take(&mut message.lb_policy));
        self.policy = match (policy, config) {
            (Ok(LbPolicy::RoundRobin), None) => Policy::RoundRobin,
            (Ok(LbPolicy::RoundRobin), Some(LbConfig::RoundRobinLbConfig(config))) => {
                refuse_rest(&config).within("round_robin_lb_config")?;
                Policy::RoundRobin
            }
            (Ok(LbPolicy::Random), None) => Policy::Random,
            (Ok(LbPolicy::LeastRequest), None) => Policy::LeastRequest { choices: 2 },
            (Ok(LbPolicy::LeastRequest), Some(LbConfig::LeastRequestLbConfig(mut config))) => {
                let choices = config.choice_count.take().map_or(2, |value| value.value);
                refuse_rest(&config).within("least_request_lb_config")?;
                Policy::LeastRequest { choices }
            }
            (Ok(LbPolicy::RingHash), None) => Policy::RingHash {
                minimum: 1024,
                maximum: LARGEST_RING,
            },
            (Ok(LbPolicy::RingHash), Some(LbConfig::RingHashLbConfig(mut config))) => {
                let minimum = config
                    .minimum_ring_size
                    .take()
                    .map_or(1024, |value| value.value);
                let maximum = config
                    .maximum_ring_size
                    .take()
                    .map_or(LARGEST_RING, |v| v.value);
                refuse_rest(&config).within("ring_hash_lb_config")?;
                if minimum > maximum || maximum > LARGEST_RING {
                    return Err(Invalid::new(
                        "ring_hash_lb_config.minimum_ring_size",
                        format!(
                            "{minimum} must be at most the maximum, {maximum} (at most 8388608)"
                        ),
                    ));
                }
                Policy::RingHash { minimum, maximum }
            }
            (Ok(LbPolicy::Maglev), None) => Policy::Maglev { size: 65_537 },
            (Ok(LbPolicy::Maglev), Some(LbConfig::MaglevLbConfig(config))) => {
                let size = config.table_size.map_or(65_537, |value| value.value);
                if !is_prime(size) || size > 5_000_011 {
                    return Err(Invalid::new(
                        "maglev_lb_config.table_size",
                        "must be a prime of at most 5000011",
                    ));
                }
                Policy::Maglev { size }
            }
            (Ok(LbPolicy::ClusterProvided), None)
                if self.discovery == Discovery::OriginalDestination =>
            {
                Policy::Random
            }
            _ => return Err(Invalid::unsupported("lb_policy")),
        };
        if self.discovery == Discovery::OriginalDestination
            && !matches!(policy, Ok(LbPolicy::ClusterProvided))
        {
            return Err(Invalid::new(
                "lb_policy",
                "must be CLUSTER_PROVIDED for ORIGINAL_DST",
            ));
        }
        if let Some(mut common) = message.common_lb_config.take() {
            // Updates are applied at once; merging them would only delay.
            common.update_merge_window = None;
            if let Some(percent) = common.healthy_panic_threshold.take() {
                // Percentages are whole numbers in the computation of panic.
                self.panic_threshold = percent.value.clamp(0.0, 100.0) as u32;
            }
            match common.locality_config_specifier.take() {
                None => {}
                Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(_)) => {
                    self.locality_weighted = true;
                }
                Some(LocalityConfigSpecifier::ZoneAwareLbConfig(_)) => {
                    return Err(Invalid::unsupported(
                        "common_lb_config.zone_aware_lb_config",
                    ));
                }
            }
            refuse_rest(&common).within("common_lb_config")?;
        }
        Ok(())
    }

    fn transport(
        &mut self,
        message: &mut pb::Cluster,
        context: &Context<'_>,
    ) -> Result<(), Invalid> {
        self.transports.other =
            transport(message.transport_socket.take(), context).within("transport_socket")?;
        let matches = std::mem::take(&mut message.transport_socket_matches);
        for (index, mut item) in matches.into_iter().enumerate() {
            // For people only.
            item.name.clear();
            let criteria = item.r#match.take().unwrap_or_default();
            let found = transport(item.transport_socket.take(), context)
                .within("transport_socket")
                .within_item("transport_socket_matches", index)?;
            refuse_rest(&item).within_item("transport_socket_matches", index)?;
            self.transports.matches.push(TransportMatch {
                criteria: criteria.fields.into_iter().collect(),
                transport: found,
            });
        }
        Ok(())
    }

    fn connections(&mut self, message: &mut pb::Cluster) -> Result<(), Invalid> {
        if let Some(mut bind) = message.upstream_bind_config.take() {
            let source = bind.source_address.take().ok_or_else(|| {
                Invalid::new("upstream_bind_config.source_address", "is required")
            })?;
            let address = ip_and_port(source).within("upstream_bind_config.source_address")?;
            if address.port() != 0 {
                return Err(Invalid::unsupported(
                    "upstream_bind_config.source_address.port_value",
                ));
            }
            self.bind = Some(address.ip());
            // Further addresses are for the other family; connections use the address that fits or none.
            bind.additional_source_addresses.clear();
            bind.extra_source_addresses.clear();
            refuse_rest(&bind).within("upstream_bind_config")?;
        }
        if let Some(mut options) = message.upstream_connection_options.take() {
            self.keepalive = options.tcp_keepalive.take().map(|alive| {
                let seconds = |value: Option<lateen_xds::pb::google::protobuf::UInt32Value>| {
                    value.map(|value| Duration::from_secs(value.value.max(1).into()))
                };
                let mut keepalive = socket2::TcpKeepalive::new();
                if let Some(time) = seconds(alive.keepalive_time) {
                    keepalive = keepalive.with_time(time);
                }
                if let Some(interval) = seconds(alive.keepalive_interval) {
                    keepalive = keepalive.with_interval(interval);
                }
                match alive.keepalive_probes {
                    Some(probes) => keepalive.with_retries(probes.value.max(1)),
                    None => keepalive,
                }
            });
            refuse_rest(&options).within("upstream_connection_options")?;
        }
        if let Some(breakers) = message.circuit_breakers.take() {
            self.circuit_breakers(breakers).within("circuit_breakers")?;
        }
        if let Some(value) = message.max_requests_per_connection.take() {
            self.max_requests_per_connection = Some(value.value).filter(|value| *value > 0);
        }
        if message.http2_protocol_options.take().is_some() {
            self.protocol = UpstreamProtocol::Http2;
        }
        if let Some(common) = message.common_http_protocol_options.take() {
            self.common(common).within("common_http_protocol_options")?;
        }
        for (name, any) in std::mem::take(&mut message.typed_extension_protocol_options) {
            let path = format!("typed_extension_protocol_options[{name}]");
            if name != HTTP_OPTIONS {
                return Err(Invalid::unsupported(path));
            }
            let options = decode::<HttpProtocolOptions>(&any).within(&path)?;
            self.http_options(options).within(&path)?;
        }
        Ok(())
    }

    fn http_options(&mut self, mut options: HttpProtocolOptions) -> Result<(), Invalid> {
        if let Some(common) = options.common_http_protocol_options.take() {
            self.common(common).within("common_http_protocol_options")?;
        }
        if let Some(mut names) = options.upstream_http_protocol_options.take() {
            self.server_name = ServerNameRules {
                of_request: std::mem::take(&mut names.auto_sni),
                check: std::mem::take(&mut names.auto_san_validation),
                header: Some(std::mem::take(&mut names.override_auto_sni_header))
                    .filter(|name| !name.is_empty()),
            };
            refuse_rest(&names).within("upstream_http_protocol_options")?;
        }
        self.protocol = match options.upstream_protocol_options.take() {
            None => UpstreamProtocol::Http1,
            Some(UpstreamProtocolOptions::ExplicitHttpConfig(config)) => {
                match config.protocol_config {
                    Some(ProtocolConfig::HttpProtocolOptions(_)) | None => UpstreamProtocol::Http1,
                    Some(ProtocolConfig::Http2ProtocolOptions(_)) => UpstreamProtocol::Http2,
                    Some(ProtocolConfig::Http3ProtocolOptions(_)) => {
                        return Err(Invalid::unsupported(
                            "explicit_http_config.http3_protocol_options",
                        ));
                    }
                }
            }
            Some(UpstreamProtocolOptions::UseDownstreamProtocolConfig(_)) => {
                UpstreamProtocol::Downstream
            }
            Some(UpstreamProtocolOptions::AutoConfig(_)) => {
                return Err(Invalid::unsupported("auto_config"));
            }
        };
        refuse_rest(&options)
    }

    fn common(&mut self, mut common: Common) -> Result<(), Invalid> {
        self.idle_timeout =
            limit(common.idle_timeout.take(), self.idle_timeout).within("idle_timeout")?;
        if let Some(value) = common.max_requests_per_connection.take() {
            self.max_requests_per_connection = Some(value.value).filter(|value| *value > 0);
        }
        refuse_rest(&common)
    }

    fn circuit_breakers(&mut self, mut breakers: pb::CircuitBreakers) -> Result<(), Invalid> {
        for (index, mut item) in std::mem::take(&mut breakers.thresholds)
            .into_iter()
            .enumerate()
        {
            let priority = std::mem::take(&mut item.priority);
            // Adds statistics, which cost nothing here and are always there.
            item.track_remaining = false;
            let value = |value: Option<lateen_xds::pb::google::protobuf::UInt32Value>, default| {
                value.map_or(default, |value| value.value)
            };
            let default = Limits::default();
            let limits = Limits {
                connections: value(item.max_connections.take(), default.connections),
                pending: value(item.max_pending_requests.take(), default.pending),
                requests: value(item.max_requests.take(), default.requests),
                retries: value(item.max_retries.take(), default.retries),
            };
            refuse_rest(&item).within_item("thresholds", index)?;
            // High priority has no routes here, so its thresholds can never be reached.
            if priority == i32::from(RoutingPriority::Default) {
                self.limits = limits;
            }
        }
        refuse_rest(&breakers)
    }

    /// The run-time form with these endpoints.
    pub(crate) fn build(&self, assignment: Assignment, shared: Arc<ClusterShared>) -> Cluster {
        // Before the balancer looks at endpoints, so that an ejection in between makes it look again.
        let epoch = self.outlier.as_ref().map(|_| shared.outliers.epoch());
        let settings = Settings {
            policy: self.policy,
            overprovisioning: assignment.overprovisioning.unwrap_or(140),
            panic_threshold: self.panic_threshold,
            locality_weights: self
                .locality_weighted
                .then_some(assignment.locality_weights),
        };
        Cluster {
            name: self.name.clone(),
            discovery: self.discovery,
            connect_timeout: self.connect_timeout,
            protocol: self.protocol,
            bind: self.bind,
            idle_timeout: self.idle_timeout,
            max_requests_per_connection: self.max_requests_per_connection,
            keepalive: self.keepalive.clone(),
            transports: self.transports.clone(),
            server_name: self.server_name.clone(),
            balancing: Balancing::new(settings, assignment.members, &assignment.hosts, epoch),
            hosts: assignment.hosts,
            outlier: self.outlier.clone(),
            limits: self.limits,
            notes: self.notes.clone(),
            tells_peers: self.tells_peers,
            shared,
        }
    }
}

fn transport(socket: Option<TransportSocket>, context: &Context<'_>) -> Result<Transport, Invalid> {
    let id = match &socket {
        Some(socket) => lateen_route::hash::xx64(&socket.encode_to_vec(), 0),
        None => 0,
    };
    let tls = tls::upstream(socket, context)?;
    let id = if tls.is_some() { id } else { 0 };
    Ok(Transport { tls, id })
}

fn is_prime(number: u64) -> bool {
    number > 1
        && (2..)
            .take_while(|divisor| divisor * divisor <= number)
            .all(|d| !number.is_multiple_of(d))
}
