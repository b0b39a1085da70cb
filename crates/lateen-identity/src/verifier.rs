//! Verification of a peer: chain, validity, usage, and its SPIFFE id.

use std::{collections::BTreeMap, sync::Arc};

use rustls::{
    CertificateError, DistinguishedName, Error, OtherError, RootCertStore,
    client::{
        danger::{ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::WebPkiSupportedAlgorithms,
    server::{
        ParsedCertificate, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::{
    allow::AllowList, bundle::TrustBundle, handshake_signatures, peer::certificate_id,
    spiffe::TrustDomain, tls::ClientCertificate, tls::TlsError,
};

/// Checks servers, as a client.
#[derive(Debug)]
pub(crate) struct ServerVerifier {
    roots: BTreeMap<TrustDomain, Arc<RootCertStore>>,
    allowed: AllowList,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerVerifier {
    /// Accepts servers of the allow-list whose chain leads to a root of their trust domain.
    pub(crate) fn new(
        bundle: &TrustBundle,
        allowed: AllowList,
        algorithms: WebPkiSupportedAlgorithms,
    ) -> Self {
        let roots = bundle.stores();
        Self {
            roots: roots.map(|(d, store)| (d.clone(), store.clone())).collect(),
            allowed,
            algorithms,
        }
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        // The name in the request for the server (SNI) chooses a filter chain and is no identity in the mesh.
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let roots = find(&self.roots, &self.allowed, end_entity)?;
        verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(end_entity)?,
            roots,
            intermediates,
            now,
            self.algorithms.all,
        )?;
        Ok(ServerCertVerified::assertion())
    }

    handshake_signatures!(algorithms);
}

/// Checks clients, as a server.
#[derive(Debug)]
pub(crate) struct ClientVerifier {
    /// The check of chain, validity and usage for each trust domain.
    chains: BTreeMap<TrustDomain, Arc<dyn ClientCertVerifier>>,
    allowed: AllowList,
    algorithms: WebPkiSupportedAlgorithms,
    mandatory: bool,
    /// Names of all roots, which tell a client with several certificates which one to show.
    hints: Vec<DistinguishedName>,
}

impl ClientVerifier {
    /// Accepts clients of the allow-list whose chain leads to a root of their trust domain.
    pub(crate) fn new(
        bundle: &TrustBundle,
        allowed: AllowList,
        certificate: ClientCertificate,
        provider: &Arc<rustls::crypto::CryptoProvider>,
    ) -> Result<Self, TlsError> {
        let mut chains = BTreeMap::new();
        let mut hints = Vec::new();
        for (domain, store) in bundle.stores() {
            let builder =
                WebPkiClientVerifier::builder_with_provider(store.clone(), provider.clone());
            let verifier = builder.build().map_err(TlsError::Roots)?;
            hints.extend(store.subjects());
            chains.insert(domain.clone(), verifier);
        }
        Ok(Self {
            chains,
            allowed,
            algorithms: provider.signature_verification_algorithms,
            mandatory: certificate == ClientCertificate::Required,
            hints,
        })
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let chain = find(&self.chains, &self.allowed, end_entity)?;
        chain.verify_client_cert(end_entity, intermediates, now)
    }

    handshake_signatures!(algorithms);
}

/// What belongs to the trust domain of an allowed leaf. The id is only a claim until the chain is verified with it.
fn find<'a, T>(
    domains: &'a BTreeMap<TrustDomain, T>,
    allowed: &AllowList,
    leaf: &CertificateDer<'_>,
) -> Result<&'a T, Error> {
    let id = certificate_id(leaf)
        .map_err(|error| CertificateError::Other(OtherError(Arc::new(error))))?;
    let roots = domains
        .get(id.trust_domain())
        .ok_or(CertificateError::UnknownIssuer)?;
    if !allowed.accepts(&id) {
        return Err(CertificateError::ApplicationVerificationFailure.into());
    }
    Ok(roots)
}
