use std::collections::BTreeMap;

use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams};
use serde_json::json;

use super::support::{
    Observed, Running, STUCK, broken_webhook, deployment, eventually, patch, rolled_out, set_image,
};

/// Revision and size of every ReplicaSet, by revision.
async fn revisions(running: &Running) -> Vec<(String, i32)> {
    let sets = running.api::<ReplicaSet>();
    let listed = sets.list(&ListParams::default()).await.unwrap();
    let mut revisions: Vec<(String, i32)> = listed
        .iter()
        .map(|set| {
            let revision = &set.annotations()["deployment.kubernetes.io/revision"];
            let size = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap();
            (revision.clone(), size)
        })
        .collect();
    revisions.sort();
    revisions
}

fn pairs(expected: &[(&str, i32)]) -> Vec<(String, i32)> {
    let owned = |(revision, size): &(&str, i32)| ((*revision).to_owned(), *size);
    expected.iter().map(owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_update_keeps_within_its_bounds_and_can_be_undone() {
    let running = Running::start().await;
    let api = running.api::<Deployment>();
    running.create(deployment(4, "web:1", json!({}))).await;
    let first = rolled_out(&api).await;
    assert_eq!(
        first.annotations()["deployment.kubernetes.io/revision"],
        "1"
    );

    let ready = Observed::start(api.clone(), |deployment: &Deployment| {
        let status = deployment.status.clone().unwrap_or_default();
        status.available_replicas.unwrap_or(0)
    });
    // A Deployment's status counts what ReplicaSets last said, which may be late; how large they are meant to be is not.
    let wanted = Observed::start(running.api::<ReplicaSet>(), |set: &ReplicaSet| {
        let replicas = set.spec.as_ref().and_then(|spec| spec.replicas);
        (set.name_any(), replicas.unwrap_or(0))
    });
    set_image(&api, "web:2").await;
    rolled_out(&api).await;
    assert_eq!(revisions(&running).await, pairs(&[("1", 0), ("2", 4)]));
    // 25 % of 4: at most one pod more, at most one missing.
    let (ready, wanted) = (ready.finish(), wanted.finish());
    assert!(ready.len() > 3, "the steps are reported: {ready:?}");
    assert!(ready.iter().all(|ready| *ready >= 3), "{ready:?}");
    let mut sizes = BTreeMap::new();
    for (set, replicas) in &wanted {
        sizes.insert(set, *replicas);
        assert!(sizes.values().sum::<i32>() <= 5, "{wanted:?}");
    }
    assert_eq!(sizes.len(), 2, "{wanted:?}");

    set_image(&api, "web:1").await;
    let back = rolled_out(&api).await;
    assert_eq!(revisions(&running).await, pairs(&[("2", 0), ("3", 4)]));
    assert_eq!(back.annotations()["deployment.kubernetes.io/revision"], "3");
    let reasons: Vec<_> = back.status.unwrap().conditions.unwrap();
    let reasons: Vec<_> = reasons.into_iter().filter_map(|one| one.reason).collect();
    assert_eq!(
        reasons,
        ["MinimumReplicasAvailable", "NewReplicaSetAvailable"]
    );
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recreate_runs_no_new_pod_beside_an_old_one() {
    let running = Running::start().await;
    let api = running.api::<Deployment>();
    let recreate = json!({"strategy": {"type": "Recreate"}});
    running.create(deployment(3, "web:1", recreate)).await;
    rolled_out(&api).await;
    let old = running
        .api::<Pod>()
        .list(&ListParams::default())
        .await
        .unwrap();
    let old: Vec<String> = old.iter().map(ResourceExt::name_any).collect();

    let pods = running.api::<Pod>();
    let (names, reader) = (old.clone(), pods.clone());
    let made = tokio::spawn(async move {
        eventually("a new pod", || async {
            let listed = reader.list(&ListParams::default()).await.unwrap();
            let names_now: Vec<String> = listed.iter().map(ResourceExt::name_any).collect();
            names_now
                .iter()
                .any(|name| !names.contains(name))
                .then_some(names_now)
        })
        .await
    });
    set_image(&api, "web:2").await;
    let at_first = made.await.unwrap();
    assert!(
        at_first.iter().all(|name| !old.contains(name)),
        "{at_first:?} beside {old:?}"
    );
    rolled_out(&api).await;
    assert_eq!(revisions(&running).await, pairs(&[("1", 0), ("2", 3)]));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_deployment_scales_but_does_not_roll() {
    let running = Running::start().await;
    let api = running.api::<Deployment>();
    running.create(deployment(1, "web:1", json!({}))).await;
    rolled_out(&api).await;
    patch(&api, "web", json!({"spec": {"paused": true}})).await;
    set_image(&api, "web:2").await;
    patch(&api, "web", json!({"spec": {"replicas": 3}})).await;
    eventually("three pods", || async {
        let status = api.get("web").await.unwrap().status.unwrap();
        (status.available_replicas == Some(3)).then_some(())
    })
    .await;
    assert_eq!(revisions(&running).await, pairs(&[("1", 3)]));
    patch(&api, "web", json!({"spec": {"paused": false}})).await;
    rolled_out(&api).await;
    assert_eq!(revisions(&running).await, pairs(&[("1", 0), ("2", 3)]));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_is_kept_up_to_its_limit() {
    let running = Running::start().await;
    let api = running.api::<Deployment>();
    running
        .create(deployment(1, "web:1", json!({"revisionHistoryLimit": 1})))
        .await;
    for image in ["web:2", "web:3", "web:4"] {
        rolled_out(&api).await;
        set_image(&api, image).await;
    }
    rolled_out(&api).await;
    eventually("old ReplicaSets to go", || async {
        (revisions(&running).await == pairs(&[("3", 0), ("4", 1)])).then_some(())
    })
    .await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_set_replaces_what_is_lost_and_adopts_what_fits() {
    let running = Running::start().await;
    let api = running.api::<Deployment>();
    let pods = running.api::<Pod>();
    running.create(deployment(2, "web:1", json!({}))).await;
    rolled_out(&api).await;
    let listed = pods.list(&ListParams::default()).await.unwrap();
    let [stray, _] = listed.items.as_slice() else {
        panic!("two pods expected: {listed:?}");
    };

    // A pod whose labels no longer match is let go and replaced.
    patch(
        &pods,
        &stray.name_any(),
        json!({"metadata": {"labels": {"app": "other"}}}),
    )
    .await;
    let alone = eventually("the pod to be released", || async {
        let pod = pods.get(&stray.name_any()).await.unwrap();
        pod.owner_references().is_empty().then_some(pod)
    })
    .await;
    let matching = ListParams::default().labels("app=web");
    eventually("a replacement", || async {
        (pods.list(&matching).await.unwrap().items.len() == 2).then_some(())
    })
    .await;

    // When they match again it is adopted, and one pod is too many.
    patch(
        &pods,
        &alone.name_any(),
        json!({"metadata": {"labels": {"app": "web"}}}),
    )
    .await;
    eventually("a surplus pod to go", || async {
        let all = pods.list(&matching).await.unwrap();
        (all.items.len() == 2 && all.iter().all(|pod| !pod.owner_references().is_empty()))
            .then_some(())
    })
    .await;

    let events = running.api::<Event>();
    let told = eventually("events", || async {
        let events = events.list(&ListParams::default()).await.unwrap();
        let reasons: Vec<String> = events
            .iter()
            .filter_map(|event| event.reason.clone())
            .collect();
        ["ScalingReplicaSet", "SuccessfulCreate", "SuccessfulDelete"]
            .iter()
            .all(|reason| reasons.iter().any(|told| told == reason))
            .then_some(events)
    })
    .await;
    let scaled = told
        .iter()
        .find(|event| event.reason.as_deref() == Some("ScalingReplicaSet"))
        .and_then(|event| event.message.clone())
        .unwrap();
    assert!(scaled.ends_with("from 0 to 2"), "{scaled}");
    running.stop().await;
}

/// The reasons in the conditions of the Deployment `web`.
async fn reasons(running: &Running) -> Vec<String> {
    let deployment = running.api::<Deployment>().get("web").await.unwrap();
    let conditions = deployment.status.and_then(|status| status.conditions);
    let reasons = conditions
        .into_iter()
        .flatten()
        .filter_map(|condition| condition.reason);
    reasons.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollout_without_progress_is_called_stuck() {
    let running = Running::start().await;
    let spec = json!({"progressDeadlineSeconds": 1});
    running.create(deployment(1, STUCK, spec)).await;
    eventually("the deadline", || async {
        let reasons = reasons(&running).await;
        reasons
            .iter()
            .any(|reason| reason == "ProgressDeadlineExceeded")
            .then_some(())
    })
    .await;
    set_image(&running.api::<Deployment>(), "web:2").await;
    rolled_out(&running.api::<Deployment>()).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_that_a_webhook_refuses_are_made_when_it_is_gone() {
    let running = Running::start().await;
    running.create(broken_webhook()).await;
    running.create(deployment(2, "web:1", json!({}))).await;
    eventually("the refusal to be told", || async {
        let reasons = reasons(&running).await;
        reasons
            .iter()
            .any(|reason| reason == "FailedCreate")
            .then_some(())
    })
    .await;
    let webhooks: Api<MutatingWebhookConfiguration> = Api::all(running.client.clone());
    webhooks
        .delete("broken", &DeleteParams::default())
        .await
        .unwrap();
    rolled_out(&running.api::<Deployment>()).await;
    let reasons = reasons(&running).await;
    assert!(
        !reasons.iter().any(|reason| reason == "FailedCreate"),
        "{reasons:?}"
    );
    running.stop().await;
}
