//! Whom a change concerns.

use lateen_mesh::{Change, Impact, Key, ObjectKind};
use lateen_xds::{Names, ResourceType};
use serde_json::json;

use super::{Mesh, backend, sidecar};

/// Which of some route configurations a sidecar of a namespace has to look at again.
fn concerned(impact: &Impact, namespace: &str) -> Vec<String> {
    let all = ["80", "8080", "9090", "other.shop.svc.cluster.local:80"];
    let all: Names = all.map(str::to_owned).into_iter().collect();
    match impact.narrow(&sidecar(namespace), ResourceType::Route, &all) {
        Names::Only(names) => names.into_iter().collect(),
        Names::All => panic!("all of them"),
    }
}

#[test]
fn a_route_concerns_the_ports_of_its_service() {
    let mut mesh = Mesh::new();
    let parent = json!({"group": "", "kind": "Service", "name": "web"});
    let spec = json!({"parentRefs": [parent], "rules": [{"backendRefs": backend("other")}]});
    let impact = mesh.apply("HTTPRoute", "shop", "a", spec.clone());
    assert_eq!(concerned(&impact, "away"), ["80", "8080"]);
    let listeners = impact.narrow(&sidecar("away"), ResourceType::Listener, &Names::All);
    assert_eq!(listeners, Names::default(), "listeners do not change");
    // The same again concerns nobody, whatever else about it is new.
    mesh.age -= 1;
    assert!(mesh.apply("HTTPRoute", "shop", "a", spec).is_empty());
    let key = Key::new("shop", "a");
    let impact = mesh
        .index
        .apply(Change::Deleted(ObjectKind::HttpRoute, key));
    assert_eq!(concerned(&impact, "away"), ["80", "8080"]);
    assert_eq!(mesh.routes("shop", "80").remove(0).name, "default");
}

#[test]
fn a_route_of_a_client_concerns_its_namespace_alone() {
    let mut mesh = Mesh::new();
    let parent = json!({"group": "", "kind": "Service", "name": "web", "namespace": "shop"});
    let spec = json!({"parentRefs": [parent], "rules": [{"backendRefs": backend("far")}]});
    let impact = mesh.apply("HTTPRoute", "away", "a", spec);
    assert!(concerned(&impact, "shop").is_empty(), "{impact:?}");
    assert!(!concerned(&impact, "away").is_empty(), "{impact:?}");
}

#[test]
fn a_route_without_its_parent_waits_for_it() {
    let mut mesh = Mesh::new();
    let parent = json!({"group": "", "kind": "Service", "name": "late"});
    let spec = json!({"parentRefs": [parent], "rules": [{"backendRefs": backend("web")}]});
    assert!(mesh.apply("HTTPRoute", "shop", "a", spec).is_empty());
    let impact = mesh.service("shop", "late", json!({"app": "late"}));
    assert_eq!(concerned(&impact, "away"), ["80", "8080"]);
    let found = super::configuration(&mesh.index, &sidecar("shop"), "80");
    let mut hosts = found.virtual_hosts.iter();
    let late = hosts
        .find(|host| host.name.starts_with("late."))
        .expect("the service");
    assert_eq!(late.routes[0].name, "shop.a.0");
}
