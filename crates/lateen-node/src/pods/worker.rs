//! The life of one pod on the node: network, volumes, containers in order, and its end.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::shared::Shared;
use super::state::{CREATING, Phase, Role};
use super::{Context, files, supervise, volumes};
use crate::events::Severity;

/// Pause before something that failed for the pod as a whole is tried again.
const RETRY: Duration = Duration::from_secs(2);

/// The first such wait: what a pod mounts is often made at the same moment.
const FIRST_RETRY: Duration = Duration::from_millis(100);

/// Pause before a refused status is sent again.
const STATUS_RETRY: Duration = Duration::from_millis(200);

/// How often volumes from the API are written again.
const REFRESH: Duration = Duration::from_secs(60);

/// What the manager tells a pod's worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Go on.
    Run,
    /// The object is gone: end at once.
    Gone,
    /// The node goes down: end within this time, and leave the object.
    Down(Duration),
}

/// Runs the pod until its object is gone, or the node goes down.
pub(crate) async fn run(
    context: Arc<Context>,
    objects: watch::Receiver<Arc<Pod>>,
    orders: watch::Receiver<Order>,
    register: impl FnOnce(Arc<Shared>),
) {
    let shared = Arc::new(Shared::new(context, objects));
    register(shared.clone());
    let (main_stop, main_stopped) = watch::channel(None);
    let over = matches!(phase_of(&shared.pod()), Some("Succeeded" | "Failed"));
    let mut life: Option<JoinHandle<()>> = None;
    let mut publisher = None;
    if !over && shared.pod().metadata.deletion_timestamp.is_none() {
        publisher = Some(tokio::spawn(publish(shared.clone())));
        life = Some(tokio::spawn(live(shared.clone(), main_stopped)));
    }
    let (order, grace) = wait_for_end(&shared, orders).await;
    shared.update_pod(|state| state.ending = true);
    main_stop.send_replace(Some(Instant::now() + grace));
    if let Some(life) = life
        && let Err(error) = life.await
    {
        tracing::error!(%error, pod = shared.pod_name(), "a pod's task failed");
    }
    if let Some(publisher) = publisher {
        publisher.abort();
    }
    tear_down(&shared, order).await;
    if order == Order::Run {
        finish_deletion(&shared).await;
    }
}

fn phase_of(pod: &Pod) -> Option<&str> {
    pod.status.as_ref()?.phase.as_deref()
}

/// Waits until the pod has to end; how, and how much time its containers have.
async fn wait_for_end(shared: &Shared, mut orders: watch::Receiver<Order>) -> (Order, Duration) {
    let mut objects = shared.objects();
    loop {
        let order = *orders.borrow_and_update();
        match order {
            Order::Gone => return (order, Duration::ZERO),
            Order::Down(grace) => return (order, grace),
            Order::Run => {}
        }
        let pod = objects.borrow_and_update().clone();
        if pod.metadata.deletion_timestamp.is_some() {
            let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or(30);
            return (
                order,
                Duration::from_secs(u64::try_from(grace).unwrap_or(0)),
            );
        }
        tokio::select! {
            changed = objects.changed() => if changed.is_err() {
                return (Order::Gone, Duration::ZERO);
            },
            changed = orders.changed() => if changed.is_err() {
                return (Order::Gone, Duration::ZERO);
            },
        }
    }
}

/// Brings the pod up and keeps its containers running until they end for good.
async fn live(shared: Arc<Shared>, mut stop: supervise::Stop) {
    // Containers' environments name the services, so these must be known.
    shared.context.world.complete().await;
    let mut pause = FIRST_RETRY;
    while let Err(message) = prepare(&shared).await {
        let (reason, message) = message;
        shared
            .context
            .events
            .pod(&shared.pod(), None, Severity::Warning, reason, message);
        if tokio::time::timeout(pause, stop.wait_for(Option::is_some))
            .await
            .is_ok()
        {
            return;
        }
        pause = (pause * 2).min(RETRY);
    }
    let refresher = tokio::spawn(refresh(shared.clone()));
    let pod = shared.pod();
    let Some(spec) = pod.spec.as_ref() else {
        return;
    };
    let mut sidecars = Vec::new();
    if start_inits(
        &shared,
        spec.init_containers.as_deref(),
        &stop,
        &mut sidecars,
    )
    .await
    {
        shared.update_pod(|state| {
            for record in &mut state.records {
                if let (Role::Main, Phase::Waiting { reason, .. }) =
                    (record.role, &mut record.phase)
                {
                    *reason = CREATING;
                }
            }
        });
        let mut mains = tokio::task::JoinSet::new();
        for container in &spec.containers {
            let stop = stop.clone();
            mains.spawn(supervise::supervise(
                shared.clone(),
                container.clone(),
                Role::Main,
                stop,
            ));
        }
        while mains.join_next().await.is_some() {}
    }
    // Sidecars end after everything else, the last one first.
    let asked = *stop.borrow();
    for (name, ender, task) in sidecars.into_iter().rev() {
        let usual = Duration::from_secs(shared.grace_period().unwrap_or(30).unsigned_abs());
        ender.send_replace(Some(asked.unwrap_or_else(|| Instant::now() + usual)));
        if let Err(error) = task.await {
            tracing::error!(%error, name, "a sidecar's task failed");
        }
    }
    refresher.abort();
}

type Sidecar = (String, watch::Sender<Option<Instant>>, JoinHandle<()>);

