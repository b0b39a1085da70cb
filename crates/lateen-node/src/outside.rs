//! The joint between the process inside the namespaces and the one outside: the inner one has no
//! way to the host's network, so it asks the outer one for sockets and gets open descriptors.

pub(crate) mod message;
mod resolver;
mod server;

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::UnixStream;
use tokio::sync::{oneshot, watch};

use message::{FromInside, FromOutside, LONGEST, Wish};

pub use server::OutsideServer;

/// Most wishes that may wait for an answer at once.
const MOST_WAITING: usize = 1024;

/// The inner process's handle to the outer one. Clones share the connection.
#[derive(Clone, Debug)]
pub struct Outside {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    channel: UnixStream,
    next: AtomicU64,
    waiting: Mutex<HashMap<u64, oneshot::Sender<io::Result<OwnedFd>>>>,
    stop: watch::Sender<bool>,
}

impl Outside {
    /// Starts to talk over the channel that [`crate::enter::inside`] returned. Needs a tokio
    /// runtime.
    ///
    /// # Errors
    /// When the descriptor cannot be watched by the runtime.
    pub fn start(channel: OwnedFd) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            channel: watch_descriptor(channel)?,
            next: AtomicU64::new(1),
            waiting: Mutex::default(),
            stop: watch::Sender::new(false),
        });
        tokio::spawn(receive(shared.clone()));
        Ok(Self { shared })
    }

    /// A TCP socket that listens in the host's network (non-blocking, close-on-exec).
    ///
    /// # Errors
    /// What binding gave outside (`AddrInUse`, `PermissionDenied` for a low port, ...), or
    /// `BrokenPipe` when the outer process is gone.
    pub async fn listen(&self, address: SocketAddr) -> io::Result<TcpListener> {
        self.ask(Wish::Listen(address)).await.map(TcpListener::from)
    }

    /// A Unix socket that listens at a path of the host, with this mode. A stale socket file is
    /// replaced.
    ///
    /// # Errors
    /// As [`Outside::listen`].
    pub async fn listen_unix(&self, path: &Path, mode: u32) -> io::Result<UnixListener> {
        let wish = Wish::ListenUnix {
            path: path.to_owned(),
            mode,
        };
        self.ask(wish).await.map(UnixListener::from)
    }

    /// A TCP connection made in the host's network (non-blocking). Gives up after 10 s.
    ///
    /// # Errors
    /// What connecting gave outside, or `BrokenPipe` when the outer process is gone.
    pub async fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        self.ask(Wish::Connect(address)).await.map(TcpStream::from)
    }

    /// A TCP connection to a host by name (as the host's resolver knows it) or address, made in the host's network
    /// (non-blocking). Gives up after 10 s.
    ///
    /// # Errors
    /// As [`Outside::connect`]; `HostUnreachable` for a name that is not known.
    pub async fn connect_name(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        let host = host.to_owned();
        let wish = Wish::ConnectName { host, port };
        self.ask(wish).await.map(TcpStream::from)
    }

    /// A socket for questions to the host's `n`th nameserver (non-blocking, connected).
    ///
    /// # Errors
    /// `NotFound` when the host has no more; else as [`Outside::connect`].
    pub async fn nameserver(&self, n: usize) -> io::Result<UdpSocket> {
        let wish = Wish::Nameserver { n, stream: false };
        self.ask(wish).await.map(UdpSocket::from)
    }

    /// A connection to the host's `n`th nameserver (non-blocking).
    ///
    /// # Errors
    /// As [`Outside::nameserver`].
    pub async fn nameserver_stream(&self, n: usize) -> io::Result<TcpStream> {
        let wish = Wish::Nameserver { n, stream: true };
        self.ask(wish).await.map(TcpStream::from)
    }

    /// Hands `news` to the outer process (see [`OutsideServer::serve`]): progress, failures,
    /// addresses to show.
    ///
    /// # Errors
    /// `BrokenPipe` when the outer process is gone; `InvalidInput` when the news is too long.
    pub async fn tell(&self, news: Value) -> io::Result<()> {
        send(&self.shared.channel, &FromInside::Tell(news), None).await
    }

    /// Returns when the outer process asks this one to end in good order, or is gone.
    pub async fn asked_to_stop(&self) {
        let mut stop = self.shared.stop.subscribe();
        // The sender lives in `self`, so the wait cannot fail.
        let _ = stop.wait_for(|stop| *stop).await;
    }

    async fn ask(&self, wish: Wish) -> io::Result<OwnedFd> {
        let number = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        {
            let mut waiting = self.shared.waiting.lock();
            if waiting.len() >= MOST_WAITING {
                return Err(io::Error::other(
                    "too many sockets are being asked for at once",
                ));
            }
            waiting.insert(number, answer);
        }
        let sent = send(
            &self.shared.channel,
            &FromInside::Ask { number, wish },
            None,
        )
        .await;
        if let Err(error) = sent {
            self.shared.waiting.lock().remove(&number);
            return Err(error);
        }
        answered
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into()))
    }
}

