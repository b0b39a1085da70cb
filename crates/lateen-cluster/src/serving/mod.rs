//! HTTPS: from listeners to the request handler.

mod certificates;
mod guard;

use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use certificates::CertificateError;
pub(crate) use certificates::{Certificates, read, write_private};
pub(crate) use guard::Guard;

use crate::server::{Api, Body, BodyError};

/// How long a client may take for the TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How long a client may take to send the head of a request.
const HEAD: Duration = Duration::from_secs(30);

/// How long requests may take to finish when the server stops.
const DRAIN: Duration = Duration::from_secs(5);

/// Connections at a time, of all listeners together.
const CONNECTIONS: usize = 4096;

/// What all connections share.
pub(crate) struct Front {
    pub(crate) api: Arc<Api>,
    pub(crate) guard: Guard,
    pub(crate) tls: TlsAcceptor,
    pub(crate) stopping: CancellationToken,
    connections: Arc<Semaphore>,
    open: TaskTracker,
}

impl Front {
    pub(crate) fn new(
        api: Arc<Api>,
        guard: Guard,
        tls: TlsAcceptor,
        stopping: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self {
            api,
            guard,
            tls,
            stopping,
            connections: Arc::new(Semaphore::new(CONNECTIONS)),
            open: TaskTracker::new(),
        })
    }

    /// Serves `listener` until the server stops.
    pub(crate) async fn serve(self: Arc<Self>, listener: TcpListener) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.stopping.cancelled() => return,
            };
            let Ok(permit) = self.connections.clone().acquire_owned().await else {
                return;
            };
            match accepted {
                Ok((stream, _)) => {
                    let front = self.clone();
                    self.open.spawn(async move {
                        front.connection(stream).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    // Out of descriptors: waiting is the only thing that helps.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    /// Waits until the requests that were under way when the server stopped are answered, but not for long.
    pub(crate) async fn drain(&self) {
        self.open.close();
        if tokio::time::timeout(DRAIN, self.open.wait()).await.is_err() {
            tracing::warn!("some connections did not end in time");
        }
    }

    async fn connection(self: Arc<Self>, stream: TcpStream) {
        // Small answers must not wait for the client's acknowledgement; failing to ask for it costs only time.
        drop(stream.set_nodelay(true));
        let handshake = tokio::time::timeout(HANDSHAKE, self.tls.accept(stream));
        let stream = match handshake.await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                tracing::debug!(%error, "no TLS connection");
                return;
            }
            Err(_) => return,
        };
        let stopping = self.stopping.clone();
        let service = service_fn(move |request| {
            let front = self.clone();
            async move { Ok::<_, std::convert::Infallible>(front.answer(request).await) }
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(1000)
            .keep_alive_interval(Some(Duration::from_secs(30)));
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = stopping.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection ended early");
        }
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        if let Err(status) = self.guard.check(&request) {
            return crate::server::refuse(&status);
        }
        let user = match self
            .api
            .tokens
            .authenticate(request.headers(), &self.api.store)
        {
            Ok(user) => user,
            Err(status) => return crate::server::refuse(&status),
        };
        self.api.clone().handle(request.map(boxed), user).await
    }
}

fn boxed(body: Incoming) -> Body {
    body.map_err(BodyError::new).boxed_unsync()
}
