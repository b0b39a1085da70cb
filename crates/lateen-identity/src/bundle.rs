//! The roots that each trust domain is checked against.

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use rustls::RootCertStore;
use rustls_pki_types::{CertificateDer, pem::PemObject};

use crate::signer::read_validity;
use crate::spiffe::TrustDomain;

/// Longest text of PEM that is read, in bytes.
pub const MAX_PEM: usize = 1024 * 1024;
/// Most certificates in one text of PEM.
pub const MAX_CERTIFICATES: usize = 256;

/// Why certificates cannot be trusted or used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// Longer than [`MAX_PEM`].
    #[error("the PEM text has {0} bytes, and at most {MAX_PEM} are read")]
    TooLong(usize),
    /// A block of PEM is damaged.
    #[error("the PEM text is damaged after {0} certificates")]
    Pem(usize),
    /// No certificate at all.
    #[error("the PEM text holds no certificate")]
    Empty,
    /// More than [`MAX_CERTIFICATES`].
    #[error("the PEM text holds more than {MAX_CERTIFICATES} certificates")]
    TooMany,
    /// Not an X.509 certificate that can be a root.
    #[error("certificate {index} cannot be a root: {reason}")]
    Root {
        /// Position, from 0.
        index: usize,
        /// What is wrong with it.
        reason: String,
    },
}

/// The roots of one or more trust domains. A peer's certificate is checked against the roots of the domain that its
/// id names, so that no domain can issue ids of another.
#[derive(Debug, Clone, Default)]
pub struct TrustBundle {
    domains: BTreeMap<TrustDomain, Roots>,
}

/// The roots of one trust domain.
#[derive(Debug, Clone)]
struct Roots {
    certificates: Vec<CertificateDer<'static>>,
    /// The same, in the form that verification reads.
    store: Arc<RootCertStore>,
}

impl TrustBundle {
    /// A bundle without roots: it trusts nobody.
    pub fn new() -> Self {
        Self::default()
    }

    /// A bundle with the roots of one trust domain, from PEM.
    ///
    /// # Errors
    /// As [`TrustBundle::insert_pem`].
    pub fn from_pem(domain: &TrustDomain, pem: &str) -> Result<Self, BundleError> {
        let mut bundle = Self::new();
        bundle.insert_pem(domain, pem)?;
        Ok(bundle)
    }

    /// Replaces the roots of a trust domain by those in a text of PEM.
    ///
    /// # Errors
    /// When the text has no certificate, too many, or one that cannot be a root; the bundle is then unchanged.
    pub fn insert_pem(&mut self, domain: &TrustDomain, pem: &str) -> Result<(), BundleError> {
        self.insert(domain, read_certificates(pem)?)
    }

    /// Replaces the roots of a trust domain.
    ///
    /// # Errors
    /// When there is none, or one that cannot be a root; the bundle is then unchanged.
    pub fn insert(
        &mut self,
        domain: &TrustDomain,
        certificates: Vec<CertificateDer<'static>>,
    ) -> Result<(), BundleError> {
        if certificates.is_empty() {
            return Err(BundleError::Empty);
        }
        let mut store = RootCertStore::empty();
        for (index, certificate) in certificates.iter().enumerate() {
            // One bad root refuses all: a bundle that shrinks silently would cut off peers later, without a reason.
            let refused = |reason| BundleError::Root { index, reason };
            check_authority(certificate).map_err(refused)?;
            store
                .add(certificate.clone())
                .map_err(|error| refused(error.to_string()))?;
        }
        let roots = Roots {
            certificates,
            store: Arc::new(store),
        };
        self.domains.insert(domain.clone(), roots);
        Ok(())
    }

    /// Whether it trusts nobody.
    pub fn is_empty(&self) -> bool {
        self.domains.is_empty()
    }

    /// The roots of a trust domain; none for an unknown one.
    pub fn certificates(&self, domain: &TrustDomain) -> &[CertificateDer<'static>] {
        self.domains
            .get(domain)
            .map_or(&[], |roots| roots.certificates.as_slice())
    }

    /// The trust domains, each with its roots as verification reads them.
    pub(crate) fn stores(&self) -> impl Iterator<Item = (&TrustDomain, &Arc<RootCertStore>)> {
        self.domains
            .iter()
            .map(|(domain, roots)| (domain, &roots.store))
    }
}

/// Start and end of validity of the first certificate of a text of PEM.
///
/// # Errors
/// When there is no certificate that can be read.
pub fn validity_of(pem: &str) -> Result<(SystemTime, SystemTime), BundleError> {
    let certificates = read_certificates(pem)?;
    let (_, parsed) = x509_parser::parse_x509_certificate(&certificates[0]).map_err(|error| {
        BundleError::Root {
            index: 0,
            reason: error.to_string(),
        }
    })?;
    Ok(read_validity(&parsed))
}

/// All certificates of a text of PEM, at least one. Other blocks, such as keys, are passed over.
///
/// # Errors
/// When the text is too long or damaged, or has no certificate or too many.
pub fn read_certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, BundleError> {
    if pem.len() > MAX_PEM {
        return Err(BundleError::TooLong(pem.len()));
    }
    let mut certificates = Vec::new();
    for block in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        if certificates.len() == MAX_CERTIFICATES {
            return Err(BundleError::TooMany);
        }
        certificates.push(block.map_err(|_| BundleError::Pem(certificates.len()))?);
    }
    if certificates.is_empty() {
        return Err(BundleError::Empty);
    }
    Ok(certificates)
}

/// Certificates as PEM, one block each.
pub(crate) fn write_pem<'a>(
    certificates: impl IntoIterator<Item = &'a CertificateDer<'static>>,
) -> String {
    let encode = |der: &CertificateDer<'_>| {
        let body = base64_lines(der);
        format!("-----BEGIN CERTIFICATE-----\n{body}-----END CERTIFICATE-----\n")
    };
    certificates.into_iter().map(encode).collect()
}

/// Accepts a certificate that says it may sign others.
pub(crate) fn check_authority(certificate: &CertificateDer<'_>) -> Result<(), String> {
    let (_, parsed) =
        x509_parser::parse_x509_certificate(certificate).map_err(|error| error.to_string())?;
    if !parsed.is_ca() {
        return Err("it is not marked as a certificate authority".to_owned());
    }
    match parsed.key_usage() {
        Ok(Some(usage)) if !usage.value.key_cert_sign() => {
            Err("its key usage does not allow signing certificates".to_owned())
        }
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// Base64 in lines of 64 characters (RFC 7468), each ended.
fn base64_lines(der: &[u8]) -> String {
    let text = BASE64.encode(der);
    let mut lines = String::with_capacity(text.len() + text.len() / 64 + 1);
    for line in text.as_bytes().chunks(64) {
        lines.extend(line.iter().copied().map(char::from));
        lines.push('\n');
    }
    lines
}
