//! The server's socket with TLS, shared with other gRPC services.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::Routes;
use tonic::transport::server::Connected;

use super::caller::SecureConnection;
use super::listen::ServeError;
use super::{Peer, Server, Source};

/// The configuration for the next handshake. Asked for each connection, so that certificates can be replaced.
pub type TlsSource = Arc<dyn Fn() -> Arc<ServerConfig> + Send + Sync>;

/// Handshakes at once; more wait in the socket's queue.
const HANDSHAKES: usize = 256;
/// How long a client may take for its handshake.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// How long to wait after the socket failed, such as for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl<S: Source> Server<S> {
    /// Serves on a TCP socket with TLS until [`Server::stop`], beside other services of the same socket.
    ///
    /// # Errors
    /// When the transport fails as a whole; a connection that fails is only closed.
    pub async fn serve_tls(
        &self,
        listener: TcpListener,
        tls: TlsSource,
        others: Routes,
    ) -> Result<(), ServeError> {
        let (ready, incoming) = mpsc::channel(1);
        let accept = accept(listener, tls, ready);
        let served = self
            .router_beside(others)
            .serve_with_incoming_shutdown(ReceiverStream::new(incoming), self.stopped());
        tokio::select! {
            served = self.until_stopped(served) => served,
            () = accept => Ok(()),
        }
    }
}

/// Accepts for ever. Handshakes run beside each other, so that a slow client holds nobody up.
async fn accept(listener: TcpListener, tls: TlsSource, ready: mpsc::Sender<io::Result<Secured>>) {
    let permits = Arc::new(Semaphore::new(HANDSHAKES));
    loop {
        // The semaphore is never closed.
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
            return;
        };
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a discovery connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (acceptor, ready) = (TlsAcceptor::from(tls()), ready.clone());
        tokio::spawn(async move {
            let _permit = permit;
            let _ = stream.set_nodelay(true);
            match tokio::time::timeout(HANDSHAKE_TIME, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => {
                    let secured = Secured::new(stream, Peer::Tcp(address));
                    // Fails when the server has stopped, which closes the connection.
                    let _ = ready.send(Ok(secured)).await;
                }
                Ok(Err(error)) => tracing::debug!(%address, %error, "TLS handshake failed"),
                Err(_) => tracing::debug!(%address, "TLS handshake timed out"),
            }
        });
    }
}

/// An encrypted connection, and who is at its other end.
struct Secured {
    stream: TlsStream<TcpStream>,
    connection: SecureConnection,
}

impl Secured {
    fn new(stream: TlsStream<TcpStream>, peer: Peer) -> Self {
        let shown = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let certificates = shown.iter().map(|one| one.clone().into_owned()).collect();
        Self {
            connection: SecureConnection { peer, certificates },
            stream,
        }
    }
}

impl Connected for Secured {
    type ConnectInfo = SecureConnection;

    fn connect_info(&self) -> SecureConnection {
        self.connection.clone()
    }
}

impl AsyncRead for Secured {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Secured {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
