//! The StatefulSet controller: pods that keep their names, made, updated and ended in the order of their numbers.
//!
//! <https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/>

mod history;
mod identity;
mod pass;
mod plan;
mod revision;
mod status;

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::Pod;
use kube::core::Selector;

use self::pass::Pass;
use super::Shared;
use super::claim::claimed;
use super::error::Error;
use super::events::Recorder;
use super::meta::{ObjectKey, controller_of, parse_selector, selects};
use super::owners::{enqueue_changed, enqueue_owners};
use super::queue::Queue;
use super::refused::Refused;

const WORKERS: usize = 4;

/// Starts the controller.
pub(super) fn start(shared: &Arc<Shared>) {
    let queue = Queue::new();
    let controller = Arc::new(Controller {
        shared: Arc::clone(shared),
        recorder: shared.recorder.component("statefulset-controller"),
        queue: Arc::clone(&queue),
        refused: Refused::start(shared, &queue),
    });
    listen(shared, &queue);
    shared.when_synced(async move |shared| {
        shared.stateful_sets.synced().await;
        shared.revisions.synced().await;
        shared.pods.synced().await;
        shared.work(&queue, "statefulset", WORKERS, move |key| {
            let controller = Arc::clone(&controller);
            async move { controller.reconcile(&key).await }
        });
    });
}

/// Turns changes of StatefulSets and pods into keys of StatefulSets.
fn listen(shared: &Arc<Shared>, queue: &Arc<Queue<ObjectKey>>) {
    enqueue_changed(&shared.stateful_sets, queue);
    enqueue_owners(
        &shared.pods,
        &shared.stateful_sets,
        queue,
        |set: &StatefulSet| Some(&set.spec.as_ref()?.selector),
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
        let Some(set) = self.shared.stateful_sets.get(key) else {
            self.refused.forget(key);
            return Ok(());
        };
        let Some(spec) = &set.spec else {
            return Ok(());
        };
        let selector = parse_selector(&spec.selector, "StatefulSet", key)?;
        let revisions = self.claimed_revisions(&set, &selector).await?;
        let pods = self.claimed_pods(&set, &selector).await?;
        Pass::new(self, key, &set, pods).run(revisions).await
    }

    /// The set's revisions, after adoption. Those whose labels were changed are the set's still, so that they go with it,
    /// but no part of its history.
    async fn claimed_revisions(
        &self,
        set: &StatefulSet,
        selector: &Selector,
    ) -> Result<Vec<ControllerRevision>, Error> {
        let fits = |revision: &ControllerRevision| selects(selector, &revision.metadata);
        let (sets, cache) = (&self.shared.stateful_sets, &self.shared.revisions);
        let mut revisions = claimed(sets, set, cache, |revision| {
            fits(revision) || controller_of(&revision.metadata).is_some()
        })
        .await?;
        revisions.retain(fits);
        Ok(revisions)
    }

    /// The set's pods, after adoption and release. Only pods with names of the set's pods fit it.
    async fn claimed_pods(
        &self,
        set: &StatefulSet,
        selector: &Selector,
    ) -> Result<Vec<Pod>, Error> {
        let (sets, cache) = (&self.shared.stateful_sets, &self.shared.pods);
        claimed(sets, set, cache, |pod| {
            selects(selector, &pod.metadata) && identity::ordinal(set, pod).is_some()
        })
        .await
    }
}
