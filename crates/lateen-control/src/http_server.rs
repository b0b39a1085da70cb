//! A small HTTP server for the debug and webhook endpoints.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

/// The answer to a request.
pub(crate) type Reply = Response<Full<Bytes>>;

/// TLS for the next connection. Asked for each, so that certificates can be replaced.
pub(crate) type AcceptorSource = Arc<dyn Fn() -> TlsAcceptor + Send + Sync>;

/// Connections served at once, per socket.
const CONNECTIONS: usize = 512;
/// How long a client may take for its request head, or for the TLS handshake.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// How long to wait after the socket failed, such as for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves a socket for ever, with TLS where an acceptor is given.
pub(crate) async fn serve<F, R>(listener: TcpListener, tls: Option<AcceptorSource>, handle: F)
where
    F: Fn(Request<Incoming>) -> R + Send + Sync + 'static,
    R: Future<Output = Reply> + Send + 'static,
{
    let handle = Arc::new(handle);
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // The semaphore is never closed.
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (handle, tls) = (Arc::clone(&handle), tls.clone());
        tokio::spawn(async move {
            let _permit = permit;
            match tls {
                None => connection(stream, handle).await,
                Some(tls) => match tokio::time::timeout(HEAD_TIME, tls().accept(stream)).await {
                    Ok(Ok(stream)) => connection(stream, handle).await,
                    Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
                    Err(_) => tracing::debug!("TLS handshake timed out"),
                },
            }
        });
    }
}

async fn connection<S, F, R>(stream: S, handle: Arc<F>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Fn(Request<Incoming>) -> R + Send + Sync + 'static,
    R: Future<Output = Reply> + Send + 'static,
{
    let service = service_fn(move |request| {
        let handle = Arc::clone(&handle);
        async move { Ok::<_, Infallible>(handle(request).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(64);
    if let Err(error) = builder
        .serve_connection(TokioIo::new(stream), service)
        .await
    {
        tracing::debug!(%error, "connection ended");
    }
}

/// An answer in text.
pub(crate) fn text(status: StatusCode, body: impl Into<String>) -> Reply {
    typed(status, "text/plain; charset=utf-8", body.into())
}

/// An answer in JSON, indented for people.
pub(crate) fn json(value: &serde_json::Value) -> Reply {
    typed(StatusCode::OK, "application/json", format!("{value:#}\n"))
}

/// An answer of a content type.
pub(crate) fn typed(status: StatusCode, content_type: &'static str, body: String) -> Reply {
    let mut reply = Response::new(Full::new(Bytes::from(body)));
    *reply.status_mut() = status;
    reply
        .headers_mut()
        .insert(CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    reply
}
