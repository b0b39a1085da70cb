//! What the tasks of one pod share: its object, its state, its network, its containers.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::Context;
use super::files::PodFolder;
use super::state::{Phase, PodState, Record};
use super::supervise::Run;
use crate::container::Bind;
use crate::events::Severity;
use crate::logs;
use crate::network::PodNetwork;

/// Most bytes of a log's end that become a termination message.
const LOG_END: usize = 2048;

/// How long the end of a log may take to be read.
const LOG_END_TIME: Duration = Duration::from_secs(1);

/// One pod on this node.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) context: Arc<Context>,
    pub(crate) folder: PodFolder,
    uid: String,
    object: watch::Receiver<Arc<Pod>>,
    state: Mutex<PodState>,
    changed: watch::Sender<u64>,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    network: Option<Arc<PodNetwork>>,
    binds: Vec<Bind>,
    runs: HashMap<String, Run>,
    log_tasks: HashMap<String, JoinHandle<()>>,
}

impl Shared {
    pub(crate) fn new(context: Arc<Context>, object: watch::Receiver<Arc<Pod>>) -> Self {
        let pod = object.borrow().clone();
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let folder = PodFolder::of(&context.config.state_dir, &uid);
        let state = PodState::new(&pod, context.config.network.node_address());
        Self {
            context,
            folder,
            uid,
            object,
            state: Mutex::new(state),
            changed: watch::Sender::new(0),
            inner: Mutex::default(),
        }
    }

    /// The object as last seen.
    pub(crate) fn pod(&self) -> Arc<Pod> {
        self.object.borrow().clone()
    }

    /// A receiver of newer versions of the object.
    pub(crate) fn objects(&self) -> watch::Receiver<Arc<Pod>> {
        self.object.clone()
    }

    pub(crate) fn uid(&self) -> &str {
        &self.uid
    }

    pub(crate) fn pod_name(&self) -> String {
        let pod = self.pod();
        let meta = &pod.metadata;
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        format!(
            "{}_{namespace}({})",
            meta.name.as_deref().unwrap_or_default(),
            self.uid
        )
    }

    /// Changes a container's record and lets the status be written.
    pub(crate) fn update(&self, container: &str, change: impl FnOnce(&mut Record)) {
        if let Some(record) = self.state.lock().record(container) {
            change(record);
        }
        self.changed.send_modify(|number| *number += 1);
    }

    /// Changes the state and lets the status be written.
    pub(crate) fn update_pod<T>(&self, change: impl FnOnce(&mut PodState) -> T) -> T {
        let result = change(&mut self.state.lock());
        self.changed.send_modify(|number| *number += 1);
        result
    }

