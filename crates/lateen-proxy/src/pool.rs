//! Upstream connections of one worker, by endpoint.
//!
//! Limits are counted for the process. A request that finds the connection limit reached waits until any worker gives
//! a connection back; workers close idle connections that others wait for.

mod open;
mod watch;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use foldhash::fast::RandomState;
use hyper::client::conn::http2;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Instant;

use open::{
    OpenUpstream, Opened, Opening, Pending, open_http1, open_http2, open_negotiated, open_tcp,
};
use watch::Watch;

use crate::cluster::{Cluster, ClusterShared, Discovery, Host, Priority};
use crate::http::request_body::RequestBody;
use crate::http1;
use crate::proxy_protocol::Ends;
use crate::shared::Clusters;
use crate::tls::info::TlsInfo;
use crate::upstream::{Asked, ConnectError};
use crate::worker::{Command, Worker};

/// Streams on one HTTP/2 connection before another one is opened.
const STREAMS: u32 = 100;

/// Idle connections kept per endpoint.
const MOST_IDLE: usize = 128;

/// All connections of a worker.
#[derive(Default)]
pub(crate) struct Pools {
    hosts: RefCell<HashMap<Key, HostPool, RandomState>>,
    /// Endpoints of the clusters whose connections end whenever these change.
    fixed: RefCell<HashMap<u64, BTreeSet<SocketAddr>>>,
    /// Woken when an idle HTTP/1.1 connection ends.
    watch: Watch,
}

/// An endpoint of a cluster. The address is part of the key, so an endpoint that moves gets new connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    cluster: u64,
    priority: Priority,
    address: SocketAddr,
    /// The transport with what a connection asks for: connections of one are not used for another.
    transport: u64,
    /// The client in whose name they are opened: they carry no requests of others.
    client: Option<Ends>,
}

impl Key {
    fn new(cluster: &Cluster, host: &Host, asked: &Asked, priority: Priority) -> Self {
        Self {
            cluster: cluster.shared.id,
            priority,
            address: host.address,
            transport: cluster.transports.of(host).key(asked),
            client: asked.client,
        }
    }
}

#[derive(Default)]
struct HostPool {
    idle: Vec<Http1Connection>,
    streams: Vec<Rc<Http2Connection>>,
    /// Set while an HTTP/2 connection is being opened, for those who want to use it, too.
    opening: Option<Rc<Notify>>,
    /// What the last handshake agreed on, where that is left to it.
    speaks_http2: bool,
}

/// An HTTP/1.1 connection that is not in use by anyone else.
pub(crate) struct Http1Connection {
    pub(crate) codec: http1::Client,
    pub(crate) local: Option<SocketAddr>,
    /// Nothing for plaintext.
    pub(crate) tls: Option<Rc<TlsInfo>>,
    /// Requests that it has carried.
    pub(crate) served: u32,
    key: Box<Key>,
    idle_since: Instant,
    idle_timeout: Option<Duration>,
    /// When it is too old for another request.
    retire_at: Option<Instant>,
    #[allow(dead_code, reason = "it counts until it is dropped")]
    open: OpenUpstream,
}

/// An HTTP/2 connection, shared by its streams.
pub(crate) struct Http2Connection {
    sender: http2::SendRequest<RequestBody>,
    pub(crate) local: Option<SocketAddr>,
    /// Nothing for plaintext.
    pub(crate) tls: Option<Rc<TlsInfo>>,
    active: Cell<u32>,
    served: Cell<u32>,
    idle_since: Cell<Instant>,
    idle_timeout: Option<Duration>,
    /// When it is too old for another stream.
    retire_at: Option<Instant>,
    /// Whom to tell that a stream ended.
    cluster: Arc<ClusterShared>,
}

/// What carries a request.
pub(crate) enum Carrier {
    Http1(Http1Connection),
    Http2(Stream),
}

/// A connection that carries plain bytes.
pub(crate) struct TcpConnection {
    /// Until somebody takes it.
    pub(crate) stream: Option<crate::stream::Stream>,
    pub(crate) local: Option<SocketAddr>,
    /// Nothing for plaintext.
    pub(crate) tls: Option<Rc<TlsInfo>>,
    #[allow(dead_code, reason = "it counts until it is dropped")]
    open: OpenUpstream,
}

