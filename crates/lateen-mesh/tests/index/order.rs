//! What proxies are sent follows from the objects, not from how they came and went.

use std::collections::BTreeSet;

use lateen_api::{DestinationRule, decode};
use lateen_mesh::{Change, Index, Key, MeshConfig, ObjectKind, resources};
use lateen_xds::{Names, Resource, ResourceType};
use serde_json::json;

use crate::{A, B, istio, mesh, names, pod, service, sidecar, slice, virtual_service};

/// Type, name and version of everything that a sidecar is sent. Versions are those of the bytes.
fn everything(index: &Index) -> Vec<(String, String, String)> {
    let fetch = |kind, names: &Names| resources(index, &sidecar(), kind, names);
    let mut all = fetch(ResourceType::Cluster, &Names::All);
    all.extend(fetch(ResourceType::Endpoint, &names(&[A, B])));
    all.extend(fetch(ResourceType::Listener, &Names::All));
    all.extend(fetch(ResourceType::Route, &names(&["8080", "80"])));
    let described = all
        .into_iter()
        .map(|resource: Resource| (resource.body.type_url, resource.name, resource.version));
    described.collect()
}

#[test]
fn the_order_of_changes_and_repetition_do_not_matter() {
    let rule: DestinationRule = decode(&istio(
        "DestinationRule",
        "a",
        json!({"host": "a", "subsets": [{"name": "v1", "labels": {"app": "a"}}]}),
    ))
    .expect("a valid destination rule");
    let fault = json!({"hosts": ["b"], "http": [{
        "fault": {"abort": {"httpStatus": 500, "percentage": {"value": 1}}},
        "corsPolicy": {"allowOrigins": [{"exact": "x"}]},
        "route": [{"destination": {"host": "b"}}],
    }]});
    let changes = [
        slice("a", &["10.0.0.1"]),
        pod("a-1", "a", "10.0.0.1"),
        Change::DestinationRule(rule),
        virtual_service(fault),
        service("b"),
        service("a"),
        slice("b", &["10.0.0.2"]),
        pod("b-1", "b", "10.0.0.2"),
    ];
    let build = |order: &mut dyn Iterator<Item = &Change>| {
        let mut index = Index::new(MeshConfig::default());
        order.for_each(|change| drop(index.apply(change.clone())));
        everything(&index)
    };
    let forward = build(&mut changes.iter());
    assert_eq!(forward, build(&mut changes.iter().rev()));
    assert_eq!(forward, build(&mut changes.iter().chain(&changes)));
    let unique: BTreeSet<(&str, &str)> = forward
        .iter()
        .map(|(kind, name, _)| (kind.as_str(), name.as_str()))
        .collect();
    assert_eq!(unique.len(), forward.len());
}

#[test]
fn a_deleted_service_leaves_nothing_behind() {
    let mut index = mesh();
    index.apply(Change::Deleted(ObjectKind::Service, Key::new("shop", "b")));
    let clusters = resources(&index, &sidecar(), ResourceType::Cluster, &Names::All);
    assert!(clusters.iter().any(|cluster| cluster.name == A));
    assert!(clusters.iter().all(|cluster| cluster.name != B));
    assert!(resources(&index, &sidecar(), ResourceType::Endpoint, &names(&[B])).is_empty());
}
