use std::collections::BTreeMap;

use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::{Event, Pod};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PropagationPolicy};
use serde_json::{Value, json};

use super::support::{Observed, Running, STUCK, broken_webhook, eventually, gone, patch};

fn stateful_set(replicas: i32, image: &str, spec: Value) -> Value {
    let mut object = json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet",
        "metadata": {"name": "web"},
        "spec": {
            "replicas": replicas, "serviceName": "headless",
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"nodeName": "node", "containers": [{"name": "web", "image": image}]},
            },
        },
    });
    json_patch::merge(&mut object["spec"], &spec);
    object
}

async fn set_image(api: &Api<StatefulSet>, image: &str) {
    let containers = json!([{"name": "web", "image": image}]);
    let spec = json!({"spec": {"template": {"spec": {"containers": containers}}}});
    patch(api, "web", spec).await;
}

/// Waits until the set is as it is meant to be, as `kubectl rollout status` sees it.
async fn rolled_out(api: &Api<StatefulSet>) -> StatefulSet {
    eventually("rollout", || async {
        let set = api.get("web").await.unwrap();
        let wanted = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap();
        let status = set.status.clone().unwrap_or_default();
        let done = status.observed_generation == set.metadata.generation
            && status.replicas == wanted
            && status.ready_replicas.unwrap_or(0) == wanted
            && status.available_replicas == Some(wanted)
            && status.updated_replicas.unwrap_or(0) == wanted
            && status.current_replicas.unwrap_or(0) == wanted
            && status.current_revision == status.update_revision;
        done.then_some(set)
    })
    .await
}

/// Image of every pod, by name.
async fn images(running: &Running) -> BTreeMap<String, String> {
    let pods = running.api::<Pod>();
    let listed = pods.list(&ListParams::default()).await.unwrap();
    let image = |pod: &Pod| pod.spec.clone().unwrap().containers[0].image.clone();
    listed
        .iter()
        .map(|pod| (pod.name_any(), image(pod).unwrap_or_default()))
        .collect()
}

