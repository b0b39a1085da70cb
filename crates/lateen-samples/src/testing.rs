//! Workloads over real sockets, for tests.

use std::future::Future;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

use crate::client::Upstream;
use crate::respond::FullResponse;
use crate::server::{self, FullRequest};

/// Serves `handler` on a port of its own until the test's runtime ends.
pub(crate) async fn start<H, F>(handler: H) -> Upstream
where
    H: Fn(FullRequest) -> F + Send + Sync + 'static,
    F: Future<Output = FullResponse> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(server::run(listener, handler, std::future::pending()));
    Upstream {
        host: "127.0.0.1".to_owned(),
        port,
    }
}

/// A place where nobody listens.
pub(crate) fn nobody() -> Upstream {
    Upstream {
        host: "127.0.0.1".to_owned(),
        port: 1,
    }
}

/// Sends a request with these headers, on a connection of its own. The request's head names the path alone.
pub(crate) async fn send(
    to: &Upstream,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Response<Bytes> {
    let stream = TcpStream::connect((to.host.as_str(), to.port))
        .await
        .expect("connected");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .expect("a connection");
    tokio::spawn(connection);
    let mut request = Request::builder().method(method).uri(path);
    if !headers.iter().any(|(name, _)| *name == "host") {
        request = request.header("host", to.authority());
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request
        .body(Full::new(Bytes::from(body.to_owned())))
        .expect("a request");
    let response = sender.send_request(request).await.expect("an answer");
    let (parts, body) = response.into_parts();
    let body = body.collect().await.expect("a body").to_bytes();
    Response::from_parts(parts, body)
}

/// The body as text.
pub(crate) fn text(response: &Response<Bytes>) -> String {
    String::from_utf8_lossy(response.body()).into_owned()
}
