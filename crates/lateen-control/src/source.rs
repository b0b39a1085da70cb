//! Admission of proxies: who asks, and whether it is who it says.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use lateen_mesh::{Key, Proxy};
use lateen_xds::pb::envoy::config::core::v3::Node;
use lateen_xds::server::{Peer, Source, Variant};
use tokio::sync::watch;
use tokio::time::timeout;
use tonic::Status;

use crate::engine::{State, World};
use crate::session::{Connection, ProxySession};

/// How long a proxy may wait for the first sync.
const SYNC_WAIT: Duration = Duration::from_secs(30);
/// How long a proxy may wait for its pod to be known: a container can start before its pod's address is in the API.
const POD_WAIT: Duration = Duration::from_secs(10);

/// Opens sessions for proxies.
#[derive(Debug)]
pub(crate) struct ProxySource {
    pub(crate) world: Arc<World>,
    /// Whether a proxy must connect from the address of the pod that it names.
    pub(crate) check_peers: bool,
    /// Addresses from which tools may ask on behalf of any proxy.
    pub(crate) trusted: Vec<IpAddr>,
}

impl Source for ProxySource {
    type Session = ProxySession;

    async fn open(&self, peer: Peer, node: Node, variant: Variant) -> Result<ProxySession, Status> {
        let mut proxy =
            Proxy::from_node(&node).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let mut state = self.world.state();
        timeout(SYNC_WAIT, state.wait_for(|state| state.synced))
            .await
            .map_err(|_| Status::unavailable("the control plane has not read all objects yet"))?
            .map_err(|_| Status::unavailable("the control plane is stopping"))?;
        self.admit(&mut state, &peer, &proxy).await?;
        let pod = Key::new(proxy.namespace.clone(), proxy.name.clone());
        if let Some(facts) = self.world.pods.read().get(&pod) {
            // What the API says about the pod counts, not what the proxy says.
            proxy.labels.clone_from(&facts.labels);
            proxy.service_account.clone_from(&facts.service_account);
        }
        tracing::info!(proxy = proxy.id, ?peer, ?variant, "proxy connected");
        let id = self.world.next_connection_id();
        let connection = Arc::new(Connection::new(id, proxy, node, peer, variant));
        self.world
            .connections
            .lock()
            .insert(id, Arc::clone(&connection));
        Ok(ProxySession {
            world: Arc::clone(&self.world),
            connection,
        })
    }
}

impl ProxySource {
    /// Checks that the caller is the pod that it names. Unix sockets and loopback are within the control plane's own
    /// pod, where tools ask on behalf of any proxy.
    async fn admit(
        &self,
        state: &mut watch::Receiver<State>,
        peer: &Peer,
        proxy: &Proxy,
    ) -> Result<(), Status> {
        let address = match peer {
            Peer::Tcp(address) if self.check_peers => address.ip().to_canonical(),
            _ => return Ok(()),
        };
        if address.is_loopback() || self.trusted.contains(&address) {
            return Ok(());
        }
        let pod = Key::new(proxy.namespace.clone(), proxy.name.clone());
        let known = async {
            loop {
                if let Some(matches) = self.is_address_of(&pod, address) {
                    return matches;
                }
                // The sender lives as long as the world.
                if state.changed().await.is_err() {
                    return false;
                }
            }
        };
        match timeout(POD_WAIT, known).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Status::permission_denied(format!(
                "{address} is not the address of pod {}/{}",
                pod.namespace, pod.name
            ))),
            Err(_) => Err(Status::permission_denied(format!(
                "pod {}/{} is not known or has no address",
                pod.namespace, pod.name
            ))),
        }
    }

    /// Whether the pod has this address; `None` while the pod or its address is not known.
    fn is_address_of(&self, pod: &Key, address: IpAddr) -> Option<bool> {
        let pods = self.world.pods.read();
        let facts = pods.get(pod)?;
        (!facts.addresses.is_empty()).then(|| facts.addresses.contains(&address))
    }
}
