//! Listeners at run time: immutable snapshots in slots that sockets hold on to.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::watch;

use crate::access_log::AccessLog;
use crate::config::chain_match::{ChainMatcher, Facts};
use crate::http::manager::HttpManager;
use crate::proxy_protocol::Acceptor;
use crate::stats::{ListenerStats, PerWorker};
use crate::tcp::TcpProxy;
use crate::telemetry::StatsFilter;
use crate::tls::server::ServerTls;

/// One state of a listener.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    /// Whether it has a socket of its own, or only takes connections handed over by another listener.
    pub(crate) bind: bool,
    /// It is for the workload beside the proxy.
    pub(crate) inbound: bool,
    /// Connections are handed to the listener of their original destination.
    pub(crate) use_original_dst: bool,
    /// The original destination is restored before matching.
    pub(crate) original_dst: bool,
    /// Connections begin with a header that says whose they are.
    pub(crate) proxy_protocol: Option<Acceptor>,
    pub(crate) inspectors: Vec<Inspector>,
    /// Time for the inspectors; nothing: no limit.
    pub(crate) inspect_timeout: Option<Duration>,
    /// After that time the connection goes on with what is known, instead of being closed.
    pub(crate) continue_on_timeout: bool,
    pub(crate) matcher: ChainMatcher,
    pub(crate) chains: Vec<Arc<FilterChain>>,
    pub(crate) default_chain: Option<Arc<FilterChain>>,
    pub(crate) access_log: Vec<AccessLog>,
    pub(crate) stats: Arc<PerWorker<ListenerStats>>,
}

impl Listener {
    /// The filter chain for a connection.
    pub(crate) fn chain_for(&self, facts: &Facts<'_>) -> Option<&Arc<FilterChain>> {
        let matching = self.matcher.find(facts);
        matching
            .and_then(|index| self.chains.get(index))
            .or(self.default_chain.as_ref())
    }
}

/// What looks at the first bytes of a connection.
#[derive(Debug)]
pub(crate) struct Inspector {
    pub(crate) kind: InspectorKind,
    /// The inspector is left out for connections to these destination ports.
    pub(crate) disabled: Option<PortPredicate>,
}

/// The kinds of inspectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InspectorKind {
    Tls,
    Http,
}

/// A condition on the destination port.
#[derive(Debug)]
pub(crate) enum PortPredicate {
    Any(bool),
    Range(std::ops::Range<u32>),
    Or(Vec<Self>),
    And(Vec<Self>),
    Not(Box<Self>),
}

impl PortPredicate {
    pub(crate) fn holds(&self, port: u16) -> bool {
        match self {
            Self::Any(value) => *value,
            Self::Range(range) => range.contains(&u32::from(port)),
            Self::Or(rules) => rules.iter().any(|rule| rule.holds(port)),
            Self::And(rules) => rules.iter().all(|rule| rule.holds(port)),
            Self::Not(rule) => !rule.holds(port),
        }
    }
}

/// One filter chain.
#[derive(Debug)]
pub(crate) struct FilterChain {
    pub(crate) name: String,
    /// Hash of its configuration: connections of a chain that is unchanged in a new state of the listener stay.
    pub(crate) fingerprint: u64,
    /// Clients are told who this proxy is, on connections that agree on a protocol for it.
    pub(crate) tells_peers: bool,
    /// Counts connections.
    pub(crate) stats: Vec<Arc<StatsFilter>>,
    /// Nothing for plaintext.
    pub(crate) tls: Option<Arc<ServerTls>>,
    /// Time for the handshake.
    pub(crate) handshake_timeout: Duration,
    pub(crate) filter: NetworkFilter,
}

/// The last filter of a chain.
#[derive(Debug)]
pub(crate) enum NetworkFilter {
    Http(Arc<HttpManager>),
    Tcp(Arc<TcpProxy>),
}

/// Where the sockets and connections of one listener find its current state.
#[derive(Debug)]
pub(crate) struct ListenerSlot {
    current: ArcSwapOption<Listener>,
    /// Signalled after each change.
    changed: watch::Sender<u64>,
}

impl ListenerSlot {
    pub(crate) fn new(listener: Arc<Listener>) -> Self {
        Self {
            current: ArcSwapOption::from(Some(listener)),
            changed: watch::Sender::new(0),
        }
    }

    /// The current state; nothing when the listener was removed.
    pub(crate) fn load(&self) -> Option<Arc<Listener>> {
        self.current.load_full()
    }

    /// Replaces the state, or removes the listener.
    pub(crate) fn store(&self, listener: Option<Arc<Listener>>) {
        self.current.store(listener);
        self.changed.send_modify(|generation| *generation += 1);
    }

    /// Follows the changes.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Whether the current state would serve a connection with these facts by this chain, unchanged.
    pub(crate) fn keeps(&self, chain: &FilterChain, facts: &Facts<'_>) -> bool {
        self.current.load().as_ref().is_some_and(|listener| {
            listener
                .chain_for(facts)
                .is_some_and(|other| other.fingerprint == chain.fingerprint)
        })
    }
}
