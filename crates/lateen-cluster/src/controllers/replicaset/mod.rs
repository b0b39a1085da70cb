//! The ReplicaSet controller: keeps the wished number of pods of one template.

mod ranking;
mod status;

use std::sync::Arc;

use futures_util::future::join_all;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;

use self::status::Failure;
use super::Shared;
use super::batch::in_growing_batches;
use super::claim::claimed;
use super::error::Error;
use super::events::{Recorder, Severity};
use super::meta::{
    ObjectKey, controller_of, is_active, is_terminal, parse_selector, pod_of_template, selects,
    shortened, until_available,
};
use super::owners::{enqueue_changed, enqueue_owners};
use super::queue::Queue;
use super::refused::Refused;

const WORKERS: usize = 4;
/// Most pods that one pass makes or deletes.
const BURST: usize = 500;
/// Longest base of a generated pod name: 63 characters, less the five that the server adds.
const NAME_BASE_LIMIT: usize = 58;

/// Starts the controller.
pub(super) fn start(shared: &Arc<Shared>) {
    let queue = Queue::new();
    let controller = Arc::new(Controller {
        shared: Arc::clone(shared),
        recorder: shared.recorder.component("replicaset-controller"),
        queue: Arc::clone(&queue),
        refused: Refused::start(shared, &queue),
    });
    listen(shared, &queue);
    shared.when_synced(async move |shared| {
        shared.replica_sets.synced().await;
        shared.pods.synced().await;
        shared.work(&queue, "replicaset", WORKERS, move |key| {
            let controller = Arc::clone(&controller);
            async move { controller.reconcile(&key).await }
        });
    });
}

/// Turns changes of ReplicaSets and pods into keys of ReplicaSets.
fn listen(shared: &Arc<Shared>, queue: &Arc<Queue<ObjectKey>>) {
    enqueue_changed(&shared.replica_sets, queue);
    enqueue_owners(
        &shared.pods,
        &shared.replica_sets,
        queue,
        |set: &ReplicaSet| Some(&set.spec.as_ref()?.selector),
    );
}

struct Controller {
    shared: Arc<Shared>,
    recorder: Recorder,
    queue: Arc<Queue<ObjectKey>>,
    refused: Arc<Refused>,
}

impl Controller {
    async fn reconcile(&self, key: &ObjectKey) -> Result<(), Error> {
        let Some(set) = self.shared.replica_sets.get(key) else {
            self.refused.forget(key);
            return Ok(());
        };
        let pods = self.claimed(key, &set).await?;
        let active: Vec<&Pod> = pods.iter().filter(|pod| is_active(pod)).collect();
        let mut failure = None;
        let mut outcome = Ok(());
        if set.metadata.deletion_timestamp.is_none() {
            outcome = self.resize(&set, &active, &mut failure).await;
        }
        if failure.is_some() {
            self.refused.note(key);
        }
        // Pods that this pass made or deleted have changed the cache and so bring another pass, which counts them.
        let told = self.write_status(key, &set, &pods, failure.as_ref()).await;
        outcome.and(told)
    }

    /// The set's pods, after adoption and release.
    async fn claimed(&self, key: &ObjectKey, set: &ReplicaSet) -> Result<Vec<Pod>, Error> {
        let Some(spec) = &set.spec else {
            return Ok(Vec::new());
        };
        let selector = parse_selector(&spec.selector, "ReplicaSet", key)?;
        // A pod that has ended is counted while it is the set's, but not adopted.
        claimed(&self.shared.replica_sets, set, &self.shared.pods, |pod| {
            selects(&selector, &pod.metadata)
                && (controller_of(&pod.metadata).is_some() || !is_terminal(pod))
        })
        .await
    }

    async fn resize(
        &self,
        set: &ReplicaSet,
        active: &[&Pod],
        failure: &mut Option<Failure>,
    ) -> Result<(), Error> {
        let wanted = set
            .spec
            .as_ref()
            .and_then(|spec| spec.replicas)
            .unwrap_or(1);
        let wanted = usize::try_from(wanted).unwrap_or(0);
        if active.len() < wanted {
            let missing = (wanted - active.len()).min(BURST);
            let outcome = self.create_pods(set, missing).await;
            if let Err(error) = &outcome {
                *failure = Some(Failure {
                    reason: "FailedCreate",
                    message: error.server_message(),
                });
            }
            return outcome;
        }
        if active.len() > wanted {
            let surplus = (active.len() - wanted).min(BURST);
            let outcome = self.delete_pods(set, active, surplus).await;
            if let Err(error) = &outcome {
                *failure = Some(Failure {
                    reason: "FailedDelete",
                    message: error.server_message(),
                });
            }
            return outcome;
        }
        Ok(())
    }

