//! The end of a request: giving the upstream connection back, counting, and writing the access log.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use super::connection::HttpConnection;
use super::filter::ActiveFault;
use super::request_body::RequestSource;
use crate::cluster::{ActiveRequest, Cluster};
use crate::flags::Flags;
use crate::pool::{Http1Connection, Stream, TcpConnection};
use crate::record::Record;
use crate::telemetry;
use crate::tls::info::TlsInfo;
use crate::worker::Worker;

/// What a response holds on to until it is sent.
pub(crate) struct Tail {
    pub(crate) record: Record,
    pub(crate) connection: Rc<HttpConnection>,
    pub(crate) source: Option<Rc<RequestSource>>,
    pub(crate) upstream: Option<UpstreamHold>,
    /// When the response must be complete, and the timer for it. Timers are made when there is something to wait for,
    /// which most responses never have.
    pub(crate) deadline: Option<(Deadline, Option<Pin<Box<Sleep>>>)>,
    /// Time without progress, and the timer for it.
    pub(crate) idle: Option<(Duration, Option<Pin<Box<Sleep>>>)>,
    /// A fault was injected into the request.
    #[allow(dead_code, reason = "it counts until it is dropped")]
    pub(crate) fault: Option<ActiveFault>,
}

/// When a response must be complete.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    pub(crate) at: Instant,
    /// It is that of the whole stream, not that of the response.
    pub(crate) of_stream: bool,
}

/// The upstream side of an exchange.
pub(crate) struct UpstreamHold {
    pub(crate) lease: Lease,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) worker: Rc<Worker>,
    pub(crate) active: ActiveRequest,
}

/// The connection that carries an exchange.
pub(crate) enum Lease {
    Http1(Http1Connection),
    Http2(Stream),
    /// It carries what is in a tunnel, and nothing else.
    Tcp(TcpConnection),
}

impl Lease {
    /// Properties of its TLS; nothing for plaintext.
    pub(crate) fn tls(&self) -> Option<Rc<TlsInfo>> {
        match self {
            Self::Http1(connection) => connection.tls.clone(),
            Self::Http2(stream) => stream.connection.tls.clone(),
            Self::Tcp(connection) => connection.tls.clone(),
        }
    }
}

impl UpstreamHold {
    /// Counts that the exchange is given up before its end. Connections of HTTP/1.1 are closed instead.
    pub(super) fn count_reset(&self) {
        if matches!(self.lease, Lease::Http2(_)) {
            self.cluster.shared.stats.here().rq_tx_reset.inc();
        }
    }

    /// The exchange is complete, so the connection can carry another.
    pub(crate) fn release(self) {
        match self.lease {
            Lease::Http1(connection) => self.worker.pools.release(&self.cluster, connection),
            Lease::Http2(stream) => drop(stream),
            Lease::Tcp(connection) => drop(connection),
        }
        drop(self.active);
    }
}

impl Tail {
    /// Whether the response takes too long, though it goes on.
    pub(crate) fn is_late(&mut self) -> bool {
        let late = |(deadline, _): &(Deadline, _)| deadline.at <= Instant::now();
        if self.deadline.as_ref().is_some_and(late) {
            self.give_up_late();
            return true;
        }
        false
    }

    /// Returns when the response has taken too long.
    pub(super) async fn late(&self) {
        match &self.deadline {
            Some((deadline, _)) => tokio::time::sleep_until(deadline.at).await,
            None => std::future::pending().await,
        }
    }

    /// The response made no progress for too long.
    pub(super) fn give_up_idle(&mut self) {
        self.record.flags.set(Flags::STREAM_IDLE_TIMEOUT);
        self.record.details = "stream_idle_timeout".into();
        self.upstream = None;
    }

