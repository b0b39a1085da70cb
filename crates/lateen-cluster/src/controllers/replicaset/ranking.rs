//! Which pods go first when a ReplicaSet shrinks: those whose loss is felt least. Pure.

use std::cmp::Ordering;
use std::collections::HashMap;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;

use crate::controllers::meta::{is_active, phase, ready_condition};

/// Annotation that makes a pod dearer (positive) or cheaper (negative) to delete; 32 bits, default 0.
const COST_ANNOTATION: &str = "controller.kubernetes.io/pod-deletion-cost";

/// The `count` pods of `pods` to delete. `related` are all pods of the same application (those of the Deployment's other
/// ReplicaSets too): where several of them share a node, one of these goes first.
pub(super) fn to_delete<'a>(
    pods: &[&'a Pod],
    related: &[&Pod],
    count: usize,
    now: Timestamp,
) -> Vec<&'a Pod> {
    if count >= pods.len() {
        return pods.to_vec();
    }
    let mut per_node: HashMap<&str, usize> = HashMap::new();
    for pod in related {
        if is_active(pod)
            && let Some(node) = node_of(pod)
        {
            *per_node.entry(node).or_default() += 1;
        }
    }
    let company = |pod: &Pod| {
        node_of(pod)
            .and_then(|node| per_node.get(node).copied())
            .unwrap_or(0)
    };
    let mut ranked = pods.to_vec();
    ranked.sort_by(|a, b| order(a, b, company(a), company(b), now));
    ranked.truncate(count);
    ranked
}

/// `Less` for the pod that goes first. The steps are Kubernetes'.
fn order(a: &Pod, b: &Pod, company_a: usize, company_b: usize, now: Timestamp) -> Ordering {
    let assigned = |pod: &Pod| node_of(pod).is_some();
    let life = |pod: &Pod| match phase(pod) {
        "Pending" => 0,
        "Unknown" => 1,
        _ => 2,
    };
    let ready = crate::controllers::meta::is_ready;
    assigned(a)
        .cmp(&assigned(b))
        .then_with(|| life(a).cmp(&life(b)))
        .then_with(|| ready(a).cmp(&ready(b)))
        .then_with(|| cost(a).cmp(&cost(b)))
        .then_with(|| company_b.cmp(&company_a))
        .then_with(|| {
            if ready(a) && ready(b) {
                by_age(a, b, ready_since(a), ready_since(b), now)
            } else {
                Ordering::Equal
            }
        })
        .then_with(|| restarts(b).cmp(&restarts(a)))
        .then_with(|| by_age(a, b, created(a), created(b), now))
}

fn node_of(pod: &Pod) -> Option<&str> {
    let spec = pod.spec.as_ref()?;
    spec.node_name.as_deref().filter(|node| !node.is_empty())
}

fn cost(pod: &Pod) -> i32 {
    pod.metadata
        .annotations
        .as_ref()
        .and_then(|annotations| annotations.get(COST_ANNOTATION)?.parse().ok())
        .unwrap_or(0)
}

fn ready_since(pod: &Pod) -> Option<Timestamp> {
    Some(ready_condition(pod)?.last_transition_time.as_ref()?.0)
}

fn created(pod: &Pod) -> Option<Timestamp> {
    Some(pod.metadata.creation_timestamp.as_ref()?.0)
}

/// Most restarts of one of the pod's containers.
fn restarts(pod: &Pod) -> i32 {
    let status = pod.status.as_ref();
    status
        .into_iter()
        .flat_map(|status| {
            let sidecars = status.init_container_statuses.iter().flatten();
            status.container_statuses.iter().flatten().chain(sidecars)
        })
        .map(|container| container.restart_count)
        .max()
        .unwrap_or(0)
}

