//! The node agent: what a kubelet, kube-proxy, network plug-in and cluster DNS do together.

use std::net::SocketAddr;
use std::path::PathBuf;

use thiserror::Error;

use crate::network::hosts::HostAddresses;
use crate::{Network, Outside};

/// What a node needs to start.
#[derive(Clone)]
pub struct NodeConfig {
    /// The Node object's name, also the `nodeName` of its pods.
    pub name: String,
    /// Folder for logs and volumes of pods; made if missing. Hidden from containers.
    pub state_dir: PathBuf,
    /// The Kubernetes API, with every right.
    pub client: kube::Client,
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
    /// The catalogue of images that is built in cannot be read.
    #[error("the image catalogue is broken: {0}")]
    Images(String),
}

/// The running node.
#[derive(Debug)]
pub struct Node {
    tasks: tokio::task::JoinSet<()>,
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
        Ok(Self {
            tasks: tokio::task::JoinSet::new(),
        })
    }

    /// Ends every container (SIGTERM, then SIGKILL after at most two seconds), keeping the pods'
    /// objects: they start again with the next `lateen up`.
    pub async fn shutdown(mut self) {
        self.tasks.shutdown().await;
    }
}
