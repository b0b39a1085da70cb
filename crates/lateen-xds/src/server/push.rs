//! What a stream sends by itself: changes, in the order in which nothing breaks.

use std::collections::BTreeSet;

use tokio::time::Instant;
use tonic::Status;

use super::Session;
use super::hold::State;
use super::stream::{Protocol, Stream};
use super::watch::{Asked, Reply};
use crate::{Names, ResourceType};

impl<P: Protocol, T: Session> Stream<'_, P, T> {
    /// Works off what changed and is subscribed to. Listeners and routes are left to [`Self::release`], and so is what
    /// is gone.
    pub(super) async fn push(&mut self) -> Result<(), Status> {
        let changes = self.session.changes().take();
        let mut round = Vec::new();
        for (kind, names) in changes {
            let Some(watch) = self.watches.get_mut(&kind).filter(|watch| watch.opened) else {
                continue;
            };
            let asked = Asked {
                names: watch.narrow(names),
                keep: kind <= ResourceType::Endpoint,
                ..Asked::default()
            };
            if asked.names.is_empty() {
                continue;
            }
            if matches!(kind, ResourceType::Listener | ResourceType::Route) {
                self.hold.defer(kind, asked);
            } else if let Some(reply) = P::answer(watch, &self.session, &asked) {
                round.push((kind, reply));
            }
        }
        self.add_endpoints(&mut round);
        *self.pushed.get_or_insert(0) += round.len();
        self.send_all(round).await
    }

    /// Sends what no longer has to wait.
    pub(super) async fn release(&mut self) -> Result<(), Status> {
        if !self.hold.deferred.is_empty() {
            match self.hold.endpoints.check() {
                State::Closed => return Ok(()),
                State::Open => {
                    let round = self.answer_deferred();
                    if self.session.changes().concern(ResourceType::Cluster) {
                        // What was worked out may name clusters that have come since: their turn is first.
                        for (kind, asked, reply) in round {
                            self.hold.defer_again(kind, asked, reply);
                        }
                        return Ok(());
                    }
                    self.send_deferred(round).await?;
                }
                State::Overdue(missing) => {
                    self.session.overdue(&missing);
                    let round = self.answer_deferred();
                    self.send_deferred(round).await?;
                }
            }
        }
        if let Some(responses) = self.pushed.take() {
            self.session.pushed(responses);
        }
        if self.has_removals() {
            match self.hold.routes.check() {
                State::Closed => return Ok(()),
                State::Open => {}
                State::Overdue(missing) => self.session.overdue(&missing),
            }
            let round = self.answer_removals();
            self.send_all(round).await?;
        }
        Ok(())
    }

    /// When [`Self::release`] has something to do even though the client says nothing.
    pub(super) fn deadline(&self) -> Option<Instant> {
        if !self.hold.deferred.is_empty() {
            self.hold.endpoints.deadline()
        } else if self.has_removals() {
            self.hold.routes.deadline()
        } else {
            None
        }
    }

    pub(super) fn has_removals(&self) -> bool {
        self.watches
            .values()
            .any(|watch| !watch.removals.is_empty())
    }

    fn answer_deferred(&mut self) -> Vec<(ResourceType, Asked, Reply)> {
        let mut round = Vec::new();
        for (kind, asked) in std::mem::take(&mut self.hold.deferred) {
            let Some(watch) = self.watches.get_mut(&kind) else {
                continue;
            };
            // The client may want less by now.
            let asked = watch.narrow_asked(asked);
            if asked.names.is_empty() {
                continue;
            }
            if let Some(reply) = P::answer(watch, &self.session, &asked) {
                round.push((kind, asked, reply));
            }
        }
        round
    }

    fn answer_removals(&mut self) -> Vec<(ResourceType, Reply)> {
        let mut round = Vec::new();
        for (kind, watch) in &mut self.watches {
            let names = Names::Only(std::mem::take(&mut watch.removals));
            // Looked at again: what has come back stays.
            let asked = Asked {
                names: watch.narrow(names),
                ..Asked::default()
            };
            if asked.names.is_empty() {
                continue;
            }
            if let Some(reply) = P::answer(watch, &self.session, &asked) {
                round.push((*kind, reply));
            }
        }
        round
    }

    async fn send_deferred(
        &mut self,
        round: Vec<(ResourceType, Asked, Reply)>,
    ) -> Result<(), Status> {
        if let Some(pushed) = &mut self.pushed {
            *pushed += round.len();
        }
        let round = round.into_iter().map(|(kind, _, reply)| (kind, reply));
        self.send_all(round.collect()).await
    }

    /// Adds the endpoints of changed clusters to a round, unless they are part of it.
    pub(super) fn add_endpoints(&mut self, round: &mut Vec<(ResourceType, Reply)>) {
        let mut waiting = match round.first_mut() {
            Some((ResourceType::Cluster, reply)) => std::mem::take(&mut reply.endpoints),
            _ => return,
        };
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
        let again: BTreeSet<String> = match watch.narrow(Names::Only(waiting)) {
            Names::Only(names) if !names.is_empty() => names,
            _ => return,
        };
        let asked = Asked {
            names: Names::Only(again.clone()),
            again,
            ..Asked::default()
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
}
