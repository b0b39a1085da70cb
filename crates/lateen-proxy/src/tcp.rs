//! The TCP proxy: bytes in both directions, with half-close and an idle limit.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::BytesMut;
use lateen_route::hash::xx64;
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use crate::access_log::AccessLog;
use crate::balancing::Wish;
use crate::cluster::{Cluster, ClusterShared, Discovery, Host, Limited, Priority};
use crate::connection::ConnectionInfo;
use crate::flags::Flags;
use crate::http::finish::UpstreamHold;
use crate::http::tunnel::{TunnelError, TunnelSettings, Tunnelled};
use crate::http::upgrade::Duplex;
use crate::listener::FilterChain;
use crate::outlier::{Event, report};
use crate::record::Record;
use crate::relay::{Moved, relay};
use crate::shared::EndpointPlace;
use crate::stats::{PerWorker, TcpStats};
use crate::stream::Stream;
use crate::telemetry::exchange;
use crate::telemetry::peer::Workload;
use crate::telemetry::tcp::Reports;
use crate::upstream::{self, Asked, ConnectError};
use crate::worker::Worker;

/// Time for an endpoint to agree to a tunnel when connections may be idle for ever.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// The compiled filter.
#[derive(Debug)]
pub(crate) struct TcpProxy {
    /// Names with their weights, at least one.
    pub(crate) clusters: Vec<(String, u64)>,
    /// The hash for consistent balancing is made of the client's address.
    pub(crate) hash_source_ip: bool,
    pub(crate) idle_timeout: Option<Duration>,
    /// Longest life of a connection.
    pub(crate) longest: Option<Duration>,
    /// Time between lines about a connection that is open.
    pub(crate) log_interval: Option<Duration>,
    /// A line is written when the endpoint is reached.
    pub(crate) log_when_connected: bool,
    pub(crate) connect_attempts: u32,
    /// Endpoints are asked for tunnels; nothing: they get the bytes as they are.
    pub(crate) tunnel: Option<TunnelSettings>,
    pub(crate) access_log: Vec<AccessLog>,
    pub(crate) stats: Arc<PerWorker<TcpStats>>,
}

impl TcpProxy {
    /// Serves a connection to its end. `prefix` was read from it already.
    pub(crate) async fn serve(
        &self,
        worker: &Rc<Worker>,
        chain: &FilterChain,
        info: &Rc<ConnectionInfo>,
        peer: Option<Arc<Workload>>,
        stream: Stream,
        prefix: BytesMut,
    ) {
        self.stats.here().cx_total.inc();
        let mut record = Record::new(info.clone());
        record.peer = peer;
        let mut reports: Vec<_> = chain.stats.iter().map(|_| Reports::new()).collect();
        self.forward(worker, chain, &mut reports, &mut record, stream, prefix)
            .await;
        record.duration = Some(record.started.elapsed());
        for (filter, reports) in chain.stats.iter().zip(&mut reports) {
            reports.end(filter, worker, &record);
        }
        for log in &self.access_log {
            log.log(&record);
        }
    }

