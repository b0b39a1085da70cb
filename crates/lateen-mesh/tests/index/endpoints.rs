//! Which endpoints a service has.

use lateen_api::decode;
use lateen_mesh::{Change, Key, ObjectKind, resources};
use lateen_xds::ResourceType;
use lateen_xds::pb::envoy::config::cluster::v3::{Cluster, cluster::LbConfig};
use prost::Message;
use serde_json::{Value, json};

use crate::{A, B, concerned, endpoints, istio, mesh, names, sidecar, slice};

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
