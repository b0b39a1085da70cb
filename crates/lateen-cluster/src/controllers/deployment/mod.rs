//! The Deployment controller: one ReplicaSet per pod template, resized step by step until only the present one is left.

mod pass;
mod revision;
mod status;
mod strategy;

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};

use self::pass::Pass;
use super::Shared;
use super::claim::claimed;
use super::error::Error;
use super::events::Recorder;
use super::meta::{ObjectKey, controller_of, is_terminal, parse_selector, selects};
use super::owners::{enqueue_changed, enqueue_owners};
use super::queue::Queue;

const WORKERS: usize = 4;

/// Starts the controller.
pub(super) fn start(shared: &Arc<Shared>) {
    let queue = Queue::new();
    listen(shared, &queue);
    let controller = Arc::new(Controller {
        shared: Arc::clone(shared),
        recorder: shared.recorder.component("deployment-controller"),
        queue: Arc::clone(&queue),
    });
    shared.when_synced(async move |shared| {
        shared.deployments.synced().await;
        shared.replica_sets.synced().await;
        shared.pods.synced().await;
        shared.work(&queue, "deployment", WORKERS, move |key| {
            let controller = Arc::clone(&controller);
            async move { controller.reconcile(&key).await }
        });
    });
}

/// Turns changes of Deployments, ReplicaSets and pods into keys of Deployments.
fn listen(shared: &Arc<Shared>, queue: &Arc<Queue<ObjectKey>>) {
    enqueue_changed(&shared.deployments, queue);
    enqueue_owners(
        &shared.replica_sets,
        &shared.deployments,
        queue,
        |deployment: &Deployment| Some(&deployment.spec.as_ref()?.selector),
    );
    // Recreate waits for the last old pod to be gone.
    let (to, sets) = (Arc::clone(queue), Arc::clone(&shared.replica_sets));
    shared.pods.on_change(move |old, new| {
        let ended = new.is_none_or(|pod| is_terminal(pod));
        let Some(pod) = old.or(new).filter(|_| ended) else {
            return;
        };
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let owner = controller_of(&pod.metadata).filter(|owner| owner.kind == "ReplicaSet");
        let set = owner.and_then(|owner| sets.get(&ObjectKey::new(&*namespace, &*owner.name)));
        let owner = set
            .as_ref()
            .and_then(|set| controller_of(&set.metadata))
            .filter(|owner| owner.kind == "Deployment");
        if let Some(owner) = owner {
            to.add(ObjectKey::new(namespace, owner.name.clone()));
        }
    });
}

struct Controller {
    shared: Arc<Shared>,
    recorder: Recorder,
    queue: Arc<Queue<ObjectKey>>,
}

impl Controller {
    async fn reconcile(&self, key: &ObjectKey) -> Result<(), Error> {
        let Some(deployment) = self.shared.deployments.get(key) else {
            return Ok(());
        };
        let deployment = Deployment::clone(&deployment);
        let sets = self.claimed(key, &deployment).await?;
        let mut pass = Pass::new(self, key, deployment, sets);
        let outcome = pass.run().await;
        // Even a failed pass tells why, and what there is.
        let told = pass.write_status().await;
        outcome.and(told)
    }

    /// The Deployment's ReplicaSets, after adoption and release.
    async fn claimed(
        &self,
        key: &ObjectKey,
        deployment: &Deployment,
    ) -> Result<Vec<ReplicaSet>, Error> {
        let Some(spec) = &deployment.spec else {
            return Ok(Vec::new());
        };
        let selector = parse_selector(&spec.selector, "Deployment", key)?;
        claimed(
            &self.shared.deployments,
            deployment,
            &self.shared.replica_sets,
            |set| selects(&selector, &set.metadata),
        )
        .await
    }
}
