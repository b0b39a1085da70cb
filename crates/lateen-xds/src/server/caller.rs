//! Who sends a request, and what was shown to prove it.

use std::fmt;
use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use tonic::Request;

use super::Peer;

/// Longest bearer token that is looked at, in bytes. A service account's has about 1 KiB.
const MAX_TOKEN: usize = 16 * 1024;

/// The sender of a request. What was shown is not checked here, apart from what the handshake checks.
#[derive(Clone)]
pub struct Caller {
    /// Where the connection comes from.
    pub peer: Peer,
    /// Whether the connection is encrypted.
    pub secure: bool,
    /// The certificates of a finished handshake, leaf first; empty when none was shown.
    pub certificates: Arc<[CertificateDer<'static>]>,
    /// The bearer token of the request.
    pub token: Option<String>,
}

/// What a connection over TLS adds to its requests.
#[derive(Debug, Clone)]
pub(super) struct SecureConnection {
    pub(super) peer: Peer,
    pub(super) certificates: Arc<[CertificateDer<'static>]>,
}

impl Caller {
    /// The sender of a request that came through a server of this module.
    pub fn of<T>(request: &Request<T>) -> Self {
        let authorization = request.metadata().get("authorization");
        let token = authorization.and_then(|value| {
            let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
            let token = token.trim();
            let usable = scheme.eq_ignore_ascii_case("bearer") && token.len() <= MAX_TOKEN;
            usable.then(|| token.to_owned())
        });
        match request.extensions().get::<SecureConnection>() {
            Some(connection) => Self {
                peer: connection.peer,
                secure: true,
                certificates: Arc::clone(&connection.certificates),
                token,
            },
            None => Self {
                peer: request.remote_addr().map_or(Peer::Unix, Peer::Tcp),
                secure: false,
                certificates: Arc::default(),
                token,
            },
        }
    }

    /// A sender that shows nothing.
    pub fn anonymous(peer: Peer) -> Self {
        Self {
            peer,
            secure: false,
            certificates: Arc::default(),
            token: None,
        }
    }
}

impl fmt::Debug for Caller {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the token: whoever reads it is its holder.
        let certificates = self.certificates.len();
        let token = if self.token.is_some() { ", token" } else { "" };
        write!(
            formatter,
            "Caller({:?}, {certificates} certificates{token})",
            self.peer
        )
    }
}
