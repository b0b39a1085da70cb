//! Table tests of a Deployment's conditions.

use serde_json::{Value, json};

use super::*;

fn deployment(spec: Value) -> Deployment {
    let mut object = json!({
        "metadata": {"name": "web", "generation": 2},
        "spec": {"replicas": 2, "progressDeadlineSeconds": 600, "selector": {}, "template": {}},
    });
    json_patch::merge(&mut object["spec"], &spec);
    serde_json::from_value(object).unwrap()
}

fn replica_set(name: &str, wanted: i32, status: Value) -> ReplicaSet {
    serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {"replicas": wanted, "selector": {}},
        "status": status,
    }))
    .unwrap()
}

/// A `Progressing` condition, last updated in the year 2020.
fn progressing(status: &str, reason: &str) -> Vec<DeploymentCondition> {
    let old = serde_json::from_value(json!({
        "type": "Progressing", "status": status, "reason": reason,
        "lastUpdateTime": "2020-01-01T00:00:00Z", "lastTransitionTime": "2020-01-01T00:00:00Z",
    }));
    vec![old.unwrap()]
}

/// Checks `status reason message` of `Available` and of `Progressing`.
fn check(
    spec: Value,
    old: Option<ReplicaSet>,
    new: Option<ReplicaSet>,
    conditions: Vec<DeploymentCondition>,
    expected: [Option<&str>; 2],
) {
    let deployment = deployment(spec);
    let all: Vec<&ReplicaSet> = old.iter().chain(new.iter()).collect();
    let before = DeploymentStatus::default();
    let mut status = count(&deployment, &all, new.as_ref(), conditions, None);
    judge_progress(&deployment, &all, new.as_ref(), &before, &mut status);
    let conditions = status.conditions.unwrap();
    let got = [AVAILABLE, PROGRESSING].map(|type_| {
        find(&conditions, type_).map(|condition| {
            let reason = condition.reason.as_deref().unwrap_or_default();
            let message = condition.message.as_deref().unwrap_or_default();
            format!("{} {reason} {message}", condition.status)
        })
    });
    assert_eq!(got.each_ref().map(Option::as_deref), expected);
}

const AVAILABLE_TRUE: &str = "True MinimumReplicasAvailable Deployment has minimum availability.";
const AVAILABLE_FALSE: &str =
    "False MinimumReplicasUnavailable Deployment does not have minimum availability.";

#[test]
fn conditions_follow_the_rollout() {
    let ready = json!({"replicas": 2, "readyReplicas": 2, "availableReplicas": 2});
    check(
        json!({}),
        None,
        Some(replica_set("web-1", 2, json!({"replicas": 0}))),
        progressing("True", "NewReplicaSetCreated")
            .into_iter()
            .map(|mut condition| {
                condition.last_update_time = Some(now());
                condition
            })
            .collect(),
        [Some(AVAILABLE_FALSE), Some("True NewReplicaSetCreated ")],
    );
    check(
        json!({}),
        None,
        Some(replica_set(
            "web-1",
            2,
            json!({"replicas": 2, "readyReplicas": 1}),
        )),
        progressing("True", "NewReplicaSetCreated"),
        [
            Some(AVAILABLE_FALSE),
            Some("True ReplicaSetUpdated ReplicaSet \"web-1\" is progressing."),
        ],
    );
    check(
        json!({}),
        None,
        Some(replica_set("web-1", 2, ready.clone())),
        progressing("True", "ReplicaSetUpdated"),
        [
            Some(AVAILABLE_TRUE),
            Some("True NewReplicaSetAvailable ReplicaSet \"web-1\" has successfully progressed."),
        ],
    );
    check(
        json!({}),
        None,
        Some(replica_set("web-1", 2, json!({"replicas": 0}))),
        progressing("True", "ReplicaSetUpdated"),
        [
            Some(AVAILABLE_FALSE),
            Some("False ProgressDeadlineExceeded ReplicaSet \"web-1\" has timed out progressing."),
        ],
    );
    check(
        json!({"progressDeadlineSeconds": null}),
        None,
        Some(replica_set("web-1", 2, ready)),
        progressing("True", "ReplicaSetUpdated"),
        [Some(AVAILABLE_TRUE), None],
    );
    // Complete once, then a pod fails: the rollout stays complete.
    check(
        json!({}),
        None,
        Some(replica_set(
            "web-1",
            2,
            json!({"replicas": 2, "readyReplicas": 1}),
        )),
        progressing("True", "NewReplicaSetAvailable"),
        [Some(AVAILABLE_FALSE), Some("True NewReplicaSetAvailable ")],
    );
}

#[test]
fn pausing_is_noted_once() {
    let mut conditions = progressing("True", "ReplicaSetUpdated");
    let reason = |conditions: &[DeploymentCondition]| conditions[0].reason.clone().unwrap();
    note_pause(&deployment(json!({})), &mut conditions);
    assert_eq!(reason(&conditions), "ReplicaSetUpdated");
    note_pause(&deployment(json!({"paused": true})), &mut conditions);
    assert_eq!(reason(&conditions), "DeploymentPaused");
    note_pause(&deployment(json!({})), &mut conditions);
    assert_eq!(reason(&conditions), "DeploymentResumed");
    let mut stuck = progressing("False", "ProgressDeadlineExceeded");
    note_pause(&deployment(json!({"paused": true})), &mut stuck);
    assert_eq!(reason(&stuck), "ProgressDeadlineExceeded");
}

#[test]
fn a_replica_set_that_cannot_make_pods_shows_in_the_deployment() {
    let failed = json!({"replicas": 0, "conditions": [{"type": "ReplicaFailure", "status": "True",
        "reason": "FailedCreate", "message": "no"}]});
    let set = replica_set("web-1", 2, failed);
    let before = DeploymentStatus::default();
    let deployment = deployment(json!({}));
    let mut status = count(&deployment, &[&set], Some(&set), Vec::new(), None);
    judge_progress(&deployment, &[&set], Some(&set), &before, &mut status);
    let conditions = status.conditions.unwrap();
    let failure = find(&conditions, REPLICA_FAILURE).unwrap();
    assert_eq!(failure.reason.as_deref(), Some("FailedCreate"));
    assert_eq!(failure.message.as_deref(), Some("no"));
}