/// One stream of an HTTP/2 connection.
pub(crate) struct Stream {
    pub(crate) connection: Rc<Http2Connection>,
    pub(crate) sender: http2::SendRequest<RequestBody>,
}

/// Why there is no connection.
#[derive(Debug)]
pub(crate) enum PoolError {
    /// A circuit breaker is open, or the process has as many connections as it may.
    Overflow,
    /// There is no connection to the endpoint.
    Connect(ConnectError),
}

impl From<ConnectError> for PoolError {
    fn from(error: ConnectError) -> Self {
        Self::Connect(error)
    }
}

impl Pools {
    /// An HTTP/1.1 connection to the endpoint, used again or new.
    pub(crate) async fn http1(
        &self,
        worker: &Worker,
        cluster: &Arc<Cluster>,
        host: &Arc<Host>,
        asked: &Asked,
        priority: Priority,
    ) -> Result<Http1Connection, PoolError> {
        let key = Key::new(cluster, host, asked, priority);
        if let Some(connection) = self.take_idle(key) {
            return Ok(connection);
        }
        let mut pending = Some(Pending::start(cluster, priority)?);
        let mut waited = false;
        loop {
            let released = cluster.shared.released.notified();
            tokio::pin!(released);
            // Registered before looking, so that nothing is missed in between.
            released.as_mut().enable();
            if let Some(connection) = self.take_idle(key) {
                return Ok(connection);
            }
            if let Some(permit) = cluster.connection_permit(priority, &host.shared) {
                if waited {
                    // The place of a connection that ended is this request's, so the next one can wait. Else all that
                    // come during a handshake would be refused, however few they are.
                    drop(pending.take());
                }
                return open_http1(worker, cluster, host, asked, key, permit).await;
            }
            self.wait(worker, key, released).await;
            waited = true;
        }
    }

    /// A connection to the endpoint of the version that both agree on, or a stream of one.
    pub(crate) async fn negotiated(
        &self,
        worker: &Worker,
        cluster: &Arc<Cluster>,
        host: &Arc<Host>,
        asked: &Asked,
        priority: Priority,
    ) -> Result<Carrier, PoolError> {
        let key = Key::new(cluster, host, asked, priority);
        if let Some(carrier) = self.take_either(key, cluster) {
            return Ok(carrier);
        }
        let _pending = Pending::start(cluster, priority)?;
        loop {
            let released = cluster.shared.released.notified();
            tokio::pin!(released);
            released.as_mut().enable();
            if let Some(carrier) = self.take_either(key, cluster) {
                return Ok(carrier);
            }
            // One connection of HTTP/2 is enough for all, if that is what the endpoint is known to speak.
            let opening = self.hosts.borrow().get(&key).and_then(|pool| {
                let opening = pool.opening.clone();
                opening.filter(|_| pool.speaks_http2)
            });
            if let Some(opening) = opening {
                opening.notified().await;
                continue;
            }
            let Some(permit) = cluster.connection_permit(priority, &host.shared) else {
                self.wait(worker, key, released).await;
                continue;
            };
            let _opening = Opening::start(self, key);
            let opened = open_negotiated(worker, cluster, host, asked, key, permit).await?;
            let mut hosts = self.hosts.borrow_mut();
            let pool = hosts.entry(key).or_default();
            pool.speaks_http2 = matches!(opened, Opened::Http2(_));
            match opened {
                Opened::Http1(connection) => return Ok(Carrier::Http1(connection)),
                Opened::Http2(connection) => pool.streams.push(Rc::new(connection)),
            }
        }
    }

    fn take_either(&self, key: Key, cluster: &Cluster) -> Option<Carrier> {
        let stream = self.take_stream(key, cluster).map(Carrier::Http2);
        stream.or_else(|| self.take_idle(key).map(Carrier::Http1))
    }

    /// A connection to the endpoint for plain bytes. It is always a new one.
    pub(crate) async fn tcp(
        &self,
        worker: &Worker,
        cluster: &Arc<Cluster>,
        host: &Arc<Host>,
        asked: &Asked,
        priority: Priority,
    ) -> Result<TcpConnection, PoolError> {
        let key = Key::new(cluster, host, asked, priority);
        let _pending = Pending::start(cluster, priority)?;
        loop {
            let released = cluster.shared.released.notified();
            tokio::pin!(released);
            released.as_mut().enable();
            if let Some(permit) = cluster.connection_permit(priority, &host.shared) {
                return open_tcp(worker, cluster, host, asked, permit).await;
            }
            self.wait(worker, key, released).await;
        }
    }

