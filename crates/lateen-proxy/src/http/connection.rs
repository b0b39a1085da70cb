//! One downstream HTTP connection: its codec, its idle time, and its polite end.

use std::cell::{Cell, RefCell};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
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
use super::gate::Gated;
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

/// How long an idle HTTP/1.1 connection of a replaced filter chain may wait for its next request, on whose response
/// the client is told to close.
const CHAIN_DRAIN: Duration = Duration::from_secs(45);

/// The same when the process ends.
const PROCESS_DRAIN: Duration = Duration::from_secs(1);

/// Least time for a client to take what is left when its connection ends: Envoy's `delayed_close_timeout`.
const FAREWELL: Duration = Duration::from_secs(1);

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
    requests: Cell<u32>,
    /// Requests since its beginning.
    served: Cell<u32>,
    /// How many it serves.
    most_requests: Option<u32>,
    /// Told when it has served as many as it may, or is abused.
    told_to_end: Notify,
    /// Requests that have ended, and those among them that the client gave up at once.
    ended: Cell<u32>,
    given_up: Cell<u32>,
    /// These are too many.
    is_abusive: Cell<bool>,
    last_end: Cell<Instant>,
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
    fn sent_to_stalled(&self) -> Option<u64> {
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

/// What ends a connection sooner or later.
enum Event {
    /// The listener changed.
    Changed,
    /// The process wants connections to end within this time.
    Drain(Duration),
    /// It has served as many requests as it may.
    UsedUp,
    /// It is as old as it may be.
    OfAge,
    /// The client makes it work for nothing.
    Abused,
    /// It is time to look at limits.
    Wake,
}

/// Runs the codec; drains when another filter chain is for the connection now or the process ends; ends when idle for too long.
/// `shut_down` asks the codec to end after what is in progress. Nothing when it was not waited for.
async fn drive<C: Future>(
    mut codec: Pin<&mut C>,
    shut_down: impl Fn(Pin<&mut C>),
    state: &HttpConnection,
    slot: &ListenerSlot,
    chain: &FilterChain,
) -> Option<C::Output> {
    let mut changed = slot.subscribe();
    let mut draining = state.worker.shared.draining.subscribe();
    let mut leaving = state.worker.shared.leaving.subscribe();
    let inbound = state.info.inbound;
    let came_late = leaving.borrow().concerns(inbound);
    let age = state.manager.limits.connection;
    let mut of_age = age.and_then(|age| Instant::now().checked_add(age));
    let mut shut_down_at: Option<Instant> = None;
    let mut is_shut_down = false;
    // What had been sent, and when.
    let (mut sent, mut seen_at) = (0, Instant::now());
    loop {
        let idle_end = state
            .manager
            .limits
            .idle
            .map(|limit| state.last_end.get() + limit);
        let stall_end = state
            .manager
            .stream_idle_timeout
            .filter(|_| state.http2)
            .map(|limit| seen_at + limit);
        let wake = if is_shut_down {
            Some(Instant::now() + state.manager.limits.drain.max(FAREWELL))
        } else {
            [shut_down_at, idle_end, stall_end]
                .into_iter()
                .flatten()
                .min()
        };
        // Polled only when one of these happens, which is not once in a request.
        let (goes_on, age_end) = (shut_down_at.is_none(), of_age);
        let events = pin!(async {
            tokio::select! {
                Ok(()) = changed.changed(), if goes_on => Event::Changed,
                Ok(_) = draining.wait_for(|draining| *draining), if goes_on => {
                    Event::Drain(PROCESS_DRAIN)
                }
                Ok(_) = leaving.wait_for(|leaving| leaving.concerns(inbound)), if !came_late && goes_on => {
                    Event::Drain(state.worker.shared.drain_time)
                }
                () = state.told_to_end.notified() => match state.is_abusive() {
                    true => Event::Abused,
                    false => Event::UsedUp,
                },
                () = sleep_until(age_end), if age_end.is_some() && goes_on => Event::OfAge,
                () = sleep_until(wake) => Event::Wake,
            }
        });
        let event = tokio::select! {
            biased;
            output = codec.as_mut() => return Some(output),
            event = Gated::new(events) => event,
        };
        // How long it goes on, and whether the proxy wants it to end rather than the connection's own limits.
        let (drain_in, told) = match event {
            Event::Changed if slot.keeps(chain, &state.info.facts()) => continue,
            Event::Changed => (CHAIN_DRAIN, true),
            Event::Drain(time) => (time, true),
            Event::UsedUp if !goes_on => continue,
            Event::UsedUp => (state.manager.limits.drain, false),
            Event::OfAge => {
                of_age = None;
                state.manager.stats.here().cx_max_duration.inc();
                (state.manager.limits.drain, false)
            }
            Event::Abused => {
                // It finds out when it reads, and tells the client.
                std::future::poll_fn(|context| {
                    Poll::Ready(codec.as_mut().poll(context).is_ready())
                })
                .await;
                return None;
            }
            Event::Wake if is_shut_down => {
                // Nothing is in progress, and what is left waits for a client that takes nothing.
                let now_sent = state.outgoing.get().1;
                if state.requests.get() == 0 && now_sent == sent {
                    return None;
                }
                sent = now_sent;
                continue;
            }
            Event::Wake => {
                let now = Instant::now();
                let drained = shut_down_at.is_some_and(|at| at <= now);
                let idle_ended = idle_end.is_some_and(|end| end <= now);
                let idle = idle_ended && state.requests.get() == 0;
                let mut stalled = false;
                if stall_end.is_some_and(|end| end <= now) {
                    stalled = state.sent_to_stalled() == Some(sent);
                    (sent, seen_at) = (state.outgoing.get().1, now);
                }
                if drained || idle || stalled {
                    if idle && !drained {
                        state.manager.stats.here().cx_idle_timeout.inc();
                    }
                    shut_down(codec.as_mut());
                    is_shut_down = true;
                } else if idle_ended {
                    // Requests are in progress: look again after the limit.
                    state.last_end.set(now);
                }
                continue;
            }
        };
        if told {
            state.manager.stats.here().cx_drain_close.inc();
        }
        state.closing.set(true);
        shut_down_at = Some(Instant::now() + drain_in);
        if state.http2 {
            // The client is told which streams are served, so nothing is lost.
            shut_down(codec.as_mut());
            is_shut_down = true;
        }
    }
}

pub(super) async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
