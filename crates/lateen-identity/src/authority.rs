//! The certificate authority of a trust domain.

use std::time::{Duration, SystemTime};

use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    SanType, string::Ia5String,
};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use crate::{
    bundle::{BundleError, TrustBundle, write_pem},
    csr::{CsrError, proven_key},
    key::Identity,
    signer::{Signer, SignerError, serial, validity},
    spiffe::{SpiffeId, TrustDomain},
};

/// Why the authority does not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The request is not one to sign.
    #[error("the certificate signing request for {id} is refused: {source}")]
    Csr {
        /// For whom it was.
        id: SpiffeId,
        /// Why.
        source: CsrError,
    },
    /// The id belongs to another trust domain.
    #[error("{id} is not an id of the trust domain {domain}")]
    TrustDomain {
        /// The id asked for.
        id: SpiffeId,
        /// The authority's own trust domain.
        domain: TrustDomain,
    },
    /// The id names a trust domain, which is no workload.
    #[error("{0} names no workload: its path is empty")]
    NoWorkload(SpiffeId),
    /// The signing certificate is not valid at this time.
    #[error(
        "the signing certificate is not valid at this time: rotate the root, or check the clock"
    )]
    Expired,
    /// The signature failed.
    #[error(transparent)]
    Sign(#[from] SignerError),
    /// The root is not one to trust.
    #[error("cannot trust the root: {0}")]
    Root(#[from] BundleError),
    /// The root of a new signer is not in the bundle, so no peer would accept its certificates.
    #[error(
        "the signer's root is not in the trust bundle: trust it, and let the bundle reach every peer first"
    )]
    UntrustedSigner,
    /// The root is the active signer's.
    #[error("the root is in use by the active signer: activate another signer first")]
    RootInUse,
}

/// A certificate for a workload, with what goes with it.
#[derive(Debug, Clone)]
pub struct IssuedCertificate {
    /// For whom.
    pub id: SpiffeId,
    /// The leaf and the certificates above it, without the root.
    pub chain: Vec<CertificateDer<'static>>,
    /// Start of its validity, some time in the past ([`crate::signer::CLOCK_SKEW`]).
    pub not_before: SystemTime,
    /// End of its validity.
    pub not_after: SystemTime,
}

impl IssuedCertificate {
    /// The chain as PEM, leaf first.
    pub fn chain_pem(&self) -> String {
        write_pem(&self.chain)
    }

    /// Each certificate of the chain as a PEM text of its own, leaf first.
    pub fn chain_pems(&self) -> Vec<String> {
        self.chain.iter().map(|one| write_pem([one])).collect()
    }
}

/// Signs for one trust domain with its active signer, and holds the roots to trust meanwhile.
///
/// A root is rotated in three steps, each of which leaves every pair of peers able to speak: [`trust`](Self::trust)
/// the new root and hand out the bundle, [`activate`](Self::activate) the new signer, and, when all certificates of
/// the old one have ended, [`retire`](Self::retire) the old root.
#[derive(Debug)]
pub struct CertificateAuthority {
    domain: TrustDomain,
    active: Signer,
    /// Roots to trust, among them the active signer's. Never empty.
    roots: Vec<CertificateDer<'static>>,
}

impl CertificateAuthority {
    /// An authority that signs with `signer` and trusts its root.
    pub fn new(domain: TrustDomain, signer: Signer) -> Self {
        Self {
            domain,
            roots: vec![signer.root().clone()],
            active: signer,
        }
    }

