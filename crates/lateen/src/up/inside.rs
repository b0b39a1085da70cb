//! The process inside the mesh's namespaces: API server, controllers and node; it applies what was asked for, waits until
//! it works, and ends everything when it is asked to.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use kube::Client;
use lateen_cluster::{AutoscalerConfig, Cluster};
use lateen_node::network::Range;
use lateen_node::{HostAddresses, Network, Node, NodeConfig, Outside};
use serde_json::json;

use crate::apply::Applier;
use crate::exit::{CommandError, Result, chain};
use crate::state::{StateDir, write_private};

use super::messages::Message;
use super::readiness::{self, Workload};
use super::{Placed, Task, discovery_socket};

/// Where service addresses come from.
const SERVICE_RANGE: Range = Range {
    address: Ipv4Addr::new(10, 96, 0, 0),
    prefix: 16,
};

/// Where pod addresses come from.
const POD_RANGE: Range = Range {
    address: Ipv4Addr::new(10, 244, 0, 0),
    prefix: 16,
};

/// Address of the cluster DNS, in the service range, as Kubernetes distributions have it.
const DNS_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);

/// Ports that Services may open on the node: Kubernetes' default.
const NODE_PORTS: RangeInclusive<u16> = 30000..=32767;

/// Port of the Kubernetes API, on the host and inside the mesh.
const API_PORT: u16 = 6443;

/// Name of the one node.
const NODE_NAME: &str = "lateen";

/// Metrics are fresher here than in a large cluster, and people wait in front of it.
const AUTOSCALER_PERIOD: Duration = Duration::from_secs(5);

/// Many manifests name no requests, and an autoscaler for them would do nothing: their containers count as ones that
/// ask for a tenth of a processor.
const DEFAULT_CPU_REQUEST: i64 = 100;

/// How long workloads may take to get ready before `up` says what is missing.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// Runs as the inside process. Must be called before any thread exists.
pub(crate) fn run() -> Result<()> {
    let cannot = |error: &dyn std::fmt::Display| CommandError::unavailable(error.to_string());
    let inner = lateen_node::enter::inside().map_err(|error| cannot(&error))?;
    crate::log::start();
    let task_file = inner.config["task"].as_str().unwrap_or_default().to_owned();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| cannot(&error))?;
    runtime.block_on(async {
        let outside = Outside::start(inner.channel).map_err(|error| cannot(&error))?;
        let outcome = live(&outside, Path::new(&task_file), inner.users).await;
        if let Err(error) = &outcome {
            tell(&outside, &Message::failed(error)).await;
        }
        outcome
    })
}

/// The life of the mesh.
async fn live(outside: &Outside, task_file: &Path, users: u32) -> Result<()> {
    let task = read_task(task_file)?;
    let state = StateDir::new(Some(task.state.clone()));
    let hosts = HostAddresses::of(state.root());
    let api_address = task
        .api_address
        .unwrap_or_else(|| SocketAddr::new(hosts.node().into(), API_PORT));
    let on_host = outside.listen(api_address).await.map_err(|error| {
        CommandError::unavailable(format!(
            "the Kubernetes API cannot use {api_address}: {error}"
        ))
        .advise("give it another address with --api-address ADDRESS:PORT")
    })?;
    let network = Network::start(POD_RANGE, SERVICE_RANGE)
        .await
        .map_err(|error| CommandError::unavailable(chain(&error)))?;
    let inside_address = SocketAddr::new(network.node_address().into(), API_PORT);
    let in_mesh = TcpListener::bind(inside_address).map_err(|error| {
        CommandError::unavailable(format!(
            "the Kubernetes API cannot use {inside_address}: {error}"
        ))
    })?;
    let cluster = Cluster::start(lateen_cluster::Config {
        state_dir: state.cluster(),
        listeners: vec![on_host, in_mesh],
        certificate_names: vec![
            api_address.ip().to_string(),
            inside_address.ip().to_string(),
        ],
        service_range: SERVICE_RANGE.to_string(),
        node_ports: NODE_PORTS,
        kubelet_socket: state.kubelet_socket(),
        autoscaler: AutoscalerConfig {
            period: AUTOSCALER_PERIOD,
            default_cpu_request: Some(DEFAULT_CPU_REQUEST),
            ..AutoscalerConfig::default()
        },
    })
    .await
    .map_err(|error| CommandError::unavailable(chain(&error)))?;
    let url = format!("https://{api_address}");
    write_private(&state.kubeconfig(), cluster.kubeconfig(&url).as_bytes())
        .map_err(CommandError::unavailable)?;
    // Announces the mesh: from here on `status` and `kubectl` work.
    drop(outside.tell(json!({"api": url})).await);
    tell(
        outside,
        &Message::step(
            "api",
            format!("{url}   export KUBECONFIG={}", state.kubeconfig().display()),
        ),
    )
    .await;

    let client = cluster.client();
    let node = Node::start(NodeConfig {
        name: NODE_NAME.to_owned(),
        state_dir: state.node(),
        images: task.images.clone(),
        client: client.clone(),
        kubelet_socket: state.kubelet_socket(),
        outside: outside.clone(),
        network,
        hosts,
        executable: task.executable.clone(),
        cluster_domain: "cluster.local".to_owned(),
        dns_address: DNS_ADDRESS,
        user_range: users > 1,
        ca: cluster.ca_pem().to_owned(),
    })
    .await
    .map_err(|error| CommandError::unavailable(chain(&error)))?;
    discovery_socket::open(&state.xds_socket(), client.clone())
        .map_err(|error| CommandError::unavailable(chain(&error)))?;

    let outcome = tokio::select! {
        applied = set_up(outside, &client, &task.manifests) => match applied {
            Ok(()) => {
                outside.asked_to_stop().await;
                Ok(())
            }
            Err(error) => Err(error),
        },
        () = outside.asked_to_stop() => Ok(()),
    };
    node.shutdown().await;
    cluster.shutdown().await;
    outcome
}

