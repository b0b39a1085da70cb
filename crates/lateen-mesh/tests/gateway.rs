//! What gateways listen on: servers of plain HTTP, HTTPS, TLS and TCP, and how they go together.

use lateen_api::decode;
use lateen_mesh::{Change, Index, MeshConfig, Proxy, resources};
use lateen_xds::{
    Names, ResourceType,
    pb::{
        envoy::{
            config::{
                cluster::v3::{
                    Cluster,
                    cluster::{ClusterDiscoveryType, DiscoveryType},
                },
                core::v3::{Node, transport_socket::ConfigType},
                endpoint::v3::ClusterLoadAssignment,
                listener::v3::{FilterChain, Listener},
            },
            extensions::transport_sockets::tls::v3::{
                DownstreamTlsContext, common_tls_context::ValidationContextType,
            },
        },
        google::protobuf::{Struct, Value as Field, value::Kind},
    },
};
use prost::Message;
use serde_json::{Value, json};

fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": kind,
        "metadata": {"name": name, "namespace": "shop"}, "spec": spec,
    })
}

/// A mesh with one gateway that has the servers, and rules for it.
fn mesh(servers: Value, rules: Value) -> Index {
    let mut index = Index::new(MeshConfig::default());
    let gateway = json!({"selector": {"istio": "edge"}, "servers": servers});
    let gateway = decode(&object("Gateway", "edge", gateway)).expect("a valid gateway");
    index.apply(Change::Gateway(gateway));
    let rules = decode(&object("VirtualService", "rules", rules)).expect("valid rules");
    index.apply(Change::VirtualService(rules));
    index
}

fn router() -> Proxy {
    let text = |text: &str| Field {
        kind: Some(Kind::StringValue(text.to_owned())),
    };
    let labels = Struct {
        fields: [("istio".to_owned(), text("edge"))].into(),
    };
    let labels = Field {
        kind: Some(Kind::StructValue(labels)),
    };
    let node = Node {
        id: "router~10.0.0.9~edge-1.shop~shop.svc.cluster.local".to_owned(),
        metadata: Some(Struct {
            fields: [("LABELS".to_owned(), labels)].into(),
        }),
        ..Node::default()
    };
    Proxy::from_node(&node).expect("a valid node")
}

fn listeners(index: &Index) -> Vec<Listener> {
    let found = resources(index, &router(), ResourceType::Listener, &Names::All).into_iter();
    found
        .map(|one| Listener::decode(one.body.value.as_slice()).expect("a listener"))
        .collect()
}

fn tls_of(chain: &FilterChain) -> Option<DownstreamTlsContext> {
    match chain.transport_socket.as_ref()?.config_type.as_ref()? {
        ConfigType::TypedConfig(config) => {
            Some(DownstreamTlsContext::decode(config.value.as_slice()).expect("TLS settings"))
        }
    }
}

/// Names of the certificates, of the authorities that clients are verified by, and whether clients need one.
fn secrets(tls: DownstreamTlsContext) -> (Vec<String>, Option<String>, bool) {
    let required = tls
        .require_client_certificate
        .is_some_and(|flag| flag.value);
    let common = tls.common_tls_context.unwrap_or_default();
    let certificates = common.tls_certificate_sds_secret_configs.into_iter();
    let authorities = match common.validation_context_type {
        Some(ValidationContextType::CombinedValidationContext(combined)) => combined
            .validation_context_sds_secret_config
            .map(|secret| secret.name),
        _ => None,
    };
    (
        certificates.map(|secret| secret.name).collect(),
        authorities,
        required,
    )
}

#[test]
fn certificates_come_from_where_the_server_says() {
    let check = |tls: Value, certificates: &[&str], authorities: Option<&str>, required: bool| {
        let servers = json!([{
            "port": {"number": 443, "name": "https", "protocol": "HTTPS"}, "hosts": ["a.com"], "tls": tls,
        }]);
        let rules = json!({"hosts": ["a.com"], "gateways": ["edge"], "http": [
            {"route": [{"destination": {"host": "a"}}]},
        ]});
        let index = mesh(servers, rules);
        let found = listeners(&index);
        assert_eq!(found.len(), 1, "{tls}");
        assert_eq!(found[0].name, "0.0.0.0_443");
        let chain = &found[0].filter_chains[0];
        let matching = chain.filter_chain_match.clone().unwrap_or_default();
        assert_eq!(matching.server_names, ["a.com"], "{tls}");
        let (found, by, needed) = secrets(tls_of(chain).expect("TLS is ended"));
        assert_eq!(found, certificates, "{tls}");
        assert_eq!((by.as_deref(), needed), (authorities, required), "{tls}");
        let name = "https.443.https.edge.shop";
        let names = [name].into_iter().collect();
        let routes = resources(&index, &router(), ResourceType::Route, &names);
        assert_eq!(routes.len(), 1, "{tls}");
    };
    let simple = json!({"mode": "SIMPLE", "credentialName": "shop"});
    check(simple, &["kubernetes://shop"], None, false);
    check(
        json!({"mode": "SIMPLE", "credentialNames": ["rsa", "ecdsa"]}),
        &["kubernetes://rsa", "kubernetes://ecdsa"],
        None,
        false,
    );
    check(
        json!({"mode": "MUTUAL", "credentialName": "shop"}),
        &["kubernetes://shop"],
        Some("kubernetes://shop-cacert"),
        true,
    );
    check(
        json!({"mode": "OPTIONAL_MUTUAL", "credentialName": "shop"}),
        &["kubernetes://shop"],
        Some("kubernetes://shop-cacert"),
        false,
    );
    check(
        json!({"mode": "MUTUAL", "serverCertificate": "/c", "privateKey": "/k", "caCertificates": "/a"}),
        &["file-cert:/c~/k"],
        Some("file-root:/a"),
        true,
    );
    check(
        json!({"mode": "ISTIO_MUTUAL"}),
        &["default"],
        Some("ROOTCA"),
        true,
    );
}