    /// Reads the state.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&mut PodState) -> T) -> T {
        read(&mut self.state.lock())
    }

    /// A receiver that sees a new number after each change of the state.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    pub(crate) fn network(&self) -> Option<Arc<PodNetwork>> {
        self.inner.lock().network.clone()
    }

    /// Sets the network, or takes it for removal.
    pub(crate) fn set_network(&self, network: Option<Arc<PodNetwork>>) -> Option<Arc<PodNetwork>> {
        std::mem::replace(&mut self.inner.lock().network, network)
    }

    /// Files that appear in every container.
    pub(crate) fn binds(&self) -> Vec<Bind> {
        self.inner.lock().binds.clone()
    }

    pub(crate) fn set_binds(&self, binds: Vec<Bind>) {
        self.inner.lock().binds = binds;
    }

    /// The present run of a container.
    pub(crate) fn run(&self, container: &str) -> Option<Run> {
        self.inner.lock().runs.get(container).cloned()
    }

    /// The present runs of all containers, by name.
    pub(crate) fn runs(&self) -> Vec<(String, Run)> {
        let inner = self.inner.lock();
        let runs = inner.runs.iter();
        runs.map(|(name, run)| (name.clone(), run.clone()))
            .collect()
    }

    pub(crate) fn set_run(&self, container: &str, run: Option<Run>) {
        let mut inner = self.inner.lock();
        match run {
            Some(run) => inner.runs.insert(container.to_owned(), run),
            None => inner.runs.remove(container),
        };
    }

    /// The file of the container's present (or next) run.
    pub(crate) fn log(&self, container: &str) -> PathBuf {
        let run = self.read(|state| state.record(container).map_or(0, |record| record.restarts));
        logs::path(&self.context.config.state_dir, &self.uid, container, run)
    }

    /// Removes the logs of all runs but the present one and the one before.
    pub(crate) fn forget_old_logs(&self, container: &str) {
        let run = self.read(|state| state.record(container).map_or(0, |record| record.restarts));
        let old = logs::path(
            &self.context.config.state_dir,
            &self.uid,
            container,
            run - 2,
        );
        for path in [old.with_extension(logs::OLDER), old] {
            if let Err(error) = std::fs::remove_file(&path)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!(%error, path = %path.display(), "cannot remove an old log");
            }
        }
    }

    pub(crate) fn set_log_task(&self, container: &str, task: JoinHandle<()>) {
        self.inner
            .lock()
            .log_tasks
            .insert(container.to_owned(), task);
    }

    /// Waits until all that the container wrote is in its log.
    pub(crate) async fn log_written(&self, container: &str, limit: Duration) {
        let task = self.inner.lock().log_tasks.remove(container);
        if let Some(task) = task {
            // Past the limit the task goes on by itself, as long as something holds the pipes.
            let _ = tokio::time::timeout(limit, task).await;
        }
    }

    /// The last part of the container's log.
    pub(crate) async fn log_end(&self, container: &str) -> Vec<u8> {
        let wanted = logs::read::Wanted {
            tail: Some(80),
            ..logs::read::Wanted::default()
        };
        let (to, mut from) = tokio::sync::mpsc::channel(128);
        let path = self.log(container);
        let reading = async {
            let sending = logs::read::send(&path, &wanted, || true, to);
            let mut text = Vec::new();
            let receiving = async {
                while let Some(piece) = from.recv().await {
                    text.extend(piece);
                }
            };
            let (sent, ()) = tokio::join!(sending, receiving);
            sent.map(|()| text)
        };
        let text = tokio::time::timeout(LOG_END_TIME, reading).await;
        let text = text.ok().and_then(Result::ok).unwrap_or_default();
        text[text.len().saturating_sub(LOG_END)..].to_vec()
    }

    /// An id for the next run of a container.
    pub(crate) fn next_id(&self, container: &str) -> String {
        let run = self.read(|state| state.record(container).map_or(0, |record| record.restarts));
        format!("lateen://{}-{container}-{run}", self.uid)
    }

    /// The pod's grace period, in seconds.
    pub(crate) fn grace_period(&self) -> Option<i64> {
        self.pod().spec.as_ref()?.termination_grace_period_seconds
    }

    /// Where a container stands in the object, as events name it.
    pub(crate) fn field_path(&self, container: &str) -> String {
        let pod = self.pod();
        let inits = pod
            .spec
            .as_ref()
            .and_then(|spec| spec.init_containers.as_deref());
        let init = inits
            .unwrap_or_default()
            .iter()
            .any(|init| init.name == container);
        format!(
            "spec.{}{{{container}}}",
            if init { "initContainers" } else { "containers" }
        )
    }

    /// Tells of a container in an event.
    pub(crate) fn tell(
        &self,
        container: &str,
        severity: Severity,
        reason: &'static str,
        message: String,
    ) {
        let path = self.field_path(container);
        self.context
            .events
            .pod(&self.pod(), Some(&path), severity, reason, message);
    }

    /// Tells of a failed probe.
    pub(crate) fn unhealthy(&self, container: &str, probe: &str, reason: &str) {
        let message = format!("{probe} probe failed: {reason}");
        self.tell(container, Severity::Warning, "Unhealthy", message);
    }

    /// Records that the image cannot be had, for this reason: first as an error, then, where it was to be pulled, as waiting
    /// for the next try.
    pub(crate) fn image_missing(&self, container: &str, why: &'static str, message: String) {
        self.update(container, |record| {
            let tried = matches!(
                record.phase,
                Phase::Waiting {
                    reason: "ErrImagePull" | "ImagePullBackOff",
                    ..
                }
            );
            let tried = tried && why == "ErrImagePull";
            let reason = if tried { "ImagePullBackOff" } else { why };
            let image = &record.image;
            let message = if tried {
                format!("Back-off pulling image \"{image}\": {message}")
            } else {
                message
            };
            record.phase = Phase::Waiting {
                reason,
                message: Some(message),
            };
        });
    }
}
