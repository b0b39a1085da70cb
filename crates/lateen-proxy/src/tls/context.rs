//! What contexts of both directions have in common, and where their certificates and checks come from.

use std::ops::Deref;
use std::sync::Arc;

use arc_swap::ArcSwapOption;

use super::HandshakeError;
use super::certificate::Certificate;
use super::parameters::Parameters;
use super::validation::{Refusal, Validation};
use crate::secret::SecretSlot;

/// The common half of a context.
#[derive(Debug)]
pub(crate) struct Common {
    pub(crate) parameters: Parameters,
    /// Application protocols, best first.
    pub(crate) protocols: Vec<Vec<u8>>,
    pub(crate) certificates: Vec<CertificateSource>,
    /// Checks that the configuration has itself.
    pub(crate) validation: Option<Arc<Validation>>,
    /// Checks of a secret, which are merged into them.
    pub(crate) validation_secret: Option<Arc<SecretSlot>>,
}

/// Where a certificate comes from.
#[derive(Debug, Clone)]
pub(crate) enum CertificateSource {
    Inline(Arc<Certificate>),
    Secret(Arc<SecretSlot>),
}

/// What was made of the secrets in one state of them.
#[derive(Debug)]
pub(crate) struct Built<T> {
    state: u64,
    content: T,
}

impl<T> Deref for Built<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.content
    }
}

impl Common {
    /// What `build` makes of the secrets as they are now. It is kept in `kept` until they change.
    pub(super) fn current<T>(
        &self,
        kept: &ArcSwapOption<Built<T>>,
        build: impl FnOnce() -> Result<T, HandshakeError>,
    ) -> Result<Arc<Built<T>>, HandshakeError> {
        // Read before the secrets: a change in between only makes it be built once more.
        let state = self.state();
        let loaded = kept.load();
        if let Some(current) = loaded.as_ref().filter(|current| current.state == state) {
            return Ok(current.clone());
        }
        let content = build()?;
        let current = Arc::new(Built { state, content });
        kept.store(Some(current.clone()));
        Ok(current)
    }

    /// Checks that a context without secrets can be used, as `build` does.
    pub(super) fn prepare<T>(
        &self,
        build: impl FnOnce() -> Result<T, HandshakeError>,
    ) -> Result<(), String> {
        if self.secrets().next().is_some() {
            return Ok(());
        }
        build().map(drop).map_err(|error| error.to_string())
    }

    /// A number that changes whenever one of the secrets does. Each version only grows, so their sum does not repeat.
    fn state(&self) -> u64 {
        self.secrets().map(|slot| slot.version()).sum()
    }

    /// Whether there is nothing to wait for.
    pub(super) fn is_settled(&self) -> bool {
        self.secrets().all(|slot| slot.is_settled())
    }

    /// The secrets that it refers to.
    fn secrets(&self) -> impl Iterator<Item = &Arc<SecretSlot>> {
        let certificates = self.certificates.iter().filter_map(|source| match source {
            CertificateSource::Inline(_) => None,
            CertificateSource::Secret(slot) => Some(slot),
        });
        certificates.chain(&self.validation_secret)
    }

    /// The certificates now, in order.
    pub(crate) fn certificates(&self) -> Result<Vec<Arc<Certificate>>, Refusal> {
        let load = |source: &CertificateSource| match source {
            CertificateSource::Inline(certificate) => Ok(certificate.clone()),
            CertificateSource::Secret(slot) => slot.certificate().ok_or(Refusal::NotReady),
        };
        self.certificates.iter().map(load).collect()
    }

    /// The checks now; nothing when no peer is checked. A secret that is asked for and not there is an error: without
    /// its authorities everybody would pass.
    pub(crate) fn validation(&self) -> Result<Option<Arc<Validation>>, Refusal> {
        let Some(slot) = &self.validation_secret else {
            return Ok(self.validation.clone());
        };
        let dynamic = slot.validation().ok_or(Refusal::NotReady)?;
        Ok(Some(match &self.validation {
            Some(fixed) => Arc::new(fixed.merged(&dynamic)),
            None => dynamic,
        }))
    }
}