    async fn create_pods(&self, set: &ReplicaSet, count: usize) -> Result<(), Error> {
        let pod = new_pod(set);
        match in_growing_batches(0..count, |_| self.create_pod(set, &pod)).await {
            // The set goes with its namespace.
            Err(error) if error.is_namespace_terminating() => Ok(()),
            outcome => outcome,
        }
    }

    async fn create_pod(&self, set: &ReplicaSet, pod: &Pod) -> Result<(), Error> {
        match self.shared.pods.create(pod).await {
            Ok(pod) => {
                let name = pod.metadata.name.unwrap_or_default();
                let message = format!("Created pod: {name}");
                self.recorder
                    .record(set, Severity::Normal, "SuccessfulCreate", message);
                Ok(())
            }
            Err(error) => {
                if !error.is_namespace_terminating() {
                    let message = format!("Error creating: {}", error.server_message());
                    self.recorder
                        .record(set, Severity::Warning, "FailedCreate", message);
                }
                Err(error)
            }
        }
    }

    async fn delete_pods(
        &self,
        set: &ReplicaSet,
        active: &[&Pod],
        count: usize,
    ) -> Result<(), Error> {
        let related = self.related(set);
        let related: Vec<&Pod> = related.iter().map(|pod| &**pod).collect();
        let chosen = ranking::to_delete(active, &related, count, Timestamp::now());
        let deleted = join_all(chosen.into_iter().map(async |pod| {
            let outcome = self.shared.pods.delete(pod).await;
            (pod.metadata.name.as_deref().unwrap_or_default(), outcome)
        }))
        .await;
        let mut result = Ok(());
        for (name, outcome) in deleted {
            match outcome {
                Ok(()) => {
                    let message = format!("Deleted pod: {name}");
                    self.recorder
                        .record(set, Severity::Normal, "SuccessfulDelete", message);
                }
                Err(error) => {
                    let message = format!("Error deleting: {}", error.server_message());
                    self.recorder
                        .record(set, Severity::Warning, "FailedDelete", message);
                    result = Err(error);
                }
            }
        }
        result
    }

    /// The pods of this set and of all others with the same controller.
    fn related(&self, set: &ReplicaSet) -> Vec<Arc<Pod>> {
        let pods_of = |set: &ReplicaSet| {
            let uid = set.metadata.uid.as_deref().unwrap_or_default();
            self.shared.pods.indexed(uid)
        };
        match controller_of(&set.metadata) {
            Some(owner) => {
                let sets = self.shared.replica_sets.indexed(&owner.uid);
                sets.iter().flat_map(|set| pods_of(set)).collect()
            }
            None => pods_of(set),
        }
    }

    async fn write_status(
        &self,
        key: &ObjectKey,
        set: &ReplicaSet,
        pods: &[Pod],
        failure: Option<&Failure>,
    ) -> Result<(), Error> {
        let active: Vec<&Pod> = pods.iter().filter(|pod| is_active(pod)).collect();
        let terminating = pods
            .iter()
            .filter(|pod| pod.metadata.deletion_timestamp.is_some() && !is_terminal(pod))
            .count();
        let min_ready_seconds = set.spec.as_ref().and_then(|spec| spec.min_ready_seconds);
        let next = until_available(active.iter().copied(), min_ready_seconds.unwrap_or(0));
        if let Some(delay) = next {
            self.queue.add_after(key.clone(), delay);
        }
        let status = status::count(set, &active, terminating, failure);
        if set.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let mut changed = set.clone();
        changed.status = Some(status);
        match self.shared.replica_sets.replace_status(&changed).await {
            // The change that caused the conflict brings the next pass; deleted meanwhile is fine too.
            Err(error) if !error.is_conflict() && !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }
}

/// A pod of the set's template.
fn new_pod(set: &ReplicaSet) -> Pod {
    let template = set
        .spec
        .as_ref()
        .and_then(|spec| spec.template.clone())
        .unwrap_or_default();
    let name = set.metadata.name.as_deref().unwrap_or_default();
    let mut pod = pod_of_template(template, set);
    pod.metadata.generate_name = Some(format!("{}-", shortened(name, NAME_BASE_LIMIT - 1)));
    pod
}
