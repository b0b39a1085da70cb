//! Starting and stopping the control plane.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use kube::api::Api;
use lateen_identity::TrustDomain;
use lateen_identity::spiffe::SpiffeError;
use lateen_mesh::MeshConfig;
use lateen_xds::server::{Limits, Server};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tonic::service::Routes;

use crate::engine::{self, World};
use crate::identity::{
    Authenticator, Authority, CertificateService, GatewaySecrets, Lifetimes, keep_root_certificate,
};
use crate::inject::InjectConfig;
use crate::source::{POD_WAIT, ProxySource};
use crate::{debug, gateway_deploy, http_server, identity, status, watch, webhook};

/// ConfigMap and key of the mesh's settings.
const MESH_CONFIG: (&str, &str) = ("istio", "mesh");
/// How long to wait before the API is asked again at the start.
const RETRY: Duration = Duration::from_millis(100);

/// What the control plane needs to know.
#[derive(Clone)]
pub struct ControlConfig {
    /// The Kubernetes API.
    pub client: Client,
    /// Namespace of the control plane, `istio-system`.
    pub namespace: String,
    /// Discovery without TLS (Istio: port 15010).
    pub xds_address: SocketAddr,
    /// Discovery with TLS, and certificates for workloads (Istio: port 15012).
    pub secure_address: SocketAddr,
    /// A unix socket that serves discovery to tools, if any. Made with mode 0600; a stale one is replaced.
    pub xds_socket: Option<PathBuf>,
    /// The injection webhook with TLS (Istio: port 15017).
    pub webhook_address: SocketAddr,
    /// Metrics, readiness and debug endpoints (Istio: ports 15014 and 8080).
    pub monitoring_addresses: Vec<SocketAddr>,
    /// Whether a proxy must connect from the address of the pod that it names.
    pub check_peers: bool,
    /// Addresses from which tools may ask on behalf of any proxy, besides loopback: those of the own node.
    pub trusted_addresses: Vec<IpAddr>,
    /// What is added to pods.
    pub inject: InjectConfig,
}

/// Where a control plane listens.
#[derive(Debug, Clone)]
pub struct Addresses {
    /// Discovery without TLS.
    pub xds: SocketAddr,
    /// Discovery with TLS, and certificates for workloads.
    pub secure: SocketAddr,
    /// The injection webhook.
    pub webhook: SocketAddr,
    /// Metrics, readiness and debug endpoints.
    pub monitoring: Vec<SocketAddr>,
}

/// Why the control plane could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address is taken or not ours.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address, or the path of a unix socket.
        address: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// The mesh's settings cannot be read.
    #[error("configmap istio, key mesh: {0}")]
    MeshConfig(String),
    /// The mesh's trust domain is none.
    #[error("configmap istio, key mesh: trustDomain: {0}")]
    TrustDomain(#[from] SpiffeError),
    /// There is no way to reach the Kubernetes API.
    #[error("no Kubernetes API to work with: {0}")]
    Client(String),
}

/// A running control plane.
#[derive(Debug)]
pub struct Control {
    addresses: Addresses,
    world: Arc<World>,
    server: Server<ProxySource>,
    discovery: JoinHandle<()>,
    tasks: JoinSet<()>,
    _watches: JoinSet<()>,
}

impl Control {
    /// Starts everything. Returns as soon as the sockets are open: `/ready` tells when all objects have been read, and
    /// proxies wait until then.
    ///
    /// # Errors
    /// When a socket cannot be opened, or the mesh's settings are there but cannot be read.
    pub async fn start(mut config: ControlConfig) -> Result<Self, StartError> {
        let began = Instant::now();
        let xds = listen(config.xds_address).await?;
        let secure = listen(config.secure_address).await?;
        let socket = config.xds_socket.as_deref().map(listen_unix).transpose()?;
        let webhook = listen(config.webhook_address).await?;
        let mut monitoring = Vec::new();
        for address in &config.monitoring_addresses {
            monitoring.push(listen(*address).await?);
        }
        let address = |listener: &TcpListener| {
            listener.local_addr().map_err(|source| StartError::Listen {
                address: "a socket".to_owned(),
                source,
            })
        };
        let addresses = Addresses {
            xds: address(&xds)?,
            secure: address(&secure)?,
            webhook: address(&webhook)?,
            monitoring: monitoring.iter().map(address).collect::<Result<_, _>>()?,
        };

        let mesh = mesh_config(&config.client, &config.namespace).await?;
        let domain: TrustDomain = mesh.trust_domain.parse()?;
        config.inject.trust_domain.clone_from(&mesh.trust_domain);
        let world = Arc::new(World::new(mesh));
        let (sender, events) = mpsc::channel(watch::QUEUE);
        let watches = watch::start(&config.client, &sender);
        let secrets = Arc::new(GatewaySecrets::new(config.client.clone()));
        let source = ProxySource {
            world: Arc::clone(&world),
            check_peers: config.check_peers,
            trusted: config.trusted_addresses.clone(),
            pod_wait: POD_WAIT,
            authenticator: Authenticator::new(config.client.clone(), domain.clone()),
            secrets: Arc::clone(&secrets),
        };
        let server = Server::new(source, Limits::default());

        let discovery = tokio::spawn(serve_discovery(server.clone(), xds, socket));
        let mut tasks = JoinSet::new();
        tasks.spawn(engine::run(Arc::clone(&world), events));
        tasks.spawn(status::keep(
            Arc::clone(&world),
            config.client.clone(),
            secrets,
        ));
        tasks.spawn(gateway_deploy::keep(
            Arc::clone(&world),
            config.client.clone(),
            config.inject.clone(),
        ));
        for listener in monitoring {
            let world = Arc::clone(&world);
            tasks.spawn(http_server::serve(listener, None, move |request| {
                let reply = debug::answer(&world, &request);
                async move { reply }
            }));
        }
        tasks.spawn(serve_secure(
            Arc::clone(&world),
            config,
            domain,
            server.clone(),
            secure,
            webhook,
        ));
        let mut state = world.state();
        tasks.spawn(async move {
            if state.wait_for(|state| state.synced).await.is_ok() {
                tracing::info!(
                    milliseconds = began.elapsed().as_millis(),
                    "control plane ready"
                );
            }
        });
        Ok(Self {
            addresses,
            world,
            server,
            discovery,
            tasks,
            _watches: watches,
        })
    }

