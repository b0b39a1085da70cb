//! What Istio's agent does beside Envoy, in the process of the proxy: the identity and its renewal, the application's
//! probes and metrics, and the subcommands that manifests call.
//!
//! Everything is told by environment variables, as injection sets them; [`settings`] reads those.

mod http_get;
pub(crate) mod identity;
pub(crate) mod probe;
pub(crate) mod scrape;
pub(crate) mod settings;
pub mod tools;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub use identity::CertificateConfig;
pub use probe::Probes;
pub use scrape::Scrape;

/// How the process ends when it is asked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrainConfig {
    /// How long clients are asked to leave before listeners stop in a graceful drain (`drainDuration`).
    pub graceful: Duration,
    /// Longest time for open connections to end (`terminationDrainDuration`).
    pub longest: Duration,
    /// Time to wait before the end of connections ends the process (`MINIMUM_DRAIN_DURATION`).
    pub shortest: Duration,
    /// Waits for as long as connections are open (`EXIT_ON_ZERO_ACTIVE_CONNECTIONS`).
    pub until_unused: bool,
}

impl Default for DrainConfig {
    fn default() -> Self {
        Self {
            graceful: crate::engine::DRAIN_TIME,
            longest: Duration::from_secs(5),
            shortest: Duration::ZERO,
            until_unused: false,
        }
    }
}

/// How the control plane is spoken to over TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecureDiscovery {
    /// File with the authorities of its certificate, PEM. Read for each connection.
    pub roots: PathBuf,
    /// File with the token that tells who calls. Read for each connection.
    pub token: PathBuf,
    /// Name in its certificate, when that is not its host (`ISTIOD_SAN`).
    pub server_name: Option<String>,
}

/// What the parts of the agent tell the servers of the process.
#[derive(Debug, Default)]
pub(crate) struct AgentState {
    pub(crate) probes: Probes,
    pub(crate) scrape: Option<Scrape>,
    /// Whether a certificate has to be there before the proxy is ready.
    needs_certificate: bool,
    has_certificate: AtomicBool,
}

impl AgentState {
    pub(crate) fn new(
        probes: Probes,
        scrape: Option<Scrape>,
        needs_certificate: bool,
    ) -> Arc<Self> {
        Arc::new(Self {
            probes,
            scrape,
            needs_certificate,
            has_certificate: AtomicBool::new(false),
        })
    }

    /// Whether traffic can be served with the identity that is asked for.
    pub(crate) fn is_ready(&self) -> bool {
        !self.needs_certificate || self.has_certificate.load(Ordering::Relaxed)
    }

    pub(crate) fn certificate_arrived(&self) {
        self.has_certificate.store(true, Ordering::Relaxed);
    }
}
