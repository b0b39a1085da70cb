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
/// Default of [`ProxySource::pod_wait`]: a container can start before its pod's address is in the API.
pub(crate) const POD_WAIT: Duration = Duration::from_secs(10);

/// Opens sessions for proxies.
#[derive(Debug)]
pub(crate) struct ProxySource {
    pub(crate) world: Arc<World>,
    /// Whether a proxy must connect from the address of the pod that it names.
    pub(crate) check_peers: bool,
    /// Addresses from which tools may ask on behalf of any proxy.
    pub(crate) trusted: Vec<IpAddr>,
    /// How long a proxy may wait for its pod to be known.
    pub(crate) pod_wait: Duration,
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
        match timeout(self.pod_wait, known).await {
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

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use lateen_mesh::MeshConfig;
    use tonic::Code;

    use super::*;
    use crate::engine::PodFacts;

    const NODE: &str = "10.0.0.254";

    fn source() -> ProxySource {
        let world = World::new(MeshConfig::default());
        let facts = PodFacts {
            addresses: vec![[10, 0, 0, 9].into()],
            ..PodFacts::default()
        };
        world.pods.write().insert(Key::new("default", "web"), facts);
        world
            .pods
            .write()
            .insert(Key::new("default", "starting"), PodFacts::default());
        ProxySource {
            world: Arc::new(world),
            check_peers: true,
            trusted: vec![NODE.parse().unwrap()],
            pod_wait: Duration::from_millis(10),
        }
    }

    fn proxy(pod: &str) -> Proxy {
        let id = format!("sidecar~10.0.0.9~{pod}.default~default.svc.cluster.local");
        Proxy::from_node(&Node {
            id,
            ..Node::default()
        })
        .unwrap()
    }

    fn tcp(address: &str) -> Peer {
        Peer::Tcp(SocketAddr::new(address.parse().unwrap(), 1))
    }

    #[tokio::test]
    async fn proxies_are_admitted_from_the_address_of_their_pod() {
        let source = source();
        let check = async |peer: Peer, pod: &str, expected: Option<Code>| {
            let admitted = source
                .admit(&mut source.world.state(), &peer, &proxy(pod))
                .await;
            assert_eq!(
                admitted.err().map(|status| status.code()),
                expected,
                "{peer:?} as {pod}"
            );
        };
        check(tcp("10.0.0.9"), "web", None).await;
        check(tcp("::ffff:10.0.0.9"), "web", None).await;
        check(tcp("10.0.0.8"), "web", Some(Code::PermissionDenied)).await;
        // Pods that are unknown, or have no address yet, are waited for.
        check(tcp("10.0.0.9"), "other", Some(Code::PermissionDenied)).await;
        check(tcp("10.0.0.9"), "starting", Some(Code::PermissionDenied)).await;
        for peer in [Peer::Unix, tcp("127.0.0.1"), tcp(NODE)] {
            check(peer, "other", None).await;
        }
    }

    #[tokio::test]
    async fn a_pod_that_becomes_known_is_admitted() {
        let source = Arc::new(ProxySource {
            pod_wait: POD_WAIT,
            ..source()
        });
        let waiting = tokio::spawn({
            let source = Arc::clone(&source);
            async move {
                let mut state = source.world.state();
                source
                    .admit(&mut state, &tcp("10.0.0.7"), &proxy("late"))
                    .await
            }
        });
        let (sender, events) = tokio::sync::mpsc::channel(1);
        tokio::spawn(crate::engine::run(Arc::clone(&source.world), events));
        let pod = serde_json::json!({
            "metadata": {"name": "late", "namespace": "default"},
            "status": {"podIP": "10.0.0.7"},
        });
        let change = lateen_mesh::Change::Pod(serde_json::from_value(pod).unwrap());
        sender
            .send(crate::watch::Event::Change(Box::new(change), None))
            .await
            .unwrap();
        waiting.await.unwrap().unwrap();
    }
}
