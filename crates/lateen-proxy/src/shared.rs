//! What the control side and the workers share.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::{ArcSwap, ArcSwapOption};
use foldhash::fast::RandomState;
use lateen_route::RouteTable;
use lateen_xds::ResourceType;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, watch};

use crate::access_log::LogFiles;
use crate::cluster::{Cluster, ClusterShared};
use crate::config::store::dump::Dump;
use crate::listener::ListenerSlot;
use crate::secret::Secrets;
use crate::stats::{HttpStats, ListenerStats, PerWorker, ProxyProtocolStats, SslStats, TcpStats};
use crate::telemetry::peer::Identity;
use crate::telemetry::series::Registry;
use crate::worker::Command;

/// Longest wait for workers, which take microseconds unless the machine is overloaded.
const MOST_WAIT: Duration = Duration::from_secs(1);

/// Clusters by name.
pub(crate) type Clusters = HashMap<String, Arc<Cluster>, RandomState>;

/// Things that are made when their name is first asked for.
pub(crate) type Named<T> = Mutex<HashMap<String, Arc<T>>>;

/// State that is swapped in place while requests run.
pub(crate) struct Shared {
    pub(crate) clusters: ArcSwap<Clusters>,
    pub(crate) listeners: ArcSwap<ListenerSet>,
    pub(crate) names: Names,
    pub(crate) secrets: Secrets,
    pub(crate) workers: Vec<mpsc::UnboundedSender<Command>>,
    pub(crate) dump: Mutex<Dump>,
    pub(crate) updates: Updates,
    /// Told of work that is no request and takes memory for a while: new configuration, large dumps.
    pub(crate) worked: Notify,
    /// Becomes true when the first complete configuration is in effect, and stays so.
    pub(crate) live: AtomicBool,
    /// Becomes true when the process drains.
    pub(crate) draining: watch::Sender<bool>,
    /// Whom clients are asked to leave before listeners stop.
    pub(crate) leaving: watch::Sender<Leaving>,
    /// How long they are given.
    pub(crate) drain_time: Duration,
    /// Open downstream connections.
    pub(crate) connections: AtomicUsize,
    /// Connections to endpoints that are open or being opened.
    pub(crate) endpoint_connections: AtomicUsize,
    pub(crate) started: Instant,
    pub(crate) started_at: SystemTime,
    /// Health checks fail because they were told to.
    pub(crate) health_failed: AtomicBool,
    /// Who this proxy is, for peers and metrics.
    pub(crate) identity: Identity,
    pub(crate) node_ip: Option<IpAddr>,
    /// Upstream sockets carry the mark that exempts them from redirection.
    pub(crate) mark_sockets: bool,
    /// Downstream connections beyond this number are closed at once.
    pub(crate) most_connections: usize,
    /// Connections to endpoints beyond this number are not opened.
    pub(crate) most_endpoint_connections: usize,
    /// Bytes of request bodies that a worker holds at most.
    pub(crate) most_held_bytes: usize,
}

/// The place of a connection to an endpoint among those that the process may have, given back when dropped.
pub(crate) struct EndpointPlace(Arc<Shared>);

impl EndpointPlace {
    /// A place, if there is one left.
    pub(crate) fn claim(shared: &Arc<Shared>) -> Option<Self> {
        let open = shared.endpoint_connections.fetch_add(1, Ordering::Relaxed);
        let place = Self(shared.clone());
        (open < shared.most_endpoint_connections).then_some(place)
    }
}

