//! What a stream holds back until its client has what it builds on.
//!
//! A proxy answers 503 for a route to a cluster that it does not have, or whose endpoints it waits for. So listeners
//! and routes wait until the endpoints of the clusters that are new to the client have been acknowledged, and removed
//! clusters stay until the listeners and routes which replace those that named them have been (Envoy's documentation,
//! "Eventual consistency considerations"). All waits are bounded: a client that cannot take a cluster still gets the
//! rest.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::references::routes_of;
use super::watch::{Asked, Reply, Watch};
use crate::{Names, ResourceType};

/// How long anything is held back. Some round trips to a busy proxy, and less than clients wait for a first answer
/// (Envoy's `initial_fetch_timeout` is 15 s).
const LONGEST: Duration = Duration::from_secs(5);
/// How much longer after the client rejected clusters: those that it took may still need their endpoints.
const AFTER_REJECTION: Duration = Duration::from_secs(1);

/// The waits of one stream, and what waits.
#[derive(Debug, Default)]
pub(super) struct Hold {
    /// Endpoints of clusters that are new to the client.
    pub(super) endpoints: Gate,
    /// Listeners and routes that no longer name the clusters to be removed.
    pub(super) routes: Gate,
    /// Listeners and routes to look at once `endpoints` is open.
    pub(super) deferred: BTreeMap<ResourceType, Asked>,
}

/// Waits for resources to be sent, and for responses to be answered.
#[derive(Debug, Default)]
pub(super) struct Gate {
    unsent: BTreeSet<(ResourceType, String)>,
    /// The latest response by type, as the count in its nonce.
    unanswered: BTreeMap<ResourceType, u64>,
    deadline: Option<Instant>,
}

/// Whether what waits may go.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum State {
    Open,
    Closed,
    /// The time is up. Names the resources that the client has not been sent.
    Overdue(Vec<String>),
}

impl Hold {
    /// Keeps listeners or routes for later, merged with what is kept already.
    pub(super) fn defer(&mut self, kind: ResourceType, asked: Asked) {
        let kept = self.deferred.entry(kind).or_default();
        kept.names.extend(asked.names);
        kept.again.extend(asked.again);
        kept.always |= asked.always;
    }

    /// Keeps for later what was worked out but not sent, although the stream counts it as held by the client.
    pub(super) fn defer_again(&mut self, kind: ResourceType, mut asked: Asked, reply: Reply) {
        let sent = reply.resources.into_iter().map(|resource| resource.name);
        let again: BTreeSet<String> = sent.chain(reply.removed).collect();
        asked.names.extend(Names::Only(again.clone()));
        asked.again.extend(again);
        asked.always = true;
        self.defer(kind, asked);
    }

    /// Notes a response that is about to be sent. `routes` is what the client has of them; `removals` whether clusters
    /// wait to be removed.
    pub(super) fn sent(
        &mut self,
        kind: ResourceType,
        reply: &Reply,
        count: u64,
        routes: Option<&Watch>,
        removals: bool,
    ) {
        match kind {
            ResourceType::Cluster => {
                for name in &reply.unready {
                    self.endpoints
                        .wait_for(ResourceType::Endpoint, name.clone());
                }
            }
            ResourceType::Endpoint => self.endpoints.sent(kind, reply, count),
            ResourceType::Listener | ResourceType::Route => {
                self.routes.sent(kind, reply, count);
                if !removals {
                    return;
                }
                self.routes.wait_for_answer(kind, count);
                // A listener takes effect with its routes, which may be new.
                for name in reply.resources.iter().flat_map(routes_of) {
                    if routes.is_none_or(|watch| !watch.held.contains_key(&name)) {
                        self.routes.wait_for(ResourceType::Route, name);
                    }
                }
            }
            ResourceType::Secret => {}
        }
    }

    /// Notes the answer to a response.
    pub(super) fn answered(&mut self, kind: ResourceType, count: u64, rejected: bool) {
        self.endpoints.answered(kind, count);
        self.routes.answered(kind, count);
        if rejected && kind == ResourceType::Cluster {
            self.endpoints.hurry();
        }
    }
}

impl Gate {
    /// Closes the gate until the client has acknowledged this resource.
    pub(super) fn wait_for(&mut self, kind: ResourceType, name: String) {
        self.unsent.insert((kind, name));
        self.close();
    }

    /// Closes the gate until the client has answered this response or a later one of the type.
    pub(super) fn wait_for_answer(&mut self, kind: ResourceType, count: u64) {
        self.unanswered.insert(kind, count);
        self.close();
    }

    /// The first reason to wait counts: steady changes do not prolong it.
    fn close(&mut self) {
        self.deadline
            .get_or_insert_with(|| Instant::now() + LONGEST);
    }

    fn sent(&mut self, kind: ResourceType, reply: &Reply, count: u64) {
        if self.unsent.is_empty() {
            return;
        }
        let before = self.unsent.len();
        let sent = reply.resources.iter().map(|resource| &resource.name);
        for name in sent.chain(&reply.removed) {
            self.unsent.remove(&(kind, name.clone()));
        }
        if self.unsent.len() < before {
            self.unanswered.insert(kind, count);
        }
    }

    fn answered(&mut self, kind: ResourceType, count: u64) {
        if self
            .unanswered
            .get(&kind)
            .is_some_and(|latest| *latest <= count)
        {
            self.unanswered.remove(&kind);
        }
        if self.unsent.is_empty() && self.unanswered.is_empty() {
            self.deadline = None;
        }
    }

    fn hurry(&mut self) {
        let soon = Instant::now() + AFTER_REJECTION;
        self.deadline = self.deadline.map(|deadline| deadline.min(soon));
    }

    /// When the gate opens by itself.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Looks whether the gate is open. An overdue one is open from then on.
    pub(super) fn check(&mut self) -> State {
        match self.deadline {
            None => State::Open,
            Some(deadline) if deadline > Instant::now() => State::Closed,
            Some(_) => {
                let overdue = std::mem::take(self);
                State::Overdue(overdue.unsent.into_iter().map(|(_, name)| name).collect())
            }
        }
    }
}
