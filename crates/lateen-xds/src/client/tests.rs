use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryResponse, Resource as Sent};
use envoy_types::pb::google::protobuf::Any;

use super::*;

/// Accepts everything but resources named `bad`; wants endpoints for every cluster.
#[derive(Default)]
struct Recorder {
    clusters: BTreeSet<String>,
}

impl Handler for Recorder {
    fn update(&mut self, update: Update) -> Vec<Rejection> {
        let mut rejections = Vec::new();
        for resource in update.changed {
            if resource.name == "bad" {
                rejections.push(Rejection {
                    name: resource.name,
                    reason: "broken".to_owned(),
                });
            } else if update.kind == ResourceType::Cluster {
                self.clusters.insert(resource.name);
            }
        }
        for name in update.removed {
            self.clusters.remove(&name);
        }
        rejections
    }

    fn wanted(&self, kind: ResourceType) -> BTreeSet<String> {
        if kind == ResourceType::Endpoint {
            self.clusters.clone()
        } else {
            BTreeSet::new()
        }
    }

    fn connection_changed(&mut self, _: bool) {}
}

fn response(kind: ResourceType, names: &[&str], removed: &[&str]) -> DeltaDiscoveryResponse {
    let resource = |name: &&str| Sent {
        name: (*name).to_owned(),
        version: "7".to_owned(),
        resource: Some(Any {
            type_url: kind.type_url().to_owned(),
            value: Vec::new(),
        }),
        ..Default::default()
    };
    DeltaDiscoveryResponse {
        resources: names.iter().map(resource).collect(),
        removed_resources: removed.iter().map(|name| (*name).to_owned()).collect(),
        type_url: kind.type_url().to_owned(),
        nonce: "n".to_owned(),
        ..Default::default()
    }
}

#[test]
fn subscriptions_follow_accepted_resources() {
    let (mut held, mut handler) = (Held::default(), Recorder::default());
    let first = held.first_requests(&Node::default(), &handler);
    assert_eq!(
        first.len(),
        2,
        "nothing is wanted of endpoints and routes yet"
    );
    assert!(first[0].node.is_some() && first[1].node.is_none());

    let requests = held.respond(
        response(ResourceType::Cluster, &["a", "b"], &[]),
        &mut handler,
    );
    assert_eq!(requests[0].response_nonce, "n");
    assert!(requests[0].error_detail.is_none());
    assert_eq!(requests[1].resource_names_subscribe, ["a", "b"]);
    assert_eq!(requests[1].response_nonce, "");

    let requests = held.respond(response(ResourceType::Cluster, &[], &["a"]), &mut handler);
    assert_eq!(requests[1].resource_names_unsubscribe, ["a"]);
    assert!(requests[1].resource_names_subscribe.is_empty());
}

#[test]
fn a_rejected_resource_is_named_and_the_others_are_kept() {
    let (mut held, mut handler) = (Held::default(), Recorder::default());
    let requests = held.respond(
        response(ResourceType::Cluster, &["bad", "good"], &[]),
        &mut handler,
    );
    assert_eq!(
        requests[0].error_detail.as_ref().unwrap().message,
        "bad: broken"
    );
    assert_eq!(requests[1].resource_names_subscribe, ["good"]);

    let again = held.first_requests(&Node::default(), &handler);
    let versions: Vec<_> = again[0].initial_resource_versions.keys().collect();
    assert_eq!(versions, ["good"], "the rejected one is not held");
    assert_eq!(again[1].resource_names_subscribe, ["good"]);
}

#[test]
fn a_response_of_another_type_is_refused() {
    let (mut held, mut handler) = (Held::default(), Recorder::default());
    let strange = DeltaDiscoveryResponse {
        type_url: "x".to_owned(),
        ..Default::default()
    };
    let requests = held.respond(strange, &mut handler);
    assert_eq!(requests.len(), 1);
    assert!(requests[0].error_detail.is_some());
}
