//! A running server: store, handler, listeners and what else runs beside them.

use std::net::{SocketAddr, TcpListener};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body_util::BodyExt;
use serde_json::json;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::admission::{Policies, Webhooks};
use crate::controllers::{self, AutoscalerConfig, Controllers, ControllersConfig};
use crate::registry::Registry;
use crate::server::{Api, Body, BodyError, Kubelet, ServiceRange};
use crate::serving::{CertificateError, Certificates, Front, Guard};
use crate::store::{DiskError, Store};
use crate::tokens::Tokens;
use crate::user::User;

/// What a cluster is started with.
pub struct Config {
    /// Folder of the store, certificates and tokens; made with mode 0700 when it does not exist.
    pub state_dir: PathBuf,
    /// Sockets on which the API is served over TLS. Pods are told the address of the last one that is not on the loopback
    /// interface, which every pod has for itself; without such a one they are told none.
    pub listeners: Vec<TcpListener>,
    /// DNS names and addresses by which clients call the server, beside those that every cluster has.
    pub certificate_names: Vec<String>,
    /// Addresses of Services, e.g. `10.96.0.0/16`.
    pub service_range: String,
    /// Ports that Services may open on nodes, e.g. 30000..=32767.
    pub node_ports: RangeInclusive<u16>,
    /// Where the node's agent answers for logs, exec and port-forward.
    pub kubelet_socket: PathBuf,
    /// How HorizontalPodAutoscalers are followed.
    pub autoscaler: AutoscalerConfig,
}

/// Why a cluster did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The state folder cannot be made.
    #[error("cannot make the state folder {path}: {source}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] DiskError),
    /// Keys or certificates cannot be had.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// A listener cannot be used.
    #[error("cannot serve on a listener: {0}")]
    Listener(std::io::Error),
    /// The range of service addresses is malformed.
    #[error("{0:?} is not a range of service addresses such as 10.96.0.0/16 (prefix 8 to 30)")]
    ServiceRange(String),
    /// What every cluster has cannot be stored.
    #[error("cannot store the first objects: {0}")]
    Bootstrap(crate::status::Status),
}

/// Names that every cluster's certificate has: those by which pods call it, and the loopback ones.
const OWN_NAMES: [&str; 7] = [
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
    "localhost",
    "127.0.0.1",
    "::1",
];

/// How long a node has to be gone before its pods are removed, as in Kubernetes.
const LOST_NODE_GRACE: Duration = Duration::from_secs(40);

/// A running cluster.
pub struct Cluster {
    api: Arc<Api>,
    ca_pem: String,
    stopping: CancellationToken,
    tasks: JoinSet<()>,
    controllers: Controllers,
    front: Arc<Front>,
}

