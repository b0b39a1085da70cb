//! The admin interface with Envoy's paths and shapes, and the small servers for health checks and metrics.

mod clusters;
mod drain;
mod dump;
mod metrics;
mod paths;
mod query;
mod reply;
mod secrets;
mod server;
mod sessions;
mod status;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use lateen_xds::pb::envoy::config::core::v3::Node;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use query::Query;

use crate::agent::AgentState;
use crate::net;
use crate::process::RunError;
use crate::shared::Shared;

/// Connections that one of these servers has at the same time. The oldest makes room for one more, so that whoever
/// leaves connections open does not keep probes out. All servers together stay within what the engine leaves of the
/// process's files.
const MOST_CONNECTIONS: usize = 48;

/// Which paths a server offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// All.
    Admin,
    /// Readiness only.
    Health,
    /// Metrics and readiness.
    Metrics,
    /// What Istio's agent serves: readiness, probes of the application, merged metrics, and the end of the process.
    Status,
}

/// What the servers show and can ask for.
#[derive(Clone)]
pub(crate) struct Control {
    shared: Arc<Shared>,
    node: Arc<Node>,
    agent: Arc<AgentState>,
    quit: Arc<Notify>,
    exit: Arc<Notify>,
}

impl Control {
    pub(crate) fn new(shared: Arc<Shared>, node: Node, agent: Arc<AgentState>) -> Self {
        Self {
            shared,
            node: Arc::new(node),
            agent,
            quit: Arc::default(),
            exit: Arc::default(),
        }
    }

    /// Returns when `/quitquitquit` was called.
    pub(crate) async fn quit_asked(&self) {
        self.quit.notified().await;
    }

    /// Returns when the process is to end at once.
    pub(crate) async fn exit_asked(&self) {
        self.exit.notified().await;
    }

    /// Whether traffic can be served.
    fn is_ready(&self) -> bool {
        self.shared.is_ready() && self.agent.is_ready()
    }
}

/// Starts a server.
pub(crate) fn listen(
    address: SocketAddr,
    role: Role,
    purpose: &'static str,
    control: &Control,
) -> Result<(), RunError> {
    let failed = |source| RunError::Listen {
        address,
        purpose,
        source,
    };
    let listener = net::listen(address)
        .and_then(tokio::net::TcpListener::from_std)
        .map_err(failed)?;
    let control = control.clone();
    tokio::spawn(async move {
        let mut open: VecDeque<AbortHandle> = VecDeque::new();
        loop {
            let Ok((stream, peer)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let control = control.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                let control = control.clone();
                async move {
                    let response = match role {
                        Role::Status => status::answer(&control, peer, &request).await,
                        _ => paths::answer(&control, role, &request),
                    };
                    Ok::<_, Infallible>(response)
                }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(30))
                .serve_connection(TokioIo::new(stream), service);
            // A client that goes away is its own affair.
            let task = tokio::spawn(async move { drop(connection.await) });
            open.retain(|other| !other.is_finished());
            if open.len() >= MOST_CONNECTIONS
                && let Some(oldest) = open.pop_front()
            {
                oldest.abort();
            }
            open.push_back(task.abort_handle());
        }
    });
    Ok(())
}

/// All statistics in the Prometheus text format.
pub(crate) fn all_metrics(shared: &Shared) -> String {
    metrics::prometheus(shared, &Query("")).unwrap_or_default()
}
