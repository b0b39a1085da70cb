//! The checks of a context in the form that the TLS library calls.

use std::sync::Arc;

use lateen_identity::handshake_signatures;
use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DistinguishedName, Error};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::names::NameMatcher;
use super::validation::{PeerRole, Validation};

/// Checks peers of one role.
#[derive(Debug)]
pub(super) struct Verifier {
    pub(super) validation: Arc<Validation>,
    /// Replaces the configured names for one connection.
    pub(super) asked: Option<NameMatcher>,
    pub(super) algorithms: WebPkiSupportedAlgorithms,
    /// A client without a certificate is refused.
    pub(super) mandatory: bool,
    pub(super) hints: Vec<DistinguishedName>,
}

impl Verifier {
    fn check(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        role: PeerRole,
        now: UnixTime,
    ) -> Result<(), Error> {
        self.validation.check(
            leaf,
            intermediates,
            role,
            self.asked.as_ref(),
            self.algorithms,
            now,
        )
    }
}

impl ClientCertVerifier for Verifier {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(leaf, intermediates, PeerRole::Client, now)?;
        Ok(ClientCertVerified::assertion())
    }

    handshake_signatures!(algorithms);
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        // The name that is asked for chooses what the server shows. Which names are acceptable is configured.
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(leaf, intermediates, PeerRole::Server, now)?;
        Ok(ServerCertVerified::assertion())
    }

    handshake_signatures!(algorithms);
}
