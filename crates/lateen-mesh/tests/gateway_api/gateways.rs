//! Gateways and the routes at them.

use std::collections::BTreeMap;

use lateen_mesh::resources;
use lateen_xds::{Names, ResourceType, pb::envoy::config::listener::v3::Listener};
use prost::Message;
use serde_json::{Value, json};

use super::{Mesh, backend, configuration, proxy};

/// A mesh with a gateway of these listeners behind the service `edge`.
pub(crate) fn mesh(listeners: Value) -> Mesh {
    let mut mesh = Mesh::new();
    mesh.service("shop", "edge", json!({"gateway": "edge"}));
    let pod = json!({
        "metadata": {"name": "edge-1", "namespace": "shop", "labels": {"gateway": "edge"}},
        "status": {"podIP": "10.0.0.9"},
    });
    let pod = serde_json::from_value(pod).expect("a pod");
    mesh.index.apply(lateen_mesh::Change::Pod(pod));
    let spec = json!({
        "gatewayClassName": "istio", "addresses": [{"type": "Hostname", "value": "edge"}],
        "listeners": listeners,
    });
    mesh.apply("Gateway", "shop", "edge", spec);
    mesh
}

fn listener(name: &str, port: u32, host: Option<&str>) -> Value {
    json!({"name": name, "port": port, "protocol": "HTTP", "hostname": host})
}

/// A route of a namespace at the gateway.
fn route(mesh: &mut Mesh, namespace: &str, name: &str, section: Option<&str>, hosts: &[&str]) {
    let parent = json!({"name": "edge", "namespace": "shop", "sectionName": section});
    let rule = json!({"name": name, "backendRefs": backend("web")});
    let spec = json!({"parentRefs": [parent], "hostnames": hosts, "rules": [rule]});
    mesh.apply("HTTPRoute", namespace, name, spec);
}

/// Rules by domain, on a port.
fn served(mesh: &Mesh, port: u32) -> BTreeMap<String, Vec<String>> {
    let router = proxy("router", "shop");
    let configuration = configuration(&mesh.index, &router, &format!("http.{port}"));
    let mut found = BTreeMap::new();
    for host in configuration.virtual_hosts {
        let rules: Vec<String> = host.routes.into_iter().map(|route| route.name).collect();
        for domain in host.domains {
            found.insert(domain, rules.clone());
        }
    }
    found
}

fn listeners(mesh: &Mesh) -> Vec<String> {
    let router = proxy("router", "shop");
    let found = resources(&mesh.index, &router, ResourceType::Listener, &Names::All);
    found
        .into_iter()
        .map(|one| {
            Listener::decode(one.body.value.as_slice())
                .expect("a listener")
                .name
        })
        .collect()
}

/// What is served at which host: `domain: rule rule`.
fn check(mesh: &Mesh, port: u32, expected: &[(&str, &str)]) {
    let found: Vec<(String, String)> = served(mesh, port)
        .into_iter()
        .map(|(domain, rules)| (domain, rules.join(" ")))
        .collect();
    let found: Vec<_> = found.iter().map(|(a, b)| (&**a, &**b)).collect();
    assert_eq!(found, expected);
}

#[test]
fn hosts_are_those_that_listener_and_route_share() {
    let mut mesh = mesh(json!([listener("web", 80, Some("*.example.com"))]));
    assert_eq!(listeners(&mesh), ["0.0.0.0_80"]);
    check(&mesh, 80, &[("*", "")]);
    route(&mut mesh, "shop", "all", None, &[]);
    route(
        &mut mesh,
        "shop",
        "one",
        None,
        &["a.example.com", "b.other.com"],
    );
    route(&mut mesh, "shop", "none", None, &["c.other.com"]);
    check(
        &mesh,
        80,
        &[("*.example.com", "all"), ("a.example.com", "one")],
    );
}

#[test]
fn requests_go_to_the_listener_whose_host_is_nearest() {
    let listeners = json!([
        listener("any", 80, None),
        listener("own", 80, Some("a.example.com"))
    ]);
    let mut mesh = mesh(listeners);
    route(
        &mut mesh,
        "shop",
        "any",
        Some("any"),
        &["a.example.com", "b.example.com"],
    );
    // The listener `own` has the host for itself, and no route.
    check(&mesh, 80, &[("b.example.com", "any")]);
    route(&mut mesh, "shop", "own", Some("own"), &[]);
    check(
        &mesh,
        80,
        &[("a.example.com", "own"), ("b.example.com", "any")],
    );
}

#[test]
fn listeners_choose_the_namespaces_of_their_routes() {
    let check = |from: Value, expected: &[&str]| {
        let mut allowed = listener("web", 80, None);
        allowed["allowedRoutes"] = json!({"namespaces": from});
        let mut mesh = mesh(json!([allowed]));
        route(&mut mesh, "shop", "near", None, &["near.com"]);
        route(&mut mesh, "away", "far", None, &["far.com"]);
        let found: Vec<String> = served(&mesh, 80).into_keys().collect();
        assert_eq!(found, expected, "{from}");
    };
    check(json!({}), &["near.com"]);
    check(json!({"from": "Same"}), &["near.com"]);
    check(json!({"from": "All"}), &["far.com", "near.com"]);
    check(json!({"from": "None"}), &["*"]);
    let back = json!({"from": "Selector", "selector": {"matchLabels": {"tier": "back"}}});
    check(back, &["far.com"]);
    let expression = json!({"key": "tier", "operator": "NotIn", "values": ["back"]});
    let front = json!({"from": "Selector", "selector": {"matchExpressions": [expression]}});
    check(front, &["near.com"]);
}