    /// Where it listens.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Waits until all objects have been read and proxies are served.
    pub async fn ready(&self) {
        // Fails only when the engine has gone, and with it the wait's purpose.
        let _ = self.world.state().wait_for(|state| state.synced).await;
    }

    /// Ends all streams and closes all sockets.
    pub async fn stop(mut self) {
        self.server.stop();
        // Ends by itself within the server's grace, after every stream was told.
        if let Err(error) = (&mut self.discovery).await {
            tracing::error!(%error, "discovery ended badly");
        }
        self.tasks.shutdown().await;
    }
}

/// Runs the control plane until `shutdown` resolves.
///
/// # Errors
/// As [`Control::start`].
pub async fn run(
    config: ControlConfig,
    shutdown: impl Future<Output = ()>,
) -> Result<(), StartError> {
    let control = Control::start(config).await?;
    shutdown.await;
    control.stop().await;
    Ok(())
}

async fn serve_discovery(
    server: Server<ProxySource>,
    tcp: TcpListener,
    socket: Option<UnixListener>,
) {
    let over_unix = async {
        match socket {
            Some(socket) => server.serve_unix(socket).await,
            None => Ok(()),
        }
    };
    let (over_tcp, over_unix) = tokio::join!(server.serve_tcp(tcp), over_unix);
    for error in [over_tcp.err(), over_unix.err()].into_iter().flatten() {
        tracing::error!(%error, "discovery ended");
    }
}

/// Gets the authority, then serves what needs certificates. The API server retries admission, and proxies connect
/// again, for the moment that this takes.
async fn serve_secure(
    world: Arc<World>,
    config: ControlConfig,
    domain: TrustDomain,
    server: Server<ProxySource>,
    secure: TcpListener,
    webhook: TcpListener,
) {
    let authority = Arc::new(authority(&config, &domain).await);
    let client = config.client;
    let inject = Arc::new(config.inject);
    let roots = authority.roots();
    let validator = webhook::validator(&config.namespace);
    let bundle = webhook::keep_bundle(client.clone(), &roots, webhook::INJECTOR, &validator);
    let roots = keep_root_certificate(client.clone(), authority.roots());
    let of_webhook = Arc::clone(&authority);
    let acceptor = move || TlsAcceptor::from(of_webhook.webhook());
    let webhooks = http_server::serve(webhook, Some(Arc::new(acceptor)), move |request| {
        webhook::answer(Arc::clone(&world), Arc::clone(&inject), request)
    });
    let certificates = CertificateService::new(
        Arc::clone(&authority),
        Authenticator::new(client, domain),
        Lifetimes::default(),
    );
    let of_discovery = Arc::clone(&authority);
    let tls = Arc::new(move || of_discovery.discovery());
    let discovery = async {
        let routes = Routes::new(certificates);
        if let Err(error) = server.serve_tls(secure, tls, routes).await {
            tracing::error!(%error, "discovery over TLS ended");
        }
    };
    tokio::join!(bundle, roots, webhooks, discovery, authority.renew());
}

/// The mesh's authority, as soon as the API gives it.
async fn authority(config: &ControlConfig, domain: &TrustDomain) -> Authority {
    let service = format!("istiod.{}", config.namespace);
    let names = vec![
        format!("{service}.svc"),
        service.clone(),
        format!("{service}.svc.cluster.local"),
        // For a webhook configuration that names a URL on the same host.
        "localhost".to_owned(),
    ];
    loop {
        match identity::load(&config.client, &config.namespace, domain, names.clone()).await {
            Ok(found) => return found,
            Err(error) => {
                tracing::warn!(%error, "no certificate authority yet");
                tokio::time::sleep(RETRY * 5).await;
            }
        }
    }
}

/// The settings in the mesh's ConfigMap; Istio's defaults when there is none. Waits for the API to answer.
async fn mesh_config(client: &Client, namespace: &str) -> Result<MeshConfig, StartError> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let (name, key) = MESH_CONFIG;
    let found = loop {
        match api.get_opt(name).await {
            Ok(found) => break found,
            Err(error @ kube::Error::Api(_)) => {
                return Err(StartError::MeshConfig(error.to_string()));
            }
            Err(error) => {
                tracing::warn!(%error, "the Kubernetes API does not answer yet");
                tokio::time::sleep(RETRY).await;
            }
        }
    };
    let text = found
        .and_then(|map| map.data)
        .and_then(|mut data| data.remove(key));
    text.map_or_else(
        || Ok(MeshConfig::default()),
        |text| parse_mesh_config(&text),
    )
}

fn parse_mesh_config(text: &str) -> Result<MeshConfig, StartError> {
    serde_saphyr::from_str(text).map_err(|error| StartError::MeshConfig(error.to_string()))
}

async fn listen(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| StartError::Listen {
            address: address.to_string(),
            source,
        })
}

fn listen_unix(path: &std::path::Path) -> Result<UnixListener, StartError> {
    use std::os::unix::fs::PermissionsExt as _;
    let failed = |source| StartError::Listen {
        address: path.display().to_string(),
        source,
    };
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(listener)
}
