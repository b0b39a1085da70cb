//! Which connection managers look at bodies, and in which order their policies come.

use lateen_api::decode;
use lateen_mesh::{Change, Index, MeshConfig, Proxy, resources};
use lateen_xds::json::{self as proto_json, FieldNames};
use lateen_xds::pb::envoy::config::core::v3::{Extension, Node};
use lateen_xds::pb::envoy::config::listener::v3::{FilterChain, Listener, filter};
use lateen_xds::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter, http_filter,
};
use lateen_xds::pb::google::protobuf::{Struct, Value as Field, value::Kind};
use lateen_xds::{Names, ResourceType};
use prost::Message;
use serde_json::{Value, json};

const NAME: &str = "lateen.body_to_headers";

fn gateway(namespace: &str, name: &str, servers: Value) -> Change {
    let object = json!({
        "apiVersion": "networking.istio.io/v1", "kind": "Gateway",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"selector": {"istio": "edge"}, "servers": servers},
    });
    Change::Gateway(decode(&object).expect("a valid gateway"))
}

fn server(port: u32, protocol: &str, host: &str) -> Value {
    let mut server = json!({
        "port": {"number": port, "name": format!("{protocol}-{port}").to_lowercase(), "protocol": protocol},
        "hosts": [host],
    });
    if protocol == "HTTPS" {
        server["tls"] = json!({"mode": "SIMPLE", "credentialName": host});
    }
    server
}

/// A policy that was made at a second of one minute. Its name is the header that it sets.
fn policy(namespace: &str, name: &str, second: u32, target: Value) -> Change {
    let mut object = json!({
        "apiVersion": "lateen.dev/v1alpha1", "kind": "BodyToHeaders",
        "metadata": {
            "name": name, "namespace": namespace, "creationTimestamp": format!("2024-01-01T00:00:{second:02}Z"),
        },
        "spec": {"fields": [{"pointer": "/a", "header": name}]},
    });
    for (key, value) in target.as_object().into_iter().flatten() {
        object["spec"][key] = value.clone();
    }
    Change::BodyToHeaders(decode(&object).expect("a valid policy"))
}

fn for_gateways(names: &[&str]) -> Value {
    let target =
        |name: &&str| json!({"group": "networking.istio.io", "kind": "Gateway", "name": name});
    json!({"targetRefs": names.iter().map(target).collect::<Vec<_>>()})
}

fn for_workloads(app: &str) -> Value {
    json!({"selector": {"matchLabels": {"app": app}}})
}

fn mesh(changes: Vec<Change>) -> Index {
    let mut index = Index::new(MeshConfig::default());
    for change in changes {
        index.apply(change);
    }
    index
}

/// A proxy with labels, which may have the filter.
fn proxy(id: &str, labels: &[(&str, &str)], has_filter: bool) -> Proxy {
    let text = |text: &str| Field {
        kind: Some(Kind::StringValue(text.to_owned())),
    };
    let labels = labels
        .iter()
        .map(|(key, value)| ((*key).to_owned(), text(value)));
    let labels = Field {
        kind: Some(Kind::StructValue(Struct {
            fields: labels.collect(),
        })),
    };
    let extensions = if has_filter { vec![NAME] } else { Vec::new() };
    let node = Node {
        id: id.to_owned(),
        metadata: Some(Struct {
            fields: [("LABELS".to_owned(), labels)].into(),
        }),
        extensions: extensions
            .into_iter()
            .map(|name| Extension {
                name: name.to_owned(),
                ..Extension::default()
            })
            .collect(),
        ..Node::default()
    };
    Proxy::from_node(&node).expect("a valid node")
}

fn edge(has_filter: bool) -> Proxy {
    let id = "router~10.0.0.9~edge-1.shop~shop.svc.cluster.local";
    proxy(id, &[("istio", "edge")], has_filter)
}

/// Headers that the policies of each connection manager set, by listener and server name, in their order.
fn headers(index: &Index, proxy: &Proxy) -> Vec<(String, Vec<String>)> {
    let mut found = Vec::new();
    for one in resources(index, proxy, ResourceType::Listener, &Names::All) {
        let listener = Listener::decode(one.body.value.as_slice()).expect("a listener");
        for chain in &listener.filter_chains {
            let Some(manager) = manager(chain) else {
                continue;
            };
            let names = chain.filter_chain_match.iter();
            let names: Vec<String> = names
                .flat_map(|matching| matching.server_names.clone())
                .collect();
            let place = format!("{} {}", listener.name, names.join(","));
            let set = manager.http_filters.iter().filter_map(header).collect();
            found.push((place.trim().to_owned(), set));
        }
    }
    found
}

fn manager(chain: &FilterChain) -> Option<HttpConnectionManager> {
    let filter = chain.filters.iter().find_map(|filter| {
        let filter::ConfigType::TypedConfig(any) = filter.config_type.as_ref()? else {
            return None;
        };
        any.type_url
            .ends_with("HttpConnectionManager")
            .then_some(any)
    })?;
    Some(HttpConnectionManager::decode(filter.value.as_slice()).expect("a connection manager"))
}

