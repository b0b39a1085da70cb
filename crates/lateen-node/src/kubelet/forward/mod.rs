//! `/portForward`: connections to ports of a pod, for a client outside.
//!
//! | client | speaks |
//! |---|---|
//! | kubectl 1.31 and later | SPDY in a WebSocket (`SPDY/3.1+portforward.k8s.io`) |
//! | kubectl before, client-go | SPDY (`portforward.k8s.io`) |
//! | kube-rs | a WebSocket with two channels for each port (`v4.channel.k8s.io`), one connection for each |

mod channels;
mod pairs;
mod tunnel;

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::sync::Arc;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use lateen_sys::namespace;
use tokio::net::{TcpSocket, TcpStream};

use super::upgrade::{Agreed, Link, Served};
use super::{Body, Query, text};
use crate::network::PodNetwork;
use crate::pods::shared::Shared;

/// The subprotocol in which SPDY is spoken within a WebSocket.
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";

const PROTOCOLS: Served = Served {
    websocket: &[TUNNEL, "v4.channel.k8s.io"],
    spdy: &["portforward.k8s.io"],
};

/// Answers the request for an upgrade; the connections then run by themselves.
pub(super) fn answer(
    request: Request<Incoming>,
    shared: &Arc<Shared>,
    query: &Query,
) -> Response<Body> {
    let Some(network) = shared.network() else {
        return text(StatusCode::BAD_REQUEST, "the pod has no network (yet)");
    };
    let agreed = match PROTOCOLS.agree(request.headers()) {
        Ok(agreed) => agreed,
        Err(message) => return text(StatusCode::BAD_REQUEST, message),
    };
    let channels = matches!(&agreed, Agreed::WebSocket { protocol, .. } if *protocol != TUNNEL);
    let ports = match channels::ports(query.all("ports")) {
        Ok(ports) => ports,
        Err(message) if channels => return text(StatusCode::BAD_REQUEST, message),
        Err(_) => Vec::new(),
    };
    let response = agreed.response();
    tokio::spawn(async move {
        match agreed.open(hyper::upgrade::on(request)).await {
            Ok(Link::Spdy(io)) => pairs::serve(io, network).await,
            Ok(Link::WebSocket(socket)) if channels => {
                channels::serve(*socket, network, ports).await;
            }
            Ok(Link::WebSocket(socket)) => pairs::serve(tunnel::open(*socket), network).await,
            Err(error) => tracing::debug!(%error, "port-forward: not upgraded"),
        }
    });
    response
}

/// A connection to a port of the pod, from within it: what listens on loopback only is reached, and no sidecar is passed.
///
/// # Errors
/// With what was tried and why it failed, as the client shows it.
async fn connect(network: &PodNetwork, port: u16) -> io::Result<TcpStream> {
    // A socket belongs to the namespace in which it was made, wherever it is used.
    let socket = namespace::in_network(network.namespace().as_fd(), TcpSocket::new_v4)?;
    let target = (Ipv4Addr::LOCALHOST, port).into();
    socket.connect(target).await.map_err(|error| {
        let message = format!("failed to connect to localhost:{port} inside the pod: {error}");
        io::Error::new(error.kind(), message)
    })
}