#[test]
fn tls_passes_by_its_server_name() {
    let servers = json!([{
        "port": {"number": 443, "name": "tls", "protocol": "TLS"}, "hosts": ["*.a.com"],
        "tls": {"mode": "PASSTHROUGH"},
    }]);
    let rule = |name: &str, host: &str| json!({"match": [{"sniHosts": [name]}], "route": [{"destination": {"host": host, "port": {"number": 443}}}]});
    let rules = json!({"hosts": ["*.a.com"], "gateways": ["edge"], "tls": [
        rule("x.a.com", "x"), rule("y.a.com", "y"), rule("x.a.com", "z"),
    ]});
    let found = listeners(&mesh(servers, rules));
    let names: Vec<Vec<String>> = found[0]
        .filter_chains
        .iter()
        .map(|chain| {
            assert!(chain.transport_socket.is_none());
            let matching = chain.filter_chain_match.clone();
            matching.unwrap_or_default().server_names
        })
        .collect();
    // The second rule for a name could never be reached; a proxy refuses a listener that has both.
    assert_eq!(names, [["x.a.com"], ["y.a.com"]]);
    let filters: Vec<&str> = found[0]
        .listener_filters
        .iter()
        .map(|filter| filter.name.as_str())
        .collect();
    assert_eq!(filters, ["envoy.filters.listener.tls_inspector"]);
}

#[test]
fn servers_that_exclude_each_other_do_not_share_a_port() {
    let check = |protocols: [&str; 2], chains: usize| {
        let server = |number: usize, protocol: &str| {
            let tls = match protocol {
                "HTTPS" => json!({"mode": "SIMPLE", "credentialName": "shop"}),
                _ => Value::Null,
            };
            json!({
                "port": {"number": 8080, "name": format!("p{number}"), "protocol": protocol},
                "hosts": [format!("h{number}.com")], "tls": tls,
            })
        };
        let servers = json!([server(0, protocols[0]), server(1, protocols[1])]);
        let rules = json!({"hosts": ["h0.com", "h1.com"], "gateways": ["edge"],
            "http": [{"route": [{"destination": {"host": "a"}}]}],
            "tcp": [{"route": [{"destination": {"host": "a", "port": {"number": 1}}}]}],
        });
        let found = listeners(&mesh(servers, rules));
        assert_eq!(found.len(), 1, "{protocols:?}");
        assert_eq!(found[0].filter_chains.len(), chains, "{protocols:?}");
    };
    check(["HTTP", "HTTP"], 1);
    check(["HTTP", "TCP"], 1);
    check(["HTTPS", "HTTPS"], 2);
    check(["HTTP", "HTTPS"], 1);
}

#[test]
fn endpoints_of_headless_services_are_chosen_by_the_gateway() {
    let mut index = mesh(json!([]), json!({"hosts": ["a.example"]}));
    let service = json!({
        "metadata": {"name": "db", "namespace": "shop"},
        "spec": {"clusterIP": "None", "selector": {"app": "db"}, "ports": [{"name": "http", "port": 80}]},
    });
    let slice = json!({
        "metadata": {"name": "db-x", "namespace": "shop", "labels": {"kubernetes.io/service-name": "db"}},
        "addressType": "IPv4", "ports": [{"name": "http", "port": 8080}],
        "endpoints": [{"addresses": ["10.0.0.7"], "conditions": {"ready": true}}],
    });
    index.apply(Change::Service(
        serde_json::from_value(service).expect("a service"),
    ));
    index.apply(Change::EndpointSlice(
        serde_json::from_value(slice).expect("a slice"),
    ));
    let name = "outbound|80||db.shop.svc.cluster.local";
    let names = Names::Only([name.to_owned()].into());
    let only = |kind| {
        let mut found = resources(&index, &router(), kind, &names);
        assert_eq!(found.len(), 1, "{kind:?}");
        found.remove(0)
    };
    let cluster =
        Cluster::decode(only(ResourceType::Cluster).body.value.as_slice()).expect("a cluster");
    // Clients wanted to reach the gateway, so there is no endpoint that they wanted.
    let kind = ClusterDiscoveryType::Type(DiscoveryType::Eds.into());
    assert_eq!(cluster.cluster_discovery_type, Some(kind));
    let endpoints = only(ResourceType::Endpoint);
    let endpoints =
        ClusterLoadAssignment::decode(endpoints.body.value.as_slice()).expect("endpoints");
    assert_eq!(endpoints.endpoints[0].lb_endpoints.len(), 1);
}