/// The first header that a filter sets, if it is one that looks at bodies.
fn header(filter: &HttpFilter) -> Option<String> {
    if filter.name != NAME {
        return None;
    }
    let Some(http_filter::ConfigType::TypedConfig(any)) = &filter.config_type else {
        panic!("it has a configuration");
    };
    let config = proto_json::from_any(any, FieldNames::Proto).expect("a known type");
    let header = &config["value"]["fields"][0]["header"];
    Some(header.as_str().expect("a header").to_owned())
}

#[track_caller]
fn check(index: &Index, proxy: &Proxy, expected: &[(&str, &[&str])]) {
    let expected: Vec<(String, Vec<String>)> = expected
        .iter()
        .map(|(place, names)| {
            let names = names.iter().map(ToString::to_string).collect();
            ((*place).to_owned(), names)
        })
        .collect();
    assert_eq!(headers(index, proxy), expected);
}

#[test]
fn each_https_server_has_the_policies_of_its_own_gateway() {
    let index = mesh(vec![
        gateway("shop", "one", json!([server(443, "HTTPS", "a.com")])),
        gateway("shop", "two", json!([server(443, "HTTPS", "b.com")])),
        gateway("other", "one", json!([server(443, "HTTPS", "c.com")])),
        policy("shop", "x-one", 1, for_gateways(&["one"])),
        policy("shop", "x-two", 2, for_gateways(&["two"])),
        policy("shop", "x-both", 3, for_gateways(&["one", "two"])),
    ]);
    check(
        &index,
        &edge(true),
        &[
            ("0.0.0.0_443 c.com", &[]),
            ("0.0.0.0_443 a.com", &["x-one", "x-both"]),
            ("0.0.0.0_443 b.com", &["x-two", "x-both"]),
        ],
    );
}

#[test]
fn gateways_share_the_policies_of_a_plain_port_and_the_oldest_comes_first() {
    let index = mesh(vec![
        gateway("shop", "one", json!([server(80, "HTTP", "a.com")])),
        gateway("other", "two", json!([server(80, "HTTP", "b.com")])),
        policy("shop", "x-c", 5, for_gateways(&["one"])),
        policy("shop", "x-b", 5, for_gateways(&["one"])),
        policy("other", "x-d", 5, for_gateways(&["two"])),
        policy("shop", "x-z", 4, for_gateways(&["one"])),
        policy("shop", "x-no", 1, for_gateways(&["two"])),
        policy("shop", "x-app", 1, for_workloads("web")),
    ]);
    let order: &[&str] = &["x-z", "x-d", "x-b", "x-c"];
    check(&index, &edge(true), &[("0.0.0.0_80", order)]);
    check(&index, &edge(false), &[("0.0.0.0_80", &[])]);
}

#[test]
fn workloads_are_chosen_by_their_labels() {
    let pod = json!({
        "metadata": {"name": "web-1", "namespace": "shop", "labels": {"app": "web"}},
        "spec": {"containers": []}, "status": {"podIP": "10.0.0.1"},
    });
    let service = json!({
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {
            "clusterIP": "10.96.0.1", "selector": {"app": "web"}, "ports": [{"name": "http", "port": 8080}],
        },
    });
    let slice = json!({
        "metadata": {
            "name": "web-x", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"},
        },
        "addressType": "IPv4", "ports": [{"name": "http", "port": 8080}],
        "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": true}}],
    });
    let index = mesh(vec![
        Change::Pod(serde_json::from_value(pod).expect("a pod")),
        Change::Service(serde_json::from_value(service).expect("a service")),
        Change::EndpointSlice(serde_json::from_value(slice).expect("endpoints")),
        policy("shop", "x-late", 2, for_workloads("web")),
        policy("shop", "x-early", 1, for_workloads("web")),
        policy("shop", "x-other", 1, for_workloads("other")),
        policy("other", "x-foreign", 1, for_workloads("web")),
        policy("shop", "x-gateway", 1, for_gateways(&["web"])),
    ]);
    let check = |app: &str, expected: &[&str]| {
        let id = "sidecar~10.0.0.1~web-1.shop~shop.svc.cluster.local";
        let found = headers(&index, &proxy(id, &[("app", app)], true));
        let (inbound, outbound): (Vec<_>, Vec<_>) = found
            .into_iter()
            .partition(|(place, _)| place.starts_with("virtualInbound"));
        assert!(!inbound.is_empty());
        assert!(!outbound.is_empty());
        for (place, set) in inbound {
            assert_eq!(set, expected, "{app} {place}");
        }
        for (place, set) in outbound {
            assert!(set.is_empty(), "{app} {place}");
        }
    };
    check("web", &["x-early", "x-late"]);
    check("none", &[]);
}
