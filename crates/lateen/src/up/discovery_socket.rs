//! The discovery socket for tools: a unix socket that only its owner can open, carried to the control plane's pod.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Client;
use kube::api::{Api, ListParams};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpStream, UnixListener, UnixStream};

/// Name of the port in the control plane's Service that serves discovery without TLS.
const PORT_NAME: &str = "grpc-xds";

/// Why the socket cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot open the discovery socket {path}: {source}")]
pub(crate) struct SocketError {
    path: String,
    source: std::io::Error,
}

/// Opens the socket and serves it until the task is dropped.
pub(crate) fn open(path: &Path, client: Client) -> Result<(), SocketError> {
    let error = |source| SocketError {
        path: path.display().to_string(),
        source,
    };
    // A killed process leaves its socket behind.
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => return Err(error(source)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(error)?;
    // The folder is closed to others already; the mode says so on the socket itself.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(error)?;
    tokio::spawn(async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let client = client.clone();
                    tokio::spawn(async move {
                        if let Err(error) = carry(stream, client).await {
                            tracing::debug!(%error, "discovery connection ended");
                        }
                    });
                }
                // Out of descriptors: wait for some to be closed.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    });
    Ok(())
}

async fn carry(mut tool: UnixStream, client: Client) -> std::io::Result<()> {
    let address = control_plane(client)
        .await
        .ok_or_else(|| std::io::Error::other("the control plane has no ready endpoint"))?;
    let mut upstream = TcpStream::connect(address).await?;
    upstream.set_nodelay(true)?;
    copy_bidirectional(&mut tool, &mut upstream).await.map(drop)
}

/// The address of a ready control-plane pod.
async fn control_plane(client: Client) -> Option<SocketAddr> {
    let slices: Api<EndpointSlice> = Api::namespaced(client, "istio-system");
    let of_service = ListParams::default().labels("kubernetes.io/service-name=istiod");
    for slice in slices.list(&of_service).await.ok()?.items {
        let port = slice
            .ports
            .iter()
            .flatten()
            .find(|port| port.name.as_deref() == Some(PORT_NAME));
        let Some(port) = port.and_then(|port| u16::try_from(port.port?).ok()) else {
            continue;
        };
        let ready = slice.endpoints.iter().flatten().find(|endpoint| {
            endpoint
                .conditions
                .as_ref()
                .is_none_or(|conditions| conditions.ready.unwrap_or(true))
        });
        if let Some(address) = ready.and_then(|endpoint| endpoint.addresses.first()?.parse().ok()) {
            return Some(SocketAddr::new(address, port));
        }
    }
    None
}
