//! Mirroring: copies of requests go to other clusters, whose answers nobody sees.
//!
//! A copy never delays or fails the request that it was made of: it runs as a task of its own, and is given up rather
//! than waited for. A request without a body is copied at once; one with a body when the body was received completely,
//! as the upstream of the original sets the pace. Sources of the rules: Envoy's `router` filter and its asynchronous
//! client.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::attempt::{Choice, Outgoing, outlier_status, send};
use super::exchange::{ATTEMPT_COUNT, Exchange};
use super::finish::UpstreamHold;
use super::forward::Plan;
use super::forwarded::append_forwarded_for;
use super::head::Head;
use super::kept::{Kept, Position};
use super::request_body::{REPLAY_LIMIT, RequestBody};
use crate::balancing::Wish;
use crate::cluster::{ActiveRequest, Cluster, Discovery, Limited, Priority, UpstreamVersion};
use crate::http1::Opens;
use crate::outlier::{Event, report};
use crate::worker::Worker;

const INTERNAL: HeaderName = HeaderName::from_static("x-envoy-internal");

/// Copies that a worker has in flight at most. A mirror that hangs costs this many, not the process.
const MOST_SHADOWS: u32 = 1024;

/// Bytes of bodies that a worker keeps for copies at most.
const MOST_BYTES: usize = 32 << 20;

/// Time for a copy whose route has no limit. Nobody waits for the answer, so nobody would ever give up.
const LONGEST: Duration = Duration::from_secs(60);

/// What the copies of a worker use.
#[derive(Debug, Default)]
pub(crate) struct Shadows {
    active: Cell<u32>,
    bytes: Cell<usize>,
}

/// A copy in flight, counted until dropped.
struct InFlight(Rc<Worker>);

impl InFlight {
    fn start(worker: &Rc<Worker>) -> Option<Self> {
        let active = &worker.shadows.active;
        if active.get() >= MOST_SHADOWS {
            return None;
        }
        active.set(active.get() + 1);
        Some(Self(worker.clone()))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let active = &self.0.shadows.active;
        active.set(active.get() - 1);
    }
}

/// A body that is collected while the original passes by. All copies of one request share it.
pub(crate) struct BodyCopy {
    worker: Rc<Worker>,
    state: RefCell<CopyState>,
    settled: Notify,
}

#[derive(Default)]
struct CopyState {
    kept: Kept,
    trailers: Option<HeaderMap>,
    outcome: Option<Outcome>,
}

/// How the collecting ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Complete,
    /// The body is too large, or its rest will not come.
    Abandoned,
}

impl BodyCopy {
    fn new(worker: &Rc<Worker>) -> Rc<Self> {
        Rc::new(Self {
            worker: worker.clone(),
            state: RefCell::default(),
            settled: Notify::new(),
        })
    }

    /// Adds a chunk. Says whether more is wanted.
    pub(crate) fn push(&self, data: &Bytes) -> bool {
        let held = &self.worker.shadows.bytes;
        let mut state = self.state.borrow_mut();
        if state.kept.len() + data.len() > REPLAY_LIMIT || held.get() + data.len() > MOST_BYTES {
            drop(state);
            self.abandon();
            return false;
        }
        held.set(held.get() + data.len());
        state.kept.push(data);
        true
    }

    /// Everything was received.
    pub(crate) fn complete(&self, trailers: Option<HeaderMap>) {
        let mut state = self.state.borrow_mut();
        state.trailers = trailers;
        state.outcome = Some(Outcome::Complete);
        self.settled.notify_waiters();
    }

    /// There will be no complete body. What was kept is freed at once.
    pub(crate) fn abandon(&self) {
        self.free();
        self.state.borrow_mut().outcome = Some(Outcome::Abandoned);
        self.settled.notify_waiters();
    }

    /// The body when it is complete; nothing when it never will be.
    async fn body(&self) -> Option<CopiedBody> {
        loop {
            let settled = self.settled.notified();
            if let Some(outcome) = self.state.borrow().outcome {
                let state = self.state.borrow();
                return (outcome == Outcome::Complete).then(|| CopiedBody {
                    left: state.kept.len() as u64,
                    kept: state.kept.clone(),
                    position: Position::default(),
                    trailers: state.trailers.clone(),
                });
            }
            settled.await;
        }
    }

    fn free(&self) {
        let mut state = self.state.borrow_mut();
        let held = &self.worker.shadows.bytes;
        held.set(held.get() - state.kept.len());
        state.kept.clear();
    }
}

impl Drop for BodyCopy {
    fn drop(&mut self) {
        self.free();
    }
}

/// The body of one copy.
pub(crate) struct CopiedBody {
    kept: Kept,
    position: Position,
    left: u64,
    trailers: Option<HeaderMap>,
}

impl CopiedBody {
    pub(super) fn next(&mut self) -> Option<Frame<Bytes>> {
        match self.kept.read(&mut self.position) {
            Some(chunk) => {
                self.left -= chunk.len() as u64;
                Some(Frame::data(chunk))
            }
            None => self.trailers.take().map(Frame::trailers),
        }
    }

    /// Whether nothing of it was read.
    pub(super) fn is_untouched(&self) -> bool {
        self.position == Position::default()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.left == 0 && self.trailers.is_none()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        // With a length HTTP/1.1 would not send the trailers.
        match self.trailers {
            None => SizeHint::with_exact(self.left),
            Some(_) => SizeHint::default(),
        }
    }
}

/// One copy, ready to be sent.
struct Shadow {
    worker: Rc<Worker>,
    cluster: Arc<Cluster>,
    head: Head,
    body: Option<Rc<BodyCopy>>,
    version: UpstreamVersion,
    limit: Duration,
}

