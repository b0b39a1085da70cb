//! The status of a Deployment: counts, and the conditions `Available`, `Progressing` and `ReplicaFailure`. Reasons and
//! messages are Kubernetes', as `kubectl rollout status` and people read them.

use k8s_openapi::api::apps::v1::{
    Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet, ReplicaSetStatus,
};

use super::strategy::{Bounds, wanted};
use crate::controllers::meta::{now, seconds_since};

pub(super) const AVAILABLE: &str = "Available";
pub(super) const PROGRESSING: &str = "Progressing";
const REPLICA_FAILURE: &str = "ReplicaFailure";
const NEW_AVAILABLE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const PAUSED: &str = "DeploymentPaused";
const RESUMED: &str = "DeploymentResumed";

/// Seconds that a rollout may make no progress; `None` when there is no such limit.
pub(super) fn deadline(deployment: &Deployment) -> Option<i32> {
    let spec = deployment.spec.as_ref()?;
    spec.progress_deadline_seconds
        .filter(|seconds| *seconds != i32::MAX)
}

/// Whether rollouts are held back.
pub(super) fn is_paused(deployment: &Deployment) -> bool {
    deployment
        .spec
        .as_ref()
        .is_some_and(|spec| spec.paused == Some(true))
}

/// A condition that holds from now on.
pub(super) fn condition(
    type_: &str,
    status: &str,
    reason: &str,
    message: String,
) -> DeploymentCondition {
    DeploymentCondition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_update_time: Some(now()),
        last_transition_time: Some(now()),
    }
}

/// The condition of that type.
pub(super) fn find<'a>(
    conditions: &'a [DeploymentCondition],
    type_: &str,
) -> Option<&'a DeploymentCondition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// Sets a condition, at the end of the list. The same status for the same reason stays as it is; the same status keeps its
/// transition time.
pub(super) fn set(conditions: &mut Vec<DeploymentCondition>, mut new: DeploymentCondition) {
    if let Some(present) = find(conditions, &new.type_) {
        if present.status == new.status && present.reason == new.reason {
            return;
        }
        if present.status == new.status {
            new.last_transition_time = present.last_transition_time.clone();
        }
    }
    remove(conditions, &new.type_);
    conditions.push(new);
}

fn remove(conditions: &mut Vec<DeploymentCondition>, type_: &str) {
    conditions.retain(|condition| condition.type_ != type_);
}

/// Notes in `Progressing` that the Deployment was paused or resumed; the clock of the deadline stands still meanwhile.
pub(super) fn note_pause(deployment: &Deployment, conditions: &mut Vec<DeploymentCondition>) {
    if deadline(deployment).is_none() {
        return;
    }
    let reason = find(conditions, PROGRESSING).and_then(|condition| condition.reason.as_deref());
    if reason == Some(TIMED_OUT) {
        return;
    }
    let was_paused = reason == Some(PAUSED);
    let (reason, message) = match (is_paused(deployment), was_paused) {
        (true, false) => (PAUSED, "Deployment is paused"),
        (false, true) => (RESUMED, "Deployment is resumed"),
        _ => return,
    };
    set(
        conditions,
        condition(PROGRESSING, "Unknown", reason, message.to_owned()),
    );
}

/// Whether all replicas are of the present template, available, and nothing else runs.
pub(super) fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let replicas = Bounds::of(deployment).replicas;
    status.updated_replicas.unwrap_or(0) == replicas
        && status.replicas.unwrap_or(0) == replicas
        && status.available_replicas.unwrap_or(0) == replicas
        && status.observed_generation.unwrap_or(0) >= deployment.metadata.generation.unwrap_or(0)
}

/// Counts, and the `Available` condition. `conditions` are those so far.
pub(super) fn count(
    deployment: &Deployment,
    all: &[&ReplicaSet],
    new: Option<&ReplicaSet>,
    conditions: Vec<DeploymentCondition>,
    collisions: Option<i32>,
) -> DeploymentStatus {
    let sum = |of: fn(&ReplicaSetStatus) -> Option<i32>| -> i32 {
        all.iter()
            .filter_map(|set| set.status.as_ref().and_then(of))
            .sum()
    };
    // Zero is left out, as Kubernetes does.
    let some = |number: i32| (number != 0).then_some(number);
    let available = sum(|status| status.available_replicas);
    let wanted_total: i32 = all.iter().map(|set| wanted(set)).sum();
    let updated = new
        .and_then(|set| set.status.as_ref())
        .map_or(0, |status| status.replicas);
    let mut status = DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: some(sum(|status| Some(status.replicas))),
        updated_replicas: some(updated),
        ready_replicas: some(sum(|status| status.ready_replicas)),
        available_replicas: some(available),
        unavailable_replicas: some((wanted_total - available).max(0)),
        terminating_replicas: Some(sum(|status| status.terminating_replicas)),
        collision_count: collisions,
        conditions: None,
    };
    let mut conditions = conditions;
    let (value, reason, message) = if available >= Bounds::of(deployment).fewest() {
        (
            "True",
            "MinimumReplicasAvailable",
            "Deployment has minimum availability.",
        )
    } else {
        (
            "False",
            "MinimumReplicasUnavailable",
            "Deployment does not have minimum availability.",
        )
    };
    set(
        &mut conditions,
        condition(AVAILABLE, value, reason, message.to_owned()),
    );
    status.conditions = Some(conditions);
    status
}