    /// The trust domain it signs for.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.domain
    }

    /// When the active signer's certificate ends.
    pub fn not_after(&self) -> SystemTime {
        self.active.not_after()
    }

    /// Signs a request (PEM) for `id`, which the caller has proved by other means: only the public key is taken from
    /// the request. The certificate is valid for `lifetime` from `now`, but not longer than the signer's own.
    ///
    /// # Errors
    /// When the request is malformed, too long, not signed with its own key or has a weak key, when the id is not a
    /// workload of this trust domain, or when the signer's certificate has ended.
    pub fn sign(
        &self,
        csr_pem: &str,
        id: &SpiffeId,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<IssuedCertificate, AuthorityError> {
        if *id.trust_domain() != self.domain {
            return Err(AuthorityError::TrustDomain {
                id: id.clone(),
                domain: self.domain.clone(),
            });
        }
        if id.path().is_empty() {
            return Err(AuthorityError::NoWorkload(id.clone()));
        }
        let (signer_start, signer_end) = self.active.validity;
        if now < signer_start || now >= signer_end {
            return Err(AuthorityError::Expired);
        }
        let key = proven_key(csr_pem).map_err(|source| AuthorityError::Csr {
            id: id.clone(),
            source,
        })?;
        let (start, end) = validity(now, lifetime)?;
        let (not_before, not_after) = (start.max(signer_start), end.min(signer_end));

        // Made from nothing, so that no part of the request can slip through.
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let name = Ia5String::try_from(id.to_string()).map_err(SignerError::Sign)?;
        params.subject_alt_names = vec![SanType::URI(name)];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
        ];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(serial()?);
        params.not_before = not_before.into();
        params.not_after = not_after.into();
        let leaf = params
            .signed_by(&key, &self.active.issuer)
            .map_err(SignerError::Sign)?;

        let mut chain = vec![leaf.der().clone()];
        chain.extend(self.active.intermediates.iter().cloned());
        Ok(IssuedCertificate {
            id: id.clone(),
            chain,
            not_before,
            not_after,
        })
    }

    /// A new key with a certificate for a server of these DNS names, which is not a workload: it has no SPIFFE id.
    ///
    /// # Errors
    /// When a name is none, the lifetime is out of range, or the signer's certificate has ended.
    pub fn server_identity(
        &self,
        names: &[String],
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<Identity, AuthorityError> {
        let (signer_start, signer_end) = self.active.validity;
        if now < signer_start || now >= signer_end {
            return Err(AuthorityError::Expired);
        }
        let (start, end) = validity(now, lifetime)?;
        let key =
            KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(SignerError::Key)?;
        let mut params = CertificateParams::new(names).map_err(SignerError::Sign)?;
        params.distinguished_name = DistinguishedName::new();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
        ];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(serial()?);
        params.not_before = start.max(signer_start).into();
        params.not_after = end.min(signer_end).into();
        let leaf = params
            .signed_by(&key, &self.active.issuer)
            .map_err(SignerError::Sign)?;
        let mut chain = vec![leaf.der().clone()];
        chain.extend(self.active.intermediates.iter().cloned());
        Ok(Identity {
            chain,
            key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        })
    }

    /// The roots to trust, for verification.
    ///
    /// # Errors
    /// When a root that a signer came with is not one that can be trusted.
    pub fn bundle(&self) -> Result<TrustBundle, AuthorityError> {
        let mut bundle = TrustBundle::new();
        bundle.insert(&self.domain, self.roots.clone())?;
        Ok(bundle)
    }

    /// The roots to trust, as PEM: what workloads get as `ROOTCA`.
    pub fn bundle_pem(&self) -> String {
        write_pem(&self.roots)
    }

    /// Trusts one more root, before its signer is active or for another authority of the same trust domain.
    ///
    /// # Errors
    /// When the certificate cannot be a root.
    pub fn trust(&mut self, root: CertificateDer<'static>) -> Result<(), AuthorityError> {
        TrustBundle::new().insert(&self.domain, vec![root.clone()])?;
        if !self.roots.contains(&root) {
            self.roots.push(root);
        }
        Ok(())
    }

    /// Signs with another signer from now on. The root of the old one stays trusted.
    ///
    /// # Errors
    /// When the new signer's root is not trusted yet.
    pub fn activate(&mut self, signer: Signer) -> Result<(), AuthorityError> {
        if !self.roots.contains(signer.root()) {
            return Err(AuthorityError::UntrustedSigner);
        }
        self.active = signer;
        Ok(())
    }

    /// Trusts a root no longer. One that is not trusted is no error.
    ///
    /// # Errors
    /// When it is the active signer's.
    pub fn retire(&mut self, root: &CertificateDer<'_>) -> Result<(), AuthorityError> {
        if self.active.root() == root {
            return Err(AuthorityError::RootInUse);
        }
        self.roots.retain(|trusted| trusted != root);
        Ok(())
    }
}
