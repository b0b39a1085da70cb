//! How a peer's certificate is checked: by authorities, names, hashes of the certificate or its key, and revocation
//! lists. Source: Envoy's `CertificateValidationContext`.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use lateen_identity::bundle::read_certificates;
use lateen_route::{Invalid, Within, refuse_rest};
use lateen_xds::pb::envoy::extensions::transport_sockets::tls::v3 as pb;
use lateen_xds::pb::envoy::extensions::transport_sockets::tls::v3::certificate_validation_context::TrustChainVerification;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::{CertificateError, DistinguishedName, Error, OtherError, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use webpki::{
    BorrowedCertRevocationList, CertRevocationList, EndEntityCert, KeyUsage, RevocationCheckDepth,
    RevocationOptionsBuilder,
};
use x509_parser::parse_x509_certificate;

use super::certificate::read;
use super::names::{Name, NameMatcher, alternative_names};

/// Most revocation lists of one context.
const MOST_LISTS: usize = 256;

/// Authorities that can sign a peer's certificate.
#[derive(Debug)]
pub(crate) struct Authorities {
    /// As they were given, for display.
    pub(crate) certificates: Vec<CertificateDer<'static>>,
    store: RootCertStore,
}

impl Authorities {
    /// Reads certificates in PEM. One that cannot be an authority refuses all, so that none is missing silently.
    pub(crate) fn from_pem(pem: &str) -> Result<Self, String> {
        let certificates = read_certificates(pem).map_err(|error| error.to_string())?;
        let mut store = RootCertStore::empty();
        for (index, certificate) in certificates.iter().enumerate() {
            store
                .add(certificate.clone())
                .map_err(|error| format!("certificate {index} cannot be an authority: {error}"))?;
        }
        Ok(Self {
            certificates,
            store,
        })
    }
}

/// A compiled validation context.
#[derive(Debug, Clone, Default)]
pub(crate) struct Validation {
    pub(crate) authorities: Option<Arc<Authorities>>,
    /// A certificate must have a name that fits one of these; an empty list asks for nothing.
    pub(crate) names: Vec<NameMatcher>,
    /// SHA-256 of acceptable certificates.
    hashes: Vec<Vec<u8>>,
    /// SHA-256 of acceptable public keys.
    keys: Vec<Vec<u8>>,
    lists: Vec<CertificateRevocationListDer<'static>>,
    /// Only the certificate of the peer itself is looked for in the lists.
    leaf_lists_only: bool,
    /// A peer that does not pass goes on all the same.
    accept_untrusted: bool,
    /// The names of the authorities are not sent to clients.
    hide_authorities: bool,
}

/// Which side the peer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PeerRole {
    Client,
    Server,
}

/// Why a certificate with a valid chain was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// No name fits.
    #[error("verify cert failed: verify SAN list")]
    Name,
    /// Neither certificate nor key has an acceptable hash.
    #[error("verify cert failed: verify hash or SPKI")]
    Hash,
    /// The key may not be used for signatures.
    #[error("KEY_USAGE_BIT_INCORRECT")]
    KeyUsage,
    /// The context has no certificates or authorities now.
    #[error("secret is not available")]
    NotReady,
}

impl Validation {
    /// Checks with these authorities and nothing else.
    pub(crate) fn of_authorities(authorities: Authorities) -> Self {
        Self {
            authorities: Some(Arc::new(authorities)),
            ..Self::default()
        }
    }

    /// Compiles the message.
    pub(crate) fn compile(mut message: pb::CertificateValidationContext) -> Result<Self, Invalid> {
        let mut compiled = Self::default();
        if let Some(source) = message.trusted_ca.take() {
            let pem = read(source).within("trusted_ca")?;
            let authorities =
                Authorities::from_pem(&pem).map_err(|reason| Invalid::new("trusted_ca", reason))?;
            compiled.authorities = Some(Arc::new(authorities));
        }
        let matchers = std::mem::take(&mut message.match_typed_subject_alt_names);
        for (index, matcher) in matchers.into_iter().enumerate() {
            let matcher = NameMatcher::typed(matcher);
            compiled
                .names
                .push(matcher.within_item("match_typed_subject_alt_names", index)?);
        }
        // The typed list wins when both are given.
        let untyped = std::mem::take(&mut message.match_subject_alt_names);
        if compiled.names.is_empty() {
            for (index, matcher) in untyped.into_iter().enumerate() {
                let matcher = NameMatcher::untyped(matcher);
                compiled
                    .names
                    .push(matcher.within_item("match_subject_alt_names", index)?);
            }
        }
        for (index, text) in message.verify_certificate_hash.drain(..).enumerate() {
            let hash = hexadecimal(&text)
                .ok_or_else(|| Invalid::new("", "must be a SHA-256 hash in hexadecimal digits"));
            compiled
                .hashes
                .push(hash.within_item("verify_certificate_hash", index)?);
        }
        for (index, text) in message.verify_certificate_spki.drain(..).enumerate() {
            let hash = BASE64
                .decode(&text)
                .ok()
                .filter(|hash| hash.len() == SHA256.output_len())
                .ok_or_else(|| Invalid::new("", "must be a SHA-256 hash in base64"));
            compiled
                .keys
                .push(hash.within_item("verify_certificate_spki", index)?);
        }
        if let Some(source) = message.crl.take() {
            compiled.lists = lists(&read(source).within("crl")?).within("crl")?;
            if compiled.authorities.is_none() {
                return Err(Invalid::new("crl", "needs trusted_ca"));
            }
        }
        compiled.leaf_lists_only = std::mem::take(&mut message.only_verify_leaf_cert_crl);
        compiled.hide_authorities = std::mem::take(&mut message.suppress_client_ca_list);
        compiled.accept_untrusted = std::mem::take(&mut message.trust_chain_verification)
            == i32::from(TrustChainVerification::AcceptUntrusted);
        refuse_rest(&message)?;
        Ok(compiled)
    }

