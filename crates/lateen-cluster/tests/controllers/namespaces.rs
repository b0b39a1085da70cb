use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use kube::Api;
use kube::api::DeleteParams;
use serde_json::{Value, json};

use super::support::{Running, deployment, eventually, gone, patch};

fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_goes_with_everything_in_it() {
    let running = Running::start().await;
    let namespaces: Api<Namespace> = Api::all(running.client.clone());
    running.create(namespace("lab")).await;
    let mut web = deployment(2, "web:1", json!({}));
    web["metadata"]["namespace"] = json!("lab");
    running.create(web).await;
    running
        .create(
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {
            "name": "held", "namespace": "lab", "finalizers": ["example.org/hold"]}}),
        )
        .await;
    namespaces
        .delete("lab", &DeleteParams::default())
        .await
        .unwrap();
    let told = eventually("the namespace to tell what it waits for", || async {
        let status = namespaces.get("lab").await.unwrap().status?;
        let held = status.conditions?.into_iter().find(|condition| {
            condition.type_ == "NamespaceFinalizersRemaining" && condition.status == "True"
        });
        held?.message
    })
    .await;
    assert_eq!(
        told,
        "Some content in the namespace has finalizers remaining: example.org/hold in 1 resource instances"
    );
    let maps: Api<ConfigMap> = Api::namespaced(running.client.clone(), "lab");
    patch(&maps, "held", json!({"metadata": {"finalizers": null}})).await;
    gone(&namespaces, "lab").await;

    // A new namespace of that name is empty but for what every namespace has.
    running.create(namespace("lab")).await;
    let accounts: Api<ServiceAccount> = Api::namespaced(running.client.clone(), "lab");
    eventually("the new namespace to be furnished", || async {
        accounts.get_opt("default").await.unwrap()
    })
    .await;
    assert!(maps.get_opt("held").await.unwrap().is_none());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_every_namespace_has_comes_back_when_it_is_lost() {
    let running = Running::start().await;
    let (maps, accounts) = (running.api::<ConfigMap>(), running.api::<ServiceAccount>());
    let certificate = || async {
        let map = maps.get_opt("kube-root-ca.crt").await.unwrap()?;
        let data = map.data?.remove("ca.crt")?;
        data.starts_with("-----BEGIN CERTIFICATE-----")
            .then_some(())
    };
    eventually("the CA", certificate).await;
    maps.delete("kube-root-ca.crt", &DeleteParams::default())
        .await
        .unwrap();
    eventually("the CA to come back", certificate).await;
    patch(
        &maps,
        "kube-root-ca.crt",
        json!({"data": {"ca.crt": "forged"}}),
    )
    .await;
    eventually("the CA to be put right", certificate).await;

    let account = || async { accounts.get_opt("default").await.unwrap() };
    let first = eventually("the account", account).await;
    accounts
        .delete("default", &DeleteParams::default())
        .await
        .unwrap();
    let second = eventually("another account", account).await;
    assert_ne!(first.metadata.uid, second.metadata.uid);
    running.stop().await;
}
