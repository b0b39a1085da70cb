//! One pass over one StatefulSet: the steps that can be taken now, and the status.

use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use super::Controller;
use super::history::History;
use super::plan::{Plan, Step, Steps};
use super::status::{Counts, min_ready_seconds, status};
use crate::controllers::batch::in_growing_batches;
use crate::controllers::error::Error;
use crate::controllers::events::Severity;
use crate::controllers::meta::{ObjectKey, until_available};

/// One pass over one StatefulSet.
pub(super) struct Pass<'a> {
    controller: &'a Controller,
    key: &'a ObjectKey,
    set: &'a StatefulSet,
    pods: Vec<Pod>,
    /// How many names of revisions were taken.
    collisions: i32,
}

impl<'a> Pass<'a> {
    /// A pass over `set`, whose pods are `pods`.
    pub(super) fn new(
        controller: &'a Controller,
        key: &'a ObjectKey,
        set: &'a StatefulSet,
        pods: Vec<Pod>,
    ) -> Self {
        let status = set.status.as_ref();
        Self {
            controller,
            key,
            set,
            pods,
            collisions: status
                .and_then(|status| status.collision_count)
                .unwrap_or(0),
        }
    }

    /// Takes the steps that can be taken and tells what there is. `revisions` are the set's.
    pub(super) async fn run(mut self, revisions: Vec<ControllerRevision>) -> Result<(), Error> {
        if self.set.metadata.deletion_timestamp.is_some() {
            return self.write_last_status().await;
        }
        let cache = &self.controller.shared.revisions;
        let made = History::of(cache, self.set, revisions, &mut self.collisions).await;
        let history = match made {
            Ok(history) => history,
            // The set goes with its namespace.
            Err(error) if error.is_namespace_terminating() => return Ok(()),
            Err(error) => return Err(error),
        };
        let (current, update) = (&history.current, &history.update);
        let mut counts = Counts::of(self.set, &self.pods, &current.name, &update.name);
        let steps = Plan::new(self.set, &self.pods, current, update, counts.current).steps();
        let updating = i32::try_from(steps.update.len()).unwrap_or(i32::MAX);
        let outcome = self.take(steps).await;
        if outcome.is_ok() {
            // These are of the current revision no more.
            counts.current = counts.current.saturating_sub(updating).max(0);
        }
        // Even a failed pass tells what there is. Pods that this one made or deleted have changed the cache and so bring
        // another pass, which counts them.
        let told = self.write_status(counts, &current.name, &update.name).await;
        let kept = history.truncate(cache, self.set, &self.pods).await;
        outcome.and(told).and(kept)
    }

    /// Counts the pods of a set that is being deleted. Its revisions go with it, so none are made.
    async fn write_last_status(&self) -> Result<(), Error> {
        let status = self.set.status.clone().unwrap_or_default();
        let (Some(current), Some(update)) = (status.current_revision, status.update_revision)
        else {
            return Ok(());
        };
        let counts = Counts::of(self.set, &self.pods, &current, &update);
        self.write_status(counts, &current, &update).await
    }

    async fn take(&self, steps: Steps<'_>) -> Result<(), Error> {
        for part in [steps.replicas, steps.surplus, steps.update] {
            match in_growing_batches(part, |step| self.step(step)).await {
                Err(error) if error.is_namespace_terminating() => return Ok(()),
                outcome => outcome?,
            }
        }
        Ok(())
    }

    async fn step(&self, step: Step<'_>) -> Result<(), Error> {
        let cache = &self.controller.shared.pods;
        match step {
            Step::Create(pod) => {
                let outcome = cache.create(&pod).await.map(drop);
                if outcome.is_err() {
                    self.controller.refused.note(self.key);
                }
                self.tell(
                    ["Create", "SuccessfulCreate", "FailedCreate"],
                    &pod,
                    &outcome,
                );
                outcome
            }
            Step::Delete(pod) => {
                let outcome = cache.delete(pod).await;
                self.tell(
                    ["Delete", "SuccessfulDelete", "FailedDelete"],
                    pod,
                    &outcome,
                );
                outcome
            }
            Step::Label(pod, labels) => {
                let patch = json!({"metadata": {"uid": pod.metadata.uid, "labels": labels}});
                let key = ObjectKey::of(&pod.metadata);
                let outcome = cache.merge(&key, &patch).await.map(drop);
                self.tell(
                    ["Update", "SuccessfulUpdate", "FailedUpdate"],
                    pod,
                    &outcome,
                );
                outcome
            }
        }
    }

    /// Records what was done to a pod, by the verb and the reasons of success and failure.
    fn tell(
        &self,
        [verb, succeeded, failed]: [&'static str; 3],
        pod: &Pod,
        outcome: &Result<(), Error>,
    ) {
        let pod = pod.metadata.name.as_deref().unwrap_or_default();
        let name = &self.key.name;
        let recorder = &self.controller.recorder;
        match outcome {
            Ok(()) => {
                let message = format!("{verb} Pod {pod} in StatefulSet {name} successful");
                recorder.record(self.set, Severity::Normal, succeeded, message);
            }
            // The old pod of that name is not gone yet, or the set goes with its namespace.
            Err(error) if error.is_already_exists() || error.is_namespace_terminating() => {}
            Err(error) => {
                let message = format!(
                    "{verb} Pod {pod} in StatefulSet {name} failed error: {}",
                    error.server_message()
                );
                recorder.record(self.set, Severity::Warning, failed, message);
            }
        }
    }

    async fn write_status(&self, counts: Counts, current: &str, update: &str) -> Result<(), Error> {
        if let Some(delay) = until_available(&self.pods, min_ready_seconds(self.set)) {
            self.controller.queue.add_after(self.key.clone(), delay);
        }
        let status = status(self.set, counts, current, update, self.collisions);
        if self.set.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let mut changed = self.set.clone();
        changed.status = Some(status);
        match self
            .controller
            .shared
            .stateful_sets
            .replace_status(&changed)
            .await
        {
            // The change that caused the conflict brings the next pass; deleted meanwhile is fine too.
            Err(error) if !error.is_conflict() && !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }
}
