//! A connection to the server, in either HTTP version, plain or in TLS.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::{Request, Response};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use lateen_proxy::client_of_any_server;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::plan::Plan;

/// Where distributions keep the authorities that they trust.
const SYSTEM: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Why nothing can be encrypted.
#[derive(Debug, thiserror::Error)]
pub(super) enum TlsError {
    #[error("cannot read the authorities in {path}: {reason}")]
    Authorities { path: PathBuf, reason: String },
    #[error("TLS: {0}")]
    Config(#[from] rustls::Error),
}

/// Why there is no answer; in few words, as they are counted.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    #[error("connect: {0}")]
    Connect(std::io::Error),
    #[error("TLS: {0}")]
    Tls(std::io::Error),
    #[error("the name is no name for TLS")]
    Name,
    #[error("{0}")]
    Exchange(#[from] hyper::Error),
    #[error("no answer in time")]
    Late,
}

/// An open connection.
pub(super) enum Connection {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Connection {
    /// Connects as the plan says.
    pub(super) async fn open(plan: &Plan) -> Result<Self, CallError> {
        let target = (plan.authority.host().trim_matches(['[', ']']), plan.port);
        let stream = TcpStream::connect(target)
            .await
            .map_err(CallError::Connect)?;
        stream.set_nodelay(true).map_err(CallError::Connect)?;
        match &plan.tls {
            None => Self::over(stream, plan.http2).await,
            Some(tls) => {
                let name =
                    ServerName::try_from(target.0.to_owned()).map_err(|_| CallError::Name)?;
                let stream = tls.connect(name, stream).await.map_err(CallError::Tls)?;
                Self::over(stream, plan.http2).await
            }
        }
    }

    async fn over(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        http2: bool,
    ) -> Result<Self, CallError> {
        let io = TokioIo::new(stream);
        // Each connection is driven by a task that ends with it.
        if http2 {
            let (sender, driver) = http2::handshake(TokioExecutor::new(), io).await?;
            tokio::spawn(driver);
            Ok(Self::Http2(sender))
        } else {
            let (sender, driver) = http1::handshake(io).await?;
            tokio::spawn(driver);
            Ok(Self::Http1(sender))
        }
    }

    /// Waits until a request can be sent; false when the connection has ended.
    pub(super) async fn ready(&mut self) -> bool {
        match self {
            Self::Http1(sender) => sender.ready().await.is_ok(),
            Self::Http2(sender) => sender.ready().await.is_ok(),
        }
    }

    /// Sends a request and waits for the head of its answer.
    pub(super) async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, CallError> {
        Ok(match self {
            Self::Http1(sender) => sender.send_request(request).await?,
            Self::Http2(sender) => sender.send_request(request).await?,
        })
    }
}

/// TLS that trusts the authorities of a file, or of the system; anybody when `insecure`.
pub(super) fn tls(
    authorities: Option<&Path>,
    insecure: bool,
    http2: bool,
) -> Result<TlsConnector, TlsError> {
    let mut config = if insecure {
        client_of_any_server()
    } else {
        let path = authorities.unwrap_or_else(|| Path::new(SYSTEM));
        ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots(path)?)
            .with_no_client_auth()
    };
    config.alpn_protocols = vec![if http2 { &b"h2"[..] } else { b"http/1.1" }.to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

fn roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let unreadable = |reason: String| TlsError::Authorities {
        path: path.to_owned(),
        reason,
    };
    let mut roots = RootCertStore::empty();
    let found =
        CertificateDer::pem_file_iter(path).map_err(|error| unreadable(error.to_string()))?;
    for certificate in found {
        let certificate = certificate.map_err(|error| unreadable(error.to_string()))?;
        // Systems keep some that the library does not take.
        let _ = roots.add(certificate);
    }
    if roots.is_empty() {
        return Err(unreadable("there are none".to_owned()));
    }
    Ok(roots)
}