    async fn forward(
        &self,
        worker: &Rc<Worker>,
        chain: &FilterChain,
        reports: &mut [Reports],
        record: &mut Record,
        mut stream: Stream,
        prefix: BytesMut,
    ) {
        let name = self.draw(fastrand::u64(..));
        let Some(cluster) = worker.shared.clusters.load().get(name).cloned() else {
            self.stats.here().cx_no_route.inc();
            record.flags.set(Flags::NO_CLUSTER);
            return;
        };
        record.cluster = Some(cluster.clone());
        // Connections that carry tunnels count by themselves.
        let mut counted = None;
        if self.tunnel.is_none() {
            let permit = cluster.permit(Priority::Default, Limited::Connections);
            let place = EndpointPlace::claim(&worker.shared);
            let (Some(permit), Some(place)) = (permit, place) else {
                cluster.shared.stats.here().cx_overflow.inc();
                record.flags.set(Flags::UPSTREAM_OVERFLOW);
                return;
            };
            counted = Some((permit, place));
        }
        let Some((host, reached)) = self.connect(worker, &cluster, record).await else {
            return;
        };
        record.upstream = Some(host.clone());
        let moved = Moved::default();
        let (mut upstream, open): (Box<dyn Duplex>, _) = match reached {
            Reached::Tunnel(tunnel) => (tunnel.stream, Held::Tunnel(Box::new(tunnel.hold))),
            Reached::Endpoint(mut upstream) => {
                let open = Open::start(&cluster, &host);
                if cluster.tells_peers && upstream.alpn() == Some(exchange::PROTOCOL.as_bytes()) {
                    let (own, mut early) = (&worker.shared.identity, BytesMut::new());
                    match exchange::run(&mut upstream, &mut early, own).await {
                        Ok(told) => record.peer = told,
                        // The relay finds out that the connection is broken.
                        Err(error) => tracing::debug!(%error, "the exchange of metadata failed"),
                    }
                    // What the endpoint said after it goes to the client first. A client that is gone is found by the
                    // relay.
                    if stream.write_all(&early).await.is_ok() {
                        moved.sent.set(early.len() as u64);
                    }
                }
                (Box::new(upstream), Held::Endpoint(open))
            }
        };
        if self.log_when_connected {
            self.log(record, "TcpUpstreamConnected");
        }
        let end = {
            let relaying = relay(
                &mut stream,
                &mut upstream,
                &prefix,
                self.idle_timeout,
                &moved,
            );
            tokio::select! {
                idle = relaying => if idle { End::Idle } else { End::Done },
                () = self.watch(worker, chain, reports, record, &moved) => End::TooLong,
            }
        };
        drop((upstream, open, counted));
        let (received, sent) = (moved.received.get(), moved.sent.get());
        record.bytes_received = received;
        record.bytes_sent = sent;
        match end {
            End::Idle => self.stats.here().idle_timeout.inc(),
            End::TooLong => {
                self.stats.here().longest.inc();
                record.flags.set(Flags::DURATION_TIMEOUT);
            }
            End::Done => {}
        }
        self.stats.here().rx_bytes.add(received);
        self.stats.here().tx_bytes.add(sent);
        cluster.shared.stats.here().tx_bytes.add(received);
        cluster.shared.stats.here().rx_bytes.add(sent);
    }

    /// Reports and logs what moved while the connection is open. Returns when it has lived as long as it may.
    async fn watch(
        &self,
        worker: &Worker,
        chain: &FilterChain,
        reports: &mut [Reports],
        record: &mut Record,
        moved: &Moved,
    ) {
        let intervals = chain.stats.iter().map(|filter| filter.report_interval);
        let report_interval = intervals.filter(|interval| !interval.is_zero()).min();
        let after = |interval: Option<Duration>| interval.map(|interval| Instant::now() + interval);
        let end = self
            .longest
            .map(|longest| Instant::now() + longest.saturating_sub(record.started.elapsed()));
        let (mut next_report, mut next_line) = (after(report_interval), after(self.log_interval));
        loop {
            let next = [end, next_report, next_line].into_iter().flatten().min();
            match next {
                Some(next) => tokio::time::sleep_until(next).await,
                None => std::future::pending().await,
            }
            let now = Instant::now();
            let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
            if is_due(end) {
                return;
            }
            record.bytes_received = moved.received.get();
            record.bytes_sent = moved.sent.get();
            if is_due(next_report) {
                for (filter, reports) in chain.stats.iter().zip(&mut *reports) {
                    reports.report(filter, worker, record);
                }
                next_report = after(report_interval);
            }
            if is_due(next_line) {
                self.log(record, "TcpPeriodic");
                next_line = after(self.log_interval);
            }
        }
    }

    /// Logs a connection that goes on.
    fn log(&self, record: &mut Record, kind: &'static str) {
        record.log_type = Some(kind);
        for log in &self.access_log {
            log.log(record);
        }
        record.log_type = None;
    }

