//! The index: whom a change concerns, and what proxies are then sent. One small mesh, changed step by step.

mod capabilities;
mod concern;
mod cost;
mod delegates;
mod endpoints;
mod order;
mod sidecars;

use k8s_openapi::api::{
    core::v1::{Pod, Service},
    discovery::v1::EndpointSlice,
};
use lateen_api::{VirtualService, decode};
use lateen_mesh::{Change, Impact, Index, MeshConfig, Proxy, resources};
use lateen_xds::{
    Names, ResourceType,
    pb::{
        envoy::config::{
            core::v3::{Extension, Node},
            endpoint::v3::ClusterLoadAssignment,
        },
        google::protobuf::{Struct, Value as Field, value::Kind},
    },
};
use prost::Message;
use serde_json::{Value, json};

const A: &str = "outbound|8080||a.shop.svc.cluster.local";
const B: &str = "outbound|8080||b.shop.svc.cluster.local";

fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("a valid object")
}

fn service(name: &str) -> Change {
    Change::Service(read::<Service>(json!({
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {
            "clusterIP": format!("10.96.0.{}", name.as_bytes()[0]), "selector": {"app": name},
            "ports": [{"name": "http", "port": 8080}],
        },
    })))
}

fn pod(name: &str, app: &str, address: &str) -> Change {
    pod_of(name, app, address, "default")
}

fn pod_of(name: &str, app: &str, address: &str, account: &str) -> Change {
    Change::Pod(read::<Pod>(json!({
        "metadata": {"name": name, "namespace": "shop", "labels": {"app": app}},
        "spec": {"containers": [], "serviceAccountName": account},
        "status": {"podIP": address},
    })))
}

fn slice(service: &str, addresses: &[&str]) -> Change {
    let endpoints: Vec<Value> = addresses
        .iter()
        .map(|address| json!({"addresses": [address], "conditions": {"ready": true}}))
        .collect();
    Change::EndpointSlice(read::<EndpointSlice>(json!({
        "metadata": {
            "name": format!("{service}-x"), "namespace": "shop", "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": "IPv4", "endpoints": endpoints, "ports": [{"name": "http", "port": 8080}],
    })))
}

fn istio(kind: &str, name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1alpha3", "kind": kind,
        "metadata": {"name": name, "namespace": "shop"}, "spec": spec,
    })
}

fn virtual_service(spec: Value) -> Change {
    let object: VirtualService =
        decode(&istio("VirtualService", "rules", spec)).expect("a valid virtual service");
    Change::VirtualService(object)
}

/// Two services with one endpoint each.
fn mesh() -> Index {
    let mut index = Index::new(MeshConfig::default());
    for change in [
        service("a"),
        service("b"),
        pod("a-1", "a", "10.0.0.1"),
        pod("b-1", "b", "10.0.0.2"),
        slice("a", &["10.0.0.1"]),
        slice("b", &["10.0.0.2"]),
    ] {
        index.apply(change);
    }
    index
}

fn proxy(kind: &str, labels: &[(&str, &str)], extensions: &[&str]) -> Proxy {
    let text = |text: &str| Field {
        kind: Some(Kind::StringValue(text.to_owned())),
    };
    let labels = labels
        .iter()
        .map(|(key, value)| (key.to_string(), text(value)))
        .collect();
    let labels = Field {
        kind: Some(Kind::StructValue(Struct { fields: labels })),
    };
    let node = Node {
        id: format!("{kind}~10.0.0.1~a-1.shop~shop.svc.cluster.local"),
        metadata: Some(Struct {
            fields: [("LABELS".to_owned(), labels)].into(),
        }),
        extensions: extensions
            .iter()
            .map(|name| Extension {
                name: name.to_string(),
                ..Extension::default()
            })
            .collect(),
        ..Node::default()
    };
    Proxy::from_node(&node).expect("a valid node")
}

fn sidecar() -> Proxy {
    proxy("sidecar", &[("app", "a")], &[])
}

fn names(names: &[&str]) -> Names {
    names.iter().copied().collect()
}

fn endpoints(index: &Index, proxy: &Proxy, cluster: &str) -> usize {
    let found = resources(index, proxy, ResourceType::Endpoint, &names(&[cluster]));
    let assignment =
        ClusterLoadAssignment::decode(found[0].body.value.as_slice()).expect("an assignment");
    assignment
        .endpoints
        .iter()
        .map(|locality| locality.lb_endpoints.len())
        .sum()
}

/// What a sidecar subscribes to that has the endpoints of both services.
fn subscriptions() -> [(ResourceType, Names); 4] {
    [
        (ResourceType::Cluster, Names::All),
        (ResourceType::Endpoint, names(&[A, B])),
        (ResourceType::Listener, Names::All),
        (ResourceType::Route, names(&["8080"])),
    ]
}

/// What an impact means to such a sidecar.
fn concerned(impact: &Impact, proxy: &Proxy) -> Vec<(ResourceType, Names)> {
    let narrowed = subscriptions()
        .into_iter()
        .map(|(kind, all)| (kind, impact.narrow(proxy, kind, &all)));
    narrowed.filter(|(_, names)| !names.is_empty()).collect()
}
