//! Secrets in files, and the end of waiting for secrets that do not come.
//!
//! One thread looks at both, and runs only while there is something to look at.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use super::{Material, Origin, SecretSlot, Secrets, Store};
use crate::tls::certificate::{Certificate, read_file};
use crate::tls::validation::{Authorities, Validation};

/// How often files and times are looked at.
const INTERVAL: Duration = Duration::from_millis(250);

/// Prefix of a name with a chain and a key, separated by `~`.
const CERTIFICATE: &str = "file-cert:";
/// Prefix of a name with authorities.
const AUTHORITIES: &str = "file-root:";
/// The authorities that the system trusts.
const SYSTEM: &str = "system";

/// Where distributions keep the authorities that the system trusts.
pub(crate) const SYSTEM_FILES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/etc/ssl/ca-bundle.pem",
];

/// What files look like: when they changed and how long they are.
pub(super) type Look = Vec<Option<(SystemTime, u64)>>;

impl Secrets {
    /// Starts the thread, unless it runs.
    pub(super) fn watch(&self) {
        if self.0.watching.swap(true, Ordering::AcqRel) {
            return;
        }
        let store = Arc::downgrade(&self.0);
        let spawned = std::thread::Builder::new()
            .name("secrets".to_owned())
            .spawn(move || watch(&store));
        if let Err(error) = spawned {
            self.0.watching.store(false, Ordering::Release);
            tracing::error!(%error, "cannot watch secrets");
        }
    }
}

fn watch(store: &Weak<Store>) {
    loop {
        std::thread::sleep(INTERVAL);
        let Some(secrets) = store.upgrade().map(Secrets) else {
            return;
        };
        let slots = secrets.all();
        let now = Instant::now();
        let mut changed = false;
        let mut busy = false;
        for slot in &slots {
            changed |= slot.expire(now);
            let is_file = slot.origin == Origin::Local && is_file(&slot.name);
            if is_file {
                changed |= look(slot);
            }
            busy |= is_file || slot.is_timed();
        }
        drop(slots);
        if changed {
            secrets.notify();
        }
        if !busy {
            secrets.0.watching.store(false, Ordering::Release);
            // Something may have come between the look and the end.
            let timed = secrets.all().iter().any(|slot| slot.is_timed());
            if !timed || secrets.0.watching.swap(true, Ordering::AcqRel) {
                return;
            }
        }
    }
}

/// Whether a name says which files to read.
pub(super) fn is_file(name: &str) -> bool {
    name.starts_with(CERTIFICATE) || name.starts_with(AUTHORITIES)
}

/// Reads the files of a secret when they are not what they were; says whether the secret changed. Files that cannot be
/// used leave the secret as it is.
pub(super) fn look(slot: &SecretSlot) -> bool {
    let paths = paths(&slot.name);
    let now: Look = paths
        .iter()
        .map(|path| {
            let data = std::fs::metadata(path).ok()?;
            Some((data.modified().ok()?, data.len()))
        })
        .collect();
    let mut seen = slot.seen.lock();
    if seen.as_ref() == Some(&now) {
        return false;
    }
    *seen = Some(now);
    drop(seen);
    match load(&slot.name, &paths) {
        Ok(material) => {
            slot.fill(material);
            true
        }
        Err(reason) => {
            tracing::warn!(
                secret = slot.name,
                reason,
                "a secret in files cannot be used"
            );
            false
        }
    }
}

fn paths(name: &str) -> Vec<String> {
    if let Some(pair) = name.strip_prefix(CERTIFICATE) {
        return pair.splitn(2, '~').map(str::to_owned).collect();
    }
    match name.strip_prefix(AUTHORITIES) {
        Some(SYSTEM) => SYSTEM_FILES
            .into_iter()
            .find(|path| std::path::Path::new(path).exists())
            .map(str::to_owned)
            .into_iter()
            .collect(),
        Some(path) => vec![path.to_owned()],
        None => Vec::new(),
    }
}

fn load(name: &str, paths: &[String]) -> Result<Material, String> {
    match paths {
        [chain, key] => {
            let certificate = Certificate::from_pem(&read_file(chain)?, &read_file(key)?)?;
            Ok(Material::Certificate(Arc::new(certificate)))
        }
        [path] if name.starts_with(AUTHORITIES) => {
            let authorities = Authorities::from_pem(&read_file(path)?)?;
            Ok(Material::Trust(Arc::new(Validation::of_authorities(
                authorities,
            ))))
        }
        [_] => Err("a certificate needs two files, separated by `~`".to_owned()),
        _ => Err("the system has no store of authorities".to_owned()),
    }
}
