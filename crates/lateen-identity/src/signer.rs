//! A certificate that signs others, with its key and the root it leads to.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, DnValue, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, SerialNumber, string::BmpString,
};
use rustls::{RootCertStore, client::verify_server_cert_signed_by_trust_anchor};
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::{
    certificate::X509Certificate, der_parser::asn1_rs::Tag, extensions::ParsedExtension,
    x509::X509Name,
};

use crate::{
    bundle::{BundleError, check_authority, read_certificates, write_pem},
    spiffe::TrustDomain,
};

/// How far the start of validity lies in the past, for peers whose clocks are behind.
pub const CLOCK_SKEW: Duration = Duration::from_secs(2 * 60);
/// Longest lifetime of a certificate: 100 years.
pub const MAX_LIFETIME: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Why a signer cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub enum SignerError {
    /// The lifetime is zero or longer than [`MAX_LIFETIME`].
    #[error(
        "a certificate cannot be valid for {0:?}: the lifetime is more than 0 and at most 100 years"
    )]
    Lifetime(Duration),
    /// The system has no randomness to give.
    #[error("cannot draw a random serial number")]
    Random,
    /// The key pair cannot be made or read.
    #[error("cannot use the signing key: {0}")]
    Key(#[source] rcgen::Error),
    /// The certificate cannot be signed.
    #[error("cannot sign the certificate: {0}")]
    Sign(#[source] rcgen::Error),
    /// A text of PEM cannot be read.
    #[error("cannot read the {what}: {source}")]
    Pem {
        /// Which text.
        what: &'static str,
        /// Why.
        source: BundleError,
    },
    /// The signing certificate cannot sign.
    #[error("the signing certificate cannot be used: {0}")]
    Certificate(String),
    /// What it signs is not valid under the given root.
    #[error(
        "certificates of this signer do not lead to its root; check that key, chain and root belong together: {0}"
    )]
    Chain(#[source] rustls::Error),
}

/// A key that signs, with its certificate.
pub struct Signer {
    pub(crate) issuer: Issuer<'static, KeyPair>,
    /// What goes with a leaf: the signing certificate and those above it, without the root.
    pub(crate) intermediates: Vec<CertificateDer<'static>>,
    root: CertificateDer<'static>,
    /// Time in which the signing certificate is valid.
    pub(crate) validity: (SystemTime, SystemTime),
}

impl Signer {
    /// A new root of a trust domain, with a key (ECDSA P-256) that never leaves this value.
    ///
    /// # Errors
    /// For a lifetime out of range, or without randomness.
    pub fn self_made(
        domain: &TrustDomain,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<Self, SignerError> {
        let (not_before, not_after) = validity(now, lifetime)?;
        let serial = serial()?;
        let mut params = CertificateParams::default();
        let mut name = DistinguishedName::new();
        name.push(DnType::OrganizationName, domain.as_str());
        // Roots of one domain differ in name, so that verifiers find the right one at once during a rotation.
        let mark: String = serial
            .as_ref()
            .iter()
            .take(4)
            .map(|b| format!("{b:02x}"))
            .collect();
        name.push(DnType::CommonName, format!("Lateen root {mark}"));
        params.distinguished_name = name;
        params.serial_number = Some(serial);
        params.not_before = not_before.into();
        params.not_after = not_after.into();
        // Signs leaves only.
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key =
            KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(SignerError::Key)?;
        let root = params.self_signed(&key).map_err(SignerError::Sign)?;
        Ok(Self {
            root: root.der().clone(),
            issuer: Issuer::new(params, key),
            intermediates: Vec::new(),
            validity: (not_before, not_after),
        })
    }

    /// A signer that somebody else made: the PEM texts of Istio's secret `cacerts`. `chain_pem` has the signing
    /// certificate first and then those above it, with or without the root; `root_pem` has the root.
    ///
    /// # Errors
    /// When a text cannot be read, the certificate may not sign, or key, chain and root do not belong together at the
    /// time `now`, which is tried out.
    pub fn from_pem(
        chain_pem: &str,
        key_pem: &str,
        root_pem: &str,
        now: SystemTime,
    ) -> Result<Self, SignerError> {
        let read =
            |what, pem| read_certificates(pem).map_err(|source| SignerError::Pem { what, source });
        let mut chain = read("signing certificate", chain_pem)?;
        let root = read("root certificate", root_pem)?.swap_remove(0);
        let key = KeyPair::from_pem(key_pem).map_err(SignerError::Key)?;

        check_authority(&chain[0]).map_err(SignerError::Certificate)?;
        check_authority(&root).map_err(SignerError::Certificate)?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&chain[0])
            .map_err(|error| SignerError::Certificate(error.to_string()))?;
        let issuer = Issuer::new(issuer_params(&parsed)?, key);
        let validity = read_validity(&parsed);

        chain.retain(|certificate| *certificate != root);
        let signer = Self {
            issuer,
            intermediates: chain,
            root,
            validity,
        };
        signer.try_out(now)?;
        Ok(signer)
    }

