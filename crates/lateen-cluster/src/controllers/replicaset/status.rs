//! The status of a ReplicaSet.

use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;

use crate::controllers::meta::{contains_labels, is_available, is_ready, now};

/// Why pods could not be made or deleted in this pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    /// `FailedCreate` or `FailedDelete`.
    pub(super) reason: &'static str,
    /// What the API server said.
    pub(super) message: String,
}

/// Counts the pods. `active` are those that count as replicas, `terminating` those being deleted.
pub(super) fn count(
    set: &ReplicaSet,
    active: &[&Pod],
    terminating: usize,
    failure: Option<&Failure>,
) -> ReplicaSetStatus {
    let spec = set.spec.as_ref();
    let min_ready_seconds = spec.and_then(|spec| spec.min_ready_seconds).unwrap_or(0);
    let template_labels = spec
        .and_then(|spec| spec.template.as_ref()?.metadata.as_ref()?.labels.clone())
        .unwrap_or_default();
    let number = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    // Zero is left out, as Kubernetes does.
    let some = |count: usize| (count != 0).then(|| number(count));
    let matching =
        |matches: &dyn Fn(&Pod) -> bool| some(active.iter().filter(|pod| matches(pod)).count());
    ReplicaSetStatus {
        replicas: number(active.len()),
        fully_labeled_replicas: matching(&|pod| {
            contains_labels(&template_labels, pod.metadata.labels.as_ref())
        }),
        ready_replicas: matching(&is_ready),
        available_replicas: matching(&|pod| is_available(pod, min_ready_seconds)),
        terminating_replicas: Some(number(terminating)),
        observed_generation: set.metadata.generation,
        conditions: conditions(set, failure),
    }
}

/// The conditions so far, with `ReplicaFailure` as this pass found it. A failure that lasts is left as it was first told.
fn conditions(set: &ReplicaSet, failure: Option<&Failure>) -> Option<Vec<ReplicaSetCondition>> {
    let present = set
        .status
        .as_ref()
        .and_then(|status| status.conditions.clone());
    let mut conditions = present.unwrap_or_default();
    let is_failure = |condition: &ReplicaSetCondition| condition.type_ == "ReplicaFailure";
    match failure {
        None => conditions.retain(|condition| !is_failure(condition)),
        Some(_) if conditions.iter().any(is_failure) => {}
        Some(failure) => conditions.push(ReplicaSetCondition {
            type_: "ReplicaFailure".to_owned(),
            status: "True".to_owned(),
            reason: Some(failure.reason.to_owned()),
            message: Some(failure.message.clone()),
            last_transition_time: Some(now()),
        }),
    }
    (!conditions.is_empty()).then_some(conditions)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(pods: &[(&str, &str)], min_ready_seconds: i32, expected: Value) {
        let set: ReplicaSet = serde_json::from_value(json!({
            "metadata": {"generation": 3},
            "spec": {"selector": {}, "minReadySeconds": min_ready_seconds,
                "template": {"metadata": {"labels": {"app": "a", "v": "1"}}}},
        }))
        .unwrap();
        let pods: Vec<Pod> = pods
            .iter()
            .map(|(version, ready)| {
                serde_json::from_value(json!({
                    "metadata": {"labels": {"app": "a", "v": version}},
                    "status": {"conditions": [{"type": "Ready", "status": ready,
                        "lastTransitionTime": now()}]},
                }))
                .unwrap()
            })
            .collect();
        let status = count(&set, &pods.iter().collect::<Vec<_>>(), 2, None);
        assert_eq!(serde_json::to_value(status).unwrap(), expected);
    }

    #[test]
    fn pods_are_counted() {
        check(
            &[],
            0,
            json!({"observedGeneration": 3, "replicas": 0, "terminatingReplicas": 2}),
        );
        check(
            &[("1", "True"), ("1", "False"), ("2", "True")],
            0,
            json!({"availableReplicas": 2, "fullyLabeledReplicas": 2, "observedGeneration": 3,
                "readyReplicas": 2, "replicas": 3, "terminatingReplicas": 2}),
        );
        check(
            &[("1", "True")],
            60,
            json!({"fullyLabeledReplicas": 1, "observedGeneration": 3, "readyReplicas": 1,
                "replicas": 1, "terminatingReplicas": 2}),
        );
    }

    #[test]
    fn a_failure_is_told_while_it_lasts() {
        let mut set = ReplicaSet::default();
        let failure = |message: &str| Failure {
            reason: "FailedCreate",
            message: message.to_owned(),
        };
        set.status = Some(count(&set, &[], 0, Some(&failure("first"))));
        let second = count(&set, &[], 0, Some(&failure("second")));
        assert_eq!(Some(&second), set.status.as_ref());
        assert_eq!(count(&set, &[], 0, None).conditions, None);
    }
}
