//! What the control plane makes and says of the Gateway API's objects.

use kube::api::DeleteParams;
use serde_json::{Value, json};

use crate::support::{Mesh, api_of, create, eventually, service};

fn object(kind: &str, namespace: Option<&str>, spec: Value) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": kind,
        "metadata": {"name": "edge", "namespace": namespace}, "spec": spec,
    })
}

/// A mesh that serves the kinds, from a moment after its start.
async fn mesh() -> Mesh {
    let mesh = Mesh::start().await;
    for definition in lateen_api::crd::all() {
        create(&mesh.client, definition).await;
    }
    mesh.stop_validating().await;
    let mut class = object("GatewayClass", None, Value::Null);
    class["metadata"] = json!({"name": "istio"});
    let classes = api_of(&mesh.client, &class);
    eventually("the class is made, and accepted", async || {
        let found = classes.get("istio").await.ok();
        let status = found.map(|found| found.data["status"].clone());
        status.is_some_and(|status| status["conditions"][0]["status"] == "True")
    })
    .await;
    mesh
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_gets_its_proxies() {
    let mesh = mesh().await;
    let listeners = json!([{"name": "http", "port": 80, "protocol": "HTTP"}]);
    let gateway = json!({"gatewayClassName": "istio", "listeners": listeners});
    let gateway = object("Gateway", Some("default"), gateway);
    let made = create(&mesh.client, gateway.clone()).await;
    for (version, kind) in [
        ("v1", "ServiceAccount"),
        ("v1", "Service"),
        ("apps/v1", "Deployment"),
    ] {
        let wanted =
            json!({"apiVersion": version, "kind": kind, "metadata": {"namespace": "default"}});
        let api = api_of(&mesh.client, &wanted);
        eventually(kind, async || {
            let found = api.get("edge-istio").await.ok();
            let owners = found.and_then(|found| found.metadata.owner_references);
            owners.is_some_and(|owners| made["metadata"]["uid"] == owners[0].uid)
        })
        .await;
    }
    let gateways = api_of(&mesh.client, &gateway);
    eventually("the gateway waits for its proxies", async || {
        let status = gateways.get("edge").await.unwrap().data["status"].clone();
        let conditions = &status["conditions"];
        conditions[0]["reason"] == "Accepted" && conditions[1]["reason"] == "AddressNotAssigned"
    })
    .await;
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_of_a_route_follows_what_it_refers_to() {
    let mesh = mesh().await;
    let parent = json!({"group": "", "kind": "Service", "name": "web"});
    let rule = json!({"backendRefs": [{"name": "other", "port": 80}]});
    let route = json!({"parentRefs": [parent], "rules": [rule]});
    let route = object("HTTPRoute", Some("default"), route);
    create(&mesh.client, route.clone()).await;
    let routes = api_of(&mesh.client, &route);
    let shows = async |accepted: &str, resolved: &str| {
        eventually(accepted, async || {
            let found = routes.get("edge").await.unwrap();
            let parent = &found.data["status"]["parents"][0];
            let reason = |place: usize| parent["conditions"][place]["reason"].clone();
            reason(0) == accepted && reason(1) == resolved
        })
        .await;
    };
    shows("NoMatchingParent", "BackendNotFound").await;
    create(&mesh.client, service("web")).await;
    shows("Accepted", "BackendNotFound").await;
    create(&mesh.client, service("other")).await;
    shows("Accepted", "ResolvedRefs").await;
    let services = api_of(&mesh.client, &service("web"));
    services
        .delete("web", &DeleteParams::default())
        .await
        .unwrap();
    shows("NoMatchingParent", "ResolvedRefs").await;
    mesh.stop().await;
}