    /// The private key, PEM, for a store that others cannot read: whoever has it can be everybody.
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// The root that its certificates lead to, PEM.
    pub fn root_pem(&self) -> String {
        write_pem([&self.root])
    }

    /// The root that its certificates lead to.
    pub fn root(&self) -> &CertificateDer<'static> {
        &self.root
    }

    /// When the signing certificate ends. No leaf is valid for longer.
    pub fn not_after(&self) -> SystemTime {
        self.validity.1
    }

    /// Signs a leaf that nobody uses and verifies it, which shows that name, key, chain and root fit.
    fn try_out(&self, now: SystemTime) -> Result<(), SignerError> {
        if now < self.validity.0 || now >= self.validity.1 {
            let reason = "it is not valid at this time".to_owned();
            return Err(SignerError::Certificate(reason));
        }
        let key =
            KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(SignerError::Key)?;
        let mut params = CertificateParams::default();
        params.not_before = self.validity.0.into();
        params.not_after = self.validity.1.into();
        let leaf = params
            .signed_by(&key, &self.issuer)
            .map_err(SignerError::Sign)?;

        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).map_err(SignerError::Chain)?;
        let since_epoch = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let algorithms =
            rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms;
        let leaf = leaf.der().clone();
        let leaf =
            rustls::server::ParsedCertificate::try_from(&leaf).map_err(SignerError::Chain)?;
        verify_server_cert_signed_by_trust_anchor(
            &leaf,
            &roots,
            &self.intermediates,
            UnixTime::since_unix_epoch(since_epoch),
            algorithms.all,
        )
        .map_err(SignerError::Chain)
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `Issuer` leaves its key out.
        f.debug_struct("Signer")
            .field("issuer", &self.issuer)
            .field("validity", &self.validity)
            .finish_non_exhaustive()
    }
}

/// From the allowed clock skew before `now` until `lifetime` after it.
pub(crate) fn validity(
    now: SystemTime,
    lifetime: Duration,
) -> Result<(SystemTime, SystemTime), SignerError> {
    let bad = || SignerError::Lifetime(lifetime);
    if lifetime.is_zero() || lifetime > MAX_LIFETIME {
        return Err(bad());
    }
    let start = now.checked_sub(CLOCK_SKEW).ok_or_else(bad)?;
    let end = now.checked_add(lifetime).ok_or_else(bad)?;
    Ok((start, end))
}

/// 120 random bits (more than the 64 that the CA/Browser Forum asks for), positive and never zero.
pub(crate) fn serial() -> Result<SerialNumber, SignerError> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes[1..]).map_err(|_| SignerError::Random)?;
    bytes[0] = 1;
    Ok(SerialNumber::from_slice(&bytes))
}

/// What is needed of a signing certificate to sign in its name.
fn issuer_params(parsed: &X509Certificate<'_>) -> Result<CertificateParams, SignerError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = copy_name(parsed.subject())?;
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    for extension in parsed.extensions() {
        if let ParsedExtension::SubjectKeyIdentifier(id) = extension.parsed_extension() {
            params.key_identifier_method = KeyIdMethod::PreSpecified(id.0.to_vec());
        }
    }
    Ok(params)
}

/// Copies a name with the kind of each string: verifiers compare names byte by byte. What cannot be copied exactly
/// (several attributes in one set, the same attribute twice) is refused, here or when the signer is tried out.
fn copy_name(name: &X509Name<'_>) -> Result<DistinguishedName, SignerError> {
    let bad = |what: &str| SignerError::Certificate(format!("its subject has {what}"));
    let mut copy = DistinguishedName::new();
    for set in name.iter() {
        let mut attributes = set.iter();
        let (Some(attribute), None) = (attributes.next(), attributes.next()) else {
            return Err(bad("a set of several attributes"));
        };
        let kind: Vec<u64> = attribute
            .attr_type()
            .iter()
            .ok_or_else(|| bad("an attribute type that cannot be read"))?
            .collect();
        let data = attribute.attr_value().data;
        let odd = |_| bad("a string with characters that its kind does not have");
        let text = || std::str::from_utf8(data).map_err(|_| bad("a string that is not UTF-8"));
        let value = match attribute.attr_value().tag() {
            Tag::Utf8String => DnValue::Utf8String(text()?.to_owned()),
            Tag::PrintableString => DnValue::PrintableString(text()?.try_into().map_err(odd)?),
            Tag::Ia5String => DnValue::Ia5String(text()?.try_into().map_err(odd)?),
            Tag::BmpString => {
                DnValue::BmpString(BmpString::from_utf16be(data.to_vec()).map_err(odd)?)
            }
            _ => return Err(bad("a string of a kind that is not supported")),
        };
        copy.push(DnType::from_oid(&kind), value);
    }
    Ok(copy)
}

/// Start and end of a certificate's validity; times before 1970 count as 1970.
pub(crate) fn read_validity(parsed: &X509Certificate<'_>) -> (SystemTime, SystemTime) {
    let time = |seconds: i64| {
        SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
    };
    let validity = parsed.validity();
    (
        time(validity.not_before.timestamp()),
        time(validity.not_after.timestamp()),
    )
}
