//! The whole proxy process: engine, discovery client, admin and health servers, signals.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use lateen_xds::client::{Client, Target};
use lateen_xds::pb::envoy::config::core::v3::Node;
use tokio::signal::unix::{SignalKind, signal};

use crate::admin::{self, Role};
use crate::engine::{Engine, EngineConfig};

/// Options of a proxy process.
#[derive(Debug, Clone)]
pub struct ProxyConfig {
    /// Identity and metadata that the control plane goes by.
    pub node: Node,
    /// Where the control plane is.
    pub discovery: Target,
    /// Address of the admin interface. It can end the process, so it must not be reachable from outside.
    pub admin: SocketAddr,
    /// Addresses of `/healthz/ready`.
    pub health: Vec<SocketAddr>,
    /// Addresses of `/stats/prometheus` for scrapers.
    pub metrics: Vec<SocketAddr>,
    /// Number of workers.
    pub concurrency: usize,
    /// Address of this proxy that others can reach.
    pub node_ip: Option<IpAddr>,
    /// Marks own sockets so that the redirection of the pod lets them pass.
    pub mark_sockets: bool,
    /// Longest time for open connections to end when the process is asked to.
    pub drain_time: Duration,
}

/// Why the proxy could not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A runtime or thread could not be started.
    #[error("cannot start the proxy: {0}")]
    Start(#[source] std::io::Error),
    /// An address of the admin or health servers is taken.
    #[error("cannot listen on {address} for {purpose}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What it is for.
        purpose: &'static str,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

/// Runs until a signal or the admin interface ends it.
///
/// # Errors
/// When it cannot start. A control plane that is not reachable is no error: the proxy tries again for ever.
pub fn run(config: ProxyConfig) -> Result<(), RunError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(RunError::Start)?;
    runtime.block_on(serve(config))
}

async fn serve(config: ProxyConfig) -> Result<(), RunError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(RunError::Start)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(RunError::Start)?;
    let engine = Engine::start(&EngineConfig {
        workers: config.concurrency,
        node_ip: config.node_ip,
        mark_sockets: config.mark_sockets,
        node: config.node.clone(),
        ..EngineConfig::default()
    })
    .map_err(RunError::Start)?;
    let control = admin::Control::new(engine.shared.clone(), config.node.clone());
    admin::listen(config.admin, Role::Admin, "admin", &control)?;
    for address in config.health {
        admin::listen(address, Role::Health, "health checks", &control)?;
    }
    for address in config.metrics {
        admin::listen(address, Role::Metrics, "metrics", &control)?;
    }
    let mut client = Client::new(config.discovery, config.node, engine.handler());
    if config.mark_sockets {
        client = client.prepare_sockets(Arc::new(|socket| {
            lateen_sys::mark_own_socket(&socket).map(|_| ())
        }));
    }
    let discovery = tokio::spawn(client.run());
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = control.quit_asked() => {}
    }
    tracing::info!("draining");
    tokio::select! {
        () = engine.drain(config.drain_time) => {}
        // Asked twice means now.
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    discovery.abort();
    Ok(())
}
