//! TLS configurations for both sides of a connection in the mesh.

use std::sync::Arc;

use rustls::{
    ClientConfig, ConfigBuilder, RootCertStore, ServerConfig,
    client::{Resumption, WantsClientCert},
    crypto::{CryptoProvider, aws_lc_rs},
    server::{NoServerSessionStorage, VerifierBuilderError},
    version::{TLS12, TLS13},
};

use crate::{
    allow::AllowList,
    bundle::{BundleError, TrustBundle, read_certificates},
    key::Identity,
    verifier::{ClientVerifier, ServerVerifier},
};

/// Why a configuration cannot be made. There is no configuration that goes without what is missing.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The bundle has no root.
    #[error("the trust bundle is empty, so no peer could be verified")]
    EmptyBundle,
    /// The roots cannot be read.
    #[error("the roots cannot be read: {0}")]
    Pem(#[source] BundleError),
    /// A root cannot be used.
    #[error("a root cannot be used: {0}")]
    Root(#[source] rustls::Error),
    /// The roots cannot be used.
    #[error("the trust bundle cannot be used: {0}")]
    Roots(#[source] VerifierBuilderError),
    /// The cryptography does not offer what mutual TLS needs.
    #[error("TLS 1.2 and 1.3 are not available: {0}")]
    Versions(#[source] rustls::Error),
    /// Key and certificate do not belong together, or cannot be used.
    #[error("the certificate and its key cannot be used: {0}")]
    Identity(#[source] rustls::Error),
}

/// Whether a client must show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientCertificate {
    /// A handshake without one fails.
    Required,
    /// A client without one goes on as nobody; one with a certificate is verified all the same.
    Optional,
}

/// A server that shows `identity`, and accepts clients of the allow-list whose chain leads to a root of their trust
/// domain. TLS 1.2 and 1.3. `alpn` is what it accepts, best first ([`crate::alpn`]).
///
/// # Errors
/// For an empty bundle, and for a key that does not belong to its certificate.
pub fn server(
    identity: Identity,
    bundle: &TrustBundle,
    allowed: AllowList,
    certificate: ClientCertificate,
    alpn: &[&[u8]],
) -> Result<ServerConfig, TlsError> {
    let provider = provider(bundle)?;
    let verifier = ClientVerifier::new(bundle, allowed, certificate, &provider)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(TlsError::Versions)?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_single_cert(identity.chain, identity.key)
        .map_err(TlsError::Identity)?;
    config.alpn_protocols = owned(alpn);
    // A resumed session is not verified again: a peer could outlive its certificate, or a root that was retired.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// A client that shows `identity` when asked, and accepts servers of the allow-list whose chain leads to a root of
/// their trust domain, whatever name they were called by. TLS 1.2 and 1.3. `alpn` is what it offers, best first.
///
/// # Errors
/// As [`server`].
pub fn client(
    identity: Identity,
    bundle: &TrustBundle,
    allowed: AllowList,
    alpn: &[&[u8]],
) -> Result<ClientConfig, TlsError> {
    let provider = provider(bundle)?;
    let verifier = ServerVerifier::new(bundle, allowed, provider.signature_verification_algorithms);
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(TlsError::Versions)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_auth_cert(identity.chain, identity.key)
        .map_err(TlsError::Identity)?;
    config.alpn_protocols = owned(alpn);
    // As on the server: every connection verifies its peer.
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// A client of a server with a DNS name, which is verified as on the web but with these roots (PEM): how a workload
/// speaks to its authority before it has an identity. `alpn` as for [`client`].
///
/// # Errors
/// When the text has no root that can be used.
pub fn client_of_server(roots_pem: &str, alpn: &[&[u8]]) -> Result<ClientConfig, TlsError> {
    let mut config = of_server(roots_pem)?.with_no_client_auth();
    config.alpn_protocols = owned(alpn);
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// As [`client_of_server`], and shows `identity` when asked.
///
/// # Errors
/// As [`client_of_server`], and for a key that does not belong to its certificate.
pub fn client_of_server_as(
    roots_pem: &str,
    identity: Identity,
    alpn: &[&[u8]],
) -> Result<ClientConfig, TlsError> {
    let mut config = of_server(roots_pem)?
        .with_client_auth_cert(identity.chain, identity.key)
        .map_err(TlsError::Identity)?;
    config.alpn_protocols = owned(alpn);
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn of_server(roots_pem: &str) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, TlsError> {
    let mut roots = RootCertStore::empty();
    for root in read_certificates(roots_pem).map_err(TlsError::Pem)? {
        roots.add(root).map_err(TlsError::Root)?;
    }
    Ok(
        ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(TlsError::Versions)?
            .with_root_certificates(roots),
    )
}

/// A server for anybody, which shows `identity` and asks for no certificate. `alpn` as for [`server`].
///
/// # Errors
/// For a key that does not belong to its certificate.
pub fn server_for_all(identity: Identity, alpn: &[&[u8]]) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(TlsError::Versions)?
        .with_no_client_auth()
        .with_single_cert(identity.chain, identity.key)
        .map_err(TlsError::Identity)?;
    config.alpn_protocols = owned(alpn);
    Ok(config)
}

/// The cryptography to use, once it is clear that there is somebody to trust.
fn provider(bundle: &TrustBundle) -> Result<Arc<CryptoProvider>, TlsError> {
    if bundle.is_empty() {
        return Err(TlsError::EmptyBundle);
    }
    Ok(Arc::new(aws_lc_rs::default_provider()))
}

/// Protocols in the form that rustls keeps.
fn owned(alpn: &[&[u8]]) -> Vec<Vec<u8>> {
    alpn.iter().map(|protocol| protocol.to_vec()).collect()
}