/// Runs the init containers in order; false when the pod will not get further.
async fn start_inits(
    shared: &Arc<Shared>,
    inits: Option<&[Container]>,
    stop: &supervise::Stop,
    sidecars: &mut Vec<Sidecar>,
) -> bool {
    for container in inits.unwrap_or_default() {
        let name = container.name.clone();
        if container.restart_policy.as_deref() == Some("Always") {
            let (ender, stopped) = watch::channel(None);
            let task =
                supervise::supervise(shared.clone(), container.clone(), Role::Sidecar, stopped);
            sidecars.push((name.clone(), ender, tokio::spawn(task)));
            if !sidecar_started(shared, &name, stop.clone()).await {
                return false;
            }
        } else {
            supervise::supervise(shared.clone(), container.clone(), Role::Init, stop.clone()).await;
            let done = shared.read(|state| {
                let record = state.record(&name);
                record.is_some_and(|r| matches!(&r.phase, Phase::Terminated(end) if end.code == 0))
            });
            if !done {
                return false;
            }
        }
    }
    true
}

/// Waits until the sidecar has started once; false when the pod is stopped before.
async fn sidecar_started(shared: &Shared, name: &str, mut stop: supervise::Stop) -> bool {
    let mut changes = shared.changes();
    let is_started =
        |_: &u64| shared.read(|state| state.record(name).is_some_and(|record| record.started));
    tokio::select! {
        started = changes.wait_for(is_started) => started.is_ok(),
        _ = stop.wait_for(Option::is_some) => false,
    }
}

/// Makes network, files and volumes; on failure the event's reason and message.
async fn prepare(shared: &Shared) -> Result<(), (&'static str, String)> {
    let context = &shared.context;
    if shared.network().is_none() {
        let network = context.config.network.add_pod().await;
        let network = network.map_err(|error| ("FailedCreatePodSandBox", error.to_string()))?;
        let address = network.address();
        shared.set_network(Some(Arc::new(network)));
        shared.update_pod(|state| state.address = Some(address));
    }
    let Some(network) = shared.network() else {
        return Ok(());
    };
    let pod = shared.pod();
    let config = &context.config;
    let (dns, domain) = (config.dns_address, &config.cluster_domain);
    let binds = files::write(&shared.folder, &pod, network.address(), dns, domain);
    shared.set_binds(binds.map_err(|error| ("FailedMount", error.to_string()))?);
    let sources = volume_sources(shared, &pod, network.address());
    sources
        .set_up()
        .await
        .map_err(|error| ("FailedMount", error.to_string()))
}

fn volume_sources<'a>(
    shared: &'a Shared,
    pod: &'a Pod,
    address: std::net::Ipv4Addr,
) -> volumes::Sources<'a> {
    let config = &shared.context.config;
    volumes::Sources {
        client: &config.client,
        pod,
        folder: &shared.folder,
        address,
        node_address: config.network.node_address(),
        ca: &config.ca,
    }
}

/// Writes volumes from the API again from time to time: tokens expire, configuration changes.
async fn refresh(shared: Arc<Shared>) {
    loop {
        tokio::time::sleep(REFRESH).await;
        let Some(network) = shared.network() else {
            return;
        };
        let pod = shared.pod();
        if let Err(error) = volume_sources(&shared, &pod, network.address())
            .refresh()
            .await
        {
            tracing::debug!(%error, pod = shared.pod_name(), "volumes not refreshed");
        }
    }
}

/// Writes the status whenever it changed, the newest only.
async fn publish(shared: Arc<Shared>) {
    let mut written = Value::Null;
    let mut changes = shared.changes();
    loop {
        changes.borrow_and_update();
        let status = shared.read(|state| state.status(&shared.pod()));
        if status != written {
            match write_status(&shared, &status).await {
                Ok(()) => written = status,
                Err(kube::Error::Api(answer)) if answer.code == 404 => return,
                Err(error) => {
                    tracing::debug!(%error, pod = shared.pod_name(), "status not written");
                    tokio::time::sleep(STATUS_RETRY).await;
                    continue;
                }
            }
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

async fn write_status(shared: &Shared, status: &Value) -> kube::Result<()> {
    let pod = shared.pod();
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let patch = json!({"metadata": {"uid": shared.uid()}, "status": status});
    let api = api(shared);
    api.patch_status(name, &PatchParams::default(), &Patch::Merge(patch))
        .await
        .map(drop)
}

/// Removes what the node made for the pod. Logs stay while the object does.
async fn tear_down(shared: &Shared, order: Order) {
    if let Some(network) = shared.set_network(None)
        && let Err(error) = network.remove().await
    {
        tracing::warn!(%error, pod = shared.pod_name(), "network not removed");
    }
    shared.folder.remove();
    if !matches!(order, Order::Down(_)) {
        let logs = crate::logs::folder(&shared.context.config.state_dir, shared.uid());
        if let Err(error) = tokio::fs::remove_dir_all(&logs).await
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, "cannot remove a pod's logs");
        }
    }
}

/// Tells the API that the pod has ended, so that the object goes.
async fn finish_deletion(shared: &Shared) {
    let pod = shared.pod();
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let status = shared.read(|state| state.status(&pod));
    if let Err(error) = write_status(shared, &status).await {
        tracing::debug!(%error, "last status not written");
    }
    let params = DeleteParams {
        grace_period_seconds: Some(0),
        preconditions: Some(Preconditions {
            uid: Some(shared.uid().to_owned()),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    loop {
        match api(shared).delete(name, &params).await {
            Ok(_) => return,
            // Gone, or replaced by another of that name.
            Err(kube::Error::Api(answer)) if [404, 409].contains(&answer.code) => return,
            Err(error) => {
                tracing::warn!(%error, pod = shared.pod_name(), "deletion not finished");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

fn api(shared: &Shared) -> Api<Pod> {
    let pod = shared.pod();
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    Api::namespaced(shared.context.config.client.clone(), namespace)
}