/// Delivers answers until the channel closes.
async fn receive(shared: Arc<Shared>) {
    let mut buffer = vec![0; LONGEST];
    loop {
        match receive_message(&shared.channel, &mut buffer).await {
            Ok(Some((FromOutside::Answer { number, errno }, descriptor))) => {
                let answer = match (errno, descriptor) {
                    (Some(errno), _) => Err(io::Error::from_raw_os_error(errno)),
                    (None, Some(descriptor)) => Ok(descriptor),
                    (None, None) => Err(io::ErrorKind::InvalidData.into()),
                };
                if let Some(waiting) = shared.waiting.lock().remove(&number) {
                    // The asker may have given up; then the descriptor is closed here.
                    let _ = waiting.send(answer);
                }
            }
            Ok(Some((FromOutside::Stop, _))) => {
                shared.stop.send_replace(true);
            }
            Ok(Some((other, _))) => tracing::warn!(?other, "unexpected message from outside"),
            Ok(None) | Err(_) => {
                shared.stop.send_replace(true);
                shared.waiting.lock().clear();
                return;
            }
        }
    }
}

/// Puts the channel under the runtime's watch. tokio has no type for `SOCK_SEQPACKET`; its stream
/// type serves, as only this module's own send and receive touch the socket.
pub(crate) fn watch_descriptor(channel: OwnedFd) -> io::Result<UnixStream> {
    let channel = std::os::unix::net::UnixStream::from(channel);
    channel.set_nonblocking(true)?;
    UnixStream::from_std(channel)
}

/// Sends one message, with at most one descriptor.
pub(crate) async fn send<M: Serialize>(
    channel: &UnixStream,
    message: &M,
    descriptor: Option<&OwnedFd>,
) -> io::Result<()> {
    let bytes = encode(message)?;
    let descriptors: Vec<_> = descriptor
        .iter()
        .map(|descriptor| descriptor.as_fd())
        .collect();
    channel
        .async_io(tokio::io::Interest::WRITABLE, || {
            lateen_sys::socket::send_with_descriptors(channel.as_fd(), &bytes, &descriptors)
        })
        .await
}

/// Receives one message and the descriptor that came with it; nothing when the peer closed.
pub(crate) async fn receive_message<M: DeserializeOwned>(
    channel: &UnixStream,
    buffer: &mut [u8],
) -> io::Result<Option<(M, Option<OwnedFd>)>> {
    let (length, mut descriptors) = channel
        .async_io(tokio::io::Interest::READABLE, || {
            lateen_sys::socket::receive_with_descriptors(channel.as_fd(), buffer)
        })
        .await?;
    if length == 0 {
        return Ok(None);
    }
    Ok(Some((decode(&buffer[..length])?, descriptors.pop())))
}

/// A message as bytes; refuses what the other side would not accept.
pub(crate) fn encode<M: Serialize>(message: &M) -> io::Result<Vec<u8>> {
    let bytes = serde_json::to_vec(message).map_err(io::Error::other)?;
    if bytes.len() > LONGEST {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "message too long",
        ));
    }
    Ok(bytes)
}

/// Bytes as a message.
pub(crate) fn decode<M: DeserializeOwned>(bytes: &[u8]) -> io::Result<M> {
    serde_json::from_slice(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests;
