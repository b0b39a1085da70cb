//! The HorizontalPodAutoscaler controller: keeps the replicas of a target where its metrics are as wished.
//!
//! Every autoscaler is looked at in a fixed period, as metrics don't announce their changes. Resource metrics come from
//! `metrics.k8s.io`, whoever serves it. Other metrics are reported as failing: nothing serves them here.

mod calculate;
mod metric;
mod metrics;
mod pass;
mod recommend;
mod status;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use self::recommend::History;
use super::Shared;
use super::error::Error;
use super::events::Recorder;
use super::meta::ObjectKey;
use super::queue::Queue;
use crate::selector::LabelSelector;

const WORKERS: usize = 2;

/// How autoscalers are followed. The default is Kubernetes': each field is the flag of kube-controller-manager that is
/// named with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AutoscalerConfig {
    /// How often each looks at its metrics (`--horizontal-pod-autoscaler-sync-period`, 15 s).
    pub period: Duration,
    /// How long a higher recommendation keeps replicas where `behavior` says nothing
    /// (`--horizontal-pod-autoscaler-downscale-stabilization`, 5 min).
    pub downscale_stabilization: Duration,
    /// Time after a pod's start in which its CPU counts only once it is ready
    /// (`--horizontal-pod-autoscaler-cpu-initialization-period`, 5 min).
    pub cpu_initialization: Duration,
    /// A pod that became unready within this time of its start has not been ready yet
    /// (`--horizontal-pod-autoscaler-initial-readiness-delay`, 30 s).
    pub initial_readiness_delay: Duration,
    /// What a container without a request for CPU counts with, in thousandths of a processor. With none, utilization of
    /// such containers is an error, as in Kubernetes.
    pub default_cpu_request: Option<i64>,
}

impl Default for AutoscalerConfig {
    fn default() -> Self {
        Self {
            period: Duration::from_secs(15),
            downscale_stabilization: Duration::from_secs(300),
            cpu_initialization: Duration::from_secs(300),
            initial_readiness_delay: Duration::from_secs(30),
            default_cpu_request: None,
        }
    }
}

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
        selectors: Mutex::default(),
    });
    shared.when_synced(async move |shared| {
        shared.autoscalers.synced().await;
        shared.pods.synced().await;
        let to = Arc::clone(&queue);
        let period = shared.config.autoscaler.period;
        shared.work(&queue, "horizontalpodautoscaler", WORKERS, move |key| {
            let (controller, to) = (Arc::clone(&controller), Arc::clone(&to));
            async move {
                let is_there = controller.reconcile(&key).await?;
                if is_there {
                    to.add_after(key, period);
                }
                Ok(())
            }
        });
    });
}

struct Controller {
    shared: Arc<Shared>,
    recorder: Recorder,
    histories: Mutex<HashMap<ObjectKey, History>>,
    /// Which pods each autoscaler was last seen to scale by, so that two for the same pods are noticed.
    selectors: Mutex<BTreeMap<ObjectKey, LabelSelector>>,
}

impl Controller {
    /// One look at an autoscaler. Returns whether it exists.
    async fn reconcile(&self, key: &ObjectKey) -> Result<bool, Error> {
        let Some(autoscaler) = self.shared.autoscalers.get(key) else {
            self.histories.lock().remove(key);
            self.selectors.lock().remove(key);
            return Ok(false);
        };
        if autoscaler.metadata.deletion_timestamp.is_none() {
            pass::run(self, key, &autoscaler).await?;
        }
        Ok(true)
    }
}
