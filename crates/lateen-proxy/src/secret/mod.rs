//! Certificates and authorities by name, from the control plane or from an agent in this process.
//!
//! TLS contexts refer to secrets by name and source. Asking for a name makes a [`SecretSlot`]; whoever provides the
//! source fills it, and every context that holds the slot sees the new content with its next handshake. A bad secret
//! never replaces a good one. A name without content serves nobody: handshakes that need it are refused.
//!
//! Sources: `ads` is the discovery stream. Every other config source is what Istio's agent serves over its socket
//! (`sds-grpc`): there the agent in this process puts `default` and `ROOTCA` with [`Secrets::put_certificate`] and
//! [`Secrets::put_trust`], and names like `file-cert:CHAIN~KEY` and `file-root:AUTHORITIES` are read from files, which
//! are looked at again when they change.

mod slot;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use lateen_route::{Invalid, Within, refuse_rest};
use lateen_xds::pb::envoy::extensions::transport_sockets::tls::v3 as pb;
use lateen_xds::pb::envoy::extensions::transport_sockets::tls::v3::secret::Type;
use parking_lot::Mutex;

pub(crate) use slot::{Material, SecretSlot};

use crate::tls::certificate::{self, Certificate};
use crate::tls::validation::{Authorities, Validation};

/// Where secrets come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Origin {
    /// The discovery stream of the control plane.
    Discovery,
    /// The agent in this process.
    Local,
}

/// Why a secret was not taken over. The one before stays in effect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("secret `{name}` cannot be used: {reason}")]
pub struct SecretError {
    /// Its name.
    pub name: String,
    /// What is wrong with it.
    pub reason: String,
}

/// The secrets of an engine. Clones are handles of the same store.
#[derive(Clone, Default)]
pub struct Secrets(Arc<Store>);

#[derive(Default)]
struct Store {
    slots: Mutex<BTreeMap<(Origin, String), Arc<SecretSlot>>>,
    observers: Mutex<Vec<Observer>>,
    /// The thread that looks at files and at the time is running.
    watching: AtomicBool,
}

/// Called after a secret changed outside of a discovery update.
type Observer = Box<dyn Fn() + Send + Sync>;

impl Secrets {
    /// Puts a certificate chain (PEM, leaf first) with its private key (PEM) under a local name, such as `default`.
    /// Connections that are open keep what they were made with; the next handshakes show this one.
    ///
    /// # Errors
    /// When chain or key cannot be read, or do not belong together. What was there before stays.
    pub fn put_certificate(&self, name: &str, chain: &str, key: &str) -> Result<(), SecretError> {
        let certificate =
            Certificate::from_pem(chain, key).map_err(|reason| error(name, reason))?;
        self.put_local(name, Material::Certificate(Arc::new(certificate)));
        Ok(())
    }

    /// Puts the authorities (PEM) that peers are verified with under a local name, such as `ROOTCA`.
    ///
    /// # Errors
    /// When one of them cannot be an authority. What was there before stays.
    pub fn put_trust(&self, name: &str, authorities: &str) -> Result<(), SecretError> {
        let authorities =
            Authorities::from_pem(authorities).map_err(|reason| error(name, reason))?;
        let validation = Validation::of_authorities(authorities);
        self.put_local(name, Material::Trust(Arc::new(validation)));
        Ok(())
    }

    /// Takes a local secret away. Handshakes that need it are refused from now on.
    pub fn remove(&self, name: &str) {
        let slot = self.find(Origin::Local, name);
        if let Some(slot) = slot {
            slot.clear();
            self.notify();
        }
    }

    /// Local names that TLS contexts refer to now.
    pub fn wanted(&self) -> BTreeSet<String> {
        self.names(Origin::Local)
    }

    /// Names of a source that contexts refer to.
    pub(crate) fn names(&self, origin: Origin) -> BTreeSet<String> {
        let slots = self.0.slots.lock();
        slots
            .iter()
            .filter(|((of, _), slot)| *of == origin && is_used(slot))
            .map(|((_, name), _)| name.clone())
            .collect()
    }