    /// What results when `dynamic`, of a secret, is merged into this context: single values of the secret win, lists
    /// are joined, switches are on when either is (`CombinedCertificateValidationContext`).
    pub(crate) fn merged(&self, dynamic: &Self) -> Self {
        let mut merged = self.clone();
        if dynamic.authorities.is_some() {
            merged.authorities.clone_from(&dynamic.authorities);
        }
        merged.names.extend(dynamic.names.iter().cloned());
        merged.hashes.extend(dynamic.hashes.iter().cloned());
        merged.keys.extend(dynamic.keys.iter().cloned());
        if !dynamic.lists.is_empty() {
            merged.lists.clone_from(&dynamic.lists);
        }
        merged.leaf_lists_only |= dynamic.leaf_lists_only;
        merged.accept_untrusted |= dynamic.accept_untrusted;
        merged.hide_authorities |= dynamic.hide_authorities;
        merged
    }

    /// Whether a peer has to pass anything at all.
    pub(crate) fn checks_something(&self) -> bool {
        self.authorities.is_some()
            || !self.names.is_empty()
            || !self.hashes.is_empty()
            || !self.keys.is_empty()
            || self.accept_untrusted
    }

    /// Whether a client must show a certificate although nothing says so: something is asked for that only one can
    /// fulfil.
    pub(crate) fn is_mandatory(&self) -> bool {
        let asks = !self.names.is_empty() || !self.hashes.is_empty() || !self.keys.is_empty();
        asks && !self.accept_untrusted
    }

    /// Names of the authorities, which tell a client with several certificates which one to show.
    pub(crate) fn hints(&self) -> Vec<DistinguishedName> {
        match &self.authorities {
            Some(authorities) if !self.hide_authorities => authorities.store.subjects(),
            _ => Vec::new(),
        }
    }

    /// Checks a certificate with the ones that were sent beside it. `asked` are matchers of this one connection, which
    /// replace the configured ones.
    pub(crate) fn check(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        role: PeerRole,
        asked: Option<&NameMatcher>,
        algorithms: WebPkiSupportedAlgorithms,
        now: UnixTime,
    ) -> Result<(), Error> {
        if self.accept_untrusted {
            return Ok(());
        }
        let parsed = EndEntityCert::try_from(leaf).map_err(convert)?;
        if let Some(authorities) = &self.authorities {
            self.check_chain(&parsed, authorities, intermediates, role, algorithms, now)?;
        }
        let (_, certificate) =
            parse_x509_certificate(leaf).map_err(|_| CertificateError::BadEncoding)?;
        if role == PeerRole::Server && !may_sign(&certificate) {
            return Err(refusal(Refusal::KeyUsage));
        }
        let required = asked.map_or(self.names.as_slice(), std::slice::from_ref);
        if !required.is_empty() {
            let fits = |name: &Name| required.iter().any(|matcher| matcher.matches(name));
            if !alternative_names(&certificate).iter().any(fits) {
                return Err(refusal(Refusal::Name));
            }
        }
        if !self.hashes.is_empty() || !self.keys.is_empty() {
            let hash = digest(&SHA256, leaf);
            let key = digest(&SHA256, certificate.public_key().raw);
            let known = self.hashes.iter().any(|known| known == hash.as_ref())
                || self.keys.iter().any(|known| known == key.as_ref());
            if !known {
                return Err(refusal(Refusal::Hash));
            }
        }
        Ok(())
    }

