//! Reading a certificate signing request: its public key, and nothing else.

use rcgen::{PublicKeyData, SignatureAlgorithm};
use rustls_pki_types::{CertificateSigningRequestDer, pem::PemObject};
use x509_parser::{
    certification_request::X509CertificationRequest,
    oid_registry::{
        OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_PKCS1_RSAENCRYPTION,
        OID_PKCS1_SHA256WITHRSA, OID_PKCS1_SHA384WITHRSA, OID_PKCS1_SHA512WITHRSA,
        OID_SIG_ECDSA_WITH_SHA256, OID_SIG_ECDSA_WITH_SHA384,
    },
    prelude::FromDer,
    public_key::PublicKey,
    x509::SubjectPublicKeyInfo,
};

/// Longest request in bytes of PEM. One with a 4096-bit RSA key has less than 2 KiB.
pub const MAX_CSR: usize = 16 * 1024;
/// Sizes of RSA keys that are signed, in bits: smaller ones are weak, larger ones make peers work.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=4096;

/// Why a request is not signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    /// Longer than [`MAX_CSR`].
    #[error("the request has {0} bytes, and at most {MAX_CSR} are read")]
    TooLong(usize),
    /// Not exactly one PEM block `CERTIFICATE REQUEST`.
    #[error("the request is not one PEM block `CERTIFICATE REQUEST`")]
    Pem,
    /// The block does not hold a PKCS #10 request, or holds more than that.
    #[error("the request is not a PKCS #10 structure")]
    Malformed,
    /// Signed with an algorithm other than ECDSA or RSA PKCS #1 with SHA-2.
    #[error("the request is signed with an algorithm that is not accepted: {0}")]
    SignatureAlgorithm(String),
    /// The sender does not show that it holds the private key.
    #[error("the request's own signature is not valid")]
    Signature,
    /// A key of another kind or size than ECDSA P-256, P-384 or RSA of 2048 to 4096 bits.
    #[error("the key is not accepted ({0}): use ECDSA P-256 or P-384, or RSA of 2048 to 4096 bits")]
    Key(String),
}

/// The public key of a request, whose sender has shown to hold the private key.
#[derive(Debug)]
pub(crate) struct ProvenKey {
    /// Content of the bit string `subjectPublicKey`.
    raw: Vec<u8>,
    algorithm: &'static SignatureAlgorithm,
}

impl PublicKeyData for ProvenKey {
    fn der_bytes(&self) -> &[u8] {
        &self.raw
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.algorithm
    }
}

/// Reads a request and checks its signature. Subject and extensions are not looked at: the identity is never what the
/// sender says.
pub(crate) fn proven_key(pem: &str) -> Result<ProvenKey, CsrError> {
    if pem.len() > MAX_CSR {
        return Err(CsrError::TooLong(pem.len()));
    }
    let mut blocks = CertificateSigningRequestDer::pem_slice_iter(pem.as_bytes());
    let (Some(Ok(der)), None) = (blocks.next(), blocks.next()) else {
        return Err(CsrError::Pem);
    };
    let (rest, request) =
        X509CertificationRequest::from_der(&der).map_err(|_| CsrError::Malformed)?;
    if !rest.is_empty() {
        return Err(CsrError::Malformed);
    }
    // Both checks come before the signature, so that an odd key costs no arithmetic.
    let key = &request.certification_request_info.subject_pki;
    let algorithm = accepted_algorithm(key)?;
    let signature = &request.signature_algorithm.algorithm;
    let accepted = [
        OID_SIG_ECDSA_WITH_SHA256,
        OID_SIG_ECDSA_WITH_SHA384,
        OID_PKCS1_SHA256WITHRSA,
        OID_PKCS1_SHA384WITHRSA,
        OID_PKCS1_SHA512WITHRSA,
    ];
    if !accepted.contains(signature) {
        return Err(CsrError::SignatureAlgorithm(signature.to_id_string()));
    }
    request
        .verify_signature()
        .map_err(|_| CsrError::Signature)?;
    Ok(ProvenKey {
        raw: key.subject_public_key.data.to_vec(),
        algorithm,
    })
}

/// The algorithm identifier to write for a key, when the key is strong enough.
fn accepted_algorithm(
    key: &SubjectPublicKeyInfo<'_>,
) -> Result<&'static SignatureAlgorithm, CsrError> {
    let kind = &key.algorithm.algorithm;
    let refused = |what: String| Err(CsrError::Key(what));
    if *kind == OID_KEY_TYPE_EC_PUBLIC_KEY {
        let curve = key
            .algorithm
            .parameters
            .as_ref()
            .and_then(|parameters| parameters.as_oid().ok());
        return match curve {
            Some(curve) if curve == OID_EC_P256 => Ok(&rcgen::PKCS_ECDSA_P256_SHA256),
            Some(curve) if curve == OID_NIST_EC_P384 => Ok(&rcgen::PKCS_ECDSA_P384_SHA384),
            Some(curve) => refused(format!("elliptic curve {}", curve.to_id_string())),
            None => refused("elliptic curve without a name".to_owned()),
        };
    }
    if *kind != OID_PKCS1_RSAENCRYPTION {
        return refused(format!("key type {}", kind.to_id_string()));
    }
    match key.parsed() {
        Ok(PublicKey::RSA(rsa)) if !RSA_BITS.contains(&rsa.key_size()) => {
            refused(format!("RSA of {} bits", rsa.key_size()))
        }
        // Small exponents make forgeries against sloppy padding checks possible.
        Ok(PublicKey::RSA(rsa)) if rsa.try_exponent().is_ok_and(|e| e >= 65537) => {
            Ok(&rcgen::PKCS_RSA_SHA256)
        }
        Ok(PublicKey::RSA(_)) => refused("RSA with an exponent that is not usual".to_owned()),
        _ => refused("RSA key that cannot be read".to_owned()),
    }
}
