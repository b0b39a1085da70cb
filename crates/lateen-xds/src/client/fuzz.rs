//! Any responses of a control plane.

use std::collections::BTreeSet;

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryResponse;
use prost::Message;

use super::session::Held;
use super::{Handler, Rejection, Update};
use crate::ResourceType;

/// Takes everything but resources whose name has an `x`, and wants the endpoints of each cluster.
#[derive(Default)]
struct Picky {
    clusters: BTreeSet<String>,
}

impl Handler for Picky {
    fn update(&mut self, update: Update) -> Vec<Rejection> {
        if update.kind == ResourceType::Cluster {
            let names = update.changed.iter().map(|resource| &resource.name);
            self.clusters.extend(names.cloned());
            for name in &update.removed {
                self.clusters.remove(name);
            }
        }
        let refused = update.changed.into_iter();
        let refused = refused.filter(|resource| resource.name.contains('x'));
        refused
            .map(|resource| Rejection {
                name: resource.name,
                reason: "an x".to_owned(),
            })
            .collect()
    }

    fn wanted(&self, kind: ResourceType) -> BTreeSet<String> {
        match kind {
            ResourceType::Endpoint => self.clusters.clone(),
            _ => BTreeSet::new(),
        }
    }

    fn connection_changed(&mut self, _connected: bool) {}
}

/// Each response is answered once, with its number; messages stand one after the other, each after its length.
#[test]
fn responses() {
    bolero::check!(name = "responses")
        .with_iterations(0)
        .for_each(|mut bytes: &[u8]| {
            let (mut held, mut handler) = (Held::default(), Picky::default());
            held.first_requests(&Node::default(), &handler);
            while let Ok(response) = DeltaDiscoveryResponse::decode_length_delimited(&mut bytes) {
                let nonce = response.nonce.clone();
                let requests = held.respond(response, &mut handler);
                let answers = requests.iter().filter(|request| {
                    !request.response_nonce.is_empty() || request.error_detail.is_some()
                });
                let expected = usize::from(!nonce.is_empty());
                assert!(answers.clone().count() >= expected);
                assert!(answers.clone().count() <= 1);
                assert!(
                    answers
                        .into_iter()
                        .all(|answer| answer.response_nonce == nonce)
                );
                if bytes.is_empty() {
                    break;
                }
            }
            held.first_requests(&Node::default(), &handler);
        });
}