    fn check_chain(
        &self,
        leaf: &EndEntityCert<'_>,
        authorities: &Authorities,
        intermediates: &[CertificateDer<'_>],
        role: PeerRole,
        algorithms: WebPkiSupportedAlgorithms,
        now: UnixTime,
    ) -> Result<(), Error> {
        let usage = match role {
            PeerRole::Client => KeyUsage::client_auth(),
            PeerRole::Server => KeyUsage::server_auth(),
        };
        let lists: Vec<CertRevocationList<'_>> = self
            .lists
            .iter()
            .filter_map(|list| BorrowedCertRevocationList::from_der(list).ok())
            .map(CertRevocationList::from)
            .collect();
        let references: Vec<&CertRevocationList<'_>> = lists.iter().collect();
        let depth = if self.leaf_lists_only {
            RevocationCheckDepth::EndEntity
        } else {
            RevocationCheckDepth::Chain
        };
        // Without lists nothing is looked up; with lists, a certificate of unknown status is refused.
        let revocation = RevocationOptionsBuilder::new(&references)
            .ok()
            .map(|builder| builder.with_depth(depth).build());
        leaf.verify_for_usage(
            algorithms.all,
            &authorities.store.roots,
            intermediates,
            now,
            usage,
            revocation,
            None,
        )
        .map(|_| ())
        .map_err(convert)
    }
}

/// Whether the key usage of a certificate, if it limits any, allows signatures, which all key exchanges here need.
fn may_sign(certificate: &x509_parser::certificate::X509Certificate<'_>) -> bool {
    match certificate.key_usage() {
        Ok(Some(usage)) => usage.value.digital_signature(),
        Ok(None) => true,
        Err(_) => false,
    }
}

/// Revocation lists in PEM.
fn lists(pem: &str) -> Result<Vec<CertificateRevocationListDer<'static>>, Invalid> {
    let mut lists = Vec::new();
    for list in CertificateRevocationListDer::pem_slice_iter(pem.as_bytes()) {
        let list = list.map_err(|_| Invalid::new("", "is damaged PEM"))?;
        BorrowedCertRevocationList::from_der(&list)
            .map_err(|error| Invalid::new("", format!("cannot be used: {error:?}")))?;
        if lists.len() == MOST_LISTS {
            return Err(Invalid::new(
                "",
                format!("has more than {MOST_LISTS} lists"),
            ));
        }
        lists.push(list);
    }
    if lists.is_empty() {
        return Err(Invalid::new("", "holds no revocation list"));
    }
    Ok(lists)
}

/// A hash in hexadecimal digits, with or without colons.
fn hexadecimal(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text
        .chars()
        .filter(|character| *character != ':')
        .map(|character| character.to_digit(16).map(|digit| digit as u8))
        .collect::<Option<_>>()?;
    let bytes: Vec<u8> = digits
        .chunks_exact(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect();
    (digits.len() == 2 * SHA256.output_len()).then_some(bytes)
}

/// A refusal as the TLS library's error, which the counting of failures looks for.
pub(crate) fn refusal(refusal: Refusal) -> Error {
    CertificateError::Other(OtherError(Arc::new(refusal))).into()
}

/// The reason in an error of the TLS library, if it is one of ours.
pub(crate) fn refused(error: &Error) -> Option<Refusal> {
    match error {
        Error::InvalidCertificate(CertificateError::Other(OtherError(inner))) => {
            inner.downcast_ref().copied()
        }
        _ => None,
    }
}

/// An error of the chain's verification in the TLS library's terms, which decide the alert that the peer gets.
fn convert(error: webpki::Error) -> Error {
    let reason = match error {
        webpki::Error::BadDer | webpki::Error::BadDerTime => CertificateError::BadEncoding,
        webpki::Error::CertExpired { time, not_after } => {
            CertificateError::ExpiredContext { time, not_after }
        }
        webpki::Error::CertNotValidYet { time, not_before } => {
            CertificateError::NotValidYetContext { time, not_before }
        }
        webpki::Error::UnknownIssuer => CertificateError::UnknownIssuer,
        webpki::Error::CertRevoked => CertificateError::Revoked,
        webpki::Error::UnknownRevocationStatus => CertificateError::UnknownRevocationStatus,
        webpki::Error::InvalidSignatureForPublicKey => CertificateError::BadSignature,
        webpki::Error::RequiredEkuNotFoundContext(_) => CertificateError::InvalidPurpose,
        other => CertificateError::Other(OtherError(Arc::new(other))),
    };
    reason.into()
}

#[cfg(test)]
mod tests {
    use super::hexadecimal;

    #[test]
    fn hashes_are_sixty_four_digits_with_or_without_colons() {
        let plain = "ab".repeat(32);
        let colons = ["ab"; 32].join(":");
        assert_eq!(hexadecimal(&plain), Some(vec![0xab; 32]));
        assert_eq!(hexadecimal(&colons), Some(vec![0xab; 32]));
        for wrong in ["", "ab", &plain[1..], &format!("{}zz", &plain[2..])] {
            assert_eq!(hexadecimal(wrong), None, "{wrong}");
        }
    }
}
