//! The HorizontalPodAutoscaler controller: keeps the replicas of a target where its metrics are as wished.
//!
//! Every autoscaler is looked at in a fixed period, as metrics don't announce their changes. Resource metrics come from
//! `metrics.k8s.io`, whoever serves it. Other metrics are reported as failing: nothing serves them here.

mod calculate;
mod metrics;
mod pass;
mod recommend;
mod status;

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use self::recommend::History;
use super::Shared;
use super::error::Error;
use super::events::Recorder;
use super::meta::ObjectKey;
use super::queue::Queue;

const WORKERS: usize = 2;

/// Starts the controller.
pub(super) fn start(shared: &Arc<Shared>) {
    let queue = Queue::new();
    let to = Arc::clone(&queue);
    shared.autoscalers.on_change(move |old, new| {
        // Our own writes change the status alone, which is no reason to look again at once.
        let is_same = old
            .zip(new)
            .is_some_and(|(old, new)| old.metadata.uid == new.metadata.uid && old.spec == new.spec);
        if let Some(autoscaler) = new.or(old)
            && !is_same
        {
            to.add(ObjectKey::of(&autoscaler.metadata));
        }
    });
    let controller = Arc::new(Controller {
        shared: Arc::clone(shared),
        recorder: shared.recorder.component("horizontal-pod-autoscaler"),
        histories: Mutex::default(),
    });
    shared.when_synced(async move |shared| {
        shared.autoscalers.synced().await;
        shared.pods.synced().await;
        let to = Arc::clone(&queue);
        let period = shared.config.autoscaler_period;
        queue.run(
            "horizontalpodautoscaler",
            WORKERS,
            &shared.tasks,
            &shared.stop,
            move |key| {
                let (controller, to) = (Arc::clone(&controller), Arc::clone(&to));
                async move {
                    let is_there = controller.reconcile(&key).await?;
                    if is_there {
                        to.add_after(key, period);
                    }
                    Ok(())
                }
            },
        );
    });
}

struct Controller {
    shared: Arc<Shared>,
    recorder: Recorder,
    histories: Mutex<HashMap<ObjectKey, History>>,
}

impl Controller {
    /// One look at an autoscaler. Returns whether it exists.
    async fn reconcile(&self, key: &ObjectKey) -> Result<bool, Error> {
        let Some(autoscaler) = self.shared.autoscalers.get(key) else {
            self.histories.lock().remove(key);
            return Ok(false);
        };
        if autoscaler.metadata.deletion_timestamp.is_none() {
            pass::run(self, key, &autoscaler).await?;
        }
        Ok(true)
    }
}
