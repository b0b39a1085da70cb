//! A small HTTP server that all workloads share: HTTP/1.1 and HTTP/2, stopping gracefully.

use std::convert::Infallible;
use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::Error;

/// Largest request body that a workload reads, in bytes.
const BODY_LIMIT: usize = 1 << 20;

/// How long open requests may take to end once the process was asked to stop.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// A request with its body read.
pub(crate) type FullRequest = Request<Bytes>;
/// An answer.
pub(crate) type FullResponse = Response<Full<Bytes>>;

/// Serves `handler` on `port` of all addresses until SIGTERM or SIGINT.
pub(crate) async fn serve<H>(name: &str, port: u16, handler: H) -> Result<(), Error>
where
    H: Fn(FullRequest) -> FullResponse + Send + Sync + 'static,
{
    let listen_error = |source| Error::Listen {
        name: name.to_owned(),
        port,
        source,
    };
    let listener = listen(port).map_err(listen_error)?;
    let start_error = |source| Error::Start {
        name: name.to_owned(),
        source,
    };
    let mut terminate = signal(SignalKind::terminate()).map_err(start_error)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(start_error)?;
    println!("{name}: listening on port {port}");

    let handler = std::sync::Arc::new(handler);
    let open = GracefulShutdown::new();
    loop {
        let (stream, _) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                // Out of descriptors, or the client was gone before it was served: neither ends the server.
                Err(_) => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    continue;
                }
            },
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        };
        // Without this, small answers wait for the client's delayed acknowledgement.
        let _ = stream.set_nodelay(true);
        let handler = handler.clone();
        let service = service_fn(move |request| answer(handler.clone(), request));
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(Duration::from_secs(30));
        let connection = open.watch(
            builder
                .serve_connection(TokioIo::new(stream), service)
                .into_owned(),
        );
        tokio::spawn(async move {
            // A connection that breaks is the client's affair.
            let _ = connection.await;
        });
    }
    let _ = tokio::time::timeout(STOP_WITHIN, open.shutdown()).await;
    Ok(())
}

/// A plain text answer.
pub(crate) fn text(status: StatusCode, body: impl Into<String>) -> FullResponse {
    with_type(status, "text/plain; charset=utf-8", body.into().into())
}

/// A JSON answer.
pub(crate) fn json(status: StatusCode, value: &serde_json::Value) -> FullResponse {
    with_type(status, "application/json", value.to_string().into())
}

fn with_type(status: StatusCode, content_type: &'static str, body: Bytes) -> FullResponse {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

async fn answer<H>(
    handler: std::sync::Arc<H>,
    request: Request<Incoming>,
) -> Result<FullResponse, Infallible>
where
    H: Fn(FullRequest) -> FullResponse,
{
    let (parts, body) = request.into_parts();
    Ok(match Limited::new(body, BODY_LIMIT).collect().await {
        Ok(body) => handler(Request::from_parts(parts, body.to_bytes())),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => text(
            StatusCode::PAYLOAD_TOO_LARGE,
            "the body is larger than 1 MiB\n",
        ),
        Err(_) => text(StatusCode::BAD_REQUEST, "the body ended early\n"),
    })
}

/// Opens `port` for IPv4 and IPv6, or for IPv4 alone where the machine has no IPv6.
fn listen(port: u16) -> std::io::Result<TcpListener> {
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
}