    /// The response took too long.
    pub(super) fn give_up_late(&mut self) {
        let of_stream = |(deadline, _): &(Deadline, _)| deadline.of_stream;
        let (flag, details) = if self.deadline.as_ref().is_some_and(of_stream) {
            (Flags::DURATION_TIMEOUT, "max_duration_timeout")
        } else {
            (Flags::UPSTREAM_REQUEST_TIMEOUT, "response_timeout")
        };
        self.record.flags.set(flag);
        self.record.details = details.into();
        self.upstream = None;
    }

    /// Whether waiting for more has taken too long.
    pub(crate) fn expired(&mut self, context: &mut Context<'_>) -> bool {
        if let Some((deadline, timer)) = &mut self.deadline {
            let timer =
                timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline.at)));
            if timer.as_mut().poll(context).is_ready() {
                self.give_up_late();
                return true;
            }
        }
        let Some((limit, timer)) = &mut self.idle else {
            return false;
        };
        let timer = timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(*limit)));
        while timer.as_mut().poll(context).is_ready() {
            // The request may still be on its way.
            let progress = self.source.as_deref().and_then(RequestSource::progress);
            let end = progress.and_then(|progress| progress.checked_add(*limit));
            match end.filter(|end| *end > Instant::now()) {
                Some(end) => timer.as_mut().reset(end),
                None => {
                    self.give_up_idle();
                    return true;
                }
            }
        }
        false
    }

    /// Something was sent: the idle timer starts again.
    pub(crate) fn progress(&mut self) {
        if let Some((limit, Some(timer))) = &mut self.idle {
            timer.as_mut().reset(Instant::now() + *limit);
        }
    }

    /// The response was received completely.
    pub(crate) fn upstream_complete(&mut self) {
        if let Some(hold) = self.upstream.take() {
            hold.release();
        }
    }

    /// The upstream broke off in the middle of the response.
    pub(crate) fn upstream_broken(&mut self) {
        self.record
            .flags
            .set(Flags::UPSTREAM_CONNECTION_TERMINATION);
        self.record.details =
            "upstream_reset_after_response_started{connection_termination}".into();
        self.connection
            .manager
            .stats
            .here()
            .reset_after_downstream_response_started
            .inc();
        self.upstream = None;
    }

    /// The request goes on elsewhere: the endpoint's redirect is followed.
    pub(super) fn followed(&mut self) {
        self.record.details = "internal_redirect".into();
        self.end(false);
    }

    /// The request is over. `unread`: the client went away before the response was complete.
    pub(crate) fn finish(&mut self, unread: bool) {
        if unread {
            self.record.flags.set(Flags::DOWNSTREAM_TERMINATION);
            self.record.details = "downstream_remote_disconnect".into();
            self.upstream = None;
        } else {
            self.upstream_complete();
        }
        self.end(true);
    }

    /// The request is over, as the client took nothing of the response for too long.
    pub(super) fn finish_stalled(&mut self) {
        self.give_up_idle();
        self.end(true);
    }

    /// Counts and logs the end. Only a request that was answered counts with its response.
    fn end(&mut self, is_answered: bool) {
        let record = &mut self.record;
        if let Some(source) = &self.source {
            record.bytes_received = source.received();
        }
        let now = Instant::now();
        record.duration = Some(now.into_std() - record.started);
        let stats = self.connection.manager.stats.here();
        if record.status > 0 && is_answered {
            stats.response(record.status);
        }
        let duration = record.duration.unwrap_or_default();
        stats.rq_time.observe(duration.as_millis() as u64);
        // What the cluster answered; what the proxy answers itself took the cluster no time.
        if let (Some(cluster), Some(_)) = (&record.cluster, record.response_start)
            && is_answered
        {
            let cluster = &cluster.shared.stats;
            cluster.here().rq_time.observe(duration.as_millis() as u64);
        }
        stats.rq_active.dec();
        for log in &self.connection.manager.access_log {
            log.log(record);
        }
        for filter in &self.connection.manager.telemetry {
            telemetry::http::report(filter, &self.connection.worker, record);
        }
        self.connection.request_ended(now);
    }
}
