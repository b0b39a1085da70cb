//! Sockets: listening per worker, connecting with the options of a cluster.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpSocket, TcpStream};

/// Connections that the kernel queues before they are accepted.
const BACKLOG: i32 = 4096;

/// Opens a listening socket whose port other workers can open, too.
pub(crate) fn listen(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    if address.is_ipv6() {
        // `::` and `0.0.0.0` are different listeners.
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// How to connect.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConnectOptions<'o> {
    pub(crate) timeout: Duration,
    /// Source address; used when it is of the destination's family.
    pub(crate) bind: Option<IpAddr>,
    pub(crate) keepalive: Option<&'o socket2::TcpKeepalive>,
    /// Marks the socket so that the pod's redirection lets it pass.
    pub(crate) mark: bool,
}

/// Connects; `TimedOut` when it takes longer than allowed.
pub(crate) async fn connect(
    address: SocketAddr,
    options: ConnectOptions<'_>,
) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    if options.mark {
        // Not being allowed to mark is fine: then the rules go by the user id.
        lateen_sys::mark_own_socket(&socket)?;
    }
    if let Some(keepalive) = options.keepalive {
        SockRef::from(&socket).set_tcp_keepalive(keepalive)?;
    }
    if let Some(ip) = options.bind.filter(|ip| ip.is_ipv4() == address.is_ipv4()) {
        socket.bind(SocketAddr::new(ip, 0))?;
    }
    let stream = tokio::time::timeout(options.timeout, socket.connect(address))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    stream.set_nodelay(true)?;
    Ok(stream)
}
