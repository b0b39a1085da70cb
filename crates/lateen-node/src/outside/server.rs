//! The outer process's half: opens sockets in the host's network on request.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nix::libc;
use serde_json::Value;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{ToSocketAddrs, UnixStream};

use super::message::{FromInside, FromOutside, LONGEST, Wish};
use super::resolver;
use super::{receive_message, send, watch_descriptor};

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Connections that wait to be accepted on a listener.
const BACKLOG: i32 = 1024;

/// Answers what the inner process asks for. Made by [`crate::enter::start`].
#[derive(Debug)]
pub struct OutsideServer {
    channel: OwnedFd,
    nameservers: Option<Vec<SocketAddr>>,
}

impl OutsideServer {
    /// Serves the other end of this channel.
    pub fn new(channel: OwnedFd) -> Self {
        Self {
            channel,
            nameservers: None,
        }
    }

    /// Names that are not the mesh's are asked of these, instead of those that `/etc/resolv.conf` names.
    pub fn with_nameservers(mut self, nameservers: Vec<SocketAddr>) -> Self {
        self.nameservers = Some(nameservers);
        self
    }

    /// A handle to ask the inner process to stop, usable while [`OutsideServer::serve`] runs.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn stopper(&self) -> io::Result<Stopper> {
        Ok(Stopper {
            channel: self.channel.try_clone()?,
        })
    }

    /// Serves until the inner process ends. `told` gets everything that the inner process
    /// [tells](super::Outside::tell). Needs a tokio runtime.
    ///
    /// # Errors
    /// When the channel breaks; its orderly end is not an error.
    pub async fn serve(self, mut told: impl FnMut(Value)) -> io::Result<()> {
        let channel = Arc::new(watch_descriptor(self.channel)?);
        let nameservers = self.nameservers.map(Arc::new);
        let mut buffer = vec![0; LONGEST];
        loop {
            match receive_message(&channel, &mut buffer).await {
                Ok(Some((FromInside::Ask { number, wish }, _))) => {
                    tokio::spawn(answer(channel.clone(), number, wish, nameservers.clone()));
                }
                Ok(Some((FromInside::Tell(news), _))) => told(news),
                Ok(Some((other, _))) => tracing::warn!(?other, "unexpected message from inside"),
                Ok(None) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }
}

/// Asks the inner process to end in good order.
#[derive(Debug)]
pub struct Stopper {
    channel: OwnedFd,
}

impl Stopper {
    /// Sends the request; does not wait for anything.
    ///
    /// # Errors
    /// `BrokenPipe` when the inner process is gone already.
    pub fn stop(&self) -> io::Result<()> {
        let message = super::encode(&FromOutside::Stop)?;
        lateen_sys::socket::send_with_descriptors(self.channel.as_fd(), &message, &[])
    }
}

async fn answer(
    channel: Arc<UnixStream>,
    number: u64,
    wish: Wish,
    nameservers: Option<Arc<Vec<SocketAddr>>>,
) {
    let made = match wish {
        Wish::Listen(address) => listen(address),
        Wish::ListenUnix { path, mode } => listen_unix(&path, mode),
        Wish::Connect(address) => connect(address).await,
        Wish::ConnectName { host, port } => match connect((host.as_str(), port)).await {
            // A resolver's failure has no number.
            Err(error) if error.raw_os_error().is_none() => {
                Err(io::Error::from_raw_os_error(libc::EHOSTUNREACH))
            }
            connected => connected,
        },
        Wish::Nameserver { n, stream } => {
            // Read each time: laptops change networks.
            let chosen = match nameservers {
                Some(chosen) => chosen.get(n).copied(),
                None => resolver::nameservers().get(n).copied(),
            };
            match chosen {
                Some(address) if stream => connect(address).await,
                Some(address) => datagrams(address),
                None => Err(io::Error::from_raw_os_error(libc::ENOENT)),
            }
        }
    };
    let (errno, descriptor) = match made {
        Ok(descriptor) => (None, Some(descriptor)),
        // Errors of the operating system carry a number; others only come from time limits.
        Err(error) => (Some(error.raw_os_error().unwrap_or(libc::ETIMEDOUT)), None),
    };
    let message = FromOutside::Answer { number, errno };
    if let Err(error) = send(&channel, &message, descriptor.as_ref()).await {
        tracing::debug!(%error, "the inner process did not take an answer");
    }
}

/// A listening socket. `SO_REUSEADDR` lets a mesh come back to the ports of the one before it
/// while old connections of that one still linger.
fn listen(address: SocketAddr) -> io::Result<OwnedFd> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn listen_unix(path: &Path, mode: u32) -> io::Result<OwnedFd> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Nobody may connect between bind and chmod: the socket appears under a name that only this
    // user's folder shows, is restricted, and then moves to its place.
    let hidden = path.with_extension(format!("new-{}", std::process::id()));
    let listener = UnixListener::bind(&hidden)?;
    fs::set_permissions(&hidden, fs::Permissions::from_mode(mode))?;
    fs::rename(&hidden, path)?;
    listener.set_nonblocking(true)?;
    Ok(listener.into())
}

async fn connect(address: impl ToSocketAddrs) -> io::Result<OwnedFd> {
    let connecting = tokio::net::TcpStream::connect(address);
    match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(stream) => Ok(stream?.into_std()?.into()),
        Err(_) => Err(io::Error::from_raw_os_error(libc::ETIMEDOUT)),
    }
}

/// A socket whose datagrams go to, and come from, this address alone.
fn datagrams(address: SocketAddr) -> io::Result<OwnedFd> {
    let any: SocketAddr = if address.is_ipv6() {
        (Ipv6Addr::UNSPECIFIED, 0).into()
    } else {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(address)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}