#[test]
fn another_namespace_must_grant_that_requests_from_outside_come_to_it() {
    let mut mesh = mesh(json!([listener("web", 80, None)]));
    let parent = json!({"name": "edge"});
    let rule = json!({"backendRefs": [{"name": "far", "namespace": "away", "port": 80}]});
    let spec = json!({"parentRefs": [parent], "rules": [rule]});
    mesh.apply("HTTPRoute", "shop", "a", spec);
    let cluster = |mesh: &Mesh| {
        let router = proxy("router", "shop");
        let found = configuration(&mesh.index, &router, "http.80");
        format!("{:?}", found.virtual_hosts[0].routes[0].action)
    };
    let far = "outbound|80||far.away.svc.cluster.local";
    assert!(!cluster(&mesh).contains(far), "{}", cluster(&mesh));
    let grant = |kind: &str| {
        json!({
            "from": [{"group": "gateway.networking.k8s.io", "kind": kind, "namespace": "shop"}],
            "to": [{"group": "", "kind": "Service", "name": "far"}],
        })
    };
    mesh.apply("ReferenceGrant", "away", "grant", grant("GRPCRoute"));
    assert!(!cluster(&mesh).contains(far), "{}", cluster(&mesh));
    mesh.apply("ReferenceGrant", "away", "grant", grant("HTTPRoute"));
    assert!(cluster(&mesh).contains(far), "{}", cluster(&mesh));
    let key = lateen_mesh::Key::new("away", "grant");
    let gone = lateen_mesh::Change::Deleted(lateen_mesh::ObjectKind::ReferenceGrant, key);
    mesh.index.apply(gone);
    assert!(!cluster(&mesh).contains(far), "{}", cluster(&mesh));
}

#[test]
fn listeners_that_are_not_valid_are_not_served() {
    let tls = |settings: Value| json!({"name": "tls", "port": 8080, "protocol": "HTTPS", "tls": settings});
    let check = |listener: Value, served: bool| {
        let mesh = mesh(json!([listener]));
        assert_eq!(listeners(&mesh).is_empty(), !served, "{listener}");
    };
    check(tls(json!({"certificateRefs": [{"name": "cert"}]})), true);
    check(tls(json!({})), false);
    check(
        tls(json!({"certificateRefs": [{"kind": "ConfigMap", "name": "cert"}]})),
        false,
    );
    check(
        tls(json!({"certificateRefs": [{"name": "cert", "namespace": "away"}]})),
        false,
    );
    check(json!({"name": "udp", "port": 80, "protocol": "UDP"}), false);
    // Nor is one at a port that the service does not have.
    check(listener("web", 81, None), false);
}

#[test]
fn a_class_of_somebody_else_is_left_alone() {
    let mut mesh = mesh(json!([listener("web", 80, None)]));
    let class = json!({"controllerName": "other.example/controller"});
    mesh.apply("GatewayClass", "", "istio", class);
    assert!(listeners(&mesh).is_empty());
    let class = json!({"controllerName": "istio.io/gateway-controller"});
    mesh.apply("GatewayClass", "", "istio", class);
    assert_eq!(listeners(&mesh), ["0.0.0.0_80"]);
}

#[test]
fn certificates_are_shown_to_the_gateways_that_serve_them() {
    let certificates = json!([{"name": "own"}, {"name": "theirs", "namespace": "away"}]);
    let tls = json!({"name": "tls", "port": 80, "protocol": "HTTPS", "tls": {"certificateRefs": certificates}});
    let mut mesh = mesh(json!([tls]));
    let (own, theirs) = (
        "kubernetes-gateway://shop/own",
        "kubernetes-gateway://away/theirs",
    );
    let may = |mesh: &Mesh, proxy: lateen_mesh::Proxy| {
        [own, theirs].map(|name| mesh.index.may_have_certificate(&proxy, name))
    };
    let edge = || proxy("router", "shop");
    // A listener that lacks a permission is not served at all, and shows nothing.
    assert_eq!(may(&mesh, edge()), [false, false]);
    let grant = json!({
        "from": [{"group": "gateway.networking.k8s.io", "kind": "Gateway", "namespace": "shop"}],
        "to": [{"group": "", "kind": "Secret"}],
    });
    mesh.apply("ReferenceGrant", "away", "grant", grant);
    assert_eq!(listeners(&mesh), ["0.0.0.0_80"]);
    assert_eq!(may(&mesh, edge()), [true, true]);
    assert_eq!(may(&mesh, proxy("sidecar", "shop")), [false, false]);
    assert_eq!(may(&mesh, proxy("router", "away")), [false, false]);
    let other = "kubernetes-gateway://shop/other";
    assert!(!mesh.index.may_have_certificate(&edge(), other));
    let authorities = "kubernetes-gateway://shop/own-cacert";
    assert!(mesh.index.may_have_certificate(&edge(), authorities));
}
