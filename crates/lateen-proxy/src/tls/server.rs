//! TLS of downstream connections.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use rustls::ServerConfig;
use rustls::server::{
    Acceptor, ClientHello, NoServerSessionStorage, ResolvesServerCert, ServerSessionMemoryCache,
};
use rustls::sign::CertifiedKey;
use tokio::net::TcpStream;
use tokio_rustls::LazyConfigAcceptor;

use super::certificate::Certificate;
use super::context::{Built, Common};
use super::info::TlsInfo;
use super::validation::{Refusal, refusal};
use super::verifier::Verifier;
use super::{HandshakeError, count};
use crate::stats::{PerWorker, SslStats};
use crate::stream::{Replay, Stream};

/// Sessions that are kept for clients which come again.
const MOST_SESSIONS: usize = 1024;

/// A compiled `DownstreamTlsContext`.
#[derive(Debug)]
pub(crate) struct ServerTls {
    pub(crate) common: Common,
    /// A client without a certificate is refused.
    pub(crate) require_client_certificate: bool,
    /// Without a certificate for the name that is asked for, all are looked at instead of the first alone.
    pub(crate) scan_all: bool,
    pub(crate) prefer_client_ciphers: bool,
    pub(crate) resumption: ServerResumption,
    pub(crate) stats: Arc<PerWorker<SslStats>>,
    pub(crate) current: ArcSwapOption<Built<Current>>,
}

/// How sessions are resumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ServerResumption {
    pub(crate) tickets: bool,
    pub(crate) memory: bool,
}

/// What is made of the secrets.
#[derive(Debug)]
pub(crate) struct Current {
    certificates: Vec<Arc<Certificate>>,
    config: Arc<ServerConfig>,
    /// The same without application protocols.
    silent: Arc<ServerConfig>,
}

impl ServerTls {
    /// Whether there is no secret to wait for.
    pub(crate) fn is_settled(&self) -> bool {
        self.common.is_settled()
    }

    /// Checks that a context without secrets can be used.
    pub(crate) fn prepare(&self) -> Result<(), String> {
        self.common.prepare(|| self.build())
    }

    /// Shakes hands with a client. `prefix` was read from the socket already.
    pub(crate) async fn accept(
        &self,
        stream: TcpStream,
        prefix: Bytes,
        limit: Duration,
    ) -> Result<(Stream, TlsInfo), HandshakeError> {
        let shaken = tokio::time::timeout(limit, self.shake_hands(stream, prefix)).await;
        let result = shaken.unwrap_or(Err(HandshakeError::Timeout));
        let stats = self.stats.here();
        match &result {
            Ok((_, info)) => {
                stats.handshake.inc();
                if info.resumed {
                    stats.session_reused.inc();
                }
                if info.peer.is_none() {
                    stats.no_certificate.inc();
                }
            }
            Err(error) => count(stats, error),
        }
        result
    }

    async fn shake_hands(
        &self,
        stream: TcpStream,
        prefix: Bytes,
    ) -> Result<(Stream, TlsInfo), HandshakeError> {
        // Before anything of the client is looked at: without secrets nothing can be served.
        let current = self.common.current(&self.current, || self.build())?;
        let acceptor =
            LazyConfigAcceptor::new(Acceptor::default(), Replay::new(stream, prefix)).await?;
        let hello = acceptor.client_hello();
        // When the lists of protocols have nothing in common the library would end the handshake, and Envoy goes on
        // without a protocol.
        let offered = hello.alpn();
        let agree = offered.is_none_or(|mut offered| {
            offered.any(|protocol| {
                let mut ours = self.common.protocols.iter();
                ours.any(|own| own.as_slice() == protocol)
            })
        });
        let shown = current
            .certificates
            .get(choose(&current.certificates, &hello, self.scan_all).unwrap_or(0))
            .cloned();
        let config = if agree {
            &current.config
        } else {
            &current.silent
        };
        let stream = acceptor.into_stream(config.clone()).await?;
        let info = TlsInfo::new(&stream.get_ref().1.into(), shown);
        Ok((Stream::Tls(Box::new(stream.into())), info))
    }

    fn build(&self) -> Result<Current, HandshakeError> {
        let certificates = self.common.certificates()?;
        if certificates.is_empty() {
            return Err(Refusal::NotReady.into());
        }
        let validation = self.common.validation()?;
        let parameters = &self.common.parameters;
        let builder = ServerConfig::builder_with_provider(parameters.provider.clone())
            .with_protocol_versions(&parameters.versions)?;
        let checked = validation.filter(|validation| validation.checks_something());
        if self.require_client_certificate && checked.is_none() {
            // A secret without authorities or names would let everybody pass.
            return Err(Refusal::NotReady.into());
        }
        let asks = checked.is_some();
        let builder = if let Some(validation) = checked {
            let verifier = Verifier {
                asked: None,
                algorithms: parameters.provider.signature_verification_algorithms,
                mandatory: self.require_client_certificate || validation.is_mandatory(),
                hints: validation.hints(),
                validation,
            };
            builder.with_client_cert_verifier(Arc::new(verifier))
        } else {
            builder.with_no_client_auth()
        };
        let mut config = builder.with_cert_resolver(Arc::new(Resolver {
            certificates: certificates.clone(),
            scan_all: self.scan_all,
        }));
        config.ignore_client_order = !self.prefer_client_ciphers;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        // A resumed session is not verified again: a client could outlive its certificate, or a root that was retired.
        // So sessions are kept only where clients show none.
        if !asks {
            if self.resumption.tickets {
                config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
                config.send_tls13_tickets = 2;
            }
            if self.resumption.memory {
                config.session_storage = ServerSessionMemoryCache::new(MOST_SESSIONS);
            }
        }
        let silent = Arc::new(config.clone());
        config.alpn_protocols.clone_from(&self.common.protocols);
        Ok(Current {
            certificates,
            config: Arc::new(config),
            silent,
        })
    }
}

/// Shows the certificate that fits what a client asks for.
#[derive(Debug)]
struct Resolver {
    certificates: Vec<Arc<Certificate>>,
    scan_all: bool,
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let chosen = choose(&self.certificates, &hello, self.scan_all)?;
        self.certificates
            .get(chosen)
            .map(|certificate| certificate.key.clone())
    }
}

/// The position of the certificate for a client: one for the name that it asks for, of a kind that it understands, with
/// an elliptic curve if possible. Without one for the name: the first, or the first that is understood.
fn choose(
    certificates: &[Arc<Certificate>],
    hello: &ClientHello<'_>,
    scan_all: bool,
) -> Option<usize> {
    if certificates.len() <= 1 {
        return (!certificates.is_empty()).then_some(0);
    }
    let understood = |certificate: &Certificate| {
        let key = &certificate.key.key;
        key.choose_scheme(hello.signature_schemes()).is_some()
    };
    let best = |fits: &dyn Fn(&Certificate) -> bool| {
        let mut fitting = (0..certificates.len())
            .filter(|index| fits(&certificates[*index]) && understood(&certificates[*index]));
        let first = fitting.clone().next();
        fitting
            .find(|index| certificates[*index].elliptic)
            .or(first)
    };
    let name = hello.server_name().unwrap_or_default();
    if !name.is_empty()
        && let Some(found) = best(&|certificate| certificate.is_for(name))
    {
        return Some(found);
    }
    if scan_all || name.is_empty() {
        return best(&|_| true).or(Some(0));
    }
    Some(0)
}

impl From<Refusal> for HandshakeError {
    fn from(reason: Refusal) -> Self {
        Self::Tls(refusal(reason))
    }
}
