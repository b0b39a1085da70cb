//! The place of one secret.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;

use super::Origin;
use crate::tls::certificate::Certificate;
use crate::tls::validation::Validation;

/// The content of a secret, ready for use.
#[derive(Clone)]
pub(crate) enum Material {
    Certificate(Arc<Certificate>),
    Trust(Arc<Validation>),
    /// Something that only its user understands, such as a password.
    Generic(Arc<[u8]>),
}

/// A secret that is asked for by name, and its content once it has come.
pub(crate) struct SecretSlot {
    pub(crate) origin: Origin,
    pub(crate) name: String,
    content: ArcSwapOption<Material>,
    /// Grows with every change of the content.
    version: AtomicU64,
    /// The source said that there is no such secret, or the time to wait for it was over.
    answered: AtomicBool,
    deadline: Mutex<Option<Instant>>,
    changed_at: Mutex<Option<SystemTime>>,
    /// What its files looked like when they were read.
    pub(super) seen: Mutex<Option<super::watch::Look>>,
}

impl SecretSlot {
    pub(super) fn new(origin: Origin, name: &str) -> Self {
        Self {
            origin,
            name: name.to_owned(),
            content: ArcSwapOption::empty(),
            version: AtomicU64::new(0),
            answered: AtomicBool::new(false),
            deadline: Mutex::default(),
            changed_at: Mutex::default(),
            seen: Mutex::default(),
        }
    }

    /// The content; nothing when it has not come or was taken away.
    pub(crate) fn load(&self) -> Option<Arc<Material>> {
        self.content.load_full()
    }

    /// The certificate, when it is one.
    pub(crate) fn certificate(&self) -> Option<Arc<Certificate>> {
        match &**self.content.load().as_ref()? {
            Material::Certificate(certificate) => Some(certificate.clone()),
            Material::Trust(_) | Material::Generic(_) => None,
        }
    }

    /// How peers are verified, when it says so.
    pub(crate) fn validation(&self) -> Option<Arc<Validation>> {
        match &**self.content.load().as_ref()? {
            Material::Trust(validation) => Some(validation.clone()),
            Material::Certificate(_) | Material::Generic(_) => None,
        }
    }

    /// The content of a generic secret, when it is one.
    pub(crate) fn generic(&self) -> Option<Arc<[u8]>> {
        match &**self.content.load().as_ref()? {
            Material::Generic(content) => Some(content.clone()),
            Material::Certificate(_) | Material::Trust(_) => None,
        }
    }

    /// A number that is different for every content.
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// When the content came.
    pub(crate) fn changed_at(&self) -> Option<SystemTime> {
        *self.changed_at.lock()
    }

    /// Whether there is nothing to wait for: it has come, or it will not.
    pub(crate) fn is_settled(&self) -> bool {
        self.content.load().is_some() || self.answered.load(Ordering::Relaxed)
    }

    pub(super) fn fill(&self, material: Material) {
        self.content.store(Some(Arc::new(material)));
        self.touched();
    }

    pub(super) fn clear(&self) {
        self.content.store(None);
        self.touched();
    }

    /// Nobody waits longer than until then.
    pub(super) fn wait_until(&self, at: Instant) {
        let mut deadline = self.deadline.lock();
        *deadline = Some(deadline.map_or(at, |earlier| earlier.min(at)));
    }

    /// Whether somebody waits for the time to be over.
    pub(super) fn is_timed(&self) -> bool {
        !self.is_settled() && self.deadline.lock().is_some()
    }

    /// Ends the waiting when its time is over; says whether it did.
    pub(super) fn expire(&self, now: Instant) -> bool {
        let over = !self.is_settled() && self.deadline.lock().is_some_and(|at| at <= now);
        if over {
            self.answered.store(true, Ordering::Relaxed);
        }
        over
    }

    fn touched(&self) {
        *self.changed_at.lock() = Some(SystemTime::now());
        self.answered.store(true, Ordering::Relaxed);
        self.version.fetch_add(1, Ordering::Release);
    }
}

impl fmt::Debug for SecretSlot {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the content: it holds private keys.
        write!(formatter, "SecretSlot({:?} {})", self.origin, self.name)
    }
}
