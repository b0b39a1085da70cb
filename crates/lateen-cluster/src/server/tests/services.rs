use serde_json::{Value, json};

use super::Server;

const SERVICES: &str = "/api/v1/namespaces/default/services";

fn service(name: &str, spec: Value) -> Value {
    let mut service = json!({"metadata": {"name": name}, "spec": spec});
    if service["spec"]["ports"].is_null() {
        service["spec"]["ports"] = json!([{"port": 80}]);
    }
    service
}

#[tokio::test]
async fn addresses_are_given_once() {
    let server = Server::start().await;
    let one = server.post(SERVICES, &service("one", json!({}))).await.ok();
    let two = server.post(SERVICES, &service("two", json!({}))).await.ok();
    assert_ne!(one["spec"]["clusterIP"], two["spec"]["clusterIP"]);
    assert_eq!(one["spec"]["clusterIPs"], json!([one["spec"]["clusterIP"]]));
    let taken = json!({"clusterIP": one["spec"]["clusterIP"]});
    let refused = server.post(SERVICES, &service("three", taken)).await;
    assert_eq!(refused.code, 422);
    assert!(
        refused
            .message()
            .contains("provided IP is already allocated"),
        "{}",
        refused.message()
    );
    let outside = json!({"clusterIP": "10.97.0.1"});
    let refused = server.post(SERVICES, &service("three", outside)).await;
    assert!(
        refused
            .message()
            .contains("does not match the current range"),
        "{}",
        refused.message()
    );
    let wanted = json!({"clusterIP": "10.96.0.10"});
    let dns = server.post(SERVICES, &service("dns", wanted)).await.ok();
    assert_eq!(dns["spec"]["clusterIP"], "10.96.0.10");
    let headless = server
        .post(SERVICES, &service("headless", json!({"clusterIP": "None"})))
        .await
        .ok();
    assert_eq!(headless["spec"]["clusterIPs"], json!(["None"]));
    // What is deleted is free again.
    server
        .delete(&format!("{SERVICES}/one"), &json!({}))
        .await
        .ok();
    let again = json!({"clusterIP": one["spec"]["clusterIP"]});
    server.post(SERVICES, &service("one", again)).await.ok();
}

#[tokio::test]
async fn a_replaced_service_keeps_its_address_and_ports() {
    let server = Server::start().await;
    let spec = json!({"type": "NodePort", "ports": [{"port": 80}]});
    let one = server
        .post(SERVICES, &service("one", spec.clone()))
        .await
        .ok();
    let replaced = server
        .put(&format!("{SERVICES}/one"), &service("one", spec))
        .await
        .ok();
    assert_eq!(replaced["spec"], one["spec"]);
    let plain = json!({"spec": {"type": "ClusterIP"}});
    let plain = server.merge(&format!("{SERVICES}/one"), &plain).await.ok();
    assert!(
        plain["spec"]["ports"][0].get("nodePort").is_none(),
        "{plain}"
    );
}

#[tokio::test]
async fn node_ports_are_shared_by_protocols_and_run_out() {
    let server = Server::start().await;
    let both = json!({"type": "NodePort", "ports": [
        {"name": "tcp", "port": 53, "protocol": "TCP"},
        {"name": "udp", "port": 53, "protocol": "UDP"},
    ]});
    let dns = server.post(SERVICES, &service("dns", both)).await.ok();
    let ports = &dns["spec"]["ports"];
    assert_eq!(ports[0]["nodePort"], ports[1]["nodePort"]);
    let taken =
        json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": ports[0]["nodePort"]}]});
    let refused = server.post(SERVICES, &service("taken", taken)).await;
    assert!(
        refused
            .message()
            .contains("provided port is already allocated"),
        "{}",
        refused.message()
    );
    let outside = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 80}]});
    let refused = server.post(SERVICES, &service("outside", outside)).await;
    assert!(
        refused
            .message()
            .contains("The range of valid ports is 30000-30003"),
        "{}",
        refused.message()
    );
    for name in ["a", "b", "c"] {
        server
            .post(SERVICES, &service(name, json!({"type": "NodePort"})))
            .await
            .ok();
    }
    let full = server
        .post(SERVICES, &service("d", json!({"type": "NodePort"})))
        .await;
    assert!(
        full.message().contains("range is full"),
        "{}",
        full.message()
    );
}

#[tokio::test]
async fn concurrent_services_never_share_an_address() {
    let server = Server::start().await;
    let names: Vec<String> = (0..40).map(|number| format!("s-{number}")).collect();
    let bodies: Vec<Value> = names.iter().map(|name| service(name, json!({}))).collect();
    let posts = bodies.iter().map(|body| server.post(SERVICES, body));
    let mut addresses: Vec<String> = futures_util::future::join_all(posts)
        .await
        .into_iter()
        .map(|answer| {
            answer.ok()["spec"]["clusterIP"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 40);
}
