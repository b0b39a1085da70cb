//! Clusters and their endpoints at run time. A [`Cluster`] is an immutable snapshot; what must survive a change of
//! configuration (statistics, circuit breakers, active requests of an endpoint) is shared between snapshots.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use lateen_route::balance::Health;
use tokio::sync::Notify;

use crate::balancing::Balancing;
use crate::outlier::{HostOutlier, OutlierConfig, Outliers};
use crate::stats::{ClusterStats, PerWorker, SslStats};
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
    pub(crate) keepalive: Option<socket2::TcpKeepalive>,
    pub(crate) transports: Transports,
    pub(crate) server_name: ServerNameRules,
    pub(crate) hosts: Vec<Arc<Host>>,
    pub(crate) balancing: Balancing,
    /// How endpoints that keep failing are ejected; nothing: they are not.
    pub(crate) outlier: Option<OutlierConfig>,
    pub(crate) limits: Limits,
    /// What the control plane says about it.
    pub(crate) notes: ClusterNotes,
    /// Endpoints are told who this proxy is, on TCP connections that agree on a protocol for it.
    pub(crate) tells_peers: bool,
    pub(crate) shared: Arc<ClusterShared>,
}

/// How endpoints are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Discovery {
    /// Listed in the cluster or by endpoint discovery.
    Listed,
    /// The address that the client wanted to reach.
    OriginalDestination,
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
}

/// Circuit breaker thresholds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) connections: u32,
    pub(crate) pending: u32,
    pub(crate) requests: u32,
    pub(crate) retries: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            pending: 1024,
            requests: 1024,
            retries: 3,
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
    pub(crate) connections: Usage,
    pub(crate) pending: Usage,
    pub(crate) requests: Usage,
    pub(crate) retries: Usage,
    pub(crate) outliers: Outliers,
    pub(crate) ssl: PerWorker<SslStats>,
    /// Signalled when a connection becomes idle or is closed, for those who wait for one.
    pub(crate) released: Notify,
}

impl ClusterShared {
    pub(crate) fn new(workers: usize) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            stats: PerWorker::new(workers),
            connections: Usage::default(),
            pending: Usage::default(),
            requests: Usage::default(),
            retries: Usage::default(),
            outliers: Outliers::new(workers),
            ssl: PerWorker::new(workers),
            released: Notify::new(),
        }
    }
}

/// How much of a limited resource is in use.
#[derive(Debug, Default)]
pub(crate) struct Usage(AtomicU32);

impl Usage {
    pub(crate) fn get(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    fn try_add(&self, limit: u32) -> bool {
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                (used < limit).then_some(used + 1)
            })
            .is_ok()
    }
}

/// A unit of a limited resource, given back when dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    shared: Arc<ClusterShared>,
    usage: fn(&ClusterShared) -> &Usage,
}

impl Permit {
    /// Takes a unit, unless `limit` are in use.
    pub(crate) fn take(
        shared: &Arc<ClusterShared>,
        usage: fn(&ClusterShared) -> &Usage,
        limit: u32,
    ) -> Option<Self> {
        usage(shared).try_add(limit).then(|| Self {
            shared: shared.clone(),
            usage,
        })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        (self.usage)(&self.shared).0.fetch_sub(1, Ordering::Relaxed);
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
    pub(crate) shared: Arc<HostShared>,
}

/// Live numbers of an endpoint.
#[derive(Debug, Default)]
pub(crate) struct HostShared {
    pub(crate) active_requests: AtomicU32,
    pub(crate) total_requests: AtomicU64,
    pub(crate) failed_requests: AtomicU64,
    pub(crate) active_connections: AtomicU32,
    pub(crate) total_connections: AtomicU64,
    pub(crate) failed_connections: AtomicU64,
    pub(crate) outlier: HostOutlier,
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
        host.shared.total_requests.fetch_add(1, Ordering::Relaxed);
        let stats = cluster.stats.here();
        stats.rq_active.inc();
        stats.rq_total.inc();
        Self {
            host: host.clone(),
            cluster: cluster.clone(),
            _permit: permit,
        }
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
    /// Whether outlier detection keeps requests from an endpoint. Marks of an earlier configuration do not count.
    pub(crate) fn is_ejected(&self, host: &Host) -> bool {
        self.outlier.is_some() && host.shared.outlier.is_ejected()
    }

    /// A host for an address that no configuration lists.
    pub(crate) fn original_destination(address: SocketAddr) -> Arc<Host> {
        Arc::new(Host {
            address,
            text: address.to_string(),
            hostname: String::new(),
            health: Health::Healthy,
            weight: 1,
            priority: 0,
            locality: Default::default(),
            workload: None,
            transport_metadata: None,
            shared: Arc::default(),
        })
    }
}
