//! What the status of routes and gateways says.

use lateen_mesh::ObjectKind;
use lateen_mesh::index::{Condition, ListenerStatus, StatusContent};
use serde_json::{Value, json};

use super::{Mesh, backend};

/// Type, whether it holds, and reason.
fn words(conditions: &[Condition]) -> Vec<(&'static str, bool, &'static str)> {
    let conditions = conditions.iter();
    conditions
        .map(|one| (one.kind, one.holds, one.reason))
        .collect()
}

/// The conditions of a route with one rule, at its first parent that is ours.
fn check_route(mesh: &mut Mesh, parent: Value, rule: Value, expected: &[(&str, bool, &str)]) {
    let spec = json!({"parentRefs": [parent], "hostnames": ["a.com"], "rules": [rule]});
    mesh.apply("HTTPRoute", "shop", "route", spec.clone());
    let mut statuses = mesh.index.gateway_api_statuses().into_iter();
    let status = statuses.find(|status| status.kind == ObjectKind::HttpRoute);
    let status = status.unwrap_or_else(|| panic!("no status of {spec}"));
    assert_eq!(status.generation, 3);
    let StatusContent::Route(parents) = status.content else {
        panic!("{:?}", status.content);
    };
    assert_eq!(words(&parents[0].conditions), expected, "{spec}");
}

fn gateway(listeners: Value) -> Value {
    json!({
        "gatewayClassName": "istio", "addresses": [{"type": "Hostname", "value": "edge"}],
        "listeners": listeners,
    })
}

const ACCEPTED: (&str, bool, &str) = ("Accepted", true, "Accepted");
const RESOLVED: (&str, bool, &str) = ("ResolvedRefs", true, "ResolvedRefs");

#[test]
fn a_route_says_whether_it_is_in_effect() {
    let mut mesh = Mesh::new();
    let web = json!({"name": "web", "port": 80, "protocol": "HTTP", "hostname": "*.com"});
    let own = json!({"name": "own", "port": 8080, "protocol": "HTTP", "hostname": "b.org"});
    let mut grpc = json!({"name": "grpc", "port": 81, "protocol": "HTTP"});
    grpc["allowedRoutes"] = json!({"kinds": [{"kind": "GRPCRoute"}]});
    mesh.apply("Gateway", "shop", "edge", gateway(json!([web, own, grpc])));
    let service = |name: &str| json!({"group": "", "kind": "Service", "name": name});
    let rule = || json!({"backendRefs": backend("web")});
    let mut check = |parent: Value, rule: Value, expected: &[_]| {
        check_route(&mut mesh, parent, rule, expected);
    };
    check(service("web"), rule(), &[ACCEPTED, RESOLVED]);
    check(json!({"name": "edge"}), rule(), &[ACCEPTED, RESOLVED]);
    let denied = |reason| [("Accepted", false, reason), RESOLVED];
    check(service("none"), rule(), &denied("NoMatchingParent"));
    let mut other_port = service("web");
    other_port["port"] = json!(81);
    check(other_port, rule(), &denied("NoMatchingParent"));
    let at = |section: &str| json!({"name": "edge", "sectionName": section});
    check(at("missing"), rule(), &denied("NoMatchingParent"));
    check(at("own"), rule(), &denied("NoMatchingListenerHostname"));
    check(at("grpc"), rule(), &denied("NotAllowedByListeners"));
    let failing = |reason| [ACCEPTED, ("ResolvedRefs", false, reason)];
    let missing = json!({"backendRefs": backend("missing")});
    check(service("web"), missing, &failing("BackendNotFound"));
    let kind = json!({"backendRefs": [{"kind": "Secret", "name": "web", "port": 80}]});
    check(service("web"), kind, &failing("InvalidKind"));
    let far = || json!({"backendRefs": [{"name": "far", "namespace": "away", "port": 80}]});
    check(json!({"name": "edge"}), far(), &failing("RefNotPermitted"));
    // Clients of the mesh may go everywhere: no grant is needed.
    check(service("web"), far(), &[ACCEPTED, RESOLVED]);
    let filter = json!({"filters": [{"type": "ExtensionRef"}], "backendRefs": backend("web")});
    check(service("web"), filter, &failing("InvalidFilter"));
}

#[test]
fn a_route_at_the_gateways_of_others_is_not_spoken_of() {
    let mut mesh = Mesh::new();
    let spec =
        json!({"parentRefs": [{"name": "theirs"}], "rules": [{"backendRefs": backend("web")}]});
    mesh.apply("HTTPRoute", "shop", "route", spec);
    assert_eq!(mesh.index.gateway_api_statuses(), []);
}

