//! TLS of upstream connections.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use rustls::ClientConfig;
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::sign::CertifiedKey;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::context::{Built, Common};
use super::info::TlsInfo;
use super::names::NameMatcher;
use super::validation::Validation;
use super::verifier::Verifier;
use super::{HandshakeError, count};
use crate::cluster::Host;
use crate::stats::{PerWorker, SslStats};
use crate::stream::{Replay, Stream};

/// A compiled `UpstreamTlsContext`.
#[derive(Debug)]
pub(crate) struct ClientTls {
    pub(crate) common: Common,
    /// The name to ask for, if any.
    pub(crate) server_name: Option<ServerName<'static>>,
    /// The host name of the endpoint is asked for, where it has one.
    pub(crate) host_server_name: bool,
    /// The certificate must be for the name that was asked for, whatever else is configured.
    pub(crate) check_server_name: bool,
    /// Sessions that are kept for resumption.
    pub(crate) sessions: usize,
    pub(crate) current: ArcSwapOption<Built<Current>>,
}

/// What a connection asks for beside what its context says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct AskedOfTls {
    /// The name to ask for, instead of the configured one.
    pub(crate) server_name: Option<String>,
    /// The certificate must be for this name; replaces the configured names.
    pub(crate) certificate_name: Option<String>,
    /// Application protocols, instead of the configured ones.
    pub(crate) protocols: Option<Vec<Vec<u8>>>,
}

/// What is made of the secrets.
#[derive(Debug)]
pub(crate) struct Current {
    config: Arc<ClientConfig>,
    validation: Arc<Validation>,
}

impl ClientTls {
    /// Whether there is no secret to wait for.
    pub(crate) fn is_settled(&self) -> bool {
        self.common.is_settled()
    }

    /// Checks that a context without secrets can be used.
    pub(crate) fn prepare(&self) -> Result<(), String> {
        self.common.prepare(|| self.build())
    }

    /// Shakes hands with an endpoint. `fallback` are the protocols to offer when neither connection nor context name
    /// any.
    pub(crate) async fn connect(
        &self,
        stream: TcpStream,
        host: &Host,
        asked: &AskedOfTls,
        fallback: &[&[u8]],
        stats: &PerWorker<SslStats>,
    ) -> Result<(Stream, TlsInfo), HandshakeError> {
        let result = self.shake_hands(stream, host, asked, fallback).await;
        match &result {
            Ok((_, info)) => {
                stats.here().handshake.inc();
                if info.resumed {
                    stats.here().session_reused.inc();
                }
            }
            Err(error) => count(stats.here(), error),
        }
        result
    }

    async fn shake_hands(
        &self,
        stream: TcpStream,
        host: &Host,
        asked: &AskedOfTls,
        fallback: &[&[u8]],
    ) -> Result<(Stream, TlsInfo), HandshakeError> {
        let current = self.common.current(&self.current, || self.build())?;
        let shown = self.common.certificates()?.into_iter().next();
        let name = self.server_name(host, asked);
        let mut config = current.config.clone();
        let owned;
        let protocols: &[Vec<u8>] = match &asked.protocols {
            Some(protocols) => protocols,
            None if self.common.protocols.is_empty() => {
                owned = fallback
                    .iter()
                    .map(|protocol| protocol.to_vec())
                    .collect::<Vec<_>>();
                &owned
            }
            None => &self.common.protocols,
        };
        let certificate_name = match (&asked.certificate_name, &name) {
            (Some(wanted), _) => Some(wanted.clone()),
            (None, Some(ServerName::DnsName(name))) if self.check_server_name => {
                Some(name.as_ref().to_owned())
            }
            _ => None,
        };
        if config.alpn_protocols != protocols || certificate_name.is_some() {
            let mut changed = ClientConfig::clone(&config);
            changed.alpn_protocols = protocols.to_vec();
            if let Some(wanted) = certificate_name {
                let verifier =
                    self.verifier(current.validation.clone(), Some(NameMatcher::dns(&wanted)));
                changed
                    .dangerous()
                    .set_certificate_verifier(Arc::new(verifier));
                // A session belongs to the checks that it was made with.
                changed.resumption = Resumption::disabled();
            }
            config = Arc::new(changed);
        }
        // An address is never sent, so it stands for no name.
        let name = name.unwrap_or_else(|| ServerName::IpAddress(host.address.ip().into()));
        let stream = TlsConnector::from(config)
            .connect(name, Replay::new(stream, Bytes::new()))
            .await?;
        let info = TlsInfo::new(&stream.get_ref().1.into(), shown);
        Ok((Stream::Tls(Box::new(stream.into())), info))
    }

    /// The name to ask for: the connection's, else the endpoint's, else the configured one.
    fn server_name(&self, host: &Host, asked: &AskedOfTls) -> Option<ServerName<'static>> {
        let parse = |name: &str| {
            let parsed = ServerName::try_from(name.to_owned()).ok()?;
            matches!(parsed, ServerName::DnsName(_)).then_some(parsed)
        };
        if let Some(name) = &asked.server_name {
            return parse(name);
        }
        if self.host_server_name && !host.hostname.is_empty() {
            return parse(&host.hostname);
        }
        self.server_name.clone()
    }

    fn verifier(&self, validation: Arc<Validation>, asked: Option<NameMatcher>) -> Verifier {
        let provider = &self.common.parameters.provider;
        Verifier {
            validation,
            asked,
            algorithms: provider.signature_verification_algorithms,
            mandatory: true,
            hints: Vec::new(),
        }
    }

    fn build(&self) -> Result<Current, HandshakeError> {
        let validation = self.common.validation()?.unwrap_or_default();
        let certificate = self.common.certificates()?.into_iter().next();
        let parameters = &self.common.parameters;
        let builder = ClientConfig::builder_with_provider(parameters.provider.clone())
            .with_protocol_versions(&parameters.versions)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(self.verifier(validation.clone(), None)));
        let mut config = match certificate {
            Some(certificate) => builder
                .with_client_cert_resolver(Arc::new(ClientCertificate(certificate.key.clone()))),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols.clone_from(&self.common.protocols);
        config.resumption = if self.sessions == 0 {
            Resumption::disabled()
        } else {
            Resumption::in_memory_sessions(self.sessions)
        };
        Ok(Current {
            config: Arc::new(config),
            validation,
        })
    }
}

/// Shows the one certificate to every server that asks.
#[derive(Debug)]
struct ClientCertificate(Arc<CertifiedKey>);

impl ResolvesClientCert for ClientCertificate {
    fn resolve(
        &self,
        _root_hint_subjects: &[&[u8]],
        schemes: &[rustls::SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        self.0.key.choose_scheme(schemes)?;
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}