/// The younger first, by the order of magnitude of their ages only; among pods of about the same age the choice is
/// arbitrary but fixed, so that it doesn't always hit the same zone or node.
fn by_age(
    a: &Pod,
    b: &Pod,
    time_a: Option<Timestamp>,
    time_b: Option<Timestamp>,
    now: Timestamp,
) -> Ordering {
    let (time_a, time_b) = match (time_a, time_b) {
        (None, None) => return Ordering::Equal,
        (None, Some(_)) => return Ordering::Less,
        (Some(_), None) => return Ordering::Greater,
        (Some(a), Some(b)) if a == b => return Ordering::Equal,
        (Some(a), Some(b)) => (a, b),
    };
    let magnitude = |time: Timestamp| {
        let age = now.duration_since(time).as_nanos();
        if age > 0 { age.ilog2() + 1 } else { 0 }
    };
    magnitude(time_a)
        .cmp(&magnitude(time_b))
        .then_with(|| a.metadata.uid.cmp(&b.metadata.uid))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(name: &str, changes: Value) -> Pod {
        let mut pod = json!({
            "metadata": {"name": name, "uid": name, "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"containers": [], "nodeName": "n1"},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True",
                "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
        });
        json_patch::merge(&mut pod, &changes);
        serde_json::from_value(pod).unwrap()
    }

    fn ready(status: &str, since: &str) -> Value {
        json!({"status": {"conditions": [{"type": "Ready", "status": status, "lastTransitionTime": since}]}})
    }

    /// Checks that a pod with `first` goes before one with `second`, in whichever order they are given.
    fn check(first: Value, second: Value) {
        let now = "2026-01-02T00:00:00Z".parse().unwrap();
        for (name_first, name_second) in [("a", "b"), ("b", "a")] {
            let first = pod(name_first, first.clone());
            let second = pod(name_second, second.clone());
            for pods in [[&first, &second], [&second, &first]] {
                let got = to_delete(&pods, &pods, 1, now);
                let names: Vec<_> = got.iter().map(|pod| pod.metadata.name.as_deref()).collect();
                assert_eq!(names, [Some(name_first)], "{first:?} before {second:?}");
            }
        }
    }

    #[test]
    fn pods_are_ranked_by_how_little_they_are_missed() {
        check(
            json!({"spec": {"nodeName": null}}),
            json!({"status": {"phase": "Pending"}}),
        );
        check(
            json!({"status": {"phase": "Pending"}}),
            json!({"status": {"phase": "Unknown"}}),
        );
        check(
            json!({"status": {"phase": "Unknown"}}),
            ready("False", "2026-01-01T00:00:00Z"),
        );
        check(ready("False", "2026-01-01T00:00:00Z"), json!({}));
        let cost = |cost: &str| json!({"metadata": {"annotations": {(COST_ANNOTATION): cost}}});
        check(cost("-5"), json!({}));
        check(json!({}), cost("10"));
        check(
            ready("True", "2026-01-01T23:59:50Z"),
            ready("True", "2026-01-01T00:00:00Z"),
        );
        let restarted = json!({"status": {"containerStatuses": [
            {"name": "c", "ready": true, "restartCount": 3, "image": "i", "imageID": "i"}]}});
        check(restarted, json!({}));
        check(
            json!({"metadata": {"creationTimestamp": "2026-01-01T23:59:50Z"}}),
            json!({}),
        );
    }

    #[test]
    fn pods_that_share_a_node_go_first() {
        let now = Timestamp::now();
        let alone = pod("a", json!({"spec": {"nodeName": "n2"}}));
        let (one, two) = (pod("b", json!({})), pod("c", json!({})));
        let got = to_delete(&[&alone, &one], &[&alone, &one, &two], 1, now);
        assert_eq!(got, [&one]);
    }

    #[test]
    fn ages_of_the_same_magnitude_are_told_apart_by_identity() {
        let now = "2026-01-02T00:00:00Z".parse().unwrap();
        let old = pod("a", ready("True", "2026-01-01T00:00:00Z"));
        let newer = pod("b", ready("True", "2026-01-01T01:00:00Z"));
        assert_eq!(to_delete(&[&newer, &old], &[], 1, now), [&old]);
    }
}
