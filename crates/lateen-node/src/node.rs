//! The node agent: what a kubelet, kube-proxy, network plug-in and cluster DNS do together.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::task::JoinSet;

use crate::egress::Egress;
use crate::events::Events;
use crate::images::Images;
use crate::network::services;
use crate::pods::{Context, Pods};
use crate::usage::Usages;
use crate::world::World;
use crate::{HostAddresses, Network, Outside, dns, expose, kubelet, registration};

/// What a node needs to start.
#[derive(Clone)]
pub struct NodeConfig {
    /// The Node object's name, also the `nodeName` of its pods.
    pub name: String,
    /// Folder for logs and volumes of pods; made if missing. Hidden from containers.
    pub state_dir: PathBuf,
    /// The Kubernetes API, with every right.
    pub client: kube::Client,
    /// Folder of the images that were loaded or pulled, shared with `lateen image`; made if missing.
    pub images: PathBuf,
    /// Where the kubelet's HTTP endpoint is served (mode 0600), for the API server's proxying.
    pub kubelet_socket: PathBuf,
    /// The way to the host's sockets.
    pub outside: Outside,
    /// The mesh's network, started before.
    pub network: Network,
    /// The mesh's addresses on the host.
    pub hosts: HostAddresses,
    /// This program: containers run it as `lateen container`, and the built-in images are its
    /// subcommands.
    pub executable: PathBuf,
    /// Certificate (PEM) of the API server's authority, for pods' service-account volumes.
    pub ca: String,
    /// Domain of service names; `cluster.local`.
    pub cluster_domain: String,
    /// Address of the cluster DNS service, within the service range; `10.96.0.10`.
    pub dns_address: std::net::Ipv4Addr,
    /// Do several user ids exist ([`crate::enter::Inner::users`] above 1)? If not, every
    /// container runs as the one user, whatever `runAsUser` says.
    pub user_range: bool,
}

/// Why a node could not start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// A folder or file of the node's state could not be made.
    #[error("cannot make {path}: {source}")]
    State {
        /// The folder or file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A socket could not be opened.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address inside the mesh.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The rules of the service addresses were refused.
    #[error(transparent)]
    Network(#[from] crate::network::NetworkError),
    /// The API server refused the node's own objects.
    #[error("cannot register the node: {0}")]
    Register(#[source] kube::Error),
    /// The images cannot be used.
    #[error(transparent)]
    Images(#[from] crate::images::OpenError),
}

/// How long containers have to end when the node goes down.
const DOWN_TIME: Duration = Duration::from_secs(2);

/// The running node. Dropping it stops its tasks, and leaves containers to the kernel.
#[derive(Debug)]
pub struct Node {
    pods: Arc<Pods>,
    tasks: JoinSet<()>,
}

impl Node {
    /// Starts the node: DNS, service rules, kubelet endpoint; registers the Node object and the
    /// cluster DNS service; from then on runs every pod that the API holds.
    ///
    /// # Errors
    /// When a step fails; nothing runs then.
    pub async fn start(config: NodeConfig) -> Result<Self, StartError> {
        std::fs::create_dir_all(&config.state_dir).map_err(|source| StartError::State {
            path: config.state_dir.clone(),
            source,
        })?;
        crate::pods::files::forget_all(&config.state_dir);
        let images = Images::open(
            &config.images,
            // Files belong to the users that there are.
            config.state_dir.join(if config.user_range {
                "layers"
            } else {
                "layers-of-one-user"
            }),
            config.outside.clone(),
        )?;
        let world = World::new();
        let node_address = config.network.node_address();
        let dns = dns::Server::bind(
            node_address,
            world.clone(),
            &config.cluster_domain,
            config.outside.clone(),
        );
        let dns = dns.await.map_err(|source| StartError::Listen {
            address: SocketAddr::new(node_address.into(), 53),
            source,
        })?;
        let events = Events::start(config.client.clone(), config.name.clone());
        let context = Context {
            config: config.clone(),
            images,
            events,
            world: world.clone(),
        };
        let pods = Pods::new(Arc::new(context));
        let usages = Arc::new(Usages::default());
        let kubelet = kubelet::Server::bind(&config.kubelet_socket, pods.clone(), usages.clone());
        let kubelet = kubelet.map_err(|source| StartError::State {
            path: config.kubelet_socket.clone(),
            source,
        })?;

        let egress = Egress::start(&config.network, config.outside.clone()).await?;

        let mut tasks = JoinSet::new();
        tasks.spawn(egress.serve());
        tasks.spawn(world.clone().follow(config.client.clone()));
        tasks.spawn(dns.serve());
        tasks.spawn(kubelet.serve());
        tasks.spawn(usages.follow(pods.clone()));
        tasks.spawn(services::follow(world.clone(), node_address));
        registration::register(&config)
            .await
            .map_err(StartError::Register)?;
        tasks.spawn(expose::follow(
            world,
            config.outside.clone(),
            config.hosts,
            config.client.clone(),
        ));
        tasks.spawn(registration::renew(config));
        tasks.spawn(pods.clone().follow());
        Ok(Self { pods, tasks })
    }

    /// Ends every container (SIGTERM, then SIGKILL after two seconds), keeping the pods' objects:
    /// they start again with the next `lateen up`.
    pub async fn shutdown(mut self) {
        self.pods.shut_down(DOWN_TIME).await;
        self.tasks.shutdown().await;
    }
}
