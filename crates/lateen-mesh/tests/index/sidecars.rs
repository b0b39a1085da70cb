//! What a Sidecar opens, lists and leaves.

use lateen_api::decode;
use lateen_mesh::{Change, Index, resources};
use lateen_xds::{Names, ResourceType};
use serde_json::{Value, json};

use crate::{B, istio, mesh, names, sidecar, virtual_service};

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
