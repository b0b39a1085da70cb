//! One stream: requests in, pushes out, the same for both variants of the protocol.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::{ControlPlane, Node};
use envoy_types::pb::google::protobuf::Any;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tonic::{Status, Streaming};

use super::hold::Hold;
use super::watch::{Asked, Reply, Watch};
use super::{Caller, Inner, Progress, Session, Source, Variant};
use crate::ResourceType;

/// How long the final status may wait for a client that does not read.
const STATUS_WAIT: Duration = Duration::from_secs(1);

/// Where the two variants differ.
pub(super) trait Protocol: 'static {
    type Request: Send + Sync + 'static;
    type Response: Send + 'static;

    const VARIANT: Variant;

    fn node(request: &mut Self::Request) -> Option<Node>;

    fn header(request: &Self::Request) -> Header<'_>;

    /// Applies a request to the subscription; answers what to look at, if anything.
    fn subscribe(watch: &mut Watch, request: Self::Request, stale: bool) -> Option<Asked>;

    /// What to send for it, if anything.
    fn answer(watch: &mut Watch, session: &impl Session, asked: &Asked) -> Option<Reply>;

    fn response(
        type_url: &str,
        reply: Reply,
        nonce: String,
        version: String,
        control_plane: ControlPlane,
    ) -> Self::Response;

    fn other_response(
        type_url: &str,
        resources: Vec<Any>,
        nonce: String,
        control_plane: ControlPlane,
    ) -> Self::Response;
}

/// The common part of a request.
pub(super) struct Header<'a> {
    pub(super) type_url: &'a str,
    pub(super) nonce: &'a str,
    pub(super) error: Option<&'a str>,
    pub(super) names: &'a [String],
    /// Whether the client says that it holds resources, as it does when it comes back.
    pub(super) resumed: bool,
}

type Replies<P> = mpsc::Sender<Result<<P as Protocol>::Response, Status>>;

/// Serves one stream to its end. What the client does wrong ends the stream with a status.
pub(super) async fn run<P: Protocol, S: Source>(
    inner: Arc<Inner<S>>,
    caller: Caller,
    requests: Streaming<P::Request>,
    replies: Replies<P>,
) {
    let mut stopped = inner.stopped.subscribe();
    let peer = caller.peer;
    let served = tokio::select! {
        served = serve::<P, S>(&inner, caller, requests, &replies) => served,
        // A client that hangs up ends the stream even while its session is being opened.
        () = replies.closed() => Ok(()),
        _ = stopped.wait_for(|stopped| *stopped) => {
            Err(Status::unavailable("the server is shutting down"))
        }
    };
    if let Err(status) = served {
        tracing::debug!(?peer, %status, "discovery stream refused");
        // A client that has gone, or does not read, gets no status.
        let _ = timeout(STATUS_WAIT, replies.send(Err(status))).await;
    }
    inner.streams.fetch_sub(1, Ordering::Relaxed);
}

