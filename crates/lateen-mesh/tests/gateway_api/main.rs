//! The Gateway API: what routes and gateways become, whom a change concerns, and what their status says.

mod connections;
mod gateways;
mod impact;
mod routes;
mod status;

use lateen_api::{Kind, Object, decode};
use lateen_mesh::{Change, Impact, Index, MeshConfig, Proxy, resources};
use lateen_xds::{
    ResourceType,
    pb::envoy::config::{
        core::v3::Node,
        route::v3::{Route, RouteConfiguration},
    },
};
use prost::Message;
use serde_json::{Value, json};

/// A mesh that takes objects as an API server would have stored them.
struct Mesh {
    index: Index,
    /// Seconds since the first object.
    age: u32,
}

impl Mesh {
    /// The services `web` and `other` (ports 80 and 8080) of namespace `shop`, and `far` of namespace `away`.
    fn new() -> Self {
        let index = Index::new(MeshConfig::default());
        let mut mesh = Self { index, age: 0 };
        for (namespace, name) in [("shop", "web"), ("shop", "other"), ("away", "far")] {
            mesh.service(namespace, name, json!({"app": name}));
        }
        for (name, tier) in [("shop", "front"), ("away", "back")] {
            let namespace = json!({"metadata": {"name": name, "labels": {"tier": tier}}});
            let namespace = serde_json::from_value(namespace).expect("a namespace");
            mesh.index.apply(Change::Namespace(namespace));
        }
        mesh
    }

    fn service(&mut self, namespace: &str, name: &str, selector: Value) -> Impact {
        let service = json!({
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"clusterIP": "10.1.0.1", "selector": selector, "ports": [
                {"name": "http", "port": 80}, {"name": "http-alt", "port": 8080},
            ]},
        });
        let service = serde_json::from_value(service).expect("a service");
        self.index.apply(Change::Service(service))
    }

    /// Applies an object of the Gateway API; each is a second younger than the one before.
    fn apply(&mut self, kind: &str, namespace: &str, name: &str, spec: Value) -> Impact {
        self.age += 1;
        let object = json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": kind, "spec": spec,
            "metadata": {
                "name": name, "namespace": namespace, "generation": 3,
                "creationTimestamp": format!("2026-01-01T00:00:{:02}Z", self.age),
            },
        });
        fn read<S: Kind>(object: &Value) -> Object<S> {
            decode(object).expect("a valid object")
        }
        self.index.apply(match kind {
            "HTTPRoute" => Change::HttpRoute(read(&object)),
            "GRPCRoute" => Change::GrpcRoute(read(&object)),
            "TCPRoute" => Change::TcpRoute(read(&object)),
            "TLSRoute" => Change::TlsRoute(read(&object)),
            "Gateway" => Change::KubernetesGateway(read(&object)),
            "GatewayClass" => Change::GatewayClass(read(&object)),
            "ReferenceGrant" => Change::ReferenceGrant(read(&object)),
            other => panic!("{other} is not of the Gateway API"),
        })
    }

    /// A route for the service `web`.
    fn route(&mut self, name: &str, rules: Value) {
        let parent = json!({"group": "", "kind": "Service", "name": "web"});
        let spec = json!({"parentRefs": [parent], "rules": rules});
        self.apply("HTTPRoute", "shop", name, spec);
    }

    /// What a sidecar of a namespace does with requests to the service `web`.
    fn routes(&self, namespace: &str, port: &str) -> Vec<Route> {
        let configuration = configuration(&self.index, &sidecar(namespace), port);
        let hosts = configuration.virtual_hosts.into_iter();
        let mut found = hosts.filter(|host| host.name == format!("{WEB}:{port}"));
        found.next().expect("the service's host").routes
    }
}

const WEB: &str = "web.shop.svc.cluster.local";

fn proxy(kind: &str, namespace: &str) -> Proxy {
    let id = format!("{kind}~10.0.0.9~edge-1.{namespace}~{namespace}.svc.cluster.local");
    let node = Node {
        id,
        ..Node::default()
    };
    Proxy::from_node(&node).expect("a valid node")
}

fn sidecar(namespace: &str) -> Proxy {
    proxy("sidecar", namespace)
}

fn configuration(index: &Index, proxy: &Proxy, name: &str) -> RouteConfiguration {
    let names = [name.to_owned()].into_iter().collect();
    let found = resources(index, proxy, ResourceType::Route, &names);
    let resource = found.first().expect("the route configuration");
    RouteConfiguration::decode(resource.body.value.as_slice()).expect("a route configuration")
}

/// Where requests go.
fn backend(name: &str) -> Value {
    json!([{"name": name, "port": 80}])
}
