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
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::net;

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
        let stream = tokio_rustls::TlsConnector::from(anybody())
            .connect(name, stream)
            .await?;
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

/// TLS without verification, as the kubelet probes: the answer says whether the application lives, no more.
fn anybody() -> Arc<ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = Anybody(provider.signature_verification_algorithms);
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map(|builder| {
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(verifier))
                .with_no_client_auth()
        });
    // The provider has the versions that it was built with.
    Arc::new(config.expect("TLS 1.2 and 1.3 are built in"))
}

#[derive(Debug)]
struct Anybody(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