    /// Connects to an endpoint, or gets a tunnel through it, or says in the record why not.
    async fn connect(
        &self,
        worker: &Rc<Worker>,
        cluster: &Arc<Cluster>,
        record: &mut Record,
    ) -> Option<(Arc<Host>, Reached)> {
        let hash = self
            .hash_source_ip
            .then(|| xx64(record.connection.remote.ip().to_string().as_bytes(), 0));
        let asked = Asked {
            client: Some(record.connection.ends()),
            ..Asked::default()
        };
        let mut failed = None;
        for attempt in 0..self.connect_attempts {
            let host = match &cluster.discovery {
                Discovery::OriginalDestination(settings) => {
                    let info = &record.connection;
                    let restored = info.restored.then_some(info.local);
                    cluster.original_destination(settings, restored, None)
                }
                Discovery::Listed => {
                    let wish = Wish {
                        hash,
                        attempt: attempt.into(),
                        ..Wish::default()
                    };
                    let source = record.connection.remote.ip();
                    let of_session = match &cluster.sticky {
                        Some(sticky) => match sticky.key.of_source(source) {
                            Some(key) => sticky.choose(worker, cluster, &key, &wish, failed).await,
                            None => None,
                        },
                        None => None,
                    };
                    of_session.or_else(|| worker.pick(cluster, &wish))
                }
            };
            let Some(host) = host else {
                cluster.shared.stats.here().cx_none_healthy.inc();
                record.flags.set(Flags::NO_HEALTHY_UPSTREAM);
                return None;
            };
            if let Some(tunnel) = &self.tunnel {
                let opening = tunnel.open(worker, cluster, &host, record);
                match tokio::time::timeout(self.tunnel_time(), opening).await {
                    Ok(Ok(tunnel)) => {
                        report(worker, cluster, &host, Event::Connected);
                        record.upstream_tls = tunnel.hold.lease.tls();
                        record.upstream_local = tunnel.local;
                        return Some((host, Reached::Tunnel(Box::new(tunnel))));
                    }
                    Ok(Err(TunnelError::Overflow)) => {
                        record.flags.set(Flags::UPSTREAM_OVERFLOW);
                        return None;
                    }
                    Ok(Err(TunnelError::Refused(text))) => record.upstream_failure = text,
                    Err(_) => {}
                }
                failed = Some(host.address);
                record.upstream = Some(host);
                continue;
            }
            match upstream::connect(worker, cluster, &host, &asked, &[]).await {
                Ok(connected) => {
                    report(worker, cluster, &host, Event::Connected);
                    record.upstream_tls = connected.tls;
                    record.upstream_local = connected.stream.tcp().local_addr().ok();
                    return Some((host, Reached::Endpoint(connected.stream)));
                }
                Err(error) => {
                    let timed_out = matches!(error, ConnectError::Timeout);
                    let event = Event::LocalFailure {
                        status: if timed_out { 504 } else { 503 },
                        connected: false,
                    };
                    report(worker, cluster, &host, event);
                    failed = Some(host.address);
                    record.upstream_failure = error.reason();
                    record.upstream = Some(host);
                }
            }
        }
        cluster.shared.stats.here().cx_attempts_exceeded.inc();
        record.flags.set(Flags::UPSTREAM_CONNECTION_FAILURE);
        record.flags.set(Flags::UPSTREAM_RETRY_LIMIT_EXCEEDED);
        None
    }

    /// Time in which an endpoint has to agree to a tunnel. While it does not, nothing moves.
    fn tunnel_time(&self) -> Duration {
        self.idle_timeout.unwrap_or(LONGEST_WAIT)
    }

    fn draw(&self, random: u64) -> &str {
        let total: u64 = self.clusters.iter().map(|(_, weight)| weight).sum();
        let mut point = random % total.max(1);
        for (name, weight) in &self.clusters {
            if point < *weight {
                return name;
            }
            point -= weight;
        }
        self.clusters.first().map_or("", |(name, _)| name)
    }
}

/// What the bytes of a client go to.
enum Reached {
    Endpoint(Stream),
    Tunnel(Box<Tunnelled>),
}

/// What counts until the connection is over.
#[allow(dead_code, reason = "each counts until it is dropped")]
enum Held {
    Endpoint(Open),
    Tunnel(Box<UpstreamHold>),
}

/// An open connection to an endpoint, counted until it is dropped.
struct Open {
    cluster: Arc<ClusterShared>,
    host: Arc<Host>,
}

impl Open {
    fn start(cluster: &Cluster, host: &Arc<Host>) -> Self {
        cluster.shared.stats.here().cx_active.inc();
        cluster.shared.stats.here().cx_total.inc();
        let connections = &host.shared.active_connections;
        connections.fetch_add(1, Ordering::Relaxed);
        Self {
            cluster: cluster.shared.clone(),
            host: host.clone(),
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let connections = &self.host.shared.active_connections;
        connections.fetch_sub(1, Ordering::Relaxed);
        self.cluster.stats.here().cx_active.dec();
        self.cluster.stats.here().cx_destroy.inc();
    }
}

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Both sides are done, or one broke.
    Done,
    /// Nothing moved for too long.
    Idle,
    /// It lived as long as it may.
    TooLong,
}
