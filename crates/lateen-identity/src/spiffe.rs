//! Names of workloads, as the SPIFFE-ID standard defines them.
//!
//! The grammar is the strict one of the standard (section 2): lower-case trust domain, path segments of letters,
//! digits, `.`, `-` and `_`, no percent-encoding, no relative or empty segments, no port, user, query or fragment.
//! A string that another implementation might normalise into a different identity is therefore refused.

use std::{borrow::Borrow, fmt, str::FromStr};

/// The scheme of every id.
const SCHEME: &str = "spiffe://";
/// Longest id in bytes (SPIFFE-ID, section 2.3).
pub const MAX_ID: usize = 2048;
/// Longest trust domain in bytes (SPIFFE-ID, section 2.3).
pub const MAX_TRUST_DOMAIN: usize = 255;

/// Why a string is not a SPIFFE id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpiffeError {
    /// Longer than [`MAX_ID`] bytes.
    #[error("a SPIFFE id has at most {MAX_ID} bytes, and this one has {0}")]
    TooLong(usize),
    /// Another scheme, or none.
    #[error("a SPIFFE id starts with `spiffe://`: {0:?}")]
    Scheme(String),
    /// The trust domain is empty, too long, or has a character that is not allowed.
    #[error(
        "a trust domain has 1 to {MAX_TRUST_DOMAIN} characters of a-z, 0-9, `.`, `-` and `_`: {0:?}"
    )]
    TrustDomain(String),
    /// A segment of the path is empty, `.`, `..`, or has a character that is not allowed.
    #[error(
        "a path segment has characters of a-z, A-Z, 0-9, `.`, `-` and `_`, and is not `.` or `..`: {0:?}"
    )]
    Segment(String),
}

/// The administrative domain that a root of trust speaks for, such as `cluster.local`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain(String);

impl TrustDomain {
    /// The name, without scheme.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TrustDomain {
    type Err = SpiffeError;

    /// Reads a bare name such as `cluster.local`.
    fn from_str(name: &str) -> Result<Self, SpiffeError> {
        let allowed = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_');
        if name.is_empty() || name.len() > MAX_TRUST_DOMAIN || !name.bytes().all(allowed) {
            return Err(SpiffeError::TrustDomain(shown(name)));
        }
        Ok(Self(name.to_owned()))
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for TrustDomain {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// A valid id, `spiffe://TRUST-DOMAIN/PATH`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    trust_domain: TrustDomain,
    /// Starts with `/`, or is empty for the id of the trust domain itself.
    path: String,
}

impl SpiffeId {
    /// The id that Istio gives a workload: `spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT`.
    ///
    /// # Errors
    /// When a name is not one valid path segment, or the whole is too long.
    pub fn workload(
        trust_domain: &TrustDomain,
        namespace: &str,
        account: &str,
    ) -> Result<Self, SpiffeError> {
        // Checked one by one: a name with a slash must not become two segments.
        check_segment(namespace)?;
        check_segment(account)?;
        format!("{SCHEME}{trust_domain}/ns/{namespace}/sa/{account}").parse()
    }

    /// The trust domain that vouches for this id.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The path with its leading slash, or the empty string for a trust domain's own id.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Namespace and service account, when the id has Istio's form.
    pub fn namespace_and_account(&self) -> Option<(&str, &str)> {
        let (namespace, account) = self.path.strip_prefix("/ns/")?.split_once("/sa/")?;
        let plain = !namespace.contains('/') && !account.contains('/');
        plain.then_some((namespace, account))
    }
}

impl FromStr for SpiffeId {
    type Err = SpiffeError;

    fn from_str(text: &str) -> Result<Self, SpiffeError> {
        if text.len() > MAX_ID {
            return Err(SpiffeError::TooLong(text.len()));
        }
        let rest = text
            .strip_prefix(SCHEME)
            .ok_or_else(|| SpiffeError::Scheme(shown(text)))?;
        let (domain, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let trust_domain = domain.parse()?;
        if let Some(segments) = path.strip_prefix('/') {
            segments.split('/').try_for_each(check_segment)?;
        }
        Ok(Self {
            trust_domain,
            path: path.to_owned(),
        })
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}{}", self.trust_domain, self.path)
    }
}

/// Accepts one segment between slashes.
fn check_segment(segment: &str) -> Result<(), SpiffeError> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    if segment.is_empty() || segment == "." || segment == ".." || !segment.bytes().all(allowed) {
        return Err(SpiffeError::Segment(shown(segment)));
    }
    Ok(())
}

/// What an error repeats of a string that a peer may have chosen: its first 80 characters.
fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests;
