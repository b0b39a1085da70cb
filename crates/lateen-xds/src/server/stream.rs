//! One stream: requests in, pushes out, the same for both variants of the protocol.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::{ControlPlane, Node};
use envoy_types::pb::google::protobuf::Any;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::{Status, Streaming};

use super::watch::{Asked, Reply, Watch};
use super::{Caller, Inner, Progress, Session, Source, Variant};
use crate::{Names, ResourceType};

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

    /// The order in which the replies of one push are sent.
    fn order(replies: Vec<(ResourceType, Reply)>) -> Vec<(ResourceType, Reply)>;
}

/// The common part of a request.
pub(super) struct Header<'a> {
    pub(super) type_url: &'a str,
    pub(super) nonce: &'a str,
    pub(super) error: Option<&'a str>,
    pub(super) names: &'a [String],
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
    };
    stream.request(first).await?;
    loop {
        tokio::select! {
            // Requests first: an ACK or a wider subscription should be known before a push.
            biased;
            request = requests.message() => match request {
                Ok(Some(request)) => stream.request(request).await?,
                // The client has closed its half, or the connection broke.
                Ok(None) | Err(_) => return Ok(()),
            },
            () = stream.session.changes().marked() => stream.push().await?,
        }
    }
}

struct Stream<'a, P: Protocol, T> {
    session: T,
    names_limit: usize,
    watches: BTreeMap<ResourceType, Watch>,
    counter: u64,
    replies: &'a Replies<P>,
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
        let before = (watch.wildcard, watch.revision);
        let asked = P::subscribe(watch, request, stale);
        if before != (watch.wildcard, watch.revision) {
            watch.check_size(self.names_limit)?;
            self.session.subscribed(kind, &watch.wanted());
        }
        let Some(asked) = asked else {
            return Ok(());
        };
        let Some(reply) = P::answer(watch, &self.session, &asked) else {
            return Ok(());
        };
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

    /// Sends what changed and is subscribed to.
    async fn push(&mut self) -> Result<(), Status> {
        let changes = self.session.changes().take();
        let mut round = Vec::new();
        for (kind, names) in changes {
            let Some(watch) = self.watches.get_mut(&kind).filter(|watch| watch.opened) else {
                continue;
            };
            let asked = Asked {
                names: watch.narrow(names),
                ..Asked::default()
            };
            if asked.names.is_empty() {
                continue;
            }
            if let Some(reply) = P::answer(watch, &self.session, &asked) {
                round.push((kind, reply));
            }
        }
        self.add_endpoints(&mut round);
        let round = P::order(round);
        let responses = round.len();
        self.send_all(round).await?;
        self.session.pushed(responses);
        Ok(())
    }

    /// Adds the endpoints of changed clusters to a round, unless they are part of it.
    fn add_endpoints(&mut self, round: &mut Vec<(ResourceType, Reply)>) {
        let mut waiting = std::mem::take(match round.first_mut() {
            Some((ResourceType::Cluster, reply)) => &mut reply.endpoints,
            _ => return,
        });
        if let Some((_, reply)) = round
            .get(1)
            .filter(|(kind, _)| *kind == ResourceType::Endpoint)
        {
            for resource in &reply.resources {
                waiting.remove(&resource.name);
            }
        }
        let Some(watch) = self.watches.get_mut(&ResourceType::Endpoint) else {
            return;
        };
        let names = watch.narrow(Names::Only(waiting));
        let Names::Only(again) = names.clone() else {
            return;
        };
        if again.is_empty() {
            return;
        }
        let asked = Asked {
            names,
            again,
            always: false,
        };
        let Some(extra) = P::answer(watch, &self.session, &asked) else {
            return;
        };
        match round.get_mut(1) {
            Some((ResourceType::Endpoint, reply)) => {
                reply.resources.extend(extra.resources);
                reply.removed.extend(extra.removed);
            }
            _ => round.insert(1, (ResourceType::Endpoint, extra)),
        }
    }

    async fn send_all(&mut self, round: Vec<(ResourceType, Reply)>) -> Result<(), Status> {
        for (kind, reply) in round {
            let nonce = self.nonce();
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
