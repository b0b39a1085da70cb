//! One downstream HTTP connection: its codec, and what its requests share.

use std::cell::{Cell, RefCell};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use lateen_identity::alpn;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::alarm::Alarm;
use super::arrival;
use super::codec;
use super::drive::drive;
use super::incoming::Incoming;
use super::io::Downstream;
use super::manager::{Codec, HttpManager};
use super::preface::is_http2;
use super::stall::StreamExecutor;
use super::upgrade::Switched;
use crate::cluster::{Cluster, Host};
use crate::connection::ConnectionInfo;
use crate::http1::{Ended, Server, Settings};
use crate::listener::{FilterChain, ListenerSlot};
use crate::proxy_protocol::Ends;
use crate::stream::Stream;
use crate::worker::Worker;

/// Time for a started head to become complete.
pub(crate) const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// A request that its client gives up within this time does not count as one that was wanted.
const PREMATURE: Duration = Duration::from_secs(1);

/// So many requests are looked at together: a connection ends when half of them were given up.
const MOST_GIVEN_UP: u32 = 500;

/// The state of a connection.
pub(crate) struct HttpConnection {
    pub(crate) worker: Rc<Worker>,
    pub(crate) manager: Arc<HttpManager>,
    pub(crate) info: Rc<ConnectionInfo>,
    pub(crate) http2: bool,
    /// The endpoint that the client wanted to reach, with the cluster that it was last wanted in.
    pub(crate) original: RefCell<Option<(u64, Arc<Host>)>>,
    /// The client is told to close with the next response.
    pub(crate) closing: Cell<bool>,
    /// The tunnel that the client of HTTP/1.1 is told of.
    pub(crate) switched: RefCell<Option<Switched>>,
    /// Connections to endpoints were opened in this client's name.
    told: Cell<bool>,
    /// Requests in progress.
    pub(super) requests: Cell<u32>,
    /// Requests since its beginning.
    served: Cell<u32>,
    /// How many it serves.
    most_requests: Option<u32>,
    /// Told when it has served as many as it may, or is abused.
    pub(super) told_to_end: Notify,
    /// Requests that have ended, and those among them that the client gave up at once.
    ended: Cell<u32>,
    given_up: Cell<u32>,
    /// These are too many.
    is_abusive: Cell<bool>,
    pub(super) last_end: Cell<Instant>,
    /// Streams of HTTP/2 that have not ended on this side, and bytes of bodies that were sent.
    pub(super) outgoing: Cell<(usize, u64)>,
    /// For the deadline of the request in progress, where there is one at a time.
    alarm: Alarm,
}

impl HttpConnection {
    /// The client, if this endpoint is told who it is.
    pub(crate) fn client(&self, cluster: &Cluster, host: &Host) -> Option<Ends> {
        let told =
            self.manager.tells_client && cluster.transports.of(host).proxy_protocol.is_some();
        self.told.set(self.told.get() || told);
        told.then(|| self.info.ends())
    }

    pub(crate) fn request_started(&self) {
        self.requests.set(self.requests.get() + 1);
        let served = self.served.get().saturating_add(1);
        self.served.set(served);
        if self.most_requests == Some(served) {
            if self.manager.limits.requests == Some(served) {
                self.manager.stats.here().cx_max_requests.inc();
            }
            // The response to this one says so already.
            self.closing.set(true);
            self.told_to_end.notify_one();
        }
    }

    pub(crate) fn request_ended(&self, now: Instant) {
        let left = self.requests.get().saturating_sub(1);
        self.requests.set(left);
        self.ended.set(self.ended.get().saturating_add(1));
        self.last_end.set(now);
    }

    /// The client of HTTP/2 gave a request up before there was an answer, after this time. Who does that all the time makes
    /// us work for nothing, however few streams are open (CVE-2023-44487). The numbers are Envoy's.
    pub(super) fn given_up(&self, lived: Duration) {
        if !self.http2 || lived > PREMATURE {
            return;
        }
        self.given_up.set(self.given_up.get().saturating_add(1));
        if 2 * self.given_up.get() >= self.ended.get().max(MOST_GIVEN_UP) && !self.is_abusive() {
            self.manager.stats.here().rq_too_many_premature_resets.inc();
            self.is_abusive.set(true);
            self.told_to_end.notify_one();
        }
    }

    /// Whether the connection is to end at once.
    pub(super) fn is_abusive(&self) -> bool {
        self.is_abusive.get()
    }

    /// Bytes of bodies that were sent, if some streams wait for nothing but their client.
    pub(super) fn sent_to_stalled(&self) -> Option<u64> {
        let (open, sent) = self.outgoing.get();
        (open > self.requests.get() as usize).then_some(sent)
    }