/// Brings `Progressing` and `ReplicaFailure` up to date with the counts. `before` is the status that the server has.
pub(super) fn judge_progress(
    deployment: &Deployment,
    all: &[&ReplicaSet],
    new: Option<&ReplicaSet>,
    before: &DeploymentStatus,
    status: &mut DeploymentStatus,
) {
    let mut conditions = status.conditions.take().unwrap_or_default();
    if deadline(deployment).is_none() {
        remove(&mut conditions, PROGRESSING);
    } else if let Some(progress) = progress(deployment, new, before, status, &conditions) {
        // A rollout that moves keeps its transition time but begins the deadline anew.
        if progress.reason.as_deref() == Some("ReplicaSetUpdated") {
            remove(&mut conditions, PROGRESSING);
        }
        set(&mut conditions, progress);
    }
    match failure(all, new) {
        Some(failure) => set(&mut conditions, failure),
        None => remove(&mut conditions, REPLICA_FAILURE),
    }
    status.conditions = Some(conditions);
}

fn progress(
    deployment: &Deployment,
    new: Option<&ReplicaSet>,
    before: &DeploymentStatus,
    status: &DeploymentStatus,
    conditions: &[DeploymentCondition],
) -> Option<DeploymentCondition> {
    let present = find(conditions, PROGRESSING);
    let was_complete = present.and_then(|condition| condition.reason.as_deref())
        == Some(NEW_AVAILABLE)
        && status.replicas == status.updated_replicas;
    if was_complete {
        return None;
    }
    let subject = match new {
        Some(set) => format!(
            "ReplicaSet {:?}",
            set.metadata.name.as_deref().unwrap_or_default()
        ),
        None => format!(
            "Deployment {:?}",
            deployment.metadata.name.as_deref().unwrap_or_default()
        ),
    };
    if is_complete(deployment, status) {
        let message = format!("{subject} has successfully progressed.");
        return Some(condition(PROGRESSING, "True", NEW_AVAILABLE, message));
    }
    if has_moved(before, status) {
        let message = format!("{subject} is progressing.");
        let mut moved = condition(PROGRESSING, "True", "ReplicaSetUpdated", message);
        if let Some(present) = present.filter(|present| present.status == "True") {
            moved.last_transition_time = present.last_transition_time.clone();
        }
        return Some(moved);
    }
    if seconds_to_deadline(deployment, status, conditions).is_some_and(|seconds| seconds <= 0.0) {
        let message = format!("{subject} has timed out progressing.");
        return Some(condition(PROGRESSING, "False", TIMED_OUT, message));
    }
    None
}

/// Whether pods were replaced, became ready or available since `before`.
fn has_moved(before: &DeploymentStatus, status: &DeploymentStatus) -> bool {
    let number = |value: Option<i32>| value.unwrap_or(0);
    let old_ones =
        |status: &DeploymentStatus| number(status.replicas) - number(status.updated_replicas);
    number(status.updated_replicas) > number(before.updated_replicas)
        || old_ones(status) < old_ones(before)
        || number(status.ready_replicas) > number(before.ready_replicas)
        || number(status.available_replicas) > number(before.available_replicas)
}

/// Seconds until the rollout counts as stuck; `None` when it isn't under way or counts as stuck already.
pub(super) fn seconds_to_deadline(
    deployment: &Deployment,
    status: &DeploymentStatus,
    conditions: &[DeploymentCondition],
) -> Option<f64> {
    let limit = deadline(deployment)?;
    let present = find(conditions, PROGRESSING)?;
    let over = matches!(
        present.reason.as_deref(),
        Some(NEW_AVAILABLE | TIMED_OUT | PAUSED)
    );
    if over || is_complete(deployment, status) {
        return None;
    }
    let since = present.last_update_time.as_ref()?;
    Some(f64::from(limit) - seconds_since(since))
}

/// Why a ReplicaSet cannot make or delete pods; that of the present template counts first.
fn failure(all: &[&ReplicaSet], new: Option<&ReplicaSet>) -> Option<DeploymentCondition> {
    let found = new
        .into_iter()
        .chain(all.iter().copied())
        .flat_map(|set| set.status.iter())
        .flat_map(|status| status.conditions.iter().flatten())
        .find(|condition| condition.type_ == REPLICA_FAILURE)?;
    Some(DeploymentCondition {
        last_transition_time: found.last_transition_time.clone(),
        ..condition(
            REPLICA_FAILURE,
            &found.status,
            found.reason.as_deref().unwrap_or_default(),
            found.message.clone().unwrap_or_default(),
        )
    })
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
