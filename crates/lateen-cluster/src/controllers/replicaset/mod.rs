//! The ReplicaSet controller: keeps the wished number of pods of one template.

mod ranking;
mod status;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::core::ObjectMeta;
use parking_lot::Mutex;

use self::status::Failure;
use super::Shared;
use super::claim::{Claim, adopt, claim, release};
use super::error::Error;
use super::events::{Recorder, Severity};
use super::meta::{
    ObjectKey, controller_of, controller_reference, is_active, is_terminal, parse_selector,
    seconds_to_available, selects, shortened,
};
use super::queue::Queue;

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
        failing: Mutex::new(HashSet::new()),
    });
    listen(shared, &queue, &controller);
    shared.when_synced(async move |shared| {
        shared.replica_sets.synced().await;
        shared.pods.synced().await;
        queue.run(
            "replicaset",
            WORKERS,
            &shared.tasks,
            &shared.stop,
            move |key| {
                let controller = Arc::clone(&controller);
                async move { controller.reconcile(&key).await }
            },
        );
    });
}

/// Turns changes of ReplicaSets and pods into keys of ReplicaSets.
fn listen(shared: &Arc<Shared>, queue: &Arc<Queue<ObjectKey>>, controller: &Arc<Controller>) {
    let to = Arc::clone(queue);
    shared.replica_sets.on_change(move |old, new| {
        if let Some(set) = new.or(old) {
            to.add(ObjectKey::of(&set.metadata));
        }
    });
    let (to, sets) = (Arc::clone(queue), Arc::clone(&shared.replica_sets));
    shared.pods.on_change(move |old, new| {
        for pod in old.into_iter().chain(new) {
            let namespace = pod.metadata.namespace.clone().unwrap_or_default();
            match controller_of(&pod.metadata) {
                Some(owner) if owner.kind == "ReplicaSet" => {
                    to.add(ObjectKey::new(namespace, owner.name.clone()));
                }
                Some(_) => {}
                None => {
                    for set in sets.in_namespace(&namespace) {
                        let key = ObjectKey::of(&set.metadata);
                        let spec = set.spec.as_ref();
                        let matches = spec
                            .and_then(|spec| {
                                parse_selector(&spec.selector, "ReplicaSet", &key).ok()
                            })
                            .is_some_and(|selector| selects(&selector, &pod.metadata));
                        if matches {
                            to.add(key);
                        }
                    }
                }
            }
        }
    });
    // Pods are mostly refused because an admission webhook isn't up yet. Its endpoints and its configuration tell when
    // it is, so those who were refused don't sit out their delay.
    let retry = {
        let (to, controller) = (Arc::clone(queue), Arc::downgrade(controller));
        move || {
            if let Some(controller) = controller.upgrade() {
                for key in controller.failing.lock().drain() {
                    to.add(key);
                }
            }
        }
    };
    let again = retry.clone();
    shared.endpoint_slices.on_change(move |_, _| again());
    shared.webhooks.on_change(move |_, _| retry());
}

struct Controller {
    shared: Arc<Shared>,
    recorder: Recorder,
    queue: Arc<Queue<ObjectKey>>,
    /// ReplicaSets whose pods were refused.
    failing: Mutex<HashSet<ObjectKey>>,
}

impl Controller {
    async fn reconcile(&self, key: &ObjectKey) -> Result<(), Error> {
        let Some(set) = self.shared.replica_sets.get(key) else {
            self.failing.lock().remove(key);
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
            self.failing.lock().insert(key.clone());
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
        let cache = &self.shared.pods;
        let uid = set.metadata.uid.as_deref().unwrap_or_default();
        let mut kept = Vec::new();
        let candidates = cache
            .indexed(uid)
            .into_iter()
            .chain(cache.indexed(&super::orphans_of(&key.namespace)));
        for pod in candidates {
            match claim(&set.metadata, &selector, &pod.metadata) {
                Claim::Keep => kept.push(Pod::clone(&pod)),
                Claim::Adopt if is_terminal(&pod) => {}
                Claim::Adopt => {
                    super::ensure_current(&self.shared.replica_sets, set).await?;
                    kept.push(adopt(cache, set, &*pod).await?);
                }
                Claim::Release => release(cache, set, &*pod).await?,
                Claim::Ignore => {}
            }
        }
        Ok(kept)
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

    /// Creates pods in batches of 1, 2, 4, ...: when the server refuses them, it is asked only a few times.
    async fn create_pods(&self, set: &ReplicaSet, count: usize) -> Result<(), Error> {
        let pod = new_pod(set);
        let mut left = count;
        let mut batch = 1;
        while left > 0 {
            let size = batch.min(left);
            let made = join_all((0..size).map(|_| self.shared.pods.create(&pod))).await;
            for outcome in made {
                match outcome {
                    Ok(pod) => {
                        let name = pod.metadata.name.unwrap_or_default();
                        let message = format!("Created pod: {name}");
                        self.recorder
                            .record(set, Severity::Normal, "SuccessfulCreate", message);
                    }
                    // The set goes with its namespace.
                    Err(error) if error.is_namespace_terminating() => return Ok(()),
                    Err(error) => {
                        let message = format!("Error creating: {}", error.server_message());
                        self.recorder
                            .record(set, Severity::Warning, "FailedCreate", message);
                        return Err(error);
                    }
                }
            }
            left -= size;
            batch *= 2;
        }
        Ok(())
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
        let next = active
            .iter()
            .filter_map(|pod| seconds_to_available(pod, min_ready_seconds.unwrap_or(0)))
            .filter(|seconds| *seconds > 0.0)
            .min_by(f64::total_cmp);
        if let Some(seconds) = next {
            self.queue
                .add_after(key.clone(), Duration::from_secs_f64(seconds));
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
    let meta = template.metadata.unwrap_or_default();
    let name = set.metadata.name.as_deref().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", shortened(name, NAME_BASE_LIMIT - 1))),
            namespace: set.metadata.namespace.clone(),
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![controller_reference(set)]),
            ..ObjectMeta::default()
        },
        spec: template.spec,
        status: None,
    }
}