async fn serve<P: Protocol, S: Source>(
    inner: &Inner<S>,
    caller: Caller,
    mut requests: Streaming<P::Request>,
    replies: &Replies<P>,
) -> Result<(), Status> {
    let first = timeout(inner.limits.first_request, requests.message())
        .await
        .map_err(|_| Status::deadline_exceeded("no request on the new stream"))??;
    let Some(mut first) = first else {
        return Ok(());
    };
    let node = P::node(&mut first)
        .ok_or_else(|| Status::invalid_argument("the first request names no node"))?;
    let session = inner.source.open(caller, node, P::VARIANT).await?;
    let mut stream = Stream::<P, S::Session> {
        session,
        names_limit: inner.limits.names,
        watches: BTreeMap::new(),
        counter: 0,
        replies,
        hold: Hold::default(),
        pushed: None,
    };
    stream.request(first).await?;
    loop {
        stream.release().await?;
        let deadline = stream.deadline();
        tokio::select! {
            // Requests first: an ACK or a wider subscription should be known before a push.
            biased;
            request = requests.message() => match request {
                Ok(Some(request)) => stream.request(request).await?,
                // The client has closed its half, or the connection broke.
                Ok(None) | Err(_) => return Ok(()),
            },
            () = stream.session.changes().marked() => stream.push().await?,
            () = until(deadline) => {}
        }
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

pub(super) struct Stream<'a, P: Protocol, T> {
    pub(super) session: T,
    names_limit: usize,
    pub(super) watches: BTreeMap<ResourceType, Watch>,
    counter: u64,
    replies: &'a Replies<P>,
    /// What waits for the client.
    pub(super) hold: Hold,
    /// The responses that the changes being worked off have taken so far.
    pub(super) pushed: Option<usize>,
}

impl<P: Protocol, T: Session> Stream<'_, P, T> {
    async fn request(&mut self, request: P::Request) -> Result<(), Status> {
        let header = P::header(&request);
        let Some(kind) = ResourceType::from_type_url(header.type_url) else {
            return self.request_other(&request).await;
        };
        let watch = self.watches.entry(kind).or_insert_with(|| Watch::new(kind));
        let stale = !header.nonce.is_empty() && header.nonce != watch.nonce;
        if !header.nonce.is_empty() && !stale {
            let nonce = header.nonce;
            let progress = match header.error {
                Some(message) => Progress::Nacked { nonce, message },
                None => Progress::Acked { nonce },
            };
            self.session.progress(kind, progress);
        }
        if let Some(count) = count_of(header.nonce) {
            self.hold.answered(kind, count, header.error.is_some());
        }
        // A client that is new has nothing that could break; one that comes back has.
        let resumed = !watch.opened && header.resumed;
        let before = (watch.wildcard, watch.revision);
        let asked = P::subscribe(watch, request, stale);
        if before != (watch.wildcard, watch.revision) {
            watch.check_size(self.names_limit)?;
            self.session.subscribed(kind, &watch.wanted());
        }
        let Some(mut asked) = asked else {
            return Ok(());
        };
        match kind {
            ResourceType::Listener | ResourceType::Route => {
                self.hold.defer(kind, asked);
                return Ok(());
            }
            ResourceType::Cluster => {
                asked.keep = watch.wildcard && (resumed || !watch.removals.is_empty());
            }
            _ => {}
        }
        let Some(mut reply) = P::answer(watch, &self.session, &asked) else {
            return Ok(());
        };
        if !resumed {
            reply.unready.clear();
        } else if !watch.removals.is_empty() {
            for kind in [ResourceType::Listener, ResourceType::Route] {
                self.hold.routes.wait_for_answer(kind, 0);
            }
        }
        let mut round = vec![(kind, reply)];
        self.add_endpoints(&mut round);
        self.send_all(round).await
    }

    /// Types outside the protocol's own are answered once for each question, without a subscription.
    async fn request_other(&mut self, request: &P::Request) -> Result<(), Status> {
        let header = P::header(request);
        if !header.nonce.is_empty() {
            return Ok(());
        }
        if header.type_url.is_empty() {
            return Err(Status::invalid_argument("the request names no type_url"));
        }
        let resources = self.session.other(header.type_url, header.names);
        let type_url = header.type_url.to_owned();
        let nonce = self.nonce();
        let response = P::other_response(&type_url, resources, nonce, self.control_plane());
        self.send(response).await
    }

    pub(super) async fn send_all(
        &mut self,
        round: Vec<(ResourceType, Reply)>,
    ) -> Result<(), Status> {
        for (kind, reply) in round {
            let nonce = self.nonce();
            let routes = self.watches.get(&ResourceType::Route);
            let removals = self.has_removals();
            self.hold.sent(kind, &reply, self.counter, routes, removals);
            if let Some(watch) = self.watches.get_mut(&kind) {
                watch.nonce.clone_from(&nonce);
            }
            self.session.progress(
                kind,
                Progress::Sent {
                    nonce: &nonce,
                    resources: reply.resources.len(),
                    removed: reply.removed.len(),
                    bytes: reply
                        .resources
                        .iter()
                        .map(|resource| resource.body.value.len())
                        .sum(),
                },
            );
            let version = self.session.version();
            let response =
                P::response(kind.type_url(), reply, nonce, version, self.control_plane());
            self.send(response).await?;
        }
        Ok(())
    }

    /// Waits while the client is slow: meanwhile changes merge in the session.
    async fn send(&self, response: P::Response) -> Result<(), Status> {
        let gone = |_| Status::cancelled("the client has gone");
        self.replies.send(Ok(response)).await.map_err(gone)
    }

    /// A label for people, and the count of the stream's responses.
    fn nonce(&mut self) -> String {
        self.counter += 1;
        format!("{}/{}", self.session.version(), self.counter)
    }

    fn control_plane(&self) -> ControlPlane {
        ControlPlane {
            identifier: self.session.identifier(),
        }
    }
}

/// The count in a nonce that a client repeats.
fn count_of(nonce: &str) -> Option<u64> {
    nonce.rsplit_once('/')?.1.parse().ok()
}
