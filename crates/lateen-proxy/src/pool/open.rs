//! Opening connections, and counting those that wait for one and those that are open.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use hyper::client::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use lateen_identity::alpn;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::{Http1Connection, Http2Connection, Key, PoolError, Pools, TcpConnection};
use crate::cluster::{Cluster, Host, Limited, Permit, Priority};
use crate::http::codec;
use crate::http::local::LocalExecutor;
use crate::http1;
use crate::shared::EndpointPlace;
use crate::upstream::{self, Asked, ConnectError, Connected};
use crate::worker::Worker;

/// A request that waits for a connection.
pub(super) struct Pending {
    cluster: Arc<Cluster>,
    _permit: Permit,
}

impl Pending {
    pub(super) fn start(cluster: &Arc<Cluster>, priority: Priority) -> Result<Self, PoolError> {
        let stats = cluster.shared.stats.here();
        match cluster.permit(priority, Limited::Pending) {
            Some(permit) => {
                stats.rq_pending_total.inc();
                stats.rq_pending_active.inc();
                Ok(Self {
                    cluster: cluster.clone(),
                    _permit: permit,
                })
            }
            None => {
                stats.rq_pending_overflow.inc();
                Err(PoolError::Overflow)
            }
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.cluster.shared.stats.here().rq_pending_active.dec();
    }
}

/// Marks that a connection is being opened; whoever waits is woken when that ends, well or not.
pub(super) struct Opening<'p> {
    pools: &'p Pools,
    key: Key,
    notify: Rc<Notify>,
}

impl<'p> Opening<'p> {
    pub(super) fn start(pools: &'p Pools, key: Key) -> Self {
        let notify = Rc::new(Notify::new());
        pools.hosts.borrow_mut().entry(key).or_default().opening = Some(notify.clone());
        Self { pools, key, notify }
    }
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        if let Some(pool) = self.pools.hosts.borrow_mut().get_mut(&self.key) {
            pool.opening = None;
        }
        self.notify.notify_waiters();
    }
}

/// What a connection counts for as long as it is open or being opened.
pub(super) struct OpenUpstream {
    #[allow(dead_code, reason = "it counts until it is dropped")]
    place: EndpointPlace,
    cluster: Arc<Cluster>,
    host: Arc<Host>,
    permit: Option<Permit>,
}

impl OpenUpstream {
    /// Begins to count. When the process has as many as it may, those that are idle make room, here at once and elsewhere
    /// soon.
    ///
    /// # Errors
    /// When there is none.
    fn start(
        worker: &Worker,
        cluster: &Arc<Cluster>,
        host: &Arc<Host>,
        permit: Permit,
    ) -> Result<Self, PoolError> {
        let stats = cluster.shared.stats.here();
        let shared = &worker.shared;
        let place = EndpointPlace::claim(shared).or_else(|| {
            worker.pools.make_room(worker, None);
            EndpointPlace::claim(shared)
        });
        let Some(place) = place else {
            stats.cx_overflow.inc();
            return Err(PoolError::Overflow);
        };
        stats.cx_total.inc();
        stats.cx_active.inc();
        host.shared
            .active_connections
            .fetch_add(1, Ordering::Relaxed);
        host.shared
            .total_connections
            .fetch_add(1, Ordering::Relaxed);
        Ok(Self {
            place,
            cluster: cluster.clone(),
            host: host.clone(),
            permit: Some(permit),
        })
    }
}

impl Drop for OpenUpstream {
    fn drop(&mut self) {
        let stats = self.cluster.shared.stats.here();
        stats.cx_active.dec();
        stats.cx_destroy.inc();
        self.host
            .shared
            .active_connections
            .fetch_sub(1, Ordering::Relaxed);
        self.permit = None;
        self.cluster.shared.released.notify_waiters();
    }
}

/// Opens a connection, which counts from the beginning. A request that waited for one that fails is ejected.
async fn open(
    worker: &Worker,
    cluster: &Arc<Cluster>,
    host: &Arc<Host>,
    asked: &Asked,
    permit: Permit,
    protocols: &[&[u8]],
) -> Result<(Connected, OpenUpstream), PoolError> {
    let open = OpenUpstream::start(worker, cluster, host, permit)?;
    match upstream::connect(worker, cluster, host, asked, protocols).await {
        Ok(connected) => Ok((connected, open)),
        Err(error) => {
            let stats = cluster.shared.stats.here();
            stats.rq_pending_failure_eject.inc();
            Err(error.into())
        }
    }
}

