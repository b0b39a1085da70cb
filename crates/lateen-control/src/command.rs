//! The command line of the `istiod` pod: `lateen controlplane`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::Args;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio::signal::unix::{SignalKind, signal};

use crate::inject::InjectConfig;
use crate::start::{ControlConfig, StartError, run};

/// Options of `lateen controlplane`. Defaults are Istio's ports.
#[derive(Debug, Clone, Args)]
pub struct Arguments {
    /// Kubeconfig of the API to work with; that of the pod's service account when not given.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Namespace of the control plane.
    #[arg(long, env = "POD_NAMESPACE", default_value = "istio-system")]
    pub namespace: String,
    /// Discovery without TLS.
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:15010")]
    pub xds_address: SocketAddr,
    /// Discovery with TLS, and certificates for workloads.
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:15012")]
    pub secure_address: SocketAddr,
    /// Unix socket that serves discovery to tools.
    #[arg(long, value_name = "PATH")]
    pub xds_socket: Option<PathBuf>,
    /// The injection webhook, with TLS.
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:15017")]
    pub webhook_address: SocketAddr,
    /// Metrics, readiness and debug endpoints.
    #[arg(long = "monitoring-address", value_name = "ADDRESS",
        default_values = ["0.0.0.0:15014", "0.0.0.0:8080"])]
    pub monitoring_addresses: Vec<SocketAddr>,
    /// Serve a proxy although it does not connect from the address of its pod, as behind an address translation.
    #[arg(long)]
    pub no_peer_check: bool,
    /// Address from which tools may ask on behalf of any proxy; by default that of the own node, whose processes
    /// are above all pods anyway.
    #[arg(long = "trusted-address", env = "HOST_IP", value_name = "ADDRESS")]
    pub trusted_addresses: Vec<IpAddr>,
    /// Image that holds this program, for injected containers.
    #[arg(long, env = "LATEEN_IMAGE", default_value = crate::manifests::IMAGE)]
    pub image: String,
}

/// Runs the control plane until SIGTERM or SIGINT, on a runtime of its own.
///
/// # Errors
/// When it cannot start; see [`StartError`].
pub fn main(arguments: Arguments) -> Result<(), StartError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| StartError::Client(error.to_string()))?;
    let ran = runtime.block_on(async {
        let client = client(&arguments).await?;
        let inject = InjectConfig {
            image: arguments.image,
            namespace: arguments.namespace.clone(),
            discovery_address: format!("istiod.{}.svc:15012", arguments.namespace),
            ..InjectConfig::default()
        };
        let config = ControlConfig {
            client,
            namespace: arguments.namespace,
            xds_address: arguments.xds_address,
            secure_address: arguments.secure_address,
            xds_socket: arguments.xds_socket,
            webhook_address: arguments.webhook_address,
            monitoring_addresses: arguments.monitoring_addresses,
            check_peers: !arguments.no_peer_check,
            trusted_addresses: arguments.trusted_addresses,
            inject,
        };
        run(config, stop_signal()).await
    });
    runtime.shutdown_background();
    ran
}

async fn client(arguments: &Arguments) -> Result<Client, StartError> {
    let failed = |error: String| StartError::Client(error);
    let config = match &arguments.kubeconfig {
        None => Config::incluster().map_err(|error| failed(error.to_string()))?,
        Some(path) => {
            let kubeconfig =
                Kubeconfig::read_from(path).map_err(|error| failed(error.to_string()))?;
            Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
                .await
                .map_err(|error| failed(error.to_string()))?
        }
    };
    Client::try_from(config).map_err(|error| failed(error.to_string()))
}

async fn stop_signal() {
    let (terminate, interrupt) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    );
    match (terminate, interrupt) {
        (Ok(mut terminate), Ok(mut interrupt)) => {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        }
        // Without handlers the signals end the process by themselves.
        _ => std::future::pending().await,
    }
}
