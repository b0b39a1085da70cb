//! What one stream knows about one resource type: subscription, versions at the client, and the last nonce.

use std::collections::{BTreeSet, HashMap, HashSet};

use tonic::Status;

use super::Session;
use super::references::endpoints_of;
use crate::{Names, Resource, ResourceType};

/// The name that asks for everything of a type.
pub(super) const WILDCARD: &str = "*";

/// The state of one type on one stream.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) kind: ResourceType,
    /// Whether a request for the type has been seen on this stream.
    pub(super) opened: bool,
    /// Whether everything is wanted.
    pub(super) wildcard: bool,
    /// Whether the client has named resources on this stream: then an empty list means none, not all.
    pub(super) explicit: bool,
    /// The names wanted besides.
    pub(super) names: BTreeSet<String>,
    /// Counts the changes of `names`.
    pub(super) revision: u64,
    /// Version of each resource that the client was sent, or said that it has.
    pub(super) held: HashMap<String, String>,
    /// Resources that are gone, which the client is told later.
    pub(super) removals: BTreeSet<String>,
    /// Clusters as they were sent, where a response holds all of them: removed ones are repeated until their time.
    sent: HashMap<String, Resource>,
    /// Nonce of the latest response.
    pub(super) nonce: String,
}

/// A request worked out: what to answer.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Asked {
    /// What to look at.
    pub(super) names: Names,
    /// Names to send even when the client was sent the same version before.
    pub(super) again: BTreeSet<String>,
    /// Answer even when there is nothing to say: the client waits for a first response.
    pub(super) always: bool,
    /// Leave what is gone for later, noted in [`Watch::removals`].
    pub(super) keep: bool,
}

/// What to send.
#[derive(Debug, Default)]
pub(super) struct Reply {
    pub(super) resources: Vec<Resource>,
    pub(super) removed: Vec<String>,
    /// Endpoint resources that have to follow, because their cluster changed.
    pub(super) endpoints: BTreeSet<String>,
    /// Those among them without which a cluster cannot be used, because it is new to the client.
    pub(super) unready: BTreeSet<String>,
}

impl Watch {
    pub(super) fn new(kind: ResourceType) -> Self {
        Self {
            kind,
            opened: false,
            wildcard: false,
            explicit: false,
            names: BTreeSet::new(),
            revision: 0,
            held: HashMap::new(),
            removals: BTreeSet::new(),
            sent: HashMap::new(),
            nonce: String::new(),
        }
    }

    /// Everything that the client wants.
    pub(super) fn wanted(&self) -> Names {
        if self.wildcard {
            Names::All
        } else {
            Names::Only(self.names.clone())
        }
    }

    /// The part of `names` that the client wants.
    pub(super) fn narrow(&self, names: Names) -> Names {
        match names {
            Names::All => self.wanted(),
            only if self.wildcard => only,
            Names::Only(names) => Names::Only(names.intersection(&self.names).cloned().collect()),
        }
    }

    /// What is still wanted of something that was asked for before.
    pub(super) fn narrow_asked(&self, asked: Asked) -> Asked {
        let again = match self.narrow(Names::Only(asked.again)) {
            Names::Only(again) => again,
            Names::All => BTreeSet::new(),
        };
        Asked {
            names: self.narrow(asked.names),
            again,
            ..asked
        }
    }

    /// # Errors
    /// When the subscription grew past `limit` names.
    pub(super) fn check_size(&self, limit: usize) -> Result<(), Status> {
        if self.names.len() > limit {
            let message = format!("more than {limit} {} names on one stream", self.kind);
            return Err(Status::resource_exhausted(message));
        }
        Ok(())
    }

    /// The changed resources among those asked for, and the names that are gone.
    pub(super) fn changed(&mut self, session: &impl Session, asked: &Asked) -> Reply {
        let mut reply = Reply::default();
        let resources = session.resources(self.kind, &asked.names);
        let present: HashSet<&str> = resources
            .iter()
            .map(|resource| resource.name.as_str())
            .collect();
        match &asked.names {
            // Whatever the client holds and no longer exists; and named ones that never did.
            Names::All => {
                let held = self
                    .held
                    .keys()
                    .filter(|name| !present.contains(name.as_str()));
                let unmet = asked
                    .again
                    .iter()
                    .filter(|name| !present.contains(name.as_str()));
                reply.removed = held.chain(unmet).cloned().collect();
            }
            Names::Only(names) => {
                let gone = names.iter().filter(|name| !present.contains(name.as_str()));
                let told =
                    |name: &&String| self.held.contains_key(*name) || asked.again.contains(*name);
                reply.removed = gone.filter(told).cloned().collect();
            }
        }
        reply.removed.sort_unstable();
        reply.removed.dedup();
        if asked.keep {
            self.removals.extend(std::mem::take(&mut reply.removed));
        }
        for name in &reply.removed {
            self.held.remove(name);
        }
        for resource in resources {
            let same = self.held.get(&resource.name) == Some(&resource.version);
            if same && !asked.again.contains(&resource.name) {
                continue;
            }
            let new = self
                .held
                .insert(resource.name.clone(), resource.version.clone())
                .is_none();
            if !same && let Some(name) = endpoints_of(&resource) {
                if new {
                    reply.unready.insert(name.clone());
                }
                reply.endpoints.insert(name);
            }
            reply.resources.push(resource);
        }
        reply
    }

    /// Everything the client wants if anything about it changed; `None` when it has it all already.
    pub(super) fn whole(&mut self, session: &impl Session, asked: &Asked) -> Option<Reply> {
        let mut reply = Reply {
            resources: session.resources(self.kind, &self.wanted()),
            ..Reply::default()
        };
        let present: HashSet<&str> = reply.resources.iter().map(|r| r.name.as_str()).collect();
        let gone = |name: &&String| !present.contains(name.as_str());
        let gone: Vec<String> = self.held.keys().filter(gone).cloned().collect();
        let mut same = asked.keep || gone.is_empty();
        for resource in &reply.resources {
            let held = self.held.get(&resource.name);
            if held == Some(&resource.version) {
                continue;
            }
            same = false;
            if let Some(name) = endpoints_of(resource) {
                if held.is_none() {
                    reply.unready.insert(name.clone());
                }
                reply.endpoints.insert(name);
            }
        }
        if asked.keep {
            let kept = gone.iter().filter_map(|name| self.sent.get(name));
            reply.resources.extend(kept.cloned());
            self.removals.extend(gone);
        }
        if same && !asked.always {
            return None;
        }
        let version = |resource: &Resource| (resource.name.clone(), resource.version.clone());
        self.held = reply.resources.iter().map(version).collect();
        if self.kind == ResourceType::Cluster {
            let sent = reply.resources.iter();
            self.sent = sent.map(|r| (r.name.clone(), r.clone())).collect();
        }
        Some(reply)
    }
}
