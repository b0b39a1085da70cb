//! Whom a change concerns, and what is sent to them: one small mesh, changed step by step.

use std::collections::BTreeSet;

use k8s_openapi::api::{
    core::v1::{Pod, Service},
    discovery::v1::EndpointSlice,
};
use lateen_api::{DestinationRule, Gateway, VirtualService, decode};
use lateen_mesh::{Change, Impact, Index, Key, MeshConfig, ObjectKind, Proxy, resources};
use lateen_xds::{
    Names, Resource, ResourceType,
    pb::{
        envoy::config::{
            cluster::v3::{Cluster, cluster::LbConfig},
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

/// What an impact means to a sidecar that subscribed to everything and to the endpoints of both services.
fn concerned(impact: &Impact, proxy: &Proxy) -> Vec<(ResourceType, Names)> {
    let subscriptions = [
        (ResourceType::Cluster, Names::All),
        (ResourceType::Endpoint, names(&[A, B])),
        (ResourceType::Listener, Names::All),
        (ResourceType::Route, names(&["8080"])),
    ];
    let narrowed = subscriptions
        .into_iter()
        .map(|(kind, all)| (kind, impact.narrow(proxy, kind, &all)));
    narrowed.filter(|(_, names)| !names.is_empty()).collect()
}

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
fn an_endpoint_that_is_not_ready_is_left_out() {
    let mut index = mesh();
    let mut not_ready = match slice("a", &["10.0.0.1", "10.0.0.3"]) {
        Change::EndpointSlice(slice) => slice,
        other => panic!("{other:?} is no slice"),
    };
    let second = &mut not_ready.endpoints.as_mut().expect("endpoints")[1];
    second.conditions.get_or_insert_default().ready = Some(false);
    index.apply(Change::EndpointSlice(not_ready));
    assert_eq!(endpoints(&index, &sidecar(), A), 1);
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

#[test]
fn a_proxy_is_sent_only_what_it_says_it_has() {
    let index = mesh();
    let text = |proxy: &Proxy| {
        let kinds = [ResourceType::Cluster, ResourceType::Listener];
        let all = kinds
            .iter()
            .flat_map(|kind| resources(&index, proxy, *kind, &Names::All));
        all.map(|resource| String::from_utf8_lossy(&resource.body.value).into_owned())
            .collect::<String>()
    };
    let check = |extensions: &[&str], extension: &str, expected: bool| {
        let proxy = proxy("sidecar", &[("app", "a")], extensions);
        assert_eq!(
            text(&proxy).contains(extension),
            expected,
            "{extension} with {extensions:?}"
        );
    };
    check(&[], "envoy.filters.http.fault", true);
    check(&[], "envoy.transport_sockets.tls", true);
    let plain = ["envoy.filters.http.router", "envoy.filters.http.fault"];
    check(&plain, "envoy.filters.http.fault", true);
    check(&plain, "envoy.filters.http.cors", false);
    check(&plain, "envoy.transport_sockets.tls", false);
    check(&plain, "tls_inspector", false);
}

#[test]
fn a_proxy_without_tls_accepts_nothing_where_tls_is_demanded() {
    let check = |mode: &str, extensions: &[&str], forwards: bool| {
        let mut index = mesh();
        let policy = decode(&json!({
            "apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication",
            "metadata": {"name": "default", "namespace": "shop"}, "spec": {"mtls": {"mode": mode}},
        }));
        index.apply(Change::PeerAuthentication(policy.expect("a valid policy")));
        let proxy = proxy("sidecar", &[("app", "a")], extensions);
        let found = resources(
            &index,
            &proxy,
            ResourceType::Listener,
            &names(&["virtualInbound"]),
        );
        let text = String::from_utf8_lossy(&found[0].body.value).into_owned();
        assert_eq!(
            text.contains("inbound|8080||"),
            forwards,
            "{mode} with {extensions:?}"
        );
    };
    let plain = ["envoy.filters.http.router"];
    check("STRICT", &plain, false);
    check("PERMISSIVE", &plain, true);
    check("DISABLE", &plain, true);
    check("STRICT", &[], true);
}

/// How many resources one new service makes the translation work on, among many services and proxies.
#[test]
fn a_new_service_costs_what_it_appears_in() {
    const SERVICES: usize = 300;
    const PROXIES: usize = 20;
    let mut index = mesh();
    for number in 0..SERVICES {
        index.apply(service(&format!("s{number}")));
    }
    let proxies = vec![sidecar(); PROXIES];
    let subscriptions = [
        (ResourceType::Cluster, Names::All),
        (ResourceType::Endpoint, names(&[A, B])),
        (ResourceType::Listener, Names::All),
        (ResourceType::Route, names(&["8080"])),
    ];
    for proxy in &proxies {
        for (kind, names) in &subscriptions {
            resources(&index, proxy, *kind, names);
        }
    }
    let before = index.translated();
    let impact = index.apply(service("new"));
    let mut sent = Vec::new();
    for proxy in &proxies {
        for (kind, names) in &subscriptions {
            let concerned = impact.narrow(proxy, *kind, names);
            sent.extend(resources(&index, proxy, *kind, &concerned));
        }
    }
    let found: BTreeSet<&str> = sent.iter().map(|one| one.name.as_str()).collect();
    let new = "outbound|8080||new.shop.svc.cluster.local";
    assert_eq!(found, BTreeSet::from(["0.0.0.0_8080", "8080", new]));
    // The cluster and the routes are made once, the listener (it names the workload) for each proxy.
    let made = index.translated() - before;
    assert!(
        made <= 2 + PROXIES as u64,
        "{made} resources were translated"
    );
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
fn delegates_continue_the_rules_that_refer_to_them() {
    let mut index = mesh();
    let named = |name: &str, namespace: &str, spec: Value| {
        let mut object = istio("VirtualService", name, spec);
        object["metadata"]["namespace"] = json!(namespace);
        let object: VirtualService = decode(&object).expect("a valid virtual service");
        Change::VirtualService(object)
    };
    let clusters = |index: &Index| {
        let found = resources(index, &sidecar(), ResourceType::Route, &names(&["8080"]));
        String::from_utf8_lossy(&found[0].body.value).into_owned()
    };
    index.apply(named(
        "root",
        "shop",
        json!({"hosts": ["a"], "http": [
            {"match": [{"uri": {"prefix": "/x"}}], "delegate": {"name": "part", "namespace": "other"}},
            {"route": [{"destination": {"host": "a"}}]},
        ]}),
    ));
    assert!(!clusters(&index).contains("b.other.svc"));
    let part = |prefix: &str| {
        let rule = json!({
            "match": [{"uri": {"prefix": prefix}}], "route": [{"destination": {"host": "b"}}],
        });
        named("part", "other", json!({"http": [rule]}))
    };
    assert!(!index.apply(part("/x/y")).is_empty());
    assert!(clusters(&index).contains("b.other.svc"));
    index.apply(part("/z"));
    assert!(!clusters(&index).contains("b.other.svc"));
}

#[test]
fn a_sidecar_opens_ports_for_its_own_hosts() {
    let mut index = mesh();
    let sidecar_spec = json!({"egress": [
        {"port": {"number": 9999, "name": "http", "protocol": "HTTP"}, "captureMode": "NONE", "hosts": ["./b.shop.svc.cluster.local"]},
        {"hosts": ["./a.shop.svc.cluster.local"]},
    ]});
    let object = decode(&istio("Sidecar", "own", sidecar_spec)).expect("a valid Sidecar");
    index.apply(Change::Sidecar(object));
    let found = |kind, names: &Names| -> Vec<String> {
        let all = resources(&index, &sidecar(), kind, names).into_iter();
        all.map(|one| one.name).collect()
    };
    assert_eq!(
        found(ResourceType::Listener, &Names::All),
        [
            "0.0.0.0_8080",
            "127.0.0.1_9999",
            "virtualInbound",
            "virtualOutbound"
        ]
    );
    let check = |route: &str, host: &str, expected: bool| {
        let routes = resources(&index, &sidecar(), ResourceType::Route, &names(&[route]));
        let text = String::from_utf8_lossy(&routes[0].body.value).into_owned();
        assert_eq!(text.contains(host), expected, "{route} {host}");
    };
    check("8080", "a.shop.svc", true);
    check("8080", "b.shop.svc", false);
}

#[test]
fn rules_lead_beyond_what_a_sidecar_lists() {
    let mut index = mesh();
    let object = istio(
        "Sidecar",
        "own",
        json!({"egress": [{"hosts": ["./a.shop.svc.cluster.local"]}]}),
    );
    index.apply(Change::Sidecar(decode(&object).expect("a valid Sidecar")));
    let clusters = |index: &Index| -> Vec<String> {
        let all = resources(index, &sidecar(), ResourceType::Cluster, &Names::All).into_iter();
        all.map(|one| one.name).collect()
    };
    assert!(!clusters(&index).contains(&B.to_owned()));
    let rules = json!({"hosts": ["a"], "http": [{"route": [{"destination": {"host": "b"}}]}]});
    let impact = index.apply(virtual_service(rules));
    assert!(
        !impact
            .narrow(&sidecar(), ResourceType::Cluster, &Names::All)
            .is_empty()
    );
    assert!(clusters(&index).contains(&B.to_owned()));
}

#[test]
fn workloads_outside_of_kubernetes_are_endpoints_of_services_that_select_them() {
    let mut index = mesh();
    let entry = |labels: Value| {
        let spec = json!({"address": "192.0.2.7", "labels": labels, "ports": {"http": 9090}});
        let object = decode(&istio("WorkloadEntry", "vm", spec)).expect("a valid entry");
        Change::WorkloadEntry(object)
    };
    let impact = index.apply(entry(json!({"app": "b"})));
    assert!(impact.is_endpoints_only());
    assert_eq!(
        concerned(&impact, &sidecar()),
        [(ResourceType::Endpoint, names(&[B]))]
    );
    assert_eq!(endpoints(&index, &sidecar(), B), 2);
    assert!(index.apply(entry(json!({"app": "b"}))).is_empty());
    index.apply(entry(json!({"app": "other"})));
    assert_eq!(endpoints(&index, &sidecar(), B), 1);
    index.apply(entry(json!({"app": "b"})));
    index.apply(Change::Deleted(
        ObjectKind::WorkloadEntry,
        Key::new("shop", "vm"),
    ));
    assert_eq!(endpoints(&index, &sidecar(), B), 1);
}

#[test]
fn a_moved_endpoint_costs_one_translation_for_all_proxies_of_a_class() {
    let mut index = mesh();
    let proxies = vec![sidecar(); 20];
    for proxy in &proxies {
        resources(&index, proxy, ResourceType::Endpoint, &names(&[A, B]));
    }
    let before = index.translated();
    let impact = index.apply(slice("b", &["10.0.0.2", "10.0.0.9"]));
    for proxy in &proxies {
        let concerned = impact.narrow(proxy, ResourceType::Endpoint, &names(&[A, B]));
        assert_eq!(concerned, names(&[B]));
        let sent = resources(&index, proxy, ResourceType::Endpoint, &concerned);
        assert_eq!(sent.len(), 1);
    }
    assert_eq!(index.translated() - before, 1);
    assert_eq!(endpoints(&index, &sidecar(), B), 2);
}

#[test]
fn unknown_destinations_go_where_a_sidecar_says() {
    let check = |policy: Value, cluster: &str| {
        let mut index = mesh();
        let object = istio("Sidecar", "own", json!({"outboundTrafficPolicy": policy}));
        index.apply(Change::Sidecar(decode(&object).expect("a valid Sidecar")));
        let proxy = sidecar();
        let wanted = names(&["virtualOutbound"]);
        let found = resources(&index, &proxy, ResourceType::Listener, &wanted);
        let text = String::from_utf8_lossy(&found[0].body.value).into_owned();
        assert!(text.contains(cluster), "{policy}");
        // The guard against loops leads nowhere in any case.
        let only = cluster == "BlackHoleCluster";
        assert_eq!(
            text.contains("PassthroughCluster"),
            !only && !cluster.contains('|')
        );
    };
    check(json!({"mode": "ALLOW_ANY"}), "PassthroughCluster");
    check(json!({"mode": "REGISTRY_ONLY"}), "BlackHoleCluster");
    let proxy = json!({"host": "b", "port": {"number": 8080}});
    check(json!({"mode": "ALLOW_ANY", "egressProxy": proxy}), B);
}

#[test]
fn the_target_port_of_an_entry_without_endpoints_replaces_the_clients() {
    let mut index = mesh();
    let entry = json!({
        "hosts": ["away.example"], "resolution": "NONE", "addresses": ["192.0.2.7"],
        "ports": [{"number": 8888, "name": "http", "protocol": "HTTP", "targetPort": 443},
                  {"number": 443, "name": "same", "protocol": "HTTPS", "targetPort": 443},
                  {"number": 80, "name": "plain", "protocol": "HTTP"}],
    });
    let entry = decode(&istio("ServiceEntry", "away", entry)).expect("a valid entry");
    index.apply(Change::ServiceEntry(entry));
    let check = |port: u32, expected: Option<u32>| {
        let name = format!("outbound|{port}||away.example");
        let found = resources(&index, &sidecar(), ResourceType::Cluster, &names(&[&name]));
        let cluster = Cluster::decode(found[0].body.value.as_slice()).expect("a cluster");
        let found = match cluster.lb_config {
            Some(LbConfig::OriginalDstLbConfig(config)) => {
                config.upstream_port_override.map(|port| port.value)
            }
            _ => None,
        };
        assert_eq!(found, expected, "{port}");
    };
    check(8888, Some(443));
    // Rules lead there from other ports.
    check(443, Some(443));
    check(80, None);
}
