//! TCPRoutes and TLSRoutes, at gateways and in the mesh.

use lateen_mesh::resources;
use lateen_xds::{
    Names, ResourceType,
    pb::envoy::{
        config::listener::v3::{FilterChain, Listener, filter::ConfigType},
        extensions::filters::network::tcp_proxy::v3::{TcpProxy, tcp_proxy::ClusterSpecifier},
    },
};
use prost::Message;
use serde_json::{Value, json};

use super::{Mesh, backend, gateways, proxy, sidecar};

/// Clusters that connections of a chain go to, with their weights.
fn clusters(chain: &FilterChain) -> Vec<(String, u32)> {
    let filter = chain.filters.iter();
    let mut filter = filter.filter(|one| one.name == "envoy.filters.network.tcp_proxy");
    let Some(ConfigType::TypedConfig(config)) =
        filter.next().and_then(|filter| filter.config_type.as_ref())
    else {
        return Vec::new();
    };
    let tcp = TcpProxy::decode(config.value.as_slice()).expect("a TCP proxy");
    match tcp.cluster_specifier {
        Some(ClusterSpecifier::Cluster(name)) => vec![(name, 0)],
        Some(ClusterSpecifier::WeightedClusters(weighted)) => weighted
            .clusters
            .into_iter()
            .map(|one| (one.name, one.weight))
            .collect(),
        None => Vec::new(),
    }
}

/// What a filter chain does: server names, whether TLS is ended, clusters with their weights.
type Chain = (Vec<String>, bool, Vec<(String, u32)>);

/// What the only listener of the gateway does.
fn chains(mesh: &Mesh) -> Vec<Chain> {
    let router = proxy("router", "shop");
    let found = resources(&mesh.index, &router, ResourceType::Listener, &Names::All);
    let chains = found.iter().flat_map(|one| {
        let listener = Listener::decode(one.body.value.as_slice()).expect("a listener");
        listener.filter_chains
    });
    chains
        .map(|chain| {
            let matching = chain.filter_chain_match.clone().unwrap_or_default();
            let ended = chain.transport_socket.is_some();
            (matching.server_names, ended, clusters(&chain))
        })
        .collect()
}

fn route(kind: &str, hosts: Option<&[&str]>, backends: Value) -> Mesh {
    let listener = match kind {
        "TCPRoute" => json!({"name": "l", "port": 80, "protocol": "TCP"}),
        _ => json!({"name": "l", "port": 80, "protocol": "TLS", "hostname": "*.example.com",
            "tls": {"mode": "Passthrough"}}),
    };
    let mut mesh = gateways::mesh(json!([listener]));
    let mut spec = json!({"parentRefs": [{"name": "edge"}], "rules": [{"backendRefs": backends}]});
    if let Some(hosts) = hosts {
        spec["hostnames"] = json!(hosts);
    }
    mesh.apply(kind, "shop", "route", spec);
    mesh
}

const WEB: &str = "outbound|80||web.shop.svc.cluster.local";
const OTHER: &str = "outbound|80||other.shop.svc.cluster.local";

#[test]
fn connections_go_where_the_route_of_the_listener_says() {
    let check = |backends: Value, expected: &[(&str, u32)]| {
        let found = chains(&route("TCPRoute", None, backends.clone()));
        assert_eq!(found.len(), 1, "{backends}");
        let found: Vec<_> = found[0]
            .2
            .iter()
            .map(|(name, weight)| (&**name, *weight))
            .collect();
        assert_eq!(found, expected, "{backends}");
    };
    check(backend("web"), &[(WEB, 0)]);
    let weighted = json!([
        {"name": "web", "port": 80, "weight": 3},
        {"name": "other", "port": 80},
    ]);
    check(weighted, &[(WEB, 3), (OTHER, 1)]);
    // Nothing is there: the proxy closes connections to a cluster that does not exist.
    check(
        json!([{"name": "web", "port": 80, "weight": 0}]),
        &[("outbound|0||", 0)],
    );
    let far = json!([{"name": "far", "namespace": "away", "port": 80}]);
    check(far, &[("outbound|80||", 0)]);
}

#[test]
fn server_names_of_listener_and_route_go_together() {
    let check = |hosts: Option<&[&str]>, expected: &[&str]| {
        let found = chains(&route("TLSRoute", hosts, backend("web")));
        let mut names = Vec::new();
        for (found, ended, clusters) in found {
            assert!(!ended, "{hosts:?}");
            assert_eq!(clusters, [(WEB.to_owned(), 0)], "{hosts:?}");
            names.extend(found);
        }
        assert_eq!(names, expected, "{hosts:?}");
    };
    check(None, &["*.example.com"]);
    let several = ["a.example.com", "b.other.com", "c.example.com"];
    check(Some(&several), &["a.example.com", "c.example.com"]);
    check(Some(&["b.other.com"]), &[]);
}

#[test]
fn tls_can_be_ended_for_routes_of_connections() {
    for kind in ["TLSRoute", "TCPRoute"] {
        let tls = json!({"mode": "Terminate", "certificateRefs": [{"name": "cert"}]});
        let listener = json!({"name": "l", "port": 80, "protocol": "TLS", "hostname": "a.example.com", "tls": tls});
        let mut mesh = gateways::mesh(json!([listener]));
        let spec =
            json!({"parentRefs": [{"name": "edge"}], "rules": [{"backendRefs": backend("web")}]});
        mesh.apply(kind, "shop", "route", spec);
        let expected = (
            vec!["a.example.com".to_owned()],
            true,
            vec![(WEB.to_owned(), 0)],
        );
        assert_eq!(chains(&mesh), [expected], "{kind}");
    }
}

#[test]
fn clients_of_the_mesh_follow_routes_of_connections() {
    let mut mesh = Mesh::new();
    let service = json!({
        "metadata": {"name": "db", "namespace": "shop"},
        "spec": {"clusterIP": "10.1.0.7", "ports": [{"name": "tcp", "port": 5432}, {"name": "tcp-b", "port": 5433}]},
    });
    let service = serde_json::from_value(service).expect("a service");
    mesh.index.apply(lateen_mesh::Change::Service(service));
    let parent = json!({"group": "", "kind": "Service", "name": "db", "port": 5432});
    let spec = json!({"parentRefs": [parent], "rules": [{"backendRefs": backend("web")}]});
    let impact = mesh.apply("TCPRoute", "shop", "route", spec);
    let names: Names = ["10.1.0.7_5432", "10.1.0.1_80"]
        .map(str::to_owned)
        .into_iter()
        .collect();
    let concerned = impact.narrow(&sidecar("away"), ResourceType::Listener, &names);
    let expected: Names = ["10.1.0.7_5432".to_owned()].into_iter().collect();
    assert_eq!(concerned, expected);
    let goes_to = |listener: &str| {
        let names = [listener.to_owned()].into_iter().collect();
        let found = resources(
            &mesh.index,
            &sidecar("away"),
            ResourceType::Listener,
            &names,
        );
        let listener = found.first().expect("the listener");
        let listener = Listener::decode(listener.body.value.as_slice()).expect("a listener");
        clusters(&listener.filter_chains[0])
    };
    assert_eq!(goes_to("10.1.0.7_5432"), [(WEB.to_owned(), 0)]);
    let own = "outbound|5433||db.shop.svc.cluster.local".to_owned();
    assert_eq!(goes_to("10.1.0.7_5433"), [(own, 0)]);
}