/// Starts the copies that the route asks for. `timeout` is that of the original.
pub(super) fn start(exchange: &Exchange, plan: &Plan<'_>, timeout: Option<Duration>) {
    // The bytes after an upgrade belong to a conversation with one peer, which cannot be held with two.
    if plan.action.mirrors.is_empty() || exchange.upgrade.is_some() {
        return;
    }
    let worker = &exchange.connection.worker;
    let clusters = worker.shared.clusters.load();
    let mut body = None;
    for mirror in &plan.action.mirrors {
        if !mirror.fraction.draws(fastrand::u64(..)) {
            continue;
        }
        // An unknown cluster is no error of the original; and without a client there is no original destination.
        let Some(cluster) = clusters
            .get(&mirror.cluster)
            .filter(|cluster| cluster.discovery == Discovery::Listed)
        else {
            continue;
        };
        let Some(in_flight) = InFlight::start(worker) else {
            // The bound works like a circuit breaker of the mirror, and is counted like one.
            cluster.shared.stats.here().rq_pending_overflow.inc();
            continue;
        };
        let mut head = exchange.head.clone_for_values();
        if mirror.shadow_suffix {
            head.authority = shadow_authority(&head.authority);
        }
        // The copy is made inside the mesh, by this proxy, which the next hop sees from both headers.
        let marked = HeaderValue::from_static("true");
        head.headers.insert(INTERNAL, marked);
        if let Some(ip) = worker.shared.node_ip {
            append_forwarded_for(&mut head.headers, ip);
        }
        if plan.virtual_host.attempt_count_in_request {
            head.headers.insert(ATTEMPT_COUNT, HeaderValue::from(1));
        }
        if let Some(source) = &exchange.source {
            body.get_or_insert_with(|| {
                let copy = BodyCopy::new(worker);
                source.copy_to(copy.clone());
                copy
            });
        }
        let shadow = Shadow {
            worker: worker.clone(),
            cluster: cluster.clone(),
            head,
            body: body.clone(),
            version: cluster.protocol.version(exchange.connection.http2),
            limit: timeout.unwrap_or(LONGEST),
        };
        tokio::task::spawn_local(async move {
            let _in_flight = in_flight;
            shadow.run().await;
        });
    }
}

impl Shadow {
    async fn run(self) {
        let body = match &self.body {
            None => RequestBody::Empty,
            Some(copy) => match copy.body().await {
                Some(body) => RequestBody::Copied(body),
                None => return,
            },
        };
        self.exchange(body).await;
    }

    /// Sends the copy and reads the answer to its end, so that the connection can be used again.
    async fn exchange(self, body: RequestBody) {
        let deadline = Instant::now() + self.limit;
        let (cluster, worker) = (&self.cluster, &self.worker);
        let shared = &cluster.shared;
        let Some(permit) = cluster.permit(Priority::Default, Limited::Requests) else {
            shared.stats.here().rq_active_overflow.inc();
            return;
        };
        let Some(host) = worker.pick(cluster, &Wish::default()) else {
            shared.stats.here().cx_none_healthy.inc();
            return;
        };
        let active = ActiveRequest::start(&host, shared, permit);
        let mut local = None;
        let sending = send(
            worker,
            cluster,
            &host,
            Choice {
                priority: Priority::Default,
                protocols: None,
                // Copies are the proxy's own.
                client: None,
            },
            Outgoing {
                head: &self.head,
                body,
                version: self.version,
                opens: Opens::Nothing,
            },
            &mut local,
        );
        let result = tokio::time::timeout_at(deadline, sending).await;
        // The endpoint is judged by copies, too, but only for the cluster that they are sent to.
        let event = match &result {
            Ok(Ok((response, _))) => Some(Event::Response(outlier_status(&self.head, response))),
            Ok(Err(error)) => error.event(local.is_some()),
            Err(_) => Some(Event::LocalFailure {
                status: 504,
                connected: local.is_some(),
            }),
        };
        if let Some(event) = event {
            report(worker, cluster, &host, event);
        }
        let (response, lease) = match result {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => return,
            Err(_) => return shared.stats.here().rq_timeout.inc(),
        };
        shared.stats.here().response(response.status().as_u16());
        let hold = UpstreamHold {
            lease,
            cluster: cluster.clone(),
            worker: worker.clone(),
            active,
        };
        let mut answer = response.into_body();
        let reading = async {
            while let Some(frame) = answer.frame().await {
                if frame.is_err() {
                    return false;
                }
            }
            true
        };
        if tokio::time::timeout_at(deadline, reading).await == Ok(true) {
            hold.release();
        }
    }
}

/// The host with `-shadow` before its port, if it has one.
fn shadow_authority(authority: &str) -> String {
    // The colons of an IPv6 address are inside its brackets.
    let port = authority
        .rfind(':')
        .filter(|colon| authority.rfind(']').is_none_or(|bracket| bracket < *colon));
    let (host, port) = authority.split_at(port.unwrap_or(authority.len()));
    format!("{host}-shadow{port}")
}

#[cfg(test)]
mod tests {
    use super::shadow_authority;

    #[test]
    fn the_suffix_stands_before_the_port() {
        for (authority, expected) in [
            ("httpbin:8000", "httpbin-shadow:8000"),
            ("httpbin", "httpbin-shadow"),
            ("127.0.0.1:80", "127.0.0.1-shadow:80"),
            ("[::1]:80", "[::1]-shadow:80"),
            ("[::1]", "[::1]-shadow"),
        ] {
            assert_eq!(shadow_authority(authority), expected);
        }
    }
}
