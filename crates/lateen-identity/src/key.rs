//! Keys that workloads make for themselves, and the certificates they get for them.

use std::fmt;

use rcgen::{CertificateParams, DistinguishedName, KeyPair, SanType, string::Ia5String};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject};

use crate::{
    bundle::{BundleError, read_certificates},
    spiffe::SpiffeId,
};

/// Why a key or its certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// No key pair could be made.
    #[error("cannot generate an ECDSA P-256 key pair: {0}")]
    Generate(#[source] rcgen::Error),
    /// No request could be made.
    #[error("cannot make a certificate signing request for {id}: {source}")]
    Request {
        /// For whom.
        id: SpiffeId,
        /// Why.
        source: rcgen::Error,
    },
    /// The certificates that belong to the key cannot be read.
    #[error("cannot read the certificate chain: {0}")]
    Chain(#[source] BundleError),
    /// The private key cannot be read.
    #[error(
        "cannot read the private key: expected one PEM block with a PKCS #8, SEC 1 or PKCS #1 key"
    )]
    PrivateKey,
}

/// A key pair of a workload, made where it is used. Its private half is not shown by `Debug`.
pub struct WorkloadKey(KeyPair);

impl WorkloadKey {
    /// A new ECDSA P-256 key pair.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn generate() -> Result<Self, KeyError> {
        let pair = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256);
        pair.map(Self).map_err(KeyError::Generate)
    }

    /// The request (PEM) that shows possession of the key and asks for an id. An authority may ignore the id; Istio's
    /// replaces it by what the caller's token proves.
    ///
    /// # Errors
    /// When the request cannot be signed.
    pub fn request(&self, id: &SpiffeId) -> Result<String, KeyError> {
        let failed = |source| KeyError::Request {
            id: id.clone(),
            source,
        };
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let name = Ia5String::try_from(id.to_string()).map_err(failed)?;
        params.subject_alt_names = vec![SanType::URI(name)];
        let request = params.serialize_request(&self.0).map_err(failed)?;
        request.pem().map_err(failed)
    }

    /// The private key, PEM, for whoever terminates TLS in this process.
    pub fn pem(&self) -> String {
        self.0.serialize_pem()
    }

    /// Joins the key with the chain (PEM, leaf first) that was issued for it.
    ///
    /// # Errors
    /// When the chain holds no certificate, or something else.
    pub fn with_chain(&self, chain_pem: &str) -> Result<Identity, KeyError> {
        Ok(Identity {
            chain: read_certificates(chain_pem).map_err(KeyError::Chain)?,
            key: PrivatePkcs8KeyDer::from(self.0.serialize_der()).into(),
        })
    }
}

impl fmt::Debug for WorkloadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WorkloadKey(..)")
    }
}

/// A private key and the certificates that belong to it: what a side of TLS shows. `Debug` does not show the key.
pub struct Identity {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
}

impl Identity {
    /// Reads what a TLS secret holds: a chain, leaf first, and one private key, both PEM. Whether the two belong
    /// together is checked where a configuration is made of them.
    ///
    /// # Errors
    /// When either cannot be read.
    pub fn from_pem(chain_pem: &str, key_pem: &str) -> Result<Self, KeyError> {
        Ok(Self {
            chain: read_certificates(chain_pem).map_err(KeyError::Chain)?,
            key: PrivateKeyDer::from_pem_slice(key_pem.as_bytes())
                .map_err(|_| KeyError::PrivateKey)?,
        })
    }

    /// The certificates, leaf first, and the private key.
    pub fn into_parts(self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        (self.chain, self.key)
    }

    /// The certificates, leaf first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self {
            chain: self.chain.clone(),
            key: self.key.clone_key(),
        }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.chain.len();
        write!(f, "Identity({count} certificates, ..)")
    }
}
