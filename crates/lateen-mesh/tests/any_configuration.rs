//! Fuzzed: any configuration, as users may write it and the API server may let it pass.

use lateen_api::{decode, validation};
use lateen_mesh::{Change, Index, MeshConfig, Proxy, resources};
use lateen_xds::pb::envoy::config::core::v3::Node;
use lateen_xds::{Names, ResourceType};
use serde_json::Value;

/// Objects of YAML, one after the other, are refused, or translated for a sidecar and a gateway.
#[test]
fn objects() {
    bolero::check!(name = "objects")
        .with_iterations(0)
        .for_each(|bytes: &[u8]| {
            let Ok(text) = std::str::from_utf8(bytes) else {
                return;
            };
            let mut index = Index::new(MeshConfig::default());
            for document in text.split("\n---\n").take(8) {
                let Ok(object) = serde_saphyr::from_str::<Value>(document) else {
                    return;
                };
                // What the server refuses never comes here.
                if validation::validate(&object).is_some_and(|problems| !problems.is_empty()) {
                    return;
                }
                if let Some(change) = change(&object) {
                    index.apply(change);
                }
            }
            for kind in ["sidecar", "router"] {
                translate(&index, &proxy(kind));
            }
        });
}

fn translate(index: &Index, proxy: &Proxy) {
    for kind in [
        ResourceType::Cluster,
        ResourceType::Listener,
        ResourceType::Route,
        ResourceType::Endpoint,
    ] {
        resources(index, proxy, kind, &Names::All);
    }
}

fn change(object: &Value) -> Option<Change> {
    Some(match object["kind"].as_str()? {
        "VirtualService" => Change::VirtualService(decode(object).ok()?),
        "DestinationRule" => Change::DestinationRule(decode(object).ok()?),
        "Gateway" => Change::Gateway(decode(object).ok()?),
        "ServiceEntry" => Change::ServiceEntry(decode(object).ok()?),
        "Sidecar" => Change::Sidecar(decode(object).ok()?),
        "PeerAuthentication" => Change::PeerAuthentication(decode(object).ok()?),
        "WorkloadEntry" => Change::WorkloadEntry(decode(object).ok()?),
        "StickySession" => Change::StickySession(decode(object).ok()?),
        "BodyToHeaders" => Change::BodyToHeaders(decode(object).ok()?),
        "HTTPRoute" => Change::HttpRoute(decode(object).ok()?),
        "Service" => Change::Service(serde_json::from_value(object.clone()).ok()?),
        "Pod" => Change::Pod(serde_json::from_value(object.clone()).ok()?),
        "EndpointSlice" => Change::EndpointSlice(serde_json::from_value(object.clone()).ok()?),
        _ => return None,
    })
}

fn proxy(kind: &str) -> Proxy {
    let node = Node {
        id: format!("{kind}~10.0.0.1~web-1.lab~lab.svc.cluster.local"),
        ..Node::default()
    };
    Proxy::from_node(&node).expect("a valid node")
}
