//! Traffic that leaves the mesh: TCP connections of pods to addresses that are not the mesh's own.
//!
//! The mesh's network has no way to the host's. A rule leads such connections here, and their other half is opened by the
//! process outside, where every user may open connections. So they come from the host, as with any address translation;
//! that the other side refuses is seen as a reset, since the client's handshake is over by then.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

use crate::Outside;
use crate::network::services::apply;
use crate::network::{Network, NetworkError};
use crate::relay::{relay, reset};

/// Name of the rules' table.
const TABLE: &str = "lateen-egress";

/// Addresses that are nowhere else: this host's, of links, of groups, and those that mean nothing (RFC 6890).
const NEVER: &str = "0.0.0.0/8, 127.0.0.0/8, 169.254.0.0/16, 224.0.0.0/3";

/// Pause after a failed accept (out of descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Takes the connections that leave.
#[derive(Debug)]
pub(crate) struct Egress {
    listener: TcpListener,
    outside: Outside,
}

impl Egress {
    /// Opens the listener and leads the traffic to it.
    ///
    /// # Errors
    /// When the kernel refuses a socket or the rule.
    pub(crate) async fn start(network: &Network, outside: Outside) -> Result<Self, NetworkError> {
        let node = network.node_address();
        let listener = TcpListener::bind((node, 0)).await;
        let listener = listener.map_err(NetworkError::Egress)?;
        let port = listener.local_addr().map_err(NetworkError::Egress)?.port();
        let own = format!("{}, {}", network.pod_range(), network.service_range());
        apply(&rules(node, port, &own)).await?;
        Ok(Self { listener, outside })
    }

    /// Carries connections, for ever.
    pub(crate) async fn serve(self) {
        loop {
            match self.listener.accept().await {
                Ok((client, _)) => {
                    tokio::spawn(carry(client, self.outside.clone()));
                }
                Err(error) => {
                    tracing::debug!(%error, "accept failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// The rules. They come after those of service addresses: what these have rewritten, they leave alone.
fn rules(node: Ipv4Addr, port: u16, own: &str) -> String {
    format!(
        "add table ip {TABLE}
delete table ip {TABLE}
add table ip {TABLE}
add chain ip {TABLE} prerouting {{ type nat hook prerouting priority -99; policy accept; }}
add rule ip {TABLE} prerouting meta l4proto tcp ip daddr != {{ {own}, {NEVER} }} dnat to {node}:{port}
"
    )
}

async fn carry(client: TcpStream, outside: Outside) {
    match connect(&client, &outside).await {
        Ok(server) => relay(client, server).await,
        Err(error) => {
            tracing::debug!(%error, "a connection that leaves the mesh failed");
            reset(&client);
        }
    }
}

/// The other half of a connection, to where the client wanted to go.
async fn connect(client: &TcpStream, outside: &Outside) -> io::Result<TcpStream> {
    let wanted: SocketAddr = lateen_sys::socket::original_dst(client)?;
    if wanted == client.local_addr()? {
        return Err(io::Error::other("it was made to the mesh's exit itself"));
    }
    TcpStream::from_std(outside.connect(wanted).await?)
}
