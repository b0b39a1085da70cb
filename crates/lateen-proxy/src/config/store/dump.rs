//! Resources as they were received, for the admin interface.

use std::collections::BTreeMap;
use std::time::SystemTime;

use lateen_xds::client::{Rejection, Update};
use lateen_xds::{Resource, ResourceType};

use super::Store;

/// Resources for the admin interface, as they were received.
#[derive(Debug, Default)]
pub(crate) struct Dump {
    pub(crate) kinds: BTreeMap<ResourceType, BTreeMap<String, DumpEntry>>,
    pub(crate) versions: BTreeMap<ResourceType, String>,
}

/// One resource of the dump.
#[derive(Debug, Default)]
pub(crate) struct DumpEntry {
    /// Last accepted state.
    pub(crate) accepted: Option<(Resource, SystemTime)>,
    /// Accepted but not in effect yet.
    pub(crate) warming: bool,
    /// Last rejected state with the reason.
    pub(crate) rejected: Option<(Resource, String, SystemTime)>,
}

impl Dump {
    /// Keeps the resources of a type whose names are wanted.
    pub(super) fn retain(&mut self, kind: ResourceType, wanted: impl Fn(&str) -> bool) {
        if let Some(entries) = self.kinds.get_mut(&kind) {
            entries.retain(|name, _| wanted(name));
        }
    }
}

impl Store {
    /// Takes down what was received, what became of it, and what waits now.
    pub(super) fn record(&self, update: Update, rejections: &[Rejection]) {
        if update.kind == ResourceType::Secret {
            // Nothing that can be dumped may hold private keys.
            return;
        }
        let now = SystemTime::now();
        let mut dump = self.shared.dump.lock();
        dump.versions.insert(update.kind, update.version);
        let entries = dump.kinds.entry(update.kind).or_default();
        for name in &update.removed {
            if matches!(update.kind, ResourceType::Cluster | ResourceType::Listener) {
                entries.remove(name);
            }
        }
        for resource in update.changed {
            let entry = entries.entry(resource.name.clone()).or_default();
            match rejections
                .iter()
                .find(|rejection| rejection.name == resource.name)
            {
                Some(rejection) => {
                    entry.rejected = Some((resource, rejection.reason.clone(), now));
                }
                None => {
                    entry.accepted = Some((resource, now));
                    entry.rejected = None;
                }
            }
        }
        // What arrives last completes others, so both kinds that can wait are looked at.
        for (kind, entries) in &mut dump.kinds {
            for (name, entry) in entries {
                entry.warming = match kind {
                    ResourceType::Cluster => self.warming_clusters.contains_key(name),
                    ResourceType::Listener => self.warming_listeners.contains_key(name),
                    _ => false,
                };
            }
        }
    }
}
