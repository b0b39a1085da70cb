//! Admission of proxies: who asks, and whether it is who it says.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use lateen_mesh::{Key, Proxy, ProxyKind};
use lateen_xds::pb::envoy::config::core::v3::Node;
use lateen_xds::server::{Caller, Peer, Source, Variant};
use tokio::sync::watch;
use tokio::time::timeout;
use tonic::Status;

use crate::engine::{State, World};
use crate::identity::{Authenticator, GatewaySecrets, Identity};
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
    /// Who calls over TLS.
    pub(crate) authenticator: Authenticator,
    /// What gateways are shown besides.
    pub(crate) secrets: Arc<GatewaySecrets>,
}

impl Source for ProxySource {
    type Session = ProxySession;

    async fn open(
        &self,
        caller: Caller,
        node: Node,
        variant: Variant,
    ) -> Result<ProxySession, Status> {
        let mut proxy =
            Proxy::from_node(&node).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let peer = caller.peer;
        let identity = if caller.secure {
            Some(self.authenticator.identify(&caller).await?)
        } else {
            None
        };
        let mut state = self.world.state();
        timeout(SYNC_WAIT, state.wait_for(|state| state.synced))
            .await
            .map_err(|_| Status::unavailable("the control plane has not read all objects yet"))?
            .map_err(|_| Status::unavailable("the control plane is stopping"))?;
        match &identity {
            Some(identity) => {
                self.admit_identity(&mut state, identity, &mut proxy)
                    .await?
            }
            None => self.admit(&mut state, &peer, &proxy).await?,
        }
        let pod = Key::new(proxy.namespace.clone(), proxy.name.clone());
        if let Some(facts) = self.world.pods.read().get(&pod) {
            // What the API says about the pod counts, not what the proxy says.
            proxy.labels.clone_from(&facts.labels);
            proxy.service_account.clone_from(&facts.service_account);
        }
        let secrets = match &identity {
            Some(identity) if proxy.kind == ProxyKind::Router => {
                self.secrets.open(&self.world, identity).await?
            }
            _ => None,
        };
        let proven = identity.as_ref().map(|identity| identity.id.to_string());
        tracing::info!(
            proxy = proxy.id,
            ?peer,
            identity = proven,
            ?variant,
            "proxy connected"
        );
        let id = self.world.next_connection_id();
        let mut connection = Connection::new(id, proxy, node, peer, variant);
        connection.identity = identity;
        connection.secrets = secrets;
        let connection = Arc::new(connection);
        self.world
            .connections
            .lock()
            .insert(id, Arc::clone(&connection));
        Ok(ProxySession {
            world: Arc::clone(&self.world),
            connection,
            secrets: Arc::clone(&self.secrets),
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

    /// Checks that the caller's identity is that of the pod that it names, wherever it calls from. A pod that does not
    /// become known (a machine outside of the cluster) gets the identity's own service account.
    async fn admit_identity(
        &self,
        state: &mut watch::Receiver<State>,
        identity: &Identity,
        proxy: &mut Proxy,
    ) -> Result<(), Status> {
        let denied = || {
            let message = format!(
                "{} may not have the configuration of {}/{}",
                identity.id, proxy.namespace, proxy.name
            );
            Err(Status::permission_denied(message))
        };
        let other_pod = identity.pod.as_ref().is_some_and(|pod| *pod != proxy.name);
        if identity.namespace != proxy.namespace || other_pod {
            return denied();
        }
        let pod = Key::new(proxy.namespace.clone(), proxy.name.clone());
        let known = async {
            loop {
                let account = {
                    let pods = self.world.pods.read();
                    let facts = pods.get(&pod).filter(|facts| !facts.addresses.is_empty());
                    facts.map(|facts| facts.service_account.clone())
                };
                if account.is_some() || state.changed().await.is_err() {
                    return account;
                }
            }
        };
        match timeout(self.pod_wait, known).await.ok().flatten() {
            Some(account) if account != identity.account => denied(),
            _ => {
                proxy.service_account.clone_from(&identity.account);
                Ok(())
            }
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
            service_account: "default".to_owned(),
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
            authenticator: Authenticator::new(client(), "cluster.local".parse().unwrap()),
            secrets: Arc::new(GatewaySecrets::new(client())),
        }
    }

    /// Nobody answers it.
    fn client() -> kube::Client {
        let config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
        kube::Client::try_from(config).unwrap()
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
    async fn identities_get_the_configuration_of_their_own_pods() {
        let source = source();
        let check =
            async |namespace: &str, account: &str, bound: Option<&str>, pod: &str, ok: bool| {
                let id = format!("spiffe://cluster.local/ns/{namespace}/sa/{account}");
                let identity = Identity {
                    id: id.parse().unwrap(),
                    namespace: namespace.to_owned(),
                    account: account.to_owned(),
                    pod: bound.map(str::to_owned),
                };
                let mut proxy = proxy(pod);
                let admitted = source
                    .admit_identity(&mut source.world.state(), &identity, &mut proxy)
                    .await;
                let code = admitted.err().map(|status| status.code());
                let expected = (!ok).then_some(Code::PermissionDenied);
                assert_eq!(code, expected, "{id} {bound:?} as {pod}");
                if ok {
                    assert_eq!(proxy.service_account, account);
                }
            };
        check("default", "default", None, "web", true).await;
        check("default", "default", Some("web"), "web", true).await;
        check("default", "default", Some("other"), "web", false).await;
        check("default", "another", None, "web", false).await;
        check("another", "default", None, "web", false).await;
        // Not a pod of this cluster: nothing but the identity is known of it.
        check("default", "machine", None, "outside", true).await;
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