/// Conditions of the gateway, and its listeners.
fn status_of_gateway(
    mesh: &Mesh,
) -> (Vec<(&'static str, bool, &'static str)>, Vec<ListenerStatus>) {
    let mut statuses = mesh.index.gateway_api_statuses().into_iter();
    let status = statuses.find(|one| one.kind == ObjectKind::KubernetesGateway);
    match status.expect("a status").content {
        StatusContent::Gateway {
            conditions,
            listeners,
            ..
        } => (words(&conditions), listeners),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_gateway_says_what_its_listeners_are_worth() {
    let mut mesh = Mesh::new();
    let http = json!({"name": "http", "port": 80, "protocol": "HTTP"});
    let udp = json!({"name": "udp", "port": 81, "protocol": "UDP"});
    mesh.apply("Gateway", "shop", "edge", gateway(json!([http, udp])));
    let (conditions, listeners) = status_of_gateway(&mesh);
    let waits = ("Programmed", false, "AddressNotAssigned");
    let part = ("Accepted", true, "ListenersNotValid");
    assert_eq!(conditions, [part, waits]);
    let first = [
        ACCEPTED,
        ("Programmed", false, "Pending"),
        ("Conflicted", false, "NoConflicts"),
        RESOLVED,
    ];
    assert_eq!(words(&listeners[0].conditions), first);
    assert_eq!(listeners[0].kinds, ["HTTPRoute", "GRPCRoute"]);
    let unknown = ("Accepted", false, "UnsupportedProtocol");
    assert_eq!(words(&listeners[1].conditions)[0], unknown);
    mesh.apply("Gateway", "shop", "edge", gateway(json!([udp])));
    let (conditions, _) = status_of_gateway(&mesh);
    assert_eq!(conditions[0], ("Accepted", false, "ListenersNotValid"));
}

#[test]
fn a_gateway_counts_its_routes_and_waits_for_its_proxies() {
    let mut mesh = Mesh::new();
    let http = json!({"name": "http", "port": 80, "protocol": "HTTP"});
    mesh.apply("Gateway", "shop", "edge", gateway(json!([http])));
    for name in ["one", "two"] {
        let spec =
            json!({"parentRefs": [{"name": "edge"}], "rules": [{"backendRefs": backend("web")}]});
        mesh.apply("HTTPRoute", "shop", name, spec);
    }
    let (conditions, listeners) = status_of_gateway(&mesh);
    assert_eq!(listeners[0].attached, 2);
    assert_eq!(conditions[1], ("Programmed", false, "AddressNotAssigned"));
    mesh.service("shop", "edge", json!({"gateway": "edge"}));
    let slice = json!({
        "metadata": {"name": "edge-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "edge"}},
        "addressType": "IPv4", "ports": [{"name": "http", "port": 80}],
        "endpoints": [{"addresses": ["10.0.0.9"], "conditions": {"ready": true}}],
    });
    let slice = serde_json::from_value(slice).expect("a slice");
    mesh.index.apply(lateen_mesh::Change::EndpointSlice(slice));
    let (conditions, listeners) = status_of_gateway(&mesh);
    assert_eq!(conditions, [ACCEPTED, ("Programmed", true, "Programmed")]);
    let programmed = ("Programmed", true, "Programmed");
    assert_eq!(words(&listeners[0].conditions)[1], programmed);
}

#[test]
fn a_gateway_is_where_its_load_balancer_is() {
    let mut mesh = Mesh::new();
    let http = json!({"name": "http", "port": 80, "protocol": "HTTP"});
    mesh.apply("Gateway", "shop", "edge", gateway(json!([http])));
    let mut check = |kind: &str, ingress: Value, expected: &[&str]| {
        let service = json!({
            "metadata": {"name": "edge", "namespace": "shop"},
            "spec": {"type": kind, "ports": [{"name": "http", "port": 80}]},
            "status": {"loadBalancer": {"ingress": ingress}},
        });
        let service = serde_json::from_value(service).expect("a service");
        mesh.index.apply(lateen_mesh::Change::Service(service));
        let mut statuses = mesh.index.gateway_api_statuses().into_iter();
        let status = statuses.find(|one| one.kind == ObjectKind::KubernetesGateway);
        match status.expect("a status").content {
            StatusContent::Gateway { addresses, .. } => assert_eq!(addresses, expected, "{kind}"),
            other => panic!("{other:?}"),
        }
    };
    check("ClusterIP", json!([]), &["edge.shop.svc.cluster.local"]);
    check("LoadBalancer", json!([]), &[]);
    let given = json!([{"ip": "192.0.2.1"}, {"hostname": "lb.example.com"}]);
    check("LoadBalancer", given, &["192.0.2.1", "lb.example.com"]);
}
