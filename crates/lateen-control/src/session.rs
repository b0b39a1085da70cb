//! One connected proxy: what it subscribed to, what it was sent, and what it said to that.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use lateen_mesh::{Impact, Proxy};
use lateen_xds::pb::envoy::config::core::v3::Node;
use lateen_xds::pb::google::protobuf::Any;
use lateen_xds::server::{Changes, Peer, Progress, Session, Variant};
use lateen_xds::{Names, Resource, ResourceType};
use parking_lot::Mutex;

use crate::debug;
use crate::engine::World;
use crate::identity::{
    GatewaySecrets, Identity, NamespaceSecrets, gateway_certificates, store_secrets,
};

/// Longest error of a proxy that is kept for status, in bytes.
const MAX_ERROR: usize = 4096;

/// A connected proxy, as the engine and the debug endpoints see it.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) id: u64,
    pub(crate) proxy: Proxy,
    pub(crate) node: Node,
    pub(crate) peer: Peer,
    pub(crate) variant: Variant,
    pub(crate) since: SystemTime,
    /// What the caller proved, on the port that asks for it.
    pub(crate) identity: Option<Identity>,
    /// The secrets that it is shown: a gateway's that may list them.
    pub(crate) secrets: Option<Arc<NamespaceSecrets>>,
    pub(crate) changes: Changes,
    pub(crate) types: Mutex<BTreeMap<ResourceType, TypeStatus>>,
    /// When the oldest change happened that the proxy has not been sent.
    waiting_since: Mutex<Option<Instant>>,
}

/// What happened to one type.
#[derive(Debug, Clone, Default)]
pub(crate) struct TypeStatus {
    /// What the proxy wants.
    pub(crate) subscribed: Names,
    pub(crate) nonce_sent: String,
    pub(crate) nonce_acked: String,
    /// Why it rejected the latest response; empty when it did not.
    pub(crate) error: String,
    pub(crate) resources: usize,
    pub(crate) sent_at: Option<SystemTime>,
}

impl Connection {
    pub(crate) fn new(id: u64, proxy: Proxy, node: Node, peer: Peer, variant: Variant) -> Self {
        Self {
            id,
            proxy,
            node,
            peer,
            variant,
            identity: None,
            secrets: None,
            since: SystemTime::now(),
            changes: Changes::default(),
            types: Mutex::default(),
            waiting_since: Mutex::default(),
        }
    }

    /// Marks what an impact may mean to this proxy among what it subscribed to.
    pub(crate) fn mark(&self, impact: &Impact, since: Instant) {
        let mut concerned = false;
        for (kind, status) in &*self.types.lock() {
            let names = impact.narrow(&self.proxy, *kind, &status.subscribed);
            concerned |= !names.is_empty();
            self.changes.mark(*kind, names);
        }
        if concerned {
            self.waiting_since.lock().get_or_insert(since);
        }
    }

    /// Marks those of the secrets it has asked for whose names are concerned.
    pub(crate) fn mark_secrets(&self, concerned: impl Fn(&str) -> bool) {
        let types = self.types.lock();
        let status = types.get(&ResourceType::Secret);
        let Some(Names::Only(subscribed)) = status.map(|status| &status.subscribed) else {
            return;
        };
        let names = subscribed.iter().filter(|name| concerned(name));
        let names: Names = names.cloned().collect();
        if !names.is_empty() {
            self.changes.mark(ResourceType::Secret, names);
        }
    }

    /// The names that are asked for by name; none when the caller has proved no identity.
    pub(crate) fn asked_as_somebody<'n>(
        &self,
        names: &'n Names,
    ) -> impl Iterator<Item = &'n String> + use<'n> {
        let names = match names {
            Names::Only(names) if self.identity.is_some() => Some(names),
            _ => None,
        };
        names.into_iter().flatten()
    }
}

/// The discovery session of a connection.
#[derive(Debug)]
pub(crate) struct ProxySession {
    pub(crate) world: Arc<World>,
    pub(crate) connection: Arc<Connection>,
    pub(crate) secrets: Arc<GatewaySecrets>,
}

impl Session for ProxySession {
    fn resources(&self, kind: ResourceType, names: &Names) -> Vec<Resource> {
        if kind == ResourceType::Secret {
            let shown = self.connection.secrets.as_ref();
            let mut all = shown.map_or_else(Vec::new, |shown| shown.resources(names));
            let of_stores =
                store_secrets::resources(&self.secrets, &self.world, &self.connection, names);
            all.extend(of_stores);
            let of_gateways = gateway_certificates::resources(
                &self.secrets,
                &self.world,
                &self.connection,
                names,
            );
            all.extend(of_gateways);
            return all;
        }
        let index = self.world.index.read();
        lateen_mesh::resources(&index, &self.connection.proxy, kind, names)
    }

    fn changes(&self) -> &Changes {
        &self.connection.changes
    }

    fn version(&self) -> String {
        self.world.version()
    }

    fn pushed(&self, responses: usize) {
        if let Some(since) = self.connection.waiting_since.lock().take()
            && responses > 0
        {
            self.world.metrics.convergence.observe(since.elapsed());
        }
    }

    fn overdue(&self, missing: &[String]) {
        self.world.metrics.overdue.add(1);
        let proxy = &self.connection.proxy.id;
        tracing::warn!(
            proxy,
            ?missing,
            "proxy did not acknowledge in time what an update builds on: sent the rest anyway"
        );
    }

    fn subscribed(&self, kind: ResourceType, names: &Names) {
        self.connection
            .types
            .lock()
            .entry(kind)
            .or_default()
            .subscribed = names.clone();
    }

    fn progress(&self, kind: ResourceType, progress: Progress<'_>) {
        let metrics = &self.world.metrics;
        let mut types = self.connection.types.lock();
        let status = types.entry(kind).or_default();
        match progress {
            Progress::Sent {
                nonce,
                resources,
                bytes,
                ..
            } => {
                nonce.clone_into(&mut status.nonce_sent);
                status.resources = resources;
                status.sent_at = Some(SystemTime::now());
                metrics.pushed(kind, bytes);
            }
            Progress::Acked { nonce } => {
                nonce.clone_into(&mut status.nonce_acked);
                status.error.clear();
            }
            Progress::Nacked { message, .. } => {
                status.error = truncated(message);
                metrics.rejected(kind);
                let proxy = &self.connection.proxy.id;
                tracing::warn!(%kind, proxy, error = status.error, "proxy rejected configuration");
            }
        }
    }

    fn other(&self, type_url: &str, _names: &[String]) -> Vec<Any> {
        debug::over_discovery(&self.world, type_url)
    }

    fn identifier(&self) -> String {
        debug::identifier()
    }
}

impl Drop for ProxySession {
    fn drop(&mut self) {
        let mut connections = self.world.connections.lock();
        connections.remove(&self.connection.id);
        tracing::info!(proxy = self.connection.proxy.id, "proxy disconnected");
    }
}

fn truncated(message: &str) -> String {
    let mut end = message.len().min(MAX_ERROR);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    message[..end].to_owned()
}
