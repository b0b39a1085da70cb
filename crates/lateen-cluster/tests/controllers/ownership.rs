use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams};
use kube::{Resource, ResourceExt};
use serde_json::{Value, json};

use super::support::{Running, deployment, eventually, gone, patch, rolled_out};

/// A ConfigMap owned by the others.
fn map(name: &str, owners: &[Value]) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "ownerReferences": owners}})
}

fn owner(object: &DynamicObject) -> Value {
    let types = object.types.clone().unwrap();
    json!({"apiVersion": types.api_version, "kind": types.kind,
        "name": object.name_any(), "uid": object.uid().unwrap()})
}

fn blocking(object: &DynamicObject) -> Value {
    let mut owner = owner(object);
    owner["blockOwnerDeletion"] = json!(true);
    owner
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dependents_follow_their_last_owner() {
    let running = Running::start().await;
    let maps = running.api::<ConfigMap>();
    let first = running.create(map("first", &[])).await;
    let second = running.create(map("second", &[])).await;
    running
        .create(map("both", &[owner(&first), owner(&second)]))
        .await;
    running.create(map("one", &[owner(&first)])).await;
    maps.delete("first", &DeleteParams::background())
        .await
        .unwrap();
    gone(&maps, "one").await;
    eventually("the reference to go", || async {
        let both = maps.get("both").await.unwrap();
        (both.owner_references().len() == 1).then_some(())
    })
    .await;
    maps.delete("second", &DeleteParams::background())
        .await
        .unwrap();
    gone(&maps, "both").await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_whose_owner_never_was_goes() {
    let running = Running::start().await;
    let maps = running.api::<ConfigMap>();
    let never = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "never",
        "uid": "11111111-1111-1111-1111-111111111111"});
    running.create(map("child", &[never])).await;
    gone(&maps, "child").await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreground_deletion_waits_for_dependents_that_block_it() {
    let running = Running::start().await;
    let maps = running.api::<ConfigMap>();
    let top = running.create(map("top", &[])).await;
    let middle = running.create(map("middle", &[blocking(&top)])).await;
    let mut held = map("held", &[blocking(&middle)]);
    held["metadata"]["finalizers"] = json!(["example.org/hold"]);
    running.create(held).await;
    maps.delete("top", &DeleteParams::foreground())
        .await
        .unwrap();
    // The deletion has reached the lowest object, so the upper ones are waiting for it.
    eventually("the deletion to come down", || async {
        let held = maps.get("held").await.unwrap();
        held.meta().deletion_timestamp.is_some().then_some(())
    })
    .await;
    for name in ["top", "middle"] {
        let waiting = maps.get(name).await.unwrap();
        assert_eq!(waiting.finalizers(), ["foregroundDeletion"], "{name}");
    }
    patch(&maps, "held", json!({"metadata": {"finalizers": null}})).await;
    for name in ["held", "middle", "top"] {
        gone(&maps, name).await;
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_circle_of_owners_can_be_deleted() {
    let running = Running::start().await;
    let maps = running.api::<ConfigMap>();
    let one = running.create(map("one", &[])).await;
    let two = running.create(map("two", &[blocking(&one)])).await;
    patch(
        &maps,
        "one",
        json!({"metadata": {"ownerReferences": [blocking(&two)]}}),
    )
    .await;
    maps.delete("one", &DeleteParams::foreground())
        .await
        .unwrap();
    gone(&maps, "one").await;
    gone(&maps, "two").await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_is_deleted_with_or_without_its_pods() {
    let running = Running::start().await;
    let deployments = running.api::<Deployment>();
    let (sets, pods) = (running.api::<ReplicaSet>(), running.api::<Pod>());
    let all = ListParams::default();
    running.create(deployment(2, "web:1", json!({}))).await;
    rolled_out(&deployments).await;

    deployments
        .delete("web", &DeleteParams::orphan())
        .await
        .unwrap();
    gone(&deployments, "web").await;
    let left = sets.list(&all).await.unwrap();
    assert_eq!(left.items.len(), 1);
    assert!(left.items[0].owner_references().is_empty());
    let names = |pods: &[Pod]| pods.iter().map(ResourceExt::name_any).collect::<Vec<_>>();
    let before = names(&pods.list(&all).await.unwrap().items);

    // A Deployment of that template takes them over as they are.
    running.create(deployment(2, "web:1", json!({}))).await;
    rolled_out(&deployments).await;
    assert_eq!(names(&pods.list(&all).await.unwrap().items), before);

    deployments
        .delete("web", &DeleteParams::foreground())
        .await
        .unwrap();
    gone(&deployments, "web").await;
    assert!(sets.list(&all).await.unwrap().items.is_empty());

    running.create(deployment(2, "web:1", json!({}))).await;
    rolled_out(&deployments).await;
    deployments
        .delete("web", &DeleteParams::background())
        .await
        .unwrap();
    eventually("the pods to go", || async {
        pods.list(&all)
            .await
            .unwrap()
            .items
            .is_empty()
            .then_some(())
    })
    .await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_of_a_kind_that_was_defined_later_are_collected_too() {
    let running = Running::start().await;
    let parent = running.create(map("parent", &[])).await;
    running
        .create(json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": "boats.sail.example"},
            "spec": {
                "group": "sail.example", "scope": "Namespaced",
                "names": {"plural": "boats", "singular": "boat", "kind": "Boat"},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": {
                    "openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}],
            },
        }))
        .await;
    let gvk = GroupVersionKind::gvk("sail.example", "v1", "Boat");
    let resource = ApiResource::from_gvk(&gvk);
    let boats: Api<DynamicObject> =
        Api::namespaced_with(running.client.clone(), "default", &resource);
    eventually("the kind to be served", || async {
        boats.list(&ListParams::default()).await.ok()
    })
    .await;
    let boat = running
        .create(json!({"apiVersion": "sail.example/v1", "kind": "Boat",
            "metadata": {"name": "boat", "ownerReferences": [owner(&parent)]}}))
        .await;
    running.create(map("cargo", &[owner(&boat)])).await;
    let maps = running.api::<ConfigMap>();
    maps.delete("parent", &DeleteParams::background())
        .await
        .unwrap();
    gone(&boats, "boat").await;
    gone(&maps, "cargo").await;
    running.stop().await;
}