/// Applies the mesh's own objects and then those that were asked for, and waits until they work.
async fn set_up(outside: &Outside, client: &Client, manifests: &[Placed]) -> Result<()> {
    let mut applier = Applier::new(client.clone());
    let mut own = lateen_api::crd::all();
    own.extend(lateen_control::manifests::render(
        &lateen_control::manifests::Options::default(),
    ));
    let mut own_workloads = Vec::new();
    for object in &own {
        applier.apply(object).await.map_err(|error| {
            CommandError::findings(format!("lateen's own objects: {}", chain(&error)))
        })?;
        own_workloads.extend(Workload::of(object));
    }
    // Pods of labelled namespaces are created through the webhook.
    let control_plane = [Workload::deployment("istio-system", "istiod")];
    let mut warnings = readiness::wait(client, &control_plane, READY_WITHIN).await;
    if warnings.is_empty() {
        if !readiness::wait_for_webhooks(client, &own, READY_WITHIN).await {
            warnings.push("the admission webhooks did not get their certificate".to_owned());
        }
        tell(outside, &Message::step("mesh", "control plane ready")).await;
    }

    let mut workloads = own_workloads;
    let mut refused = Vec::new();
    for (place, object) in manifests {
        match applier.apply(object).await {
            Ok(()) => workloads.extend(Workload::of(object)),
            Err(error) => refused.push(format!("{place}: {}", chain(&error))),
        }
    }
    if !manifests.is_empty() {
        let applied = manifests.len() - refused.len();
        let objects = if applied == 1 { "object" } else { "objects" };
        tell(
            outside,
            &Message::step("manifests", format!("{applied} {objects} applied")),
        )
        .await;
    }
    warnings.extend(refused);
    warnings.extend(readiness::wait(client, &workloads, READY_WITHIN).await);
    tell(outside, &Message::Ready { warnings }).await;
    Ok(())
}

fn read_task(file: &Path) -> Result<Task> {
    let unreadable = |error: &dyn std::fmt::Display| {
        CommandError::unavailable(format!("cannot read {}: {error}", file.display()))
    };
    let text = std::fs::read(file).map_err(|error| unreadable(&error))?;
    // Manifests may hold secrets: the file is not kept longer than needed.
    let _ = std::fs::remove_file(file);
    serde_json::from_slice(&text).map_err(|error| unreadable(&error))
}

/// Tells the outer process, which may be gone: then this one is about to end anyway.
async fn tell(outside: &Outside, message: &Message) {
    match serde_json::to_value(message) {
        Ok(news) => drop(outside.tell(news).await),
        Err(error) => tracing::error!(%error, "a message could not be encoded"),
    }
}
