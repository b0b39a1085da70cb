//! The whole proxy process: engine, discovery client, admin and health servers, signals.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use lateen_xds::client::{Client, PrepareSocket, Target};
use lateen_xds::pb::envoy::config::core::v3::Node;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

use crate::admin::{self, Role};
use crate::agent::{
    AgentState, CertificateConfig, DrainConfig, Probes, Scrape, SecureDiscovery, identity,
};
use crate::engine::{Engine, EngineConfig};
use crate::memory;

/// Longest time to wait for connections without a limit of their own.
const LONGEST_DRAIN: Duration = Duration::from_secs(7 * 24 * 3600);

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
    /// Addresses of the agent: readiness, the application's probes, metrics merged with the application's.
    pub status: Vec<SocketAddr>,
    /// How the control plane is spoken to over TLS; without TLS when absent.
    pub secure_discovery: Option<SecureDiscovery>,
    /// Where the proxy's identity comes from; it has none when absent.
    pub certificates: Option<CertificateConfig>,
    /// The application's probes.
    pub probes: Probes,
    /// The application's metrics.
    pub scrape: Option<Scrape>,
    /// Number of workers.
    pub concurrency: usize,
    /// Address of this proxy that others can reach.
    pub node_ip: Option<IpAddr>,
    /// Marks own sockets so that the redirection of the pod lets them pass.
    pub mark_sockets: bool,
    /// How the process ends when it is asked to.
    pub drain: DrainConfig,
}

impl ProxyConfig {
    /// A proxy with one worker and an admin interface, and nothing that asks for more.
    pub fn new(node: Node, discovery: Target, admin: SocketAddr) -> Self {
        Self {
            node,
            discovery,
            admin,
            health: Vec::new(),
            metrics: Vec::new(),
            status: Vec::new(),
            secure_discovery: None,
            certificates: None,
            probes: Probes::default(),
            scrape: None,
            concurrency: 1,
            node_ip: None,
            mark_sockets: false,
            drain: DrainConfig::default(),
        }
    }
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
    // Refused by no kernel that has them; without them there is nothing to avoid.
    let _ = lateen_sys::memory::avoid_huge_pages();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(RunError::Start)?;
    runtime.block_on(serve(config))
}

async fn serve(config: ProxyConfig) -> Result<(), RunError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(RunError::Start)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(RunError::Start)?;
    let mut options = EngineConfig {
        workers: config.concurrency,
        node_ip: config.node_ip,
        mark_sockets: config.mark_sockets,
        node: config.node.clone(),
        drain_time: config.drain.graceful,
        ..EngineConfig::default()
    };
    lateen_sys::process::raise_open_files();
    if let Some(files) = lateen_sys::process::most_open_files() {
        options = options.within_files(files);
    }
    let engine = Engine::start(&options).map_err(RunError::Start)?;
    let agent = AgentState::new(config.probes, config.scrape, config.certificates.is_some());
    let shared = engine.shared.clone();
    let control = admin::Control::new(shared, config.node.clone(), agent.clone());
    admin::listen(config.admin, Role::Admin, "admin", &control)?;
    for address in config.health {
        admin::listen(address, Role::Health, "health checks", &control)?;
    }
    for address in config.metrics {
        admin::listen(address, Role::Metrics, "metrics", &control)?;
    }
    for address in config.status {
        admin::listen(address, Role::Status, "probes and merged metrics", &control)?;
    }
    let prepare: Option<PrepareSocket> = config.mark_sockets.then(|| {
        let mark: PrepareSocket =
            Arc::new(|socket| lateen_sys::mark_own_socket(&socket).map(|_| ()));
        mark
    });
    let mut tasks = JoinSet::new();
    if let Some(certificates) = config.certificates {
        let secrets = engine.secrets();
        tasks.spawn(identity::keep(
            certificates,
            secrets,
            agent,
            prepare.clone(),
        ));
    }
    let mut client = Client::new(config.discovery, config.node, engine.handler());
    if let Some(prepare) = prepare {
        client = client.prepare_sockets(prepare);
    }
    if let Some(secure) = &config.secure_discovery {
        client = client.secure(identity::security(secure));
    }
    tasks.spawn(client.run());
    let shared = engine.shared.clone();
    tasks.spawn(async move {
        memory::when_quiet(&shared.worked, memory::QUIET, memory::give_back).await
    });
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = control.quit_asked() => {}
        () = control.exit_asked() => return Ok(()),
    }
    tracing::info!("draining");
    tokio::select! {
        () = drain(&engine, config.drain) => {}
        // Asked twice means now.
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = control.exit_asked() => {}
    }
    Ok(())
}

/// Waits for open connections as configured.
async fn drain(engine: &Engine, config: DrainConfig) {
    let longest = if config.until_unused {
        // Whoever asked the process to end has a limit of his own.
        LONGEST_DRAIN
    } else {
        config.longest
    };
    tokio::join!(engine.drain(longest), tokio::time::sleep(config.shortest));
}
