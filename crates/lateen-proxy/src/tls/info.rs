//! What is known of a connection after its handshake: for headers, logs and policies.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use rustls::{CommonState, ProtocolVersion};
use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;
use x509_parser::parse_x509_certificate;

use super::certificate::Certificate;
use super::names::{Name, NameKind, alternative_names, rfc_2253};
use super::parameters::suite_name;

/// The facts of a TLS connection.
#[derive(Debug)]
pub(crate) struct TlsInfo {
    /// `TLSv1.2` or `TLSv1.3`.
    pub(crate) version: &'static str,
    pub(crate) cipher: &'static str,
    /// The session is a continued one, whose peer was verified when it began.
    pub(crate) resumed: bool,
    /// The certificates that the peer showed, leaf first.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) peer: Option<CertificateInfo>,
    /// The certificate that was shown to the peer.
    pub(crate) local: Option<CertificateInfo>,
}

/// The facts of a certificate.
#[derive(Debug)]
pub(crate) struct CertificateInfo {
    /// In the form of RFC 2253.
    pub(crate) subject: String,
    pub(crate) issuer: String,
    /// Hexadecimal digits, lower case.
    pub(crate) serial: String,
    pub(crate) names: Vec<Name>,
    /// SHA-256 of the certificate, hexadecimal.
    pub(crate) fingerprint: String,
    pub(crate) not_before: OffsetDateTime,
    pub(crate) not_after: OffsetDateTime,
}

impl TlsInfo {
    /// Reads a finished handshake. `local` is what this side showed.
    pub(super) fn new(session: &Session<'_>, local: Option<Arc<Certificate>>) -> Self {
        let Session { state, resumed } = session;
        let chain: Vec<_> = state
            .peer_certificates()
            .unwrap_or_default()
            .iter()
            .map(|certificate| certificate.clone().into_owned())
            .collect();
        let local = local
            .as_ref()
            .and_then(|certificate| certificate.key.cert.first());
        Self {
            version: match state.protocol_version() {
                Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
                Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
                _ => "",
            },
            cipher: state
                .negotiated_cipher_suite()
                .map_or("", |suite| suite_name(suite.suite())),
            resumed: *resumed,
            peer: chain.first().and_then(CertificateInfo::read),
            local: local.and_then(CertificateInfo::read),
            chain,
        }
    }
}

/// A connection of either side of the library.
pub(super) struct Session<'s> {
    state: &'s CommonState,
    resumed: bool,
}

impl<'s> From<&'s rustls::ServerConnection> for Session<'s> {
    fn from(connection: &'s rustls::ServerConnection) -> Self {
        let resumed = connection.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
        Self {
            state: connection,
            resumed,
        }
    }
}

impl<'s> From<&'s rustls::ClientConnection> for Session<'s> {
    fn from(connection: &'s rustls::ClientConnection) -> Self {
        let resumed = connection.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
        Self {
            state: connection,
            resumed,
        }
    }
}

impl CertificateInfo {
    /// Reads a certificate; nothing when it cannot be read.
    pub(crate) fn read(der: &CertificateDer<'static>) -> Option<Self> {
        let (_, parsed) = parse_x509_certificate(der).ok()?;
        Some(Self {
            subject: rfc_2253(parsed.subject()),
            issuer: rfc_2253(parsed.issuer()),
            serial: hexadecimal(parsed.raw_serial())
                .trim_start_matches("00")
                .to_owned(),
            names: alternative_names(&parsed),
            fingerprint: hexadecimal(digest(&SHA256, der).as_ref()),
            not_before: parsed.validity().not_before.to_datetime(),
            not_after: parsed.validity().not_after.to_datetime(),
        })
    }

    /// The first URI, which is what workloads of a mesh are called; empty without one.
    pub(crate) fn principal(&self) -> &str {
        self.names(NameKind::Uri).next().unwrap_or_default()
    }

    /// The names of a kind.
    pub(crate) fn names(&self, kind: NameKind) -> impl Iterator<Item = &str> {
        let of_kind = self.names.iter().filter(move |name| name.kind == kind);
        of_kind.map(|name| name.value.as_str())
    }
}

/// Bytes as hexadecimal digits, lower case.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}
