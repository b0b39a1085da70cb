//! What can fail while an image is pulled.

use std::{io, time::Duration};

use http::StatusCode;
use thiserror::Error;

use crate::{ConfigError, CredentialsError, ManifestError, StoreError};

/// Why an image was not pulled.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PullError {
    /// The store failed, or content is not what its digest says.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The credentials for the registry cannot be had.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// This machine has no certificates to check registries by.
    #[error(
        "there are no certificate authorities on this machine to check registries by ({0}); install the package \
         ca-certificates, or give the registry's own authority"
    )]
    Authorities(String),
    /// No connection.
    #[error("cannot connect to {host}:{port}: {source}")]
    Connect {
        /// Name or address.
        host: String,
        /// TCP port.
        port: u16,
        /// The reason.
        source: io::Error,
    },
    /// A connection, but no trust.
    #[error(
        "cannot make a secure connection to {host}:{port}: {source}; if the registry has no TLS and the network is \
         trusted, list it as insecure"
    )]
    Tls {
        /// Name or address.
        host: String,
        /// TCP port.
        port: u16,
        /// The reason.
        source: io::Error,
    },
    /// An address that may not be asked.
    #[error("{from} leads to an address that is refused: {why}")]
    Address {
        /// The registry, or the address that led there.
        from: String,
        /// Why it is refused, and what to do.
        why: String,
    },
    /// The connection broke, or nothing came for too long.
    #[error("the transfer from {url} broke off: {why}")]
    Exchange {
        /// The address.
        url: String,
        /// Why.
        why: String,
    },
    /// The registry wants other credentials, or any.
    #[error(
        "{registry} does not let {repository} be pulled: {why}; check its name, and log in with `docker login {registry}` if it is private"
    )]
    Unauthorized {
        /// The registry.
        registry: String,
        /// The repository.
        repository: String,
        /// What was tried.
        why: String,
    },
    /// The registry does not have the image.
    #[error("{registry} has no image {name}; check the name and the tag")]
    Unknown {
        /// The image.
        name: String,
        /// The registry.
        registry: String,
    },
    /// The registry answered with an error.
    #[error("{url} answered {status}{message}")]
    Status {
        /// The address.
        url: String,
        /// The status.
        status: StatusCode,
        /// What the body says, after a colon; empty when it says nothing.
        message: String,
        /// How long the registry wants not to be asked.
        retry_after: Option<Duration>,
    },
    /// The authentication server gave no token.
    #[error("{url} gave no token: {why}")]
    Token {
        /// The server.
        url: String,
        /// Why.
        why: String,
    },
    /// The manifest cannot be used, or is for other platforms.
    #[error("{name}: {source}")]
    Manifest {
        /// The image.
        name: String,
        /// Why.
        source: ManifestError,
    },
    /// The configuration cannot be used.
    #[error("{name}: {source}")]
    Config {
        /// The image.
        name: String,
        /// Why.
        source: ConfigError,
    },
    /// The image is larger than the limit.
    #[error(
        "{name} is refused: {what} has {bytes} bytes, more than {limit}; raise the limit if the image is trusted"
    )]
    TooLarge {
        /// The image.
        name: String,
        /// The whole, or a part.
        what: &'static str,
        /// Bytes announced, or read so far.
        bytes: u64,
        /// Bytes allowed.
        limit: u64,
    },
}

impl PullError {
    /// Is it worth another attempt?
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Exchange { .. } => true,
            Self::Status { status, .. } => {
                status.is_server_error()
                    || [StatusCode::TOO_MANY_REQUESTS, StatusCode::REQUEST_TIMEOUT].contains(status)
            }
            _ => false,
        }
    }

    /// How long the registry wants not to be asked.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}