impl Drop for EndpointPlace {
    fn drop(&mut self) {
        let open = &self.0.endpoint_connections;
        open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Listeners that are in effect.
#[derive(Debug, Clone, Default)]
pub(crate) struct ListenerSet {
    pub(crate) by_name: HashMap<String, Arc<ListenerSlot>>,
    pub(crate) by_address: HashMap<SocketAddr, Arc<ListenerSlot>>,
}

impl ListenerSet {
    /// The listener that connections to `destination` are handed to: its own address, else any address of its port.
    pub(crate) fn for_destination(&self, destination: SocketAddr) -> Option<&Arc<ListenerSlot>> {
        let any: IpAddr = match destination {
            SocketAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
        };
        self.by_address.get(&destination).or_else(|| {
            self.by_address
                .get(&SocketAddr::new(any, destination.port()))
        })
    }
}

/// A place for the current state of one route configuration.
#[derive(Debug)]
pub(crate) struct RouteSlot {
    pub(crate) name: String,
    pub(crate) table: ArcSwapOption<RouteTable>,
}

/// Things that are found by name and live as long as the process, so that numbers survive configuration changes.
#[derive(Default)]
pub(crate) struct Names {
    pub(crate) workers: usize,
    pub(crate) logs: Arc<LogFiles>,
    /// Counters when they were reset.
    pub(crate) counter_base: Mutex<HashMap<String, u64>>,
    /// Istio's standard metrics.
    pub(crate) telemetry: Registry,
    pub(crate) clusters: Named<ClusterShared>,
    pub(crate) routes: Named<RouteSlot>,
    pub(crate) http: Named<PerWorker<HttpStats>>,
    pub(crate) tcp: Named<PerWorker<TcpStats>>,
    pub(crate) listeners: Named<PerWorker<ListenerStats>>,
    pub(crate) listeners_ssl: Named<PerWorker<SslStats>>,
    /// By the prefix of the filter, which may be empty.
    pub(crate) proxy_protocol: Named<PerWorker<ProxyProtocolStats>>,
}

/// The thing of this name, which `new` makes when there is none yet.
pub(crate) fn find_or_make<T>(all: &Named<T>, name: &str, new: impl FnOnce() -> T) -> Arc<T> {
    let mut all = all.lock();
    all.entry(name.to_owned())
        .or_insert_with(|| Arc::new(new()))
        .clone()
}

/// The connections that a graceful drain concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leaving {
    Nobody,
    /// Those for the workload beside the proxy.
    Inbound,
    All,
}

impl Leaving {
    /// Whether it concerns connections of such listeners.
    pub(crate) fn concerns(self, inbound: bool) -> bool {
        match self {
            Self::Nobody => false,
            Self::Inbound => inbound,
            Self::All => true,
        }
    }
}

/// Counts of configuration updates.
#[derive(Debug, Default)]
pub(crate) struct Updates {
    pub(crate) cluster: UpdateCounts,
    pub(crate) endpoint: UpdateCounts,
    pub(crate) listener: UpdateCounts,
    pub(crate) route: UpdateCounts,
    pub(crate) secret: UpdateCounts,
    pub(crate) connected: AtomicBool,
    pub(crate) listeners_warming: AtomicUsize,
    pub(crate) clusters_warming: AtomicUsize,
}

/// Counts for one resource type.
#[derive(Debug, Default)]
pub(crate) struct UpdateCounts {
    pub(crate) success: AtomicU64,
    pub(crate) rejected: AtomicU64,
}

impl Updates {
    /// The counts of one resource type.
    pub(crate) fn of(&self, kind: ResourceType) -> &UpdateCounts {
        match kind {
            ResourceType::Cluster => &self.cluster,
            ResourceType::Endpoint => &self.endpoint,
            ResourceType::Listener => &self.listener,
            ResourceType::Route => &self.route,
            ResourceType::Secret => &self.secret,
        }
    }
}

impl Shared {
    /// Sends a command to every worker.
    pub(crate) fn tell_workers(&self, command: impl Fn() -> Command) {
        for worker in &self.workers {
            // A worker that is gone has nothing left to do.
            let _ = worker.send(command());
        }
    }

    /// Returns when every worker has come back to its queue, and so acts on nothing that it looked up before this call; after
    /// [`MOST_WAIT`] at the latest. Not to be called by a worker.
    pub(crate) fn wait_for_workers(&self) {
        let (token, passed) = std::sync::mpsc::channel();
        self.tell_workers(|| Command::Pass(token.clone()));
        drop(token);
        // Nobody sends; it ends when the last token is dropped.
        let _ = passed.recv_timeout(MOST_WAIT);
    }

    pub(crate) fn is_live(&self) -> bool {
        self.live.load(Ordering::Relaxed)
    }

    /// Whether health checks were told to fail.
    pub(crate) fn is_failing(&self) -> bool {
        self.health_failed.load(Ordering::Relaxed)
    }

    /// Whether new traffic is welcome.
    pub(crate) fn is_ready(&self) -> bool {
        self.is_live() && !self.is_draining() && !self.is_failing()
    }

    pub(crate) fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }
}
