//! Clusters and their endpoints at run time. A [`Cluster`] is an immutable snapshot; what must survive a change of
//! configuration (statistics, circuit breakers, active requests of an endpoint) is shared between snapshots.

mod breakers;
mod destination;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName};
use lateen_route::balance::Health;
use lateen_route::balance::subset::Labels;
use tokio::sync::Notify;

pub(crate) use breakers::{Breakers, Limited, Limits, Permit, Priority, RetryBudget, Usage};
pub(crate) use destination::Destinations;

use crate::balancing::Balancing;
use crate::outlier::{HostOutlier, OutlierConfig, Outliers};
use crate::stats::{ClusterStats, Codes, PerWorker, SslStats};
use crate::sticky::{Sticky, StickyTable};
use crate::telemetry::peer::{ClusterNotes, Workload};
use crate::upstream::{TransportMetadata, Transports};

/// One state of a cluster.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) name: String,
    pub(crate) discovery: Discovery,
    pub(crate) connect_timeout: Duration,
    pub(crate) protocol: UpstreamProtocol,
    /// Source address of connections.
    pub(crate) bind: Option<IpAddr>,
    /// Idle connections are closed after this time; nothing: never.
    pub(crate) idle_timeout: Option<Duration>,
    /// Requests after which a connection is not used any more; nothing: no limit.
    pub(crate) max_requests_per_connection: Option<u32>,
    /// Age at which a connection takes no more requests; nothing: no limit.
    pub(crate) max_connection_duration: Option<Duration>,
    /// Streams on one HTTP/2 connection; nothing: as many as the peer allows.
    pub(crate) max_concurrent_streams: Option<u32>,
    pub(crate) keepalive: Option<socket2::TcpKeepalive>,
    pub(crate) transports: Transports,
    pub(crate) server_name: ServerNameRules,
    pub(crate) hosts: Vec<Arc<Host>>,
    pub(crate) balancing: Balancing,
    /// Sessions that keep keys on their endpoints; nothing: there are none.
    pub(crate) sticky: Option<Sticky>,
    /// Percent of the requests that are refused to shed load.
    pub(crate) drop_percent: f64,
    /// Idle connections are closed whenever endpoints come or go.
    pub(crate) close_on_change: bool,
    /// How endpoints that keep failing are ejected; nothing: they are not.
    pub(crate) outlier: Option<OutlierConfig>,
    /// Of default and of high priority.
    pub(crate) limits: [Limits; 2],
    /// What the control plane says about it.
    pub(crate) notes: ClusterNotes,
    /// Endpoints are told who this proxy is, on TCP connections that agree on a protocol for it.
    pub(crate) tells_peers: bool,
    pub(crate) shared: Arc<ClusterShared>,
}

/// How endpoints are found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Discovery {
    /// Listed in the cluster, by endpoint discovery, or by names that are resolved.
    Listed,
    /// The address that the client wanted to reach.
    OriginalDestination(OriginalDestination),
}

/// How the address that the client wanted is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OriginalDestination {
    /// A header of the request that names another address.
    pub(crate) header: Option<HeaderName>,
    /// The port that is used in place of the one that the client wanted.
    pub(crate) port: Option<u16>,
    /// How long an endpoint is remembered that nothing is sent to.
    pub(crate) cleanup: Duration,
}

/// What a request says about the TLS server name of its connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ServerNameRules {
    /// The host of the request is asked for.
    pub(crate) of_request: bool,
    /// The certificate must be for the host of the request.
    pub(crate) check: bool,
    /// The host is taken from this header, where it is there.
    pub(crate) header: Option<String>,
}

/// Which HTTP version is spoken to endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UpstreamProtocol {
    Http1,
    Http2,
    /// The version of the request.
    Downstream,
    /// The one that is agreed on in the handshake.
    Negotiated,
}

/// Which HTTP version a request is sent in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UpstreamVersion {
    Http1,
    Http2,
    /// What the connection speaks.
    Negotiated,
}

impl UpstreamProtocol {
    /// The version for a request that came in HTTP/2, or not.
    pub(crate) fn version(self, http2: bool) -> UpstreamVersion {
        match self {
            Self::Downstream if http2 => UpstreamVersion::Http2,
            Self::Http1 | Self::Downstream => UpstreamVersion::Http1,
            Self::Http2 => UpstreamVersion::Http2,
            Self::Negotiated => UpstreamVersion::Negotiated,
        }
    }
}

/// What survives changes of a cluster: one per name. Counted for the process, not per worker, so that a limit means
/// what it says.
#[derive(Debug)]
pub(crate) struct ClusterShared {
    /// Unique in the process.
    pub(crate) id: u64,
    pub(crate) stats: PerWorker<ClusterStats>,
    pub(crate) codes: PerWorker<Codes>,
    /// What is in use with default and with high priority.
    pub(crate) used: [Breakers; 2],
    pub(crate) outliers: Outliers,
    pub(crate) ssl: PerWorker<SslStats>,
    /// Endpoints that clients wanted to reach.
    pub(crate) destinations: Destinations,
    /// Sessions of keys with endpoints.
    pub(crate) sticky: StickyTable,
    /// Signalled when a connection becomes idle or is closed, for those who wait for one.
    pub(crate) released: Notify,
}

