//! Opening the transport to the server.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint, Error, Uri};

use super::{PrepareSocket, Security, Target};

/// Time for a connection to one address.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A silent peer is noticed after the interval and the timeout together.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));

/// Connects to the target: over TCP with TLS when `security` says so. `prepare` is called with every TCP socket before
/// it is connected.
///
/// # Errors
/// When no address of the target can be reached, or its certificate is not the expected one.
pub async fn connect(
    target: &Target,
    prepare: Option<PrepareSocket>,
    security: Option<&Security>,
) -> Result<Channel, Error> {
    let uri = match target {
        Target::Tcp { host, port } if host.contains(':') => format!("http://[{host}]:{port}"),
        Target::Tcp { host, port } => format!("http://{host}:{port}"),
        Target::Unix(_) => "http://localhost".to_owned(),
    };
    let endpoint = Endpoint::from_shared(uri)?
        .http2_keep_alive_interval(KEEP_ALIVE.0)
        .keep_alive_timeout(KEEP_ALIVE.1)
        .keep_alive_while_idle(true);
    let (target, security) = (target.clone(), security.cloned());
    let connector = tower::service_fn(move |_: Uri| {
        let (target, prepare) = (target.clone(), prepare.clone());
        let security = security.clone();
        async move {
            match target {
                Target::Tcp { host, port } => {
                    let stream = tcp(&host, port, prepare).await?;
                    match security {
                        None => Ok(Io::Tcp(stream)),
                        Some(security) => tls(&host, stream, &security).await,
                    }
                }
                Target::Unix(path) => UnixStream::connect(path).await.map(Io::Unix),
            }
            .map(TokioIo::new)
        }
    });
    endpoint.connect_with_connector(connector).await
}

/// Tries every address of the host in turn.
async fn tcp(host: &str, port: u16, prepare: Option<PrepareSocket>) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, format!("{host} has no address"));
    for address in tokio::net::lookup_host((host, port)).await? {
        let socket = if address.is_ipv4() {
            TcpSocket::new_v4()
        } else {
            TcpSocket::new_v6()
        }?;
        if let Some(prepare) = &prepare {
            prepare(socket.as_fd())?;
        }
        socket.set_nodelay(true)?;
        match tokio::time::timeout(CONNECT_TIMEOUT, socket.connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

/// Encrypts a connection to the host.
async fn tls(host: &str, stream: TcpStream, security: &Security) -> io::Result<Io> {
    let name = security.server_name.as_deref().unwrap_or(host);
    let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
    let handshake = TlsConnector::from((security.tls)()?).connect(name, stream);
    let stream = tokio::time::timeout(CONNECT_TIMEOUT, handshake).await??;
    Ok(Io::Tls(Box::new(stream)))
}

/// Any kind of stream.
enum Io {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Unix(UnixStream),
}

/// Forwards a poll to whichever stream it is.
macro_rules! forward {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Io::Tcp($stream) => $call,
            Io::Tls($stream) => $call,
            Io::Unix($stream) => $call,
        }
    };
}

impl tokio::io::AsyncRead for Io {
    fn poll_read(
        self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        forward!(self, stream => std::pin::Pin::new(stream).poll_read(context, buffer))
    }
}

impl tokio::io::AsyncWrite for Io {
    fn poll_write(
        self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<io::Result<usize>> {
        forward!(self, stream => std::pin::Pin::new(stream).poll_write(context, bytes))
    }

    fn poll_flush(
        self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        forward!(self, stream => std::pin::Pin::new(stream).poll_flush(context))
    }

    fn poll_shutdown(
        self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        forward!(self, stream => std::pin::Pin::new(stream).poll_shutdown(context))
    }
}
