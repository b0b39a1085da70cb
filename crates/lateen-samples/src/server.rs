//! A small HTTP server that all workloads share: HTTP/1.1 and HTTP/2, limits on what a client may hold, and a graceful stop.

use std::convert::Infallible;
use std::future::Future;
use std::io::Write;
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;

use crate::Error;
use crate::respond::{self, FullResponse};

/// Largest request body that a workload reads, in bytes.
const BODY_LIMIT: usize = 1 << 20;

/// How long a client may take to send a body.
const BODY_WITHIN: Duration = Duration::from_secs(60);

/// How long a connection may be idle, or take to send the head of a request.
const HEAD_WITHIN: Duration = Duration::from_secs(30);

/// Connections served at once; further ones wait in the listen queue.
const CONNECTIONS: usize = 2048;

/// Requests at once on one HTTP/2 connection.
const STREAMS: u32 = 256;

/// How long open requests may take to end once the process was asked to stop: longer than the longest deliberate delay.
pub(crate) const STOP_WITHIN: Duration = Duration::from_secs(12);

/// A request with its body read.
pub(crate) type FullRequest = Request<Bytes>;

/// Who sent a request; an extension of every [`FullRequest`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// Serves `handler` on `port` of all addresses until SIGTERM or SIGINT.
pub(crate) async fn serve<H, F>(name: &str, port: u16, handler: H) -> Result<(), Error>
where
    H: Fn(FullRequest) -> F + Send + Sync + 'static,
    F: Future<Output = FullResponse> + Send + 'static,
{
    let (listener, stop) = (listen(name, port)?, asked_to_stop(name)?);
    log(&format!("{name}: listening on port {port}"));
    run(listener, handler, stop).await;
    Ok(())
}

/// Serves `handler` on a socket until `stop` is done, then lets open requests end.
pub(crate) async fn run<H, F>(listener: TcpListener, handler: H, stop: impl Future<Output = ()>)
where
    H: Fn(FullRequest) -> F + Send + Sync + 'static,
    F: Future<Output = FullResponse> + Send + 'static,
{
    let handler = Arc::new(handler);
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let open = GracefulShutdown::new();
    tokio::pin!(stop);
    loop {
        let (stream, peer, slot) = tokio::select! {
            accepted = accept(&listener, &slots) => accepted,
            () = &mut stop => break,
        };
        // Without this, small answers wait for the client's delayed acknowledgement.
        let _ = stream.set_nodelay(true);
        let handler = handler.clone();
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(Peer(peer));
            answer(handler.clone(), request)
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_WITHIN)
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS);
        let connection = open.watch(
            builder
                .serve_connection(TokioIo::new(stream), service)
                .into_owned(),
        );
        tokio::spawn(async move {
            // A connection that breaks is the client's affair.
            let _ = connection.await;
            drop(slot);
        });
    }
    drop(listener);
    let _ = tokio::time::timeout(STOP_WITHIN, open.shutdown()).await;
}

/// The next connection, once there is room for one.
pub(crate) async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> (
    tokio::net::TcpStream,
    SocketAddr,
    Option<tokio::sync::OwnedSemaphorePermit>,
) {
    // Never closed, so there is always a permit in the end.
    let slot = slots.clone().acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => return (stream, peer, slot),
            // Out of descriptors, or the client was gone before it was served: neither ends the server.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// Done when the process gets SIGTERM or SIGINT.
pub(crate) fn asked_to_stop(name: &str) -> Result<impl Future<Output = ()>, Error> {
    let start_error = |source| Error::Start {
        name: name.to_owned(),
        source,
    };
    let mut terminate = signal(SignalKind::terminate()).map_err(start_error)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(start_error)?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Writes a line of the workload's log. A log that nobody reads any more does not end the workload.
pub(crate) fn log(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

async fn answer<H, F>(
    handler: Arc<H>,
    request: Request<Incoming>,
) -> Result<FullResponse, Infallible>
where
    H: Fn(FullRequest) -> F,
    F: Future<Output = FullResponse>,
{
    let (parts, body) = request.into_parts();
    let body = tokio::time::timeout(BODY_WITHIN, Limited::new(body, BODY_LIMIT).collect());
    Ok(match body.await {
        Ok(Ok(body)) => handler(Request::from_parts(parts, body.to_bytes())).await,
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => respond::text(
            StatusCode::PAYLOAD_TOO_LARGE,
            "the body is larger than 1 MiB\n",
        ),
        Ok(Err(_)) => respond::text(StatusCode::BAD_REQUEST, "the body ended early\n"),
        Err(_) => respond::text(StatusCode::REQUEST_TIMEOUT, "the body came too slowly\n"),
    })
}

/// Opens `port` for IPv4 and IPv6, or for IPv4 alone where the machine has no IPv6.
pub(crate) fn listen(name: &str, port: u16) -> Result<TcpListener, Error> {
    let open = |domain, address: SocketAddr| -> std::io::Result<TcpListener> {
        let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        if domain == Domain::IPV6 {
            socket.set_only_v6(false)?;
        }
        socket.bind(&address.into())?;
        socket.listen(1024)?;
        socket.set_nonblocking(true)?;
        TcpListener::from_std(socket.into())
    };
    open(Domain::IPV6, (Ipv6Addr::UNSPECIFIED, port).into())
        .or_else(|_| open(Domain::IPV4, SocketAddr::from(([0, 0, 0, 0], port))))
        .map_err(|source| Error::Listen {
            name: name.to_owned(),
            port,
            source,
        })
}