impl ClusterShared {
    pub(crate) fn new(workers: usize) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            stats: PerWorker::new(workers),
            codes: PerWorker::new(workers),
            used: Default::default(),
            outliers: Outliers::new(workers),
            ssl: PerWorker::new(workers),
            destinations: Destinations::default(),
            sticky: StickyTable::default(),
            released: Notify::new(),
        }
    }

    /// Requests that wait for a connection, of either priority.
    pub(crate) fn waiting(&self) -> u32 {
        self.used.iter().map(|used| used.pending.get()).sum()
    }
}

/// An endpoint. Kept over changes of its cluster as long as its address stays.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) address: SocketAddr,
    /// `ip:port`, for hashing and logs.
    pub(crate) text: String,
    /// Host name, if the configuration gives one.
    pub(crate) hostname: String,
    pub(crate) health: Health,
    pub(crate) weight: u32,
    pub(crate) priority: u32,
    /// Region, zone and sub-zone, for display.
    pub(crate) locality: [String; 3],
    /// The workload behind it, if discovery says so.
    pub(crate) workload: Option<Arc<Workload>>,
    /// Values that choose the transport.
    pub(crate) transport_metadata: TransportMetadata,
    /// Metadata by which subsets are made.
    pub(crate) labels: Labels,
    /// Marked as a canary.
    pub(crate) canary: bool,
    pub(crate) shared: Arc<HostShared>,
}

impl Host {
    /// An endpoint of which nothing but its address is known.
    pub(crate) fn at(address: SocketAddr) -> Self {
        Self {
            address,
            text: address.to_string(),
            hostname: String::new(),
            health: Health::Healthy,
            weight: 1,
            priority: 0,
            locality: Default::default(),
            workload: None,
            transport_metadata: None,
            labels: Default::default(),
            canary: false,
            shared: Arc::default(),
        }
    }
}

/// Live numbers of an endpoint.
#[derive(Debug)]
pub(crate) struct HostShared {
    /// When the endpoint came, for slow start.
    pub(crate) added: Instant,
    /// Connections that are open or being opened, by priority.
    pub(crate) connections: [Usage; 2],
    pub(crate) active_requests: AtomicU32,
    pub(crate) total_requests: AtomicU64,
    pub(crate) failed_requests: AtomicU64,
    pub(crate) active_connections: AtomicU32,
    pub(crate) total_connections: AtomicU64,
    pub(crate) failed_connections: AtomicU64,
    pub(crate) outlier: HostOutlier,
}

impl Default for HostShared {
    fn default() -> Self {
        Self {
            added: Instant::now(),
            connections: Default::default(),
            active_requests: Default::default(),
            total_requests: Default::default(),
            failed_requests: Default::default(),
            active_connections: Default::default(),
            total_connections: Default::default(),
            failed_connections: Default::default(),
            outlier: HostOutlier::default(),
        }
    }
}

/// An active request of an endpoint, counted until dropped.
#[derive(Debug)]
pub(crate) struct ActiveRequest {
    host: Arc<Host>,
    cluster: Arc<ClusterShared>,
    _permit: Permit,
}

impl ActiveRequest {
    pub(crate) fn start(host: &Arc<Host>, cluster: &Arc<ClusterShared>, permit: Permit) -> Self {
        host.shared.active_requests.fetch_add(1, Ordering::Relaxed);
        cluster.stats.here().rq_active.inc();
        Self {
            host: host.clone(),
            cluster: cluster.clone(),
            _permit: permit,
        }
    }
}

impl Host {
    /// Counts a request that has got a connection.
    pub(crate) fn count_request(&self, cluster: &ClusterShared) {
        self.shared.total_requests.fetch_add(1, Ordering::Relaxed);
        cluster.stats.here().rq_total.inc();
    }
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        self.host
            .shared
            .active_requests
            .fetch_sub(1, Ordering::Relaxed);
        self.cluster.stats.here().rq_active.dec();
    }
}

impl Cluster {
    /// Counts a response, of an endpoint or in its place.
    pub(crate) fn count_response(&self, status: u16) {
        self.shared.stats.here().response(status);
        self.shared.codes.here().inc(status);
    }

    /// Whether outlier detection keeps requests from an endpoint. Marks of an earlier configuration do not count.
    pub(crate) fn is_ejected(&self, host: &Host) -> bool {
        self.outlier.is_some() && host.shared.outlier.is_ejected()
    }

    /// Endpoints as they are known at present.
    pub(crate) fn known_hosts(&self) -> Vec<Arc<Host>> {
        match self.discovery {
            Discovery::Listed => self.hosts.clone(),
            Discovery::OriginalDestination(_) => self.shared.destinations.hosts(),
        }
    }

    /// Whether this request is among those that are refused to shed load.
    pub(crate) fn drops(&self) -> bool {
        self.drop_percent > 0.0 && fastrand::f64() * 100.0 < self.drop_percent
    }

    /// Where the client wanted to go. `restored` is the address that its connection was made to, if it was redirected
    /// here; `headers` those of the request.
    pub(crate) fn original_destination(
        &self,
        settings: &OriginalDestination,
        restored: Option<SocketAddr>,
        headers: Option<&HeaderMap>,
    ) -> Option<Arc<Host>> {
        let asked = settings.header.as_ref().zip(headers);
        let asked =
            asked.and_then(|(name, headers)| headers.get(name)?.to_str().ok()?.parse().ok());
        let mut address = asked.or(restored)?;
        if let Some(port) = settings.port {
            address.set_port(port);
        }
        Some(self.shared.destinations.host(address, settings.cleanup))
    }
}
