//! TLS on both sides of the proxy: contexts compiled from configuration, handshakes, and what is known of a peer.
//!
//! A context refers to certificates and authorities, its own or of secrets. What the library needs is made of them when
//! a handshake finds that they have changed, and shared by all workers until they change again. A context whose secret
//! is not there refuses every handshake.

pub(crate) mod any_server;
pub(crate) mod certificate;
pub(crate) mod client;
pub(crate) mod context;
pub(crate) mod info;
pub(crate) mod names;
pub(crate) mod parameters;
pub(crate) mod server;
pub(crate) mod validation;
mod verifier;

use std::io;

use rustls::{CertificateError, Error};

use crate::stats::SslStats;
use validation::{Refusal, refused};

/// Why there is no encrypted connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    /// It took too long.
    #[error("the handshake took too long")]
    Timeout,
    /// The socket failed or the peer went away.
    #[error("{0}")]
    Broken(#[source] io::Error),
    /// The two sides cannot come to terms.
    #[error("{0}")]
    Tls(#[source] Error),
}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> Self {
        match error.downcast::<Error>() {
            Ok(error) => Self::Tls(error),
            Err(error) => Self::Broken(error),
        }
    }
}

impl From<Error> for HandshakeError {
    fn from(error: Error) -> Self {
        Self::Tls(error)
    }
}

impl HandshakeError {
    /// The reason as logs give it, in Envoy's words where it has some.
    pub(crate) fn reason(&self) -> String {
        match self {
            Self::Timeout => "connection timeout".to_owned(),
            Self::Broken(error) => {
                let text = error.to_string();
                text.split(" (os error")
                    .next()
                    .unwrap_or_default()
                    .to_owned()
            }
            Self::Tls(error) => format!("TLS_error:|{}:TLS_error_end", describe(error)),
        }
    }
}

/// What went wrong between the two sides.
fn describe(error: &Error) -> String {
    if let Some(refusal) = refused(error) {
        return match refusal {
            Refusal::Name | Refusal::Hash => format!("CERTIFICATE_VERIFY_FAILED:{refusal}"),
            Refusal::KeyUsage | Refusal::NotReady => refusal.to_string(),
        };
    }
    match error {
        Error::InvalidCertificate(reason) => {
            let text = match reason {
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                    "certificate has expired".to_owned()
                }
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                    "certificate is not yet valid".to_owned()
                }
                CertificateError::UnknownIssuer => {
                    "unable to get local issuer certificate".to_owned()
                }
                CertificateError::Revoked => "certificate revoked".to_owned(),
                CertificateError::UnknownRevocationStatus => {
                    "unable to get certificate CRL".to_owned()
                }
                CertificateError::InvalidPurpose => "unsupported certificate purpose".to_owned(),
                other => other.to_string(),
            };
            format!(
                "CERTIFICATE_VERIFY_FAILED:verify cert failed: X509_verify_cert: certificate verification error at depth 0: {text}"
            )
        }
        Error::AlertReceived(alert) => format!("{}", Alert(*alert)),
        other => other.to_string(),
    }
}

/// An alert of the peer as BoringSSL names it.
struct Alert(rustls::AlertDescription);

impl std::fmt::Display for Alert {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = format!("{:?}", self.0);
        let version = if name == "CertificateRequired" {
            "TLSV1"
        } else {
            "SSLV3"
        };
        write!(formatter, "{version}_ALERT")?;
        for (index, character) in name.char_indices() {
            if index == 0 || character.is_ascii_uppercase() {
                formatter.write_str("_")?;
            }
            write!(formatter, "{}", character.to_ascii_uppercase())?;
        }
        Ok(())
    }
}

/// Counts a failed handshake.
fn count(stats: &SslStats, error: &HandshakeError) {
    stats.connection_error.inc();
    let HandshakeError::Tls(error) = error else {
        return;
    };
    match (refused(error), error) {
        (Some(Refusal::Name), _) => stats.fail_verify_san.inc(),
        (Some(Refusal::Hash), _) => stats.fail_verify_cert_hash.inc(),
        (Some(Refusal::KeyUsage), _) => stats.was_key_usage_invalid.inc(),
        (Some(Refusal::NotReady), _) => stats.not_ready.inc(),
        (None, Error::NoCertificatesPresented) => stats.fail_verify_no_cert.inc(),
        (None, Error::InvalidCertificate(_)) => stats.fail_verify_error.inc(),
        _ => {}
    }
}