pub(super) async fn open_http1(
    worker: &Worker,
    cluster: &Arc<Cluster>,
    host: &Arc<Host>,
    asked: &Asked,
    key: Key,
    permit: Permit,
) -> Result<Http1Connection, PoolError> {
    cluster.shared.stats.here().cx_http1.inc();
    let opened = open(worker, cluster, host, asked, permit, &[alpn::HTTP11]).await?;
    Ok(http1(cluster, key, opened))
}

/// Opens a connection whose version is agreed on in the handshake.
pub(super) async fn open_negotiated(
    worker: &Worker,
    cluster: &Arc<Cluster>,
    host: &Arc<Host>,
    asked: &Asked,
    key: Key,
    permit: Permit,
) -> Result<Opened, PoolError> {
    let protocols = [alpn::H2, alpn::HTTP11];
    let opened = open(worker, cluster, host, asked, permit, &protocols).await?;
    let stats = cluster.shared.stats.here();
    if opened.0.stream.alpn() == Some(alpn::H2) {
        stats.cx_http2.inc();
        http2(cluster, opened).await.map(Opened::Http2)
    } else {
        stats.cx_http1.inc();
        Ok(Opened::Http1(http1(cluster, key, opened)))
    }
}

/// A connection of either version.
pub(super) enum Opened {
    Http1(Http1Connection),
    Http2(Http2Connection),
}

fn http1(cluster: &Cluster, key: Key, opened: (Connected, OpenUpstream)) -> Http1Connection {
    let (Connected { stream, tls }, open) = opened;
    let local = stream.tcp().local_addr().ok();
    let idle_timeout = cluster.idle_timeout;
    Http1Connection {
        codec: http1::Client::new(stream),
        local,
        tls,
        served: 0,
        key: Box::new(key),
        idle_since: Instant::now(),
        idle_timeout,
        retire_at: retire_at(cluster),
        open,
    }
}

pub(super) async fn open_http2(
    worker: &Worker,
    cluster: &Arc<Cluster>,
    host: &Arc<Host>,
    asked: &Asked,
    permit: Permit,
) -> Result<Http2Connection, PoolError> {
    cluster.shared.stats.here().cx_http2.inc();
    let opened = open(worker, cluster, host, asked, permit, &[alpn::H2]).await?;
    http2(cluster, opened).await
}

async fn http2(
    cluster: &Arc<Cluster>,
    opened: (Connected, OpenUpstream),
) -> Result<Http2Connection, PoolError> {
    let (Connected { stream, tls }, open) = opened;
    let local = stream.tcp().local_addr().ok();
    let (sender, connection) = http2::Builder::new(LocalExecutor)
        .timer(TokioTimer::new())
        .initial_stream_window_size(codec::STREAM_WINDOW)
        .initial_connection_window_size(codec::CONNECTION_WINDOW)
        .max_send_buf_size(codec::SEND_BUFFER)
        .max_header_list_size(codec::HEADER_LIST)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| ConnectError::Connect(io::Error::other(error)))?;
    tokio::task::spawn_local(async move {
        let _ = connection.await;
        drop(open);
    });
    Ok(Http2Connection {
        sender,
        local,
        tls,
        active: Cell::new(0),
        served: Cell::new(0),
        idle_since: Cell::new(Instant::now()),
        idle_timeout: cluster.idle_timeout,
        retire_at: retire_at(cluster),
        cluster: cluster.shared.clone(),
    })
}

pub(super) async fn open_tcp(
    worker: &Worker,
    cluster: &Arc<Cluster>,
    host: &Arc<Host>,
    asked: &Asked,
    permit: Permit,
) -> Result<TcpConnection, PoolError> {
    let opened = open(worker, cluster, host, asked, permit, &[]).await?;
    let (Connected { stream, tls }, open) = opened;
    Ok(TcpConnection {
        local: stream.tcp().local_addr().ok(),
        stream: Some(stream),
        tls,
        open,
    })
}

/// When a connection that is opened now is too old to be used again.
fn retire_at(cluster: &Cluster) -> Option<Instant> {
    Instant::now().checked_add(cluster.max_connection_duration?)
}