    /// Waits until a connection is given back, after all idle ones of the cluster were told to make room.
    async fn wait(&self, worker: &Worker, key: Key, released: Pin<&mut Notified<'_>>) {
        self.make_room(worker, Some(key.cluster));
        released.await;
    }

    /// Closes idle connections of a cluster, or of all: here at once, and at the other workers soon.
    fn make_room(&self, worker: &Worker, cluster: Option<u64>) {
        self.close_idle(cluster);
        for (index, other) in worker.shared.workers.iter().enumerate() {
            if index != worker.index {
                let _ = other.send(Command::CloseIdle(cluster));
            }
        }
    }

    /// The most recently used idle connection that is ready.
    fn take_idle(&self, key: Key) -> Option<Http1Connection> {
        let mut hosts = self.hosts.borrow_mut();
        let idle = &mut hosts.get_mut(&key)?.idle;
        while let Some(connection) = idle.pop() {
            // Whoever sends the request will be woken.
            let is_open = connection.codec.is_reusable(Waker::noop());
            if is_open && connection.retire_at.is_none_or(|at| Instant::now() < at) {
                return Some(connection);
            }
        }
        None
    }

    /// Gives a connection back after a complete exchange.
    pub(crate) fn release(&self, cluster: &Cluster, mut connection: Http1Connection) {
        let used_up = cluster
            .max_requests_per_connection
            .is_some_and(|most| connection.served >= most)
            || connection.retire_at.is_some_and(|at| Instant::now() >= at);
        if used_up || !connection.codec.is_reusable(self.watch.waker()) {
            return;
        }
        connection.codec.shrink();
        connection.idle_since = Instant::now();
        let mut hosts = self.hosts.borrow_mut();
        let idle = &mut hosts.entry(*connection.key).or_default().idle;
        if idle.len() < MOST_IDLE {
            idle.push(connection);
        }
        drop(hosts);
        if cluster.shared.waiting() > 0 {
            cluster.shared.released.notify_waiters();
        }
    }

    /// A stream on an HTTP/2 connection to the endpoint.
    pub(crate) async fn http2(
        &self,
        worker: &Worker,
        cluster: &Arc<Cluster>,
        host: &Arc<Host>,
        asked: &Asked,
        priority: Priority,
    ) -> Result<Stream, PoolError> {
        let key = Key::new(cluster, host, asked, priority);
        if let Some(stream) = self.take_stream(key, cluster) {
            return Ok(stream);
        }
        let _pending = Pending::start(cluster, priority)?;
        loop {
            let released = cluster.shared.released.notified();
            tokio::pin!(released);
            released.as_mut().enable();
            if let Some(stream) = self.take_stream(key, cluster) {
                return Ok(stream);
            }
            let opening = self
                .hosts
                .borrow()
                .get(&key)
                .and_then(|pool| pool.opening.clone());
            if let Some(opening) = opening {
                opening.notified().await;
                continue;
            }
            let Some(permit) = cluster.connection_permit(priority, &host.shared) else {
                self.wait(worker, key, released).await;
                continue;
            };
            let _opening = Opening::start(self, key);
            let connection = Rc::new(open_http2(worker, cluster, host, asked, permit).await?);
            self.hosts
                .borrow_mut()
                .entry(key)
                .or_default()
                .streams
                .push(connection);
        }
    }

    fn take_stream(&self, key: Key, cluster: &Cluster) -> Option<Stream> {
        let mut hosts = self.hosts.borrow_mut();
        let streams = &mut hosts.get_mut(&key)?.streams;
        streams.retain(|connection| !connection.sender.is_closed());
        let most = cluster.max_requests_per_connection.unwrap_or(u32::MAX);
        let now = Instant::now();
        streams.retain(|connection| {
            connection.served.get() < most && connection.retire_at.is_none_or(|at| now < at)
        });
        let most_streams = cluster.max_concurrent_streams.unwrap_or(STREAMS);
        let connection = streams
            .iter()
            .find(|connection| connection.active.get() < most_streams)?
            .clone();
        Some(Stream::start(connection))
    }