    /// Returns at this moment.
    pub(super) async fn until(&self, at: Instant) {
        if self.http2 {
            tokio::time::sleep_until(at).await;
        } else {
            self.alarm.until(at).await;
        }
    }
}

/// Serves a connection to its end. `prefix` was read from it already.
pub(crate) async fn serve(
    worker: &Rc<Worker>,
    slot: &ListenerSlot,
    chain: &FilterChain,
    manager: Arc<HttpManager>,
    info: Rc<ConnectionInfo>,
    mut stream: Stream,
    mut prefix: BytesMut,
) {
    let http2 = match manager.codec {
        Codec::Http1 => false,
        Codec::Http2 => true,
        Codec::Auto => match stream.alpn() {
            Some(protocol) => protocol == alpn::H2,
            None => match is_http2(&mut stream, &mut prefix, &manager.limits).await {
                Some(http2) => http2,
                None => return,
            },
        },
    };
    let stats = manager.stats.clone();
    let started = Instant::now();
    stats.here().cx_total.inc();
    stats.here().cx_active.inc();
    if http2 {
        stats.here().cx_http2.inc()
    } else {
        stats.here().cx_http1.inc()
    }
    let max_streams = manager
        .max_streams
        .unwrap_or(codec::STREAMS)
        .min(codec::STREAMS);
    // Who comes while all are asked to leave is served once.
    let most_requests = if worker.shared.leaving.borrow().concerns(info.inbound) {
        Some(1)
    } else {
        manager.limits.requests
    };
    let connection = Rc::new(HttpConnection {
        worker: worker.clone(),
        manager,
        info,
        http2,
        original: RefCell::default(),
        closing: Cell::new(false),
        switched: RefCell::default(),
        told: Cell::new(false),
        requests: Cell::new(0),
        served: Cell::new(0),
        most_requests,
        told_to_end: Notify::new(),
        ended: Cell::new(0),
        given_up: Cell::new(0),
        is_abusive: Cell::new(false),
        last_end: Cell::new(Instant::now()),
        outgoing: Cell::default(),
        alarm: Alarm::default(),
    });
    let state = connection.clone();
    if http2 {
        let io = TokioIo::new(Downstream::new(stream, prefix.freeze(), connection.clone()));
        let service = service_fn(move |request| arrival::handle_http2(connection.clone(), request));
        let mut builder = http2::Builder::new(StreamExecutor);
        if state.manager.extended_connect {
            builder.enable_connect_protocol();
        }
        let codec = builder
            .timer(TokioTimer::new())
            .initial_stream_window_size(codec::STREAM_WINDOW)
            .initial_connection_window_size(codec::CONNECTION_WINDOW)
            .max_send_buf_size(codec::SEND_BUFFER)
            .max_header_list_size(codec::HEADER_LIST)
            .max_concurrent_streams(max_streams)
            .max_pending_accept_reset_streams(codec::RESETS.0)
            .max_local_error_reset_streams(codec::RESETS.1)
            .serve_connection(io, service);
        let shut_down = |codec: Pin<&mut http2::Connection<_, _, _>>| codec.graceful_shutdown();
        let _ = drive(pin!(codec), shut_down, &state, slot, chain).await;
    } else {
        let settings = Settings {
            most_fields: state.manager.limits.headers,
            most_bytes: codec::HTTP1_BUFFER,
            head_time: state.manager.limits.head.unwrap_or(HEAD_TIMEOUT),
            write_time: state.manager.stream_idle_timeout,
            accepts_http_10: state.manager.accept_http_10,
            allows_chunked_length: state.manager.allow_chunked_length,
        };
        let server = Server::new(stream, prefix, settings, stats.clone());
        let service = |head, body| {
            arrival::handle(connection.clone(), head, Incoming::Http1Request(body), None)
        };
        let refused = |refusal| arrival::refuse(connection.clone(), refusal);
        // Pinned here: to move it would double its memory.
        let codec = pin!(server.serve(service, refused));
        let ended = drive(codec, |_| server.stop(), &state, slot, chain).await;
        let switched = state.switched.take();
        if let (Some(Ended::Switched(downstream)), Some(switched)) = (ended, switched) {
            switched.relay(downstream, false).await;
        }
    }
    if state.told.get() {
        worker.pools.forget_client(state.info.ends());
    }
    stats.here().cx_active.dec();
    stats.here().cx_destroy.inc();
    let length = started.elapsed().as_millis();
    stats.here().cx_length.observe(length as u64);
}
