//! Table tests of the endpoints that pods give a Service.

use serde_json::{Value, json};

use super::*;

fn service(changes: Value) -> Service {
    let mut service = json!({
        "metadata": {"name": "web", "namespace": "n"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]},
    });
    json_patch::merge(&mut service, &changes);
    serde_json::from_value(service).unwrap()
}

fn pod(changes: Value) -> Pod {
    let mut pod = json!({
        "metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": {"app": "web"}},
        "spec": {"nodeName": "node", "containers": [{"name": "c", "ports": [
            {"name": "http", "containerPort": 8000}, {"name": "dns", "containerPort": 53, "protocol": "UDP"}]}]},
        "status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}],
            "conditions": [{"type": "Ready", "status": "True"}]},
    });
    json_patch::merge(&mut pod, &changes);
    serde_json::from_value(pod).unwrap()
}

/// Checks `address ports ready/serving/terminating` of the endpoints, in the order of their ports.
fn check(service_changes: Value, pods: &[Value], expected: &[&str]) {
    let pods: Vec<Pod> = pods.iter().cloned().map(pod).collect();
    let service = service(service_changes.clone());
    let groups = groups(&service, pods.iter(), Family::V4, &|_| None);
    let got: Vec<String> = groups
        .values()
        .flat_map(|group| {
            let ports: Vec<String> = group
                .ports
                .iter()
                .map(|port| format!("{}:{}", port.name.as_deref().unwrap(), port.port.unwrap()))
                .collect();
            group.endpoints.iter().map(move |endpoint| {
                let conditions = endpoint.conditions.as_ref().unwrap();
                let flags = [conditions.ready, conditions.serving, conditions.terminating];
                let flags = flags.map(|flag| if flag.unwrap() { 'y' } else { 'n' });
                let flags: String = flags.iter().collect();
                format!("{} {} {flags}", endpoint.addresses[0], ports.join(","))
            })
        })
        .collect();
    assert_eq!(got, expected, "{service_changes}");
}

#[test]
fn endpoints_tell_the_state_of_their_pod() {
    let unready = json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}});
    let leaving = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
    check(json!({}), &[json!({})], &["10.0.0.1 :8080 yyn"]);
    check(
        json!({}),
        &[unready.clone(), leaving.clone()],
        &["10.0.0.1 :8080 nnn", "10.0.0.1 :8080 nyy"],
    );
    let publish = json!({"spec": {"publishNotReadyAddresses": true}});
    check(publish.clone(), &[unready], &["10.0.0.1 :8080 ynn"]);
    check(publish, &[leaving], &["10.0.0.1 :8080 yyy"]);
    check(json!({}), &[json!({"status": {"phase": "Succeeded"}})], &[]);
    check(
        json!({}),
        &[json!({"status": {"podIP": null, "podIPs": null}})],
        &[],
    );
    check(
        json!({}),
        &[json!({"metadata": {"labels": {"app": "other"}}})],
        &[],
    );
    check(json!({"spec": {"selector": null}}), &[json!({})], &[]);
}

#[test]
fn target_ports_are_looked_up_in_the_pod() {
    let ports = |ports: Value| json!({"spec": {"ports": ports}});
    check(
        ports(json!([{"name": "web", "port": 80, "targetPort": "http"},
            {"name": "dns", "port": 53, "targetPort": "dns", "protocol": "UDP"}])),
        &[json!({})],
        &["10.0.0.1 web:8000,dns:53 yyn"],
    );
    check(
        ports(json!([{"port": 80}])),
        &[json!({})],
        &["10.0.0.1 :80 yyn"],
    );
    check(
        ports(json!([{"port": 80, "targetPort": "dns"}])),
        &[json!({})],
        &[],
    );
    let sidecar = json!({"spec": {"containers": [], "initContainers": [{"name": "s",
        "restartPolicy": "Always", "ports": [{"name": "http", "containerPort": 9000}]}]}});
    check(
        ports(json!([{"port": 80, "targetPort": "http"}])),
        &[sidecar, json!({})],
        &["10.0.0.1 :8000 yyn", "10.0.0.1 :9000 yyn"],
    );
    check(ports(json!(null)), &[json!({})], &["10.0.0.1  yyn"]);
}

#[test]
fn a_pod_that_asks_for_a_name_below_the_service_gets_it() {
    let named =
        |subdomain: &str| pod(json!({"spec": {"hostname": "zero", "subdomain": subdomain}}));
    assert_eq!(
        hostname(&service(json!({})), &named("web")).as_deref(),
        Some("zero")
    );
    assert_eq!(hostname(&service(json!({})), &named("other")), None);
}
