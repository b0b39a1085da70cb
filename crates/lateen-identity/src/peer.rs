//! Who a peer is: the one SPIFFE id in its certificate.

use rustls_pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;

use crate::spiffe::{SpiffeError, SpiffeId};

/// Why a certificate names no workload.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// The peer sent no certificate.
    #[error("the peer sent no certificate")]
    NoCertificate,
    /// Not an X.509 certificate.
    #[error("the peer's certificate cannot be read: {0}")]
    Malformed(String),
    /// None or several URIs, of which nobody could say which one counts (X509-SVID, section 2).
    #[error("the peer's certificate has {0} URI names, and must have exactly one")]
    UriCount(usize),
    /// The URI is not a SPIFFE id.
    #[error("the peer's certificate names no SPIFFE id: {0}")]
    Id(#[from] SpiffeError),
    /// The id is of a trust domain itself, which is no peer.
    #[error("the peer's certificate names a trust domain and no workload: {0}")]
    NoWorkload(SpiffeId),
}

/// The id of a peer, from the certificates of a finished handshake (`peer_certificates()` of a rustls connection).
/// It is verified only when the connection was made with a configuration of [`crate::tls`].
///
/// # Errors
/// When the peer sent none, or one without exactly one SPIFFE id.
pub fn peer_id(certificates: Option<&[CertificateDer<'_>]>) -> Result<SpiffeId, PeerError> {
    let leaf = certificates
        .and_then(<[_]>::first)
        .ok_or(PeerError::NoCertificate)?;
    certificate_id(leaf)
}

/// The id in a certificate, whose signature is not checked here.
///
/// # Errors
/// When it does not have exactly one URI name, which must be a workload's SPIFFE id.
pub fn certificate_id(certificate: &CertificateDer<'_>) -> Result<SpiffeId, PeerError> {
    let malformed = |reason: String| PeerError::Malformed(reason);
    let (rest, parsed) = x509_parser::parse_x509_certificate(certificate)
        .map_err(|error| malformed(error.to_string()))?;
    if !rest.is_empty() {
        return Err(malformed("bytes follow the certificate".to_owned()));
    }
    // Fails when the extension is there twice, too.
    let names = parsed
        .subject_alternative_name()
        .map_err(|error| malformed(error.to_string()))?;
    let uris: Vec<&str> = names
        .iter()
        .flat_map(|extension| &extension.value.general_names)
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        })
        .collect();
    let [uri] = uris.as_slice() else {
        return Err(PeerError::UriCount(uris.len()));
    };
    let id: SpiffeId = uri.parse()?;
    if id.path().is_empty() {
        return Err(PeerError::NoWorkload(id));
    }
    Ok(id)
}