    /// Closes idle connections of a cluster that somebody waits for, or of all.
    pub(crate) fn close_idle(&self, cluster: Option<u64>) {
        for (key, pool) in self.hosts.borrow_mut().iter_mut() {
            if cluster.is_none() {
                pool.streams
                    .retain(|connection| connection.active.get() > 0);
            }
            if cluster.is_none_or(|cluster| cluster == key.cluster) {
                pool.idle.clear();
            }
        }
    }

    /// Closes the connections that were opened in the name of a client which is gone. Exchanges in progress keep theirs.
    pub(crate) fn forget_client(&self, client: Ends) {
        self.hosts
            .borrow_mut()
            .retain(|key, pool| pool.opening.is_some() || key.client != Some(client));
    }

    /// Returns when an idle HTTP/1.1 connection has ended.
    pub(crate) async fn ended(&self) {
        self.watch.woken().await;
    }

    /// Forgets idle HTTP/1.1 connections that their endpoints have ended.
    pub(crate) fn forget_ended(&self) {
        for pool in self.hosts.borrow_mut().values_mut() {
            let waker = self.watch.waker();
            pool.idle
                .retain(|connection| connection.codec.is_reusable(waker));
        }
    }

    /// Closes connections that were idle for too long.
    pub(crate) fn sweep(&self) {
        let now = Instant::now();
        self.hosts.borrow_mut().retain(|_, pool| {
            pool.idle.retain(|connection| {
                let expired = connection
                    .idle_timeout
                    .is_some_and(|most| now - connection.idle_since >= most);
                !expired && connection.codec.is_reusable(self.watch.waker())
            });
            pool.streams.retain(|connection| {
                let idle = connection.active.get() == 0;
                let expired = idle
                    && connection
                        .idle_timeout
                        .is_some_and(|most| now - connection.idle_since.get() >= most);
                !expired && !connection.sender.is_closed()
            });
            !pool.idle.is_empty() || !pool.streams.is_empty() || pool.opening.is_some()
        });
    }

    /// Forgets connections to endpoints that are gone. Exchanges in progress keep theirs.
    pub(crate) fn prune(&self, clusters: &Clusters) {
        let current: HashMap<u64, &Arc<Cluster>> = clusters
            .values()
            .map(|cluster| (cluster.shared.id, cluster))
            .collect();
        self.end_changed(&current);
        self.hosts.borrow_mut().retain(|key, pool| {
            pool.opening.is_some()
                || current.get(&key.cluster).is_some_and(|cluster| {
                    // Clusters without a list of hosts reach whatever the client wanted.
                    matches!(cluster.discovery, Discovery::OriginalDestination(_))
                        || cluster.hosts.iter().any(|host| host.address == key.address)
                })
        });
    }
}

impl Pools {
    /// Ends connections of clusters that want so when their endpoints came or went.
    fn end_changed(&self, current: &HashMap<u64, &Arc<Cluster>>) {
        let mut fixed = self.fixed.borrow_mut();
        fixed.retain(|id, _| current.contains_key(id));
        for (id, cluster) in current
            .iter()
            .filter(|(_, cluster)| cluster.close_on_change)
        {
            let now: BTreeSet<_> = cluster.hosts.iter().map(|host| host.address).collect();
            let before = fixed.insert(*id, now);
            if before.is_none_or(|before| Some(&before) == fixed.get(id)) {
                continue;
            }
            for (key, pool) in self.hosts.borrow_mut().iter_mut() {
                if key.cluster == *id {
                    // Streams in progress keep their connection.
                    pool.idle.clear();
                    pool.streams.clear();
                }
            }
        }
    }
}

impl Stream {
    fn start(connection: Rc<Http2Connection>) -> Self {
        connection.active.set(connection.active.get() + 1);
        connection
            .served
            .set(connection.served.get().saturating_add(1));
        let sender = connection.sender.clone();
        Self { connection, sender }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.connection.active.set(self.connection.active.get() - 1);
        self.connection.idle_since.set(Instant::now());
        if self.connection.cluster.waiting() > 0 {
            self.connection.cluster.released.notify_waiters();
        }
    }
}