    /// The place of a secret that a context refers to. After `patience`, the context goes on without it.
    pub(crate) fn slot(
        &self,
        origin: Origin,
        name: &str,
        patience: Option<Duration>,
    ) -> Arc<SecretSlot> {
        let slot = self
            .0
            .slots
            .lock()
            .entry((origin, name.to_owned()))
            .or_insert_with(|| Arc::new(SecretSlot::new(origin, name)))
            .clone();
        if !slot.is_settled() {
            if origin == Origin::Local && watch::is_file(name) {
                // At once, so that a configuration with readable files does not wait.
                watch::look(&slot);
                self.watch();
            }
            if let Some(patience) = patience {
                slot.wait_until(Instant::now() + patience);
                self.watch();
            }
        }
        slot
    }

    /// Every secret that is known or asked for, for display.
    pub(crate) fn all(&self) -> Vec<Arc<SecretSlot>> {
        self.0.slots.lock().values().cloned().collect()
    }

    /// Takes a secret of the discovery stream over. Observers are not told: the caller is the one who asks.
    pub(crate) fn discovered(&self, message: pb::Secret) -> Result<(), Invalid> {
        let name = message.name.clone();
        let material = material(message)?;
        if let Some(slot) = self.find(Origin::Discovery, &name) {
            slot.fill(material);
        }
        Ok(())
    }

    /// The control plane says that there is no such secret. Whoever waits for it goes on and serves nobody.
    pub(crate) fn missing(&self, name: &str) {
        if let Some(slot) = self.find(Origin::Discovery, name) {
            slot.clear();
        }
    }

    /// Forgets what no context refers to any more. Local secrets are kept: the agent puts them once.
    pub(crate) fn forget_unused(&self) {
        self.0.slots.lock().retain(|(origin, _), slot| {
            is_used(slot) || (*origin == Origin::Local && slot.load().is_some())
        });
    }

    /// Calls `observer` after every change that does not come from the discovery stream. It may be called from any
    /// thread.
    pub(crate) fn observe(&self, observer: impl Fn() + Send + Sync + 'static) {
        self.0.observers.lock().push(Box::new(observer));
    }

    fn put_local(&self, name: &str, material: Material) {
        let slot = self
            .0
            .slots
            .lock()
            .entry((Origin::Local, name.to_owned()))
            .or_insert_with(|| Arc::new(SecretSlot::new(Origin::Local, name)))
            .clone();
        slot.fill(material);
        self.notify();
    }

    fn find(&self, origin: Origin, name: &str) -> Option<Arc<SecretSlot>> {
        let slots = self.0.slots.lock();
        slots.get(&(origin, name.to_owned())).cloned()
    }

    fn notify(&self) {
        for observer in self.0.observers.lock().iter() {
            observer();
        }
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_set()
            .entries(self.0.slots.lock().keys())
            .finish()
    }
}

/// Whether somebody beside the store holds the slot.
fn is_used(slot: &Arc<SecretSlot>) -> bool {
    Arc::strong_count(slot) > 1
}

/// Compiles a secret of the discovery stream.
fn material(mut message: pb::Secret) -> Result<Material, Invalid> {
    message.name.clear();
    let compiled = match message.r#type.take() {
        Some(Type::TlsCertificate(certificate)) => Certificate::compile(certificate)
            .within("tls_certificate")
            .map(|certificate| Material::Certificate(Arc::new(certificate))),
        Some(Type::ValidationContext(context)) => Validation::compile(context)
            .within("validation_context")
            .map(|validation| Material::Trust(Arc::new(validation))),
        Some(Type::SessionTicketKeys(_)) => Err(Invalid::unsupported("session_ticket_keys")),
        Some(Type::GenericSecret(generic)) => generic_secret(generic).within("generic_secret"),
        None => Err(Invalid::new("type", "is required")),
    }?;
    refuse_rest(&message)?;
    Ok(compiled)
}

fn generic_secret(mut message: pb::GenericSecret) -> Result<Material, Invalid> {
    let source = message
        .secret
        .take()
        .ok_or_else(|| Invalid::new("secret", "is required"))?;
    refuse_rest(&message)?;
    let content = certificate::read(source).within("secret")?;
    Ok(Material::Generic(content.into_bytes().into()))
}

fn error(name: &str, reason: String) -> SecretError {
    SecretError {
        name: name.to_owned(),
        reason,
    }
}

#[cfg(test)]
mod tests;
