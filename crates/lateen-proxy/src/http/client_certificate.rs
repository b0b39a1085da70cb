//! `x-forwarded-client-cert`: what is passed on about the client's certificate. Source: Envoy's documentation of the
//! header.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use http::{HeaderMap, HeaderName, HeaderValue};
use rustls_pki_types::CertificateDer;

use crate::tls::info::TlsInfo;
use crate::tls::names::NameKind;

const X_CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");

/// What happens to the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ForwardMode {
    /// It is removed.
    Sanitize,
    /// It is passed on when the client showed a certificate.
    ForwardOnly,
    /// The facts of the client's certificate are added to it.
    AppendForward,
    /// It is replaced by the facts of the client's certificate.
    SanitizeSet,
    /// It is passed on, whoever the client is.
    AlwaysForwardOnly,
}

/// Which facts are told beside the hash.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Details {
    pub(crate) certificate: bool,
    pub(crate) chain: bool,
    pub(crate) subject: bool,
    pub(crate) uri: bool,
    pub(crate) dns: bool,
}

/// Treats the header of a request.
pub(crate) fn apply(
    headers: &mut HeaderMap,
    mode: ForwardMode,
    details: Details,
    tls: Option<&TlsInfo>,
) {
    if mode == ForwardMode::AlwaysForwardOnly {
        return;
    }
    let shown = tls.filter(|tls| tls.peer.is_some());
    let (Some(tls), true) = (shown, mode != ForwardMode::Sanitize) else {
        headers.remove(X_CLIENT_CERT);
        return;
    };
    if mode == ForwardMode::ForwardOnly {
        return;
    }
    let mut text = String::new();
    if mode == ForwardMode::AppendForward {
        for earlier in headers.get_all(X_CLIENT_CERT) {
            text.push_str(&String::from_utf8_lossy(earlier.as_bytes()));
            text.push(',');
        }
    }
    text.push_str(&element(tls, details));
    match HeaderValue::from_bytes(text.as_bytes()) {
        Ok(value) => drop(headers.insert(X_CLIENT_CERT, value)),
        // Without the facts there must not be somebody else's.
        Err(_) => drop(headers.remove(X_CLIENT_CERT)),
    }
}

/// The facts of one hop.
fn element(tls: &TlsInfo, details: Details) -> String {
    let mut parts = Vec::new();
    if let Some(local) = &tls.local {
        parts.extend(local.names(NameKind::Uri).map(|uri| format!("By={uri}")));
    }
    if let Some(peer) = &tls.peer {
        parts.push(format!("Hash={}", peer.fingerprint));
        if details.certificate
            && let Some(leaf) = tls.chain.first()
        {
            parts.push(format!("Cert=\"{}\"", url_encoded(leaf)));
        }
        if details.chain {
            let chain: String = tls.chain.iter().map(url_encoded).collect();
            parts.push(format!("Chain=\"{chain}\""));
        }
        if details.subject {
            // Quotes inside would end the value early.
            let subject = peer.subject.replace('"', "\\\"");
            parts.push(format!("Subject=\"{subject}\""));
        }
        if details.uri {
            let before = parts.len();
            parts.extend(peer.names(NameKind::Uri).map(|uri| format!("URI={uri}")));
            if parts.len() == before {
                parts.push("URI=".to_owned());
            }
        }
        if details.dns {
            parts.extend(peer.names(NameKind::Dns).map(|name| format!("DNS={name}")));
        }
    }
    parts.join(";")
}

/// A certificate as PEM, with the characters escaped that mean something in the header.
pub(crate) fn url_encoded(certificate: &CertificateDer<'_>) -> String {
    let body = BASE64.encode(certificate);
    let mut text = String::from("-----BEGIN%20CERTIFICATE-----%0A");
    for (index, character) in body.chars().enumerate() {
        if index > 0 && index % 64 == 0 {
            text.push_str("%0A");
        }
        match character {
            '+' => text.push_str("%2B"),
            '/' => text.push_str("%2F"),
            '=' => text.push_str("%3D"),
            other => text.push(other),
        }
    }
    text.push_str("%0A-----END%20CERTIFICATE-----%0A");
    text
}
