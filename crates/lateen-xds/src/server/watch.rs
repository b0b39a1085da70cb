//! What one stream knows about one resource type: subscription, versions at the client, and the last nonce.

use std::collections::{BTreeSet, HashMap, HashSet};

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType};
use prost::Message as _;
use tonic::Status;

use super::Session;
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
}

/// What to send.
#[derive(Debug, Default)]
pub(super) struct Reply {
    pub(super) resources: Vec<Resource>,
    pub(super) removed: Vec<String>,
    /// Endpoint resources that have to follow, because their cluster changed.
    pub(super) endpoints: BTreeSet<String>,
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
        for name in &reply.removed {
            self.held.remove(name);
        }
        for resource in resources {
            let same = self.held.get(&resource.name) == Some(&resource.version);
            if same && !asked.again.contains(&resource.name) {
                continue;
            }
            if !same {
                reply.endpoints.extend(endpoints_of(&resource));
            }
            self.held
                .insert(resource.name.clone(), resource.version.clone());
            reply.resources.push(resource);
        }
        reply
    }

    /// Everything the client wants if anything about it changed; `None` when it has it all already.
    pub(super) fn whole(&mut self, session: &impl Session, always: bool) -> Option<Reply> {
        let resources = session.resources(self.kind, &self.wanted());
        let differs =
            |resource: &&Resource| self.held.get(&resource.name) != Some(&resource.version);
        let endpoints: BTreeSet<String> = resources
            .iter()
            .filter(differs)
            .filter_map(endpoints_of)
            .collect();
        let same = resources.len() == self.held.len() && !resources.iter().any(|r| differs(&r));
        if same && !always {
            return None;
        }
        self.held = resources
            .iter()
            .map(|resource| (resource.name.clone(), resource.version.clone()))
            .collect();
        Some(Reply {
            resources,
            removed: Vec::new(),
            endpoints,
        })
    }
}

/// The endpoint resource that a cluster resource waits for.
fn endpoints_of(resource: &Resource) -> Option<String> {
    if ResourceType::from_type_url(&resource.body.type_url) != Some(ResourceType::Cluster) {
        return None;
    }
    let cluster = Cluster::decode(resource.body.value.as_slice()).ok()?;
    let eds = ClusterDiscoveryType::Type(DiscoveryType::Eds.into());
    if cluster.cluster_discovery_type != Some(eds) {
        return None;
    }
    let configured = cluster.eds_cluster_config.map(|config| config.service_name);
    Some(
        configured
            .filter(|name| !name.is_empty())
            .unwrap_or(cluster.name),
    )
}
