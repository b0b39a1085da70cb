//! What contexts of both directions have in common, and where their certificates and checks come from.

use std::sync::Arc;

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

impl Common {
    /// A number that changes whenever one of the secrets does. Each version only grows, so their sum does not repeat.
    pub(super) fn state(&self) -> u64 {
        self.secrets().map(|slot| slot.version()).sum()
    }

    /// Whether there is nothing to wait for.
    pub(super) fn is_settled(&self) -> bool {
        self.secrets().all(|slot| slot.is_settled())
    }

    /// The secrets that it refers to.
    pub(super) fn secrets(&self) -> impl Iterator<Item = &Arc<SecretSlot>> {
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