impl Cluster {
    /// Opens the state, serves the API on all listeners and starts the controllers.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        make_private_folder(&config.state_dir)?;
        let range = ServiceRange::parse(&config.service_range, config.node_ports.clone())
            .ok_or_else(|| StartError::ServiceRange(config.service_range.clone()))?;
        let mut names: Vec<String> = OWN_NAMES.map(str::to_owned).to_vec();
        names.push(range.address(1).to_string());
        for name in &config.certificate_names {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        let certificates = Certificates::open(&config.state_dir, &names)?;
        let tokens = Tokens::open(&config.state_dir)?;
        let store = Store::open(&config.state_dir.join("store.redb"))?;
        let registry = Registry::new(crate::builtin::rows());
        for row in crate::server::review_rows() {
            registry.insert(row);
        }
        for row in crate::server::usage_rows() {
            registry.insert(row);
        }
        registry.insert(crate::extension::definition::resource());
        let kubelet = Kubelet {
            socket: config.kubelet_socket,
        };
        let api = Api::new(store, registry, range, tokens, kubelet);
        let (store, registry) = (api.store().clone(), api.registry().clone());
        api.add_admission(Arc::new(Policies::new(store.clone(), registry)));
        api.add_admission(Arc::new(Webhooks::new(store)));
        let mut definitions = crate::extension::controller::Definitions::new(api.clone());
        definitions.restore();
        let stopping = CancellationToken::new();
        crate::bootstrap::run(&api)
            .await
            .map_err(StartError::Bootstrap)?;
        let front = Front::new(
            api.clone(),
            Guard::new(&names),
            TlsAcceptor::from(certificates.config),
            stopping.clone(),
        );
        let api_address = address_for_pods(&config.listeners);
        let mut tasks = JoinSet::new();
        tasks.spawn(definitions.run(stopping.clone()));
        for listener in config.listeners {
            listener
                .set_nonblocking(true)
                .map_err(StartError::Listener)?;
            let listener =
                tokio::net::TcpListener::from_std(listener).map_err(StartError::Listener)?;
            tasks.spawn(front.clone().serve(listener));
        }
        let controllers = controllers::start(
            client(&api, User::admin()),
            ControllersConfig {
                api_address,
                root_ca_pem: certificates.ca_pem.clone(),
                lost_node_grace: LOST_NODE_GRACE,
                autoscaler: config.autoscaler,
            },
        );
        Ok(Self {
            controllers,
            front,
            api,
            ca_pem: certificates.ca_pem,
            stopping,
            tasks,
        })
    }

    /// A client within this process: the administrator, over the same handler, without TLS or sockets. It cannot exec,
    /// attach or port-forward, as there is no connection to be upgraded.
    pub fn client(&self) -> kube::Client {
        client(&self.api, User::admin())
    }

    /// A kubeconfig of the administrator for the server at `server_url`, e.g. `https://127.0.0.1:6443`.
    pub fn kubeconfig(&self, server_url: &str) -> String {
        // JSON is YAML; kubectl reads and writes it all the same.
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{
                "name": "lateen",
                "cluster": {
                    "server": server_url,
                    "certificate-authority-data": STANDARD.encode(&self.ca_pem),
                },
            }],
            "users": [{"name": "admin", "user": {"token": self.api.tokens.admin()}}],
            "contexts": [{
                "name": "lateen",
                "context": {"cluster": "lateen", "user": "admin", "namespace": "default"},
            }],
            "current-context": "lateen",
            "preferences": {},
        });
        serde_saphyr::to_string(&config).unwrap_or_else(|_error| config.to_string())
    }

    /// The certificate of the authority by which clients verify the server.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// The request handler.
    pub fn api(&self) -> &Arc<Api> {
        &self.api
    }

    /// Ends watches and connections, then closes the store.
    pub async fn shutdown(mut self) {
        self.controllers.shutdown().await;
        self.api.stop();
        self.stopping.cancel();
        while self.tasks.join_next().await.is_some() {}
        self.front.drain().await;
        self.api.store().close();
    }
}

/// The address by which pods reach the API server.
fn address_for_pods(listeners: &[TcpListener]) -> Option<SocketAddr> {
    listeners
        .iter()
        .filter_map(|listener| listener.local_addr().ok())
        .rfind(|address| !address.ip().is_loopback() && !address.ip().is_unspecified())
}

/// A client of `api` as `user`, within this process.
pub fn client(api: &Arc<Api>, user: User) -> kube::Client {
    let api = api.clone();
    let service = tower::service_fn(
        move |request: Request<kube::client::Body>| -> BoxFuture<'static, Result<Response<Body>, BodyError>> {
            let (api, user) = (api.clone(), user.clone());
            Box::pin(async move {
                Ok(api.handle(request.map(boxed), Some(user)).await)
            })
        },
    );
    kube::Client::new(service, "default")
}

fn boxed(body: kube::client::Body) -> Body {
    body.map_err(BodyError::new).boxed_unsync()
}

fn make_private_folder(path: &std::path::Path) -> Result<(), StartError> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| StartError::Folder {
            path: path.to_owned(),
            source,
        })
}
