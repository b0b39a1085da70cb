use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Endpoints, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::support::{Running, deployment, eventually, gone, patch, rolled_out};

fn service(name: &str, spec: Value) -> Value {
    let mut object = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}]}});
    json_patch::merge(&mut object["spec"], &spec);
    object
}

/// Port, number of ready endpoints and number of others, over all slices of the Service.
async fn counted(running: &Running, service: &str) -> (Option<i32>, usize, usize) {
    let of_service = ListParams::default().labels(&format!("kubernetes.io/service-name={service}"));
    let slices = running
        .api::<EndpointSlice>()
        .list(&of_service)
        .await
        .unwrap();
    let port = slices
        .iter()
        .flat_map(|slice| slice.ports.iter().flatten())
        .find_map(|port| port.port);
    let endpoints = slices
        .iter()
        .flat_map(|slice| slice.endpoints.iter().flatten());
    let (ready, other): (Vec<_>, Vec<_>) = endpoints.partition(|endpoint| {
        let conditions = endpoint.conditions.as_ref();
        conditions.and_then(|conditions| conditions.ready) == Some(true)
    });
    (port, ready.len(), other.len())
}

async fn reaches(running: &Running, service: &str, expected: (Option<i32>, usize, usize)) {
    eventually(&format!("{service} to have {expected:?}"), || async {
        (counted(running, service).await == expected).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_follow_the_pods_of_a_service() {
    let running = Running::start().await;
    let deployments = running.api::<Deployment>();
    running.create(service("web", json!({}))).await;
    running
        .create(service(
            "unready",
            json!({"publishNotReadyAddresses": true, "clusterIP": "None"}),
        ))
        .await;
    reaches(&running, "web", (None, 0, 0)).await;
    running.create(deployment(2, "web:1", json!({}))).await;
    rolled_out(&deployments).await;
    reaches(&running, "web", (Some(8080), 2, 0)).await;

    let pods = running.api::<Pod>();
    let listed = pods.list(&ListParams::default()).await.unwrap();
    let status = json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}});
    let name = listed.items[0].name_any();
    pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(status))
        .await
        .unwrap();
    reaches(&running, "web", (Some(8080), 1, 1)).await;
    reaches(&running, "unready", (Some(8080), 2, 0)).await;
    let endpoints = running.api::<Endpoints>();
    eventually("the older form", || async {
        let subsets = endpoints.get("web").await.unwrap().subsets?;
        let [subset] = subsets.as_slice() else {
            return None;
        };
        let count = |list: &Option<Vec<_>>| list.as_ref().map_or(0, Vec::len);
        (count(&subset.addresses) == 1 && count(&subset.not_ready_addresses) == 1).then_some(())
    })
    .await;

    patch(&deployments, "web", json!({"spec": {"replicas": 0}})).await;
    reaches(&running, "web", (None, 0, 0)).await;
    running
        .api::<Service>()
        .delete("web", &DeleteParams::default())
        .await
        .unwrap();
    gone(&endpoints, "web").await;
    eventually("the slices to go", || async {
        let of_service = ListParams::default().labels("kubernetes.io/service-name=web");
        let slices = running
            .api::<EndpointSlice>()
            .list(&of_service)
            .await
            .unwrap();
        slices.items.is_empty().then_some(())
    })
    .await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_without_a_selector_has_the_endpoints_that_someone_gave_it() {
    let running = Running::start().await;
    let slices = running.api::<EndpointSlice>();
    running
        .create(service(
            "manual",
            json!({"selector": null, "ports": [{"port": 80}]}),
        ))
        .await;
    running
        .create(
            json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": "by-hand", "labels": {"kubernetes.io/service-name": "manual"}},
            "addressType": "IPv4", "ports": [{"port": 9000}],
            "endpoints": [{"addresses": ["10.9.9.9"], "conditions": {"ready": true}}]}),
        )
        .await;
    let by_hand = json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "manual"},
        "subsets": [{"addresses": [{"ip": "10.9.9.1"}], "notReadyAddresses": [{"ip": "10.9.9.2"}],
            "ports": [{"port": 9000}]}]});
    running.create(by_hand.clone()).await;
    // One by hand and one mirrored are ready; one mirrored isn't.
    reaches(&running, "manual", (Some(9000), 2, 1)).await;
    let endpoints = running.api::<Endpoints>();
    endpoints
        .delete("manual", &DeleteParams::default())
        .await
        .unwrap();
    reaches(&running, "manual", (Some(9000), 1, 0)).await;

    // With the Service go its Endpoints, whoever made them, but not a slice that names no owner.
    running.create(by_hand.clone()).await;
    reaches(&running, "manual", (Some(9000), 2, 1)).await;
    running
        .api::<Service>()
        .delete("manual", &DeleteParams::default())
        .await
        .unwrap();
    gone(&endpoints, "manual").await;
    reaches(&running, "manual", (Some(9000), 1, 0)).await;
    assert!(slices.get_opt("by-hand").await.unwrap().is_some());
    running.stop().await;
}
