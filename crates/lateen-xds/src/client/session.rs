//! The protocol without its transport: what is held, what is subscribed, and the requests that follow a response.

use std::collections::{BTreeSet, HashMap};

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse,
};
use envoy_types::pb::google::rpc::Status;

use super::{Handler, Rejection, Update};
use crate::{Resource, ResourceType};

/// gRPC code of a NACK.
const INVALID_ARGUMENT: i32 = 3;

/// The types this client asks for, in the order of a consistent update.
const KINDS: [ResourceType; 5] = [
    ResourceType::Cluster,
    ResourceType::Endpoint,
    ResourceType::Listener,
    ResourceType::Route,
    ResourceType::Secret,
];

/// What survives a stream: accepted versions and subscriptions by type.
#[derive(Debug, Default)]
pub(super) struct Held {
    kinds: HashMap<ResourceType, HeldKind>,
}

#[derive(Debug, Default)]
struct HeldKind {
    versions: HashMap<String, String>,
    subscribed: BTreeSet<String>,
}

impl Held {
    /// The requests that open a stream. Only the first carries the node.
    pub(super) fn first_requests(
        &mut self,
        node: &Node,
        handler: &impl Handler,
    ) -> Vec<DeltaDiscoveryRequest> {
        let mut requests = Vec::new();
        for kind in KINDS {
            let held = self.kinds.entry(kind).or_default();
            held.subscribed = if kind.is_wildcard() {
                BTreeSet::new()
            } else {
                handler.wanted(kind)
            };
            if !kind.is_wildcard() && held.subscribed.is_empty() {
                continue;
            }
            requests.push(DeltaDiscoveryRequest {
                node: requests.is_empty().then(|| node.clone()),
                type_url: kind.type_url().to_owned(),
                resource_names_subscribe: held.subscribed.iter().cloned().collect(),
                initial_resource_versions: held.versions.clone(),
                ..Default::default()
            });
        }
        requests
    }

    /// Hands a response to the handler; returns its ACK or NACK and the changes of subscriptions that follow from it.
    pub(super) fn respond(
        &mut self,
        response: DeltaDiscoveryResponse,
        handler: &mut impl Handler,
    ) -> Vec<DeltaDiscoveryRequest> {
        let nonce = response.nonce.clone();
        let type_url = response.type_url.clone();
        let Some(kind) = ResourceType::from_type_url(&type_url) else {
            let reason = "this type was not asked for".to_owned();
            return vec![answer(
                &type_url,
                nonce,
                &[Rejection {
                    name: type_url.clone(),
                    reason,
                }],
            )];
        };
        let rejections = self.apply(kind, response, handler);
        for Rejection { name, reason } in &rejections {
            tracing::warn!(%kind, name, reason, "rejected a resource");
        }
        let mut requests = vec![answer(&type_url, nonce, &rejections)];
        requests.extend(self.subscription_changes(handler));
        requests
    }

    fn apply(
        &mut self,
        kind: ResourceType,
        response: DeltaDiscoveryResponse,
        handler: &mut impl Handler,
    ) -> Vec<Rejection> {
        let held = self.kinds.entry(kind).or_default();
        let mut rejections = Vec::new();
        let mut changed: Vec<Resource> = Vec::new();
        let mut versions = Vec::new();
        for resource in response.resources {
            // A resource without a body is a heartbeat: nothing but its life time changes.
            let Some(body) = resource.resource else {
                continue;
            };
            let reason = if body.type_url != kind.type_url() {
                Some(format!("its body is a `{}`", body.type_url))
            } else if changed.iter().any(|other| other.name == resource.name) {
                Some("appears twice in one response".to_owned())
            } else {
                None
            };
            if let Some(reason) = reason {
                rejections.push(Rejection {
                    name: resource.name,
                    reason,
                });
                continue;
            }
            versions.push((resource.name.clone(), resource.version.clone()));
            changed.push(Resource {
                name: resource.name,
                version: resource.version,
                body,
            });
        }
        for name in &response.removed_resources {
            held.versions.remove(name);
        }
        rejections.extend(handler.update(Update {
            kind,
            changed,
            removed: response.removed_resources,
            version: response.system_version_info,
        }));
        for (name, version) in versions {
            if rejections.iter().all(|rejection| rejection.name != name) {
                held.versions.insert(name, version);
            }
        }
        rejections
    }

    fn subscription_changes(&mut self, handler: &impl Handler) -> Vec<DeltaDiscoveryRequest> {
        let mut requests = Vec::new();
        for kind in KINDS.into_iter().filter(|kind| !kind.is_wildcard()) {
            let held = self.kinds.entry(kind).or_default();
            let wanted = handler.wanted(kind);
            let added: Vec<_> = wanted.difference(&held.subscribed).cloned().collect();
            let dropped: Vec<_> = held.subscribed.difference(&wanted).cloned().collect();
            if added.is_empty() && dropped.is_empty() {
                continue;
            }
            for name in &dropped {
                held.versions.remove(name);
            }
            held.subscribed = wanted;
            requests.push(DeltaDiscoveryRequest {
                type_url: kind.type_url().to_owned(),
                resource_names_subscribe: added,
                resource_names_unsubscribe: dropped,
                ..Default::default()
            });
        }
        requests
    }
}

/// An ACK, or with rejections a NACK.
fn answer(type_url: &str, nonce: String, rejections: &[Rejection]) -> DeltaDiscoveryRequest {
    let error_detail = (!rejections.is_empty()).then(|| Status {
        code: INVALID_ARGUMENT,
        message: rejections
            .iter()
            .map(|rejection| format!("{}: {}", rejection.name, rejection.reason))
            .collect::<Vec<_>>()
            .join("; "),
        details: Vec::new(),
    });
    DeltaDiscoveryRequest {
        type_url: type_url.to_owned(),
        response_nonce: nonce,
        error_detail,
        ..Default::default()
    }
}