/// Numbers of the set's revisions, sorted.
async fn revisions(running: &Running) -> Vec<i64> {
    let revisions = running.api::<ControllerRevision>();
    let listed = revisions.list(&ListParams::default()).await.unwrap();
    let mut numbers: Vec<i64> = listed.iter().map(|one| one.revision).collect();
    numbers.sort_unstable();
    numbers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_come_in_order_with_their_names_and_go_the_other_way() {
    let running = Running::start().await;
    let api = running.api::<StatefulSet>();
    let pods = running.api::<Pod>();
    running
        .create(
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "headless"},
            "spec": {"clusterIP": "None", "selector": {"app": "web"}}}),
        )
        .await;
    let seen = Observed::start(pods.clone(), |pod: &Pod| {
        let ready = pod.status.clone().and_then(|status| status.conditions);
        (
            pod.name_any(),
            ready.is_some_and(|all| all.iter().any(|one| one.type_ == "Ready")),
        )
    });
    running.create(stateful_set(3, "web:1", json!({}))).await;
    rolled_out(&api).await;
    let seen = seen.finish_after(|(name, _)| name == "web-2").await;
    for (before, after) in [("web-0", "web-1"), ("web-1", "web-2")] {
        let ready = seen
            .iter()
            .position(|(name, ready)| name == before && *ready);
        let made = seen.iter().position(|(name, _)| name == after);
        assert!(ready.unwrap() < made.unwrap(), "{seen:?}");
    }

    let pod = pods.get("web-1").await.unwrap();
    assert_eq!(pod.labels()["statefulset.kubernetes.io/pod-name"], "web-1");
    assert_eq!(pod.labels()["apps.kubernetes.io/pod-index"], "1");
    let spec = pod.spec.unwrap();
    assert_eq!(spec.hostname.as_deref(), Some("web-1"));
    assert_eq!(spec.subdomain.as_deref(), Some("headless"));
    // The names of which `web-1.headless.default.svc.cluster.local` is made.
    eventually("host names in endpoints", || async {
        let slices = running.api::<EndpointSlice>();
        let slices = slices.list(&ListParams::default()).await.unwrap();
        let endpoints = slices
            .iter()
            .flat_map(|slice| slice.endpoints.iter().flatten());
        let mut names: Vec<_> = endpoints.filter_map(|one| one.hostname.clone()).collect();
        names.sort();
        (names == ["web-0", "web-1", "web-2"]).then_some(())
    })
    .await;

    let seen = Observed::start(pods.clone(), |pod: &Pod| {
        (pod.name_any(), pod.metadata.deletion_timestamp.is_some())
    });
    let scale = Patch::Merge(json!({"spec": {"replicas": 0}}));
    api.patch_scale("web", &PatchParams::default(), &scale)
        .await
        .unwrap();
    eventually("all pods to go", || async {
        images(&running).await.is_empty().then_some(())
    })
    .await;
    let mut leaving = seen
        .finish_after(|(name, leaving)| name == "web-0" && *leaving)
        .await;
    leaving.retain(|(_, leaving)| *leaving);
    leaving.dedup();
    let order: Vec<_> = leaving.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(order, ["web-2", "web-1", "web-0"]);

    let told = eventually("events", || async {
        let events = running.api::<Event>();
        let events = events.list(&ListParams::default()).await.unwrap();
        let messages: Vec<String> = events
            .iter()
            .filter_map(|one| one.message.clone())
            .collect();
        messages
            .iter()
            .any(|told| told == "Delete Pod web-0 in StatefulSet web successful")
            .then_some(messages)
    })
    .await;
    let made = "Create Pod web-2 in StatefulSet web successful".to_owned();
    assert!(told.contains(&made), "{told:?}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_goes_down_to_its_partition_and_can_be_undone() {
    let running = Running::start().await;
    let api = running.api::<StatefulSet>();
    running.create(stateful_set(3, "web:1", json!({}))).await;
    let first = rolled_out(&api).await.status.unwrap().update_revision;
    let partition =
        |number: i32| json!({"spec": {"updateStrategy": {"rollingUpdate": {"partition": number}}}});
    patch(&api, "web", partition(2)).await;
    set_image(&api, "web:2").await;
    eventually("one updated pod", || async {
        let status = api.get("web").await.unwrap().status.unwrap();
        let counts = (status.updated_replicas, status.current_replicas);
        (counts == (Some(1), Some(2)) && status.ready_replicas == Some(3)).then_some(())
    })
    .await;
    let expect = |images: [&str; 3]| {
        let named = |(index, image): (usize, &&str)| (format!("web-{index}"), (*image).to_owned());
        images
            .iter()
            .enumerate()
            .map(named)
            .collect::<BTreeMap<_, _>>()
    };
    assert_eq!(images(&running).await, expect(["web:1", "web:1", "web:2"]));
    // One that is lost comes back as it was.
    let pods = running.api::<Pod>();
    let lost = pods.get("web-0").await.unwrap().metadata.uid;
    pods.delete("web-0", &DeleteParams::default())
        .await
        .unwrap();
    eventually("the lost pod", || async {
        let pod = pods.get_opt("web-0").await.unwrap()?;
        (pod.metadata.uid != lost).then_some(())
    })
    .await;
    assert_eq!(images(&running).await, expect(["web:1", "web:1", "web:2"]));

    patch(&api, "web", partition(0)).await;
    rolled_out(&api).await;
    assert_eq!(images(&running).await, expect(["web:2"; 3]));
    assert_eq!(revisions(&running).await, [1, 2]);

    // As `kubectl rollout undo` does it.
    let history = running.api::<ControllerRevision>();
    let data = history.get(&first.unwrap()).await.unwrap().data.unwrap().0;
    api.patch("web", &PatchParams::default(), &Patch::Strategic(data))
        .await
        .unwrap();
    rolled_out(&api).await;
    assert_eq!(images(&running).await, expect(["web:1"; 3]));
    assert_eq!(revisions(&running).await, [2, 3]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_is_kept_up_to_its_limit() {
    let running = Running::start().await;
    let api = running.api::<StatefulSet>();
    running
        .create(stateful_set(1, "web:1", json!({"revisionHistoryLimit": 1})))
        .await;
    for image in ["web:2", "web:3", "web:4"] {
        rolled_out(&api).await;
        set_image(&api, image).await;
    }
    rolled_out(&api).await;
    eventually("old revisions to go", || async {
        (revisions(&running).await == [3, 4]).then_some(())
    })
    .await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parallel_pods_do_not_wait_and_failed_ones_are_replaced() {
    let running = Running::start().await;
    let api = running.api::<StatefulSet>();
    let pods = running.api::<Pod>();
    let parallel = json!({"podManagementPolicy": "Parallel"});
    running.create(stateful_set(3, STUCK, parallel)).await;
    eventually("all pods at once", || async {
        (images(&running).await.len() == 3).then_some(())
    })
    .await;
    // Nothing is up, so nothing is lost: all of them are replaced.
    set_image(&api, "web:2").await;
    rolled_out(&api).await;

    let failed = pods.get("web-1").await.unwrap().metadata.uid;
    let status = Patch::Merge(json!({"status": {"phase": "Failed"}}));
    pods.patch_status("web-1", &PatchParams::default(), &status)
        .await
        .unwrap();
    eventually("another pod of that name", || async {
        let pod = pods.get_opt("web-1").await.unwrap()?;
        (pod.metadata.uid != failed).then_some(())
    })
    .await;
    rolled_out(&api).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_are_released_and_adopted_and_go_with_their_set() {
    let running = Running::start().await;
    let api = running.api::<StatefulSet>();
    let pods = running.api::<Pod>();
    running.create(stateful_set(1, "web:1", json!({}))).await;
    rolled_out(&api).await;
    // A pod that is let go keeps its name, so there can be no other.
    let app = |app: &str| json!({"metadata": {"labels": {"app": app}}});
    patch(&pods, "web-0", app("other")).await;
    eventually("the pod to be released", || async {
        let pod = pods.get("web-0").await.unwrap();
        pod.owner_references().is_empty().then_some(())
    })
    .await;
    patch(&pods, "web-0", app("web")).await;
    eventually("the pod to be adopted", || async {
        let pod = pods.get("web-0").await.unwrap();
        (!pod.owner_references().is_empty()).then_some(())
    })
    .await;
    rolled_out(&api).await;

    // Pods that are left behind are those of the next set of that name.
    let orphan = DeleteParams {
        propagation_policy: Some(PropagationPolicy::Orphan),
        ..DeleteParams::default()
    };
    let left = pods.get("web-0").await.unwrap().metadata.uid;
    api.delete("web", &orphan).await.unwrap();
    gone(&api, "web").await;
    running.create(stateful_set(1, "web:1", json!({}))).await;
    rolled_out(&api).await;
    assert_eq!(pods.get("web-0").await.unwrap().metadata.uid, left);
    assert_eq!(revisions(&running).await, [1]);

    api.delete("web", &DeleteParams::foreground())
        .await
        .unwrap();
    gone(&api, "web").await;
    gone(&pods, "web-0").await;
    assert_eq!(revisions(&running).await, [0_i64; 0]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revision_whose_name_is_taken_gets_another() {
    let running = Running::start().await;
    let api = running.api::<StatefulSet>();
    let history = running.api::<ControllerRevision>();
    running.create(stateful_set(1, "web:1", json!({}))).await;
    let name = rolled_out(&api).await.status.unwrap().update_revision;
    let name = name.unwrap();
    api.delete("web", &DeleteParams::foreground())
        .await
        .unwrap();
    gone(&api, "web").await;

    running
        .create(
            json!({"apiVersion": "apps/v1", "kind": "ControllerRevision",
            "metadata": {"name": name}, "data": {"spec": {}}, "revision": 1}),
        )
        .await;
    running.create(stateful_set(1, "web:1", json!({}))).await;
    let status = rolled_out(&api).await.status.unwrap();
    assert_eq!(status.collision_count, Some(1));
    assert_ne!(status.update_revision.as_ref(), Some(&name));
    assert_eq!(
        history
            .list(&ListParams::default())
            .await
            .unwrap()
            .items
            .len(),
        2
    );
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_that_a_webhook_refuses_are_made_when_it_is_gone() {
    let running = Running::start().await;
    running.create(broken_webhook()).await;
    running.create(stateful_set(1, "web:1", json!({}))).await;
    eventually("the refusal to be told", || async {
        let events = running.api::<Event>();
        let events = events.list(&ListParams::default()).await.unwrap();
        let told = |event: &Event| {
            let message = event.message.as_deref().unwrap_or_default();
            event.reason.as_deref() == Some("FailedCreate")
                && message.starts_with("Create Pod web-0 in StatefulSet web failed error: ")
        };
        events.iter().any(told).then_some(())
    })
    .await;
    let webhooks: Api<MutatingWebhookConfiguration> = Api::all(running.client.clone());
    webhooks
        .delete("broken", &DeleteParams::default())
        .await
        .unwrap();
    rolled_out(&running.api::<StatefulSet>()).await;
    running.stop().await;
}
