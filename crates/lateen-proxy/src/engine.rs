//! The part that serves traffic: workers and the configuration that they share.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use lateen_xds::client::Handler;
use lateen_xds::pb::envoy::config::core::v3::Node;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use crate::admin;
use crate::config::store::Store;
use crate::secret::Secrets;
use crate::shared::{Leaving, Names, Shared};
use crate::telemetry::peer::Identity;
use crate::worker::{self, Command};

/// How often the end of the last connection is looked for while draining.
const DRAIN_POLL: Duration = Duration::from_millis(20);

/// Downstream connections that are served at the same time when nothing else is configured.
const MOST_CONNECTIONS: usize = 32_768;

/// Open files that connections of clients and endpoints leave: for listeners, discovery, the admin interface and logs.
/// Of a low limit a quarter.
const RESERVED_FILES: usize = 256;

/// Bytes of bodies that a worker holds back unless told otherwise: 4096 of the longest that a policy looks at by
/// default.
const MOST_HELD_BYTES: usize = 256 << 20;

/// Istio's `drainDuration` unless it is configured.
pub(crate) const DRAIN_TIME: Duration = Duration::from_secs(45);

/// Options of an engine.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Number of workers, at least 1. More than the machine has cores brings nothing.
    pub workers: usize,
    /// Address of this proxy that others can reach, shown in `x-forwarded-for` for clients on the same host.
    pub node_ip: Option<IpAddr>,
    /// Marks upstream sockets so that the redirection of the pod lets them pass.
    pub mark_sockets: bool,
    /// Downstream connections beyond this number are closed at once.
    pub most_connections: usize,
    /// Connections to endpoints beyond this number are not opened, which requests see like an open circuit breaker.
    pub most_endpoint_connections: usize,
    /// Bytes of request bodies that each worker holds at most, to read them before it routes their requests, or, in half of
    /// it, to send them again. Requests of the first kind beyond get 503, those of the second are not tried again.
    pub most_held_bytes: usize,
    /// How long clients are asked to leave before listeners stop, when `/drain_listeners?graceful` is asked for.
    pub drain_time: Duration,
    /// Who the proxy is: told to peers that ask, and shown in metrics.
    pub node: Node,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            workers: 1,
            node_ip: None,
            mark_sockets: false,
            most_connections: MOST_CONNECTIONS,
            most_endpoint_connections: usize::MAX,
            most_held_bytes: MOST_HELD_BYTES,
            drain_time: DRAIN_TIME,
            node: Node::default(),
        }
    }
}

impl EngineConfig {
    /// The same with so many connections that a process which may have `files` open files always has some to spare:
    /// half of them for clients, whose number cannot be chosen, so that requests find one for their endpoint.
    #[must_use]
    pub fn within_files(mut self, files: usize) -> Self {
        let usable = files - RESERVED_FILES.min(files / 4);
        self.most_connections = self.most_connections.min(usable / 2);
        let left = usable - self.most_connections;
        self.most_endpoint_connections = self.most_endpoint_connections.min(left);
        self
    }
}

/// Running workers. Dropping the engine ends them at once.
pub struct Engine {
    pub(crate) shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Engine {
    /// Starts the workers. They serve nothing until the [`Engine::handler`] gets listeners.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(config: &EngineConfig) -> std::io::Result<Self> {
        let count = config.workers.max(1);
        let (senders, receivers): (Vec<_>, Vec<_>) =
            (0..count).map(|_| mpsc::unbounded_channel()).unzip();
        let shared = Arc::new(Shared {
            clusters: Default::default(),
            listeners: Default::default(),
            names: Names {
                workers: count,
                ..Names::default()
            },
            secrets: Secrets::default(),
            workers: senders,
            dump: Mutex::default(),
            updates: Default::default(),
            worked: Default::default(),
            live: Default::default(),
            draining: watch::Sender::new(false),
            leaving: watch::Sender::new(Leaving::Nobody),
            drain_time: config.drain_time,
            connections: Default::default(),
            started: Instant::now(),
            started_at: std::time::SystemTime::now(),
            health_failed: Default::default(),
            identity: Identity::from_node(&config.node),
            node_ip: config.node_ip,
            mark_sockets: config.mark_sockets,
            endpoint_connections: Default::default(),
            most_connections: config.most_connections,
            most_endpoint_connections: config.most_endpoint_connections,
            most_held_bytes: config.most_held_bytes,
        });
        let threads = receivers
            .into_iter()
            .enumerate()
            .map(|(index, commands)| worker::spawn(index, shared.clone(), commands))
            .collect::<Result<_, _>>()?;
        Ok(Self { shared, threads })
    }

    /// What takes discovery updates. Make one per engine: it knows what was accepted before.
    pub fn handler(&self) -> impl Handler + use<> {
        Store::start(self.shared.clone())
    }

    /// The certificates and authorities of this engine's TLS contexts. An agent in the same process puts the ones that
    /// the configuration takes from its local socket, such as `default` and `ROOTCA`.
    pub fn secrets(&self) -> Secrets {
        self.shared.secrets.clone()
    }

    /// Whether the first complete configuration is in effect.
    pub fn is_ready(&self) -> bool {
        self.shared.is_ready()
    }

    /// All statistics in the Prometheus text format.
    pub fn metrics(&self) -> String {
        admin::all_metrics(&self.shared)
    }

    /// Open downstream connections.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// Stops accepting, tells clients to close, and waits until all connections are gone, at most for `limit`.
    pub async fn drain(&self, limit: Duration) {
        self.shared.draining.send_replace(true);
        let deadline = Instant::now() + limit;
        while self.connections() > 0 && Instant::now() < deadline {
            tokio::time::sleep(DRAIN_POLL).await;
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.shared.tell_workers(|| Command::Stop);
        for thread in self.threads.drain(..) {
            // A worker that panicked has reported it already.
            let _ = thread.join();
        }
        self.shared.names.logs.flush(Duration::from_secs(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_files_are_never_used_for_connections() {
        for (files, clients, endpoints) in [
            (256, 96, 96),
            (1024, 384, 384),
            (65_536, 32_640, 32_640),
            (
                1 << 20,
                MOST_CONNECTIONS,
                (1 << 20) - 256 - MOST_CONNECTIONS,
            ),
        ] {
            let config = EngineConfig::default().within_files(files);
            assert_eq!(config.most_connections, clients, "{files}");
            assert_eq!(config.most_endpoint_connections, endpoints, "{files}");
        }
        let config = EngineConfig {
            most_connections: 10,
            most_endpoint_connections: 20,
            ..EngineConfig::default()
        };
        let config = config.within_files(1024);
        assert_eq!(
            (config.most_connections, config.most_endpoint_connections),
            (10, 20)
        );
    }
}
