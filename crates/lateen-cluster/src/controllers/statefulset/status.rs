//! The status of a StatefulSet.

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::Pod;

use super::identity::revision_of;
use crate::controllers::meta::{is_available, is_ready, phase};

/// Whether the pod runs and is ready.
pub(super) fn is_serving(pod: &Pod) -> bool {
    phase(pod) == "Running" && is_ready(pod)
}

/// Seconds for which a pod has to be ready until it is available.
pub(super) fn min_ready_seconds(set: &StatefulSet) -> i32 {
    let spec = set.spec.as_ref();
    spec.and_then(|spec| spec.min_ready_seconds).unwrap_or(0)
}

/// Whether pods are updated without being asked for one by one.
pub(super) fn is_rolling(set: &StatefulSet) -> bool {
    let strategy = set
        .spec
        .as_ref()
        .and_then(|spec| spec.update_strategy.as_ref());
    strategy.and_then(|strategy| strategy.type_.as_deref()) != Some("OnDelete")
}

/// The numbers of a status.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) replicas: i32,
    pub(super) ready: i32,
    pub(super) available: i32,
    /// Pods of the current revision that are not being deleted.
    pub(super) current: i32,
    /// Pods of the revision that the set wishes for that are not being deleted.
    pub(super) updated: i32,
}

impl Counts {
    /// Counts pods; `current` and `update` are names of revisions.
    pub(super) fn of(set: &StatefulSet, pods: &[Pod], current: &str, update: &str) -> Self {
        let min_ready_seconds = min_ready_seconds(set);
        let mut counts = Self::default();
        for pod in pods {
            counts.replicas += 1;
            if is_serving(pod) {
                counts.ready += 1;
                counts.available += i32::from(is_available(pod, min_ready_seconds));
            }
            if pod.metadata.deletion_timestamp.is_none() {
                counts.current += i32::from(revision_of(pod) == current);
                counts.updated += i32::from(revision_of(pod) == update);
            }
        }
        counts
    }
}

/// The status of these numbers. When all pods are of the revision that is wished for, it becomes the current one.
pub(super) fn status(
    set: &StatefulSet,
    counts: Counts,
    current: &str,
    update: &str,
    collisions: i32,
) -> StatefulSetStatus {
    let wanted = set.spec.as_ref().and_then(|spec| spec.replicas);
    let wanted = wanted.unwrap_or(1);
    let complete = is_rolling(set)
        && [counts.updated, counts.ready, counts.replicas]
            .iter()
            .all(|count| *count == wanted);
    let (current, in_current) = if complete {
        (update, counts.updated)
    } else {
        (current, counts.current)
    };
    // Zero is left out, as Kubernetes does, but for the numbers that it always writes.
    let some = |number: i32| (number != 0).then_some(number);
    StatefulSetStatus {
        observed_generation: set.metadata.generation,
        replicas: counts.replicas,
        ready_replicas: some(counts.ready),
        available_replicas: Some(counts.available),
        current_replicas: some(in_current),
        updated_replicas: some(counts.updated),
        current_revision: Some(current.to_owned()),
        update_revision: Some(update.to_owned()),
        collision_count: Some(collisions),
        conditions: None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::controllers::meta::now;

    /// A pod by its revision and its state: `ready`, `started` (running, not ready), `pending` or `leaving` (ready still).
    fn pod((revision, state): &(&str, &str)) -> Pod {
        let ready = matches!(*state, "ready" | "leaving");
        let mut pod = json!({
            "metadata": {"labels": {"controller-revision-hash": revision}},
            "status": {
                "phase": if *state == "pending" { "Pending" } else { "Running" },
                "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" },
                    "lastTransitionTime": now()}],
            },
        });
        if *state == "leaving" {
            pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        serde_json::from_value(pod).unwrap()
    }

    fn check(spec: Value, pods: &[(&str, &str)], expected: Value) {
        let mut object =
            json!({"metadata": {"generation": 4}, "spec": {"selector": {}, "template": {}}});
        json_patch::merge(&mut object["spec"], &spec);
        let set: StatefulSet = serde_json::from_value(object).unwrap();
        let pods: Vec<Pod> = pods.iter().map(pod).collect();
        let counts = Counts::of(&set, &pods, "a", "b");
        let told = status(&set, counts, "a", "b", 0);
        let mut all = json!({"observedGeneration": 4, "updateRevision": "b", "collisionCount": 0});
        json_patch::merge(&mut all, &expected);
        assert_eq!(serde_json::to_value(told).unwrap(), all, "{spec}");
    }

    #[test]
    fn pods_are_counted_by_state_and_revision() {
        check(
            json!({}),
            &[],
            json!({"replicas": 0, "availableReplicas": 0, "currentRevision": "a"}),
        );
        check(
            json!({"replicas": 4}),
            &[
                ("a", "ready"),
                ("a", "started"),
                ("a", "leaving"),
                ("b", "pending"),
            ],
            json!({"replicas": 4, "readyReplicas": 2, "availableReplicas": 2, "currentReplicas": 2,
                "updatedReplicas": 1, "currentRevision": "a"}),
        );
        check(
            json!({"replicas": 2, "minReadySeconds": 60}),
            &[("a", "ready"), ("b", "ready")],
            json!({"replicas": 2, "readyReplicas": 2, "availableReplicas": 0, "currentReplicas": 1,
                "updatedReplicas": 1, "currentRevision": "a"}),
        );
    }

    #[test]
    fn a_complete_update_makes_its_revision_the_current_one() {
        let pods = [("b", "ready"), ("b", "ready")];
        let counts = json!({"replicas": 2, "readyReplicas": 2, "availableReplicas": 2, "updatedReplicas": 2});
        let expect = |more: Value| {
            let mut expected = counts.clone();
            json_patch::merge(&mut expected, &more);
            expected
        };
        let done = expect(json!({"currentReplicas": 2, "currentRevision": "b"}));
        check(json!({"replicas": 2}), &pods, done);
        let not_yet = expect(json!({"currentRevision": "a"}));
        check(json!({"replicas": 3}), &pods, not_yet.clone());
        let on_delete = json!({"replicas": 2, "updateStrategy": {"type": "OnDelete"}});
        check(on_delete, &pods, not_yet);
    }
}
