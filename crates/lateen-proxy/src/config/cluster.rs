//! Clusters.

mod balancing;
mod breakers;
mod connections;
mod discovery;
pub(crate) mod sticky;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use lateen_route::balance::subset::SubsetSettings;
use lateen_route::balance::{Policy, Settings};
use lateen_route::{Invalid, Within, refuse_rest};
use lateen_xds::pb::envoy::config::cluster::v3 as pb;
use lateen_xds::pb::envoy::config::core::v3::TransportSocket;
use lateen_xds::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;

use prost::Message;

use super::context::Context;
use super::endpoint::Assignment;
use super::{outlier, proxy_protocol, telemetry, tls};
use crate::balancing::Balancing;
use crate::cluster::{
    Cluster, ClusterShared, Discovery, Limits, ServerNameRules, UpstreamProtocol,
};
use crate::dns::DnsSettings;
use crate::outlier::OutlierConfig;
use crate::sticky::{Sticky, StickySettings};
use crate::telemetry::peer::ClusterNotes;
use crate::upstream::{Transport, TransportMatch, Transports};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);

/// A cluster without its endpoints.
#[derive(Debug, Clone)]
pub(crate) struct ClusterSpec {
    name: String,
    discovery: Discovery,
    /// Name of the load assignment; nothing when endpoints are not discovered.
    pub(crate) assignment_name: Option<String>,
    /// Endpoints given in the cluster itself.
    pub(crate) inline: Option<ClusterLoadAssignment>,
    /// How the names of the endpoints are resolved; nothing when they have addresses.
    pub(crate) dns: Option<DnsSettings>,
    connect_timeout: Duration,
    protocol: UpstreamProtocol,
    bind: Option<IpAddr>,
    idle_timeout: Option<Duration>,
    max_requests_per_connection: Option<u32>,
    max_connection_duration: Option<Duration>,
    /// Streams on one HTTP/2 connection; nothing: as many as the peer allows.
    max_concurrent_streams: Option<u32>,
    keepalive: Option<socket2::TcpKeepalive>,
    /// Without what the endpoints add to it.
    settings: Settings,
    locality_weighted: bool,
    /// Consistent choices hash the endpoints' host names.
    hash_host_names: bool,
    close_on_change: bool,
    subsets: Option<SubsetSettings>,
    limits: [Limits; 2],
    outlier: Option<OutlierConfig>,
    notes: ClusterNotes,
    tells_peers: bool,
    /// How endpoints are spoken to.
    pub(crate) transports: Transports,
    server_name: ServerNameRules,
    sticky: Option<StickySettings>,
}

impl ClusterSpec {
    /// Compiles the resource.
    pub(crate) fn compile(
        mut message: pb::Cluster,
        context: &Context<'_>,
    ) -> Result<Self, Invalid> {
        // Statistics and other tools only. Buffers of a connection are bounded by the codecs' own limits.
        message.alt_stat_name.clear();
        let notes = ClusterNotes::read(message.metadata.take().as_ref());
        message.track_cluster_stats = None;
        message.per_connection_buffer_limit_bytes = None;
        // A cluster is never used before it knows its endpoints, and nothing waits for it.
        message.wait_for_warm_on_init = None;
        let name = std::mem::take(&mut message.name);
        if name.is_empty() {
            return Err(Invalid::new("name", "is required"));
        }
        let mut spec = Self {
            name,
            discovery: Discovery::Listed,
            assignment_name: None,
            inline: message.load_assignment.take(),
            dns: None,
            connect_timeout: message
                .connect_timeout
                .take()
                .map_or(Ok(CONNECT_TIMEOUT), super::positive)
                .within("connect_timeout")?,
            protocol: UpstreamProtocol::Http1,
            bind: None,
            idle_timeout: Some(IDLE_TIMEOUT),
            max_requests_per_connection: None,
            max_connection_duration: None,
            max_concurrent_streams: None,
            keepalive: None,
            settings: Settings::new(Policy::RoundRobin),
            locality_weighted: false,
            hash_host_names: false,
            close_on_change: false,
            subsets: None,
            limits: [Limits::default(); 2],
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
            sticky: None,
        };
        spec.filters(&mut message)?;
        spec.discovery(&mut message)?;
        spec.balancing(&mut message)?;
        spec.transport(&mut message, context)?;
        spec.connections(&mut message, context)?;
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

    /// The run-time form with these endpoints.
    pub(crate) fn build(&self, mut assignment: Assignment, shared: Arc<ClusterShared>) -> Cluster {
        // Before the balancer looks at endpoints, so that an ejection in between makes it look again.
        let epoch = self.outlier.as_ref().map(|_| shared.outliers.epoch());
        if self.hash_host_names {
            assignment.hash_host_names();
        }
        let settings = Settings {
            overprovisioning: assignment.overprovisioning.unwrap_or(140),
            locality_weights: self
                .locality_weighted
                .then_some(assignment.locality_weights),
            ..self.settings.clone()
        };
        let sticky = match &self.sticky {
            Some(settings) => {
                let members = assignment.members.clone();
                let hosts = &assignment.hosts;
                let table = (self.name.as_str(), &shared.sticky);
                Some(Sticky::new(settings, table, members, hosts, epoch))
            }
            None => {
                shared.sticky.clear();
                None
            }
        };
        Cluster {
            name: self.name.clone(),
            sticky,
            discovery: self.discovery.clone(),
            connect_timeout: self.connect_timeout,
            protocol: self.protocol,
            bind: self.bind,
            idle_timeout: self.idle_timeout,
            max_requests_per_connection: self.max_requests_per_connection,
            max_connection_duration: self.max_connection_duration,
            max_concurrent_streams: self.max_concurrent_streams,
            keepalive: self.keepalive.clone(),
            transports: self.transports.clone(),
            server_name: self.server_name.clone(),
            balancing: Balancing::new(
                settings,
                self.subsets.clone(),
                assignment.members,
                &assignment.hosts,
                epoch,
            ),
            hosts: assignment.hosts,
            drop_percent: assignment.drop_percent,
            close_on_change: self.close_on_change,
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
    let (proxy_protocol, inner) = proxy_protocol::upstream(socket)?;
    let tls = if proxy_protocol.is_some() {
        tls::upstream(inner, context).within("typed_config.transport_socket")?
    } else {
        tls::upstream(inner, context)?
    };
    let plain = tls.is_none() && proxy_protocol.is_none();
    Ok(Transport {
        tls,
        proxy_protocol,
        id: if plain { 0 } else { id },
    })
}
