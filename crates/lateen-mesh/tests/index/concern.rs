//! Whom a change concerns.

use lateen_api::{DestinationRule, Gateway, decode};
use lateen_mesh::{Change, Impact, Key, ObjectKind, Proxy, resources};
use lateen_xds::{Names, ResourceType};
use serde_json::{Value, json};

use crate::{
    A, B, concerned, endpoints, istio, mesh, names, pod, pod_of, proxy, service, sidecar, slice,
    virtual_service,
};

#[test]
fn an_endpoint_that_moves_concerns_only_the_endpoints_of_its_service() {
    let mut index = mesh();
    let impact = index.apply(slice("a", &["10.0.0.1", "10.0.0.3"]));
    assert!(impact.is_endpoints_only());
    assert_eq!(
        concerned(&impact, &sidecar()),
        [(ResourceType::Endpoint, names(&[A]))]
    );
    assert_eq!(endpoints(&index, &sidecar(), A), 2);
    assert_eq!(endpoints(&index, &sidecar(), B), 1);
}

#[test]
fn an_endpoint_with_a_new_identity_concerns_clusters_too() {
    let mut index = mesh();
    let kinds = |impact: &Impact| -> Vec<ResourceType> {
        concerned(impact, &sidecar())
            .into_iter()
            .map(|(kind, _)| kind)
            .collect()
    };
    index.apply(pod_of("b-2", "b", "10.0.0.3", "other"));
    let impact = index.apply(slice("b", &["10.0.0.2", "10.0.0.3"]));
    assert_eq!(
        kinds(&impact),
        [ResourceType::Cluster, ResourceType::Endpoint]
    );
    index.apply(pod_of("b-3", "b", "10.0.0.4", "other"));
    let impact = index.apply(slice("b", &["10.0.0.2", "10.0.0.3", "10.0.0.4"]));
    assert_eq!(kinds(&impact), [ResourceType::Endpoint]);
}

#[test]
fn an_object_that_says_the_same_concerns_nobody() {
    let mut index = mesh();
    let rules = json!({"hosts": ["a"], "http": [{"route": [{"destination": {"host": "b"}}]}]});
    assert!(!index.apply(virtual_service(rules.clone())).is_empty());
    for change in [
        service("a"),
        slice("a", &["10.0.0.1"]),
        pod("a-1", "a", "10.0.0.1"),
        virtual_service(rules),
        Change::Deleted(ObjectKind::Service, Key::new("shop", "unknown")),
    ] {
        let impact = index.apply(change.clone());
        assert!(impact.is_empty(), "{change:?} -> {impact:?}");
    }
}

#[test]
fn rules_concern_listeners_and_routes() {
    let mut index = mesh();
    let rules = json!({"hosts": ["a"], "http": [{"route": [{"destination": {"host": "b"}}]}]});
    let impact = index.apply(virtual_service(rules));
    let kinds: Vec<ResourceType> = concerned(&impact, &sidecar())
        .into_iter()
        .map(|(kind, _)| kind)
        .collect();
    assert_eq!(kinds, [ResourceType::Listener, ResourceType::Route]);
}

#[test]
fn a_rule_for_one_host_concerns_its_clusters_only() {
    let mut index = mesh();
    let rule = |subsets: Value| {
        let spec = json!({"host": "b", "subsets": subsets});
        let rule: DestinationRule =
            decode(&istio("DestinationRule", "b", spec)).expect("a valid destination rule");
        Change::DestinationRule(rule)
    };
    let clusters = |impact: &Impact| impact.narrow(&sidecar(), ResourceType::Cluster, &Names::All);
    let v1 = json!([{"name": "v1", "labels": {"app": "b"}}]);
    let check = |impact: &Impact, subset: &str, expected: bool| {
        let name = format!("outbound|8080|{subset}|b.shop.svc.cluster.local");
        let found = clusters(impact);
        assert_ne!(found, Names::All);
        assert_eq!(found.contains(&name), expected, "{subset}");
        assert!(!found.contains(A));
    };
    let impact = index.apply(rule(v1));
    check(&impact, "", true);
    check(&impact, "v1", true);
    let impact = index.apply(rule(json!([])));
    check(&impact, "v1", true);
}

#[test]
fn a_gateway_concerns_the_pods_that_it_selects() {
    let mut index = mesh();
    let gateway: Gateway = decode(&istio(
        "Gateway",
        "edge",
        json!({"selector": {"istio": "edge"}, "servers": [
            {"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]},
        ]}),
    ))
    .expect("a valid gateway");
    let impact = index.apply(Change::Gateway(gateway));
    let check = |proxy: &Proxy, expected: usize| {
        assert_eq!(concerned(&impact, proxy).len(), expected, "{proxy:?}")
    };
    check(&sidecar(), 0);
    check(&proxy("router", &[("istio", "other")], &[]), 0);
    let edge = proxy("router", &[("istio", "edge")], &[]);
    check(&edge, 2);
    let listeners = resources(&index, &edge, ResourceType::Listener, &Names::All);
    assert_eq!(
        listeners
            .iter()
            .map(|listener| listener.name.as_str())
            .collect::<Vec<_>>(),
        ["0.0.0.0_80"]
    );
}

#[test]
fn merged_impacts_concern_whom_each_of_them_does() {
    let mut index = mesh();
    let mut impact = index.apply(slice("a", &["10.0.0.1", "10.0.0.8"]));
    impact.merge(index.apply(slice("b", &["10.0.0.2", "10.0.0.9"])));
    assert!(impact.is_endpoints_only());
    assert_eq!(
        concerned(&impact, &sidecar()),
        [(ResourceType::Endpoint, names(&[A, B]))]
    );
}
