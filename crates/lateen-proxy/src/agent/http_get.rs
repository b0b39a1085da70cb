//! Small requests to the application in the same pod.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::net;
use crate::tls::any_server::client_of_any_server;

/// What to ask for.
pub(super) struct Get<'a> {
    pub(super) address: SocketAddr,
    /// Source address: one that the pod's redirection lets pass.
    pub(super) from: Option<IpAddr>,
    pub(super) tls: bool,
    /// Path and query.
    pub(super) path: &'a str,
    /// With `host`.
    pub(super) headers: HeaderMap,
    /// Longest body in bytes.
    pub(super) limit: usize,
}

/// An answer.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Get<'_> {
    /// Sends the request and reads the answer. Time is the caller's to limit.
    pub(super) async fn send(self) -> io::Result<Answer> {
        let stream = dial(self.address, self.from).await?;
        if !self.tls {
            return self.exchange(stream).await;
        }
        let name = ServerName::from(self.address.ip());
        // As the kubelet probes: the answer says whether the application lives, no more.
        let config = Arc::new(client_of_any_server());
        let stream = TlsConnector::from(config).connect(name, stream).await?;
        self.exchange(stream).await
    }

    async fn exchange<S>(self, stream: S) -> io::Result<Answer>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(io::Error::other)?;
        let connection = tokio::spawn(connection);
        let uri: Uri = self.path.parse().map_err(io::Error::other)?;
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.method_mut() = Method::GET;
        *request.uri_mut() = uri;
        *request.headers_mut() = self.headers;
        if !request.headers().contains_key(header::HOST) {
            let host = self.address.to_string().parse().map_err(io::Error::other)?;
            request.headers_mut().insert(header::HOST, host);
        }
        let exchanged = async {
            let response = sender
                .send_request(request)
                .await
                .map_err(io::Error::other)?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, self.limit).collect().await;
            Ok(Answer {
                status: head.status,
                headers: head.headers,
                body: body.map_err(io::Error::other)?.to_bytes(),
            })
        };
        let answer = exchanged.await;
        connection.abort();
        answer
    }
}

/// Connects to the application.
pub(super) async fn dial(address: SocketAddr, from: Option<IpAddr>) -> io::Result<TcpStream> {
    let options = net::ConnectOptions {
        timeout: Duration::from_secs(30),
        bind: from,
        keepalive: None,
        mark: false,
    };
    net::connect(address, options).await
}
