//! Clusters whose endpoints are names: answers become endpoints, and what was known stays good until there is better.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use lateen_route::Invalid;

use super::Store;
use crate::config::cluster::ClusterSpec;
use crate::dns::{self, Addresses, Tell, Watch};

/// The names of one cluster.
pub(super) struct Resolution {
    /// Ends the questions when it is dropped.
    _watch: Option<Watch>,
    /// Tells its answers from those that an earlier state of the cluster asked for.
    number: u64,
    pub(super) addresses: Addresses,
    /// Names without any answer so far.
    waiting: BTreeSet<String>,
}

impl Store {
    /// Begins to resolve the names of a cluster, and ends what was asked for its state before. Says whether all names
    /// have an answer: what was known of a name is good until there is a better one.
    pub(super) fn resolve(&mut self, name: &str, spec: &ClusterSpec) -> Result<bool, Invalid> {
        let previous = self.resolutions.remove(name);
        let (Some(settings), Some(inline)) = (&spec.dns, &spec.inline) else {
            return Ok(true);
        };
        let names = dns::names(inline);
        let (number, known) = previous.map_or_else(Default::default, |previous| {
            (previous.number + 1, previous.addresses)
        });
        let addresses: Addresses = known
            .into_iter()
            .filter(|(known, _)| names.contains(known))
            .collect();
        let unknown = names.iter().filter(|name| !addresses.contains_key(*name));
        let waiting: BTreeSet<String> = unknown.cloned().collect();
        let resolved = waiting.is_empty();
        let watch = if names.is_empty() {
            None
        } else {
            let (own, cluster) = (self.own.clone(), name.to_owned());
            let tell: Tell = Arc::new(move |name, answer| {
                if let Some(store) = own.upgrade() {
                    store.lock().answered(&cluster, number, name, answer);
                }
            });
            let watch = self.resolver.watch(settings.clone(), names, tell);
            let watch = watch.map_err(|error| {
                Invalid::new("type", format!("names cannot be resolved: {error}"))
            })?;
            Some(watch)
        };
        let resolution = Resolution {
            _watch: watch,
            number,
            addresses,
            waiting,
        };
        self.resolutions.insert(name.to_owned(), resolution);
        Ok(resolved)
    }

    /// A name has an answer: addresses, or nothing when it could not be resolved, which changes nothing but that the
    /// cluster does not wait for it any more.
    fn answered(&mut self, cluster: &str, number: u64, name: &str, answer: Option<Vec<IpAddr>>) {
        let resolution = self.resolutions.get_mut(cluster);
        let Some(resolution) = resolution.filter(|resolution| resolution.number == number) else {
            return;
        };
        let waited = resolution.waiting.remove(name);
        let changed = answer.is_some_and(|addresses| {
            let sorted = |addresses: &[IpAddr]| BTreeSet::from_iter(addresses.iter().copied());
            let before = resolution.addresses.insert(name.to_owned(), addresses);
            let now = resolution.addresses.get(name);
            // Servers turn addresses round; that is no change.
            before.as_deref().map(sorted) != now.map(|now| sorted(now))
        });
        let ready = resolution.waiting.is_empty();
        let spec = self.newest_spec(cluster).cloned();
        if let Some(spec) = spec
            && ready
            && (waited || changed)
            && spec.transports.is_settled()
        {
            self.put_into_effect(vec![(cluster.to_owned(), spec)]);
            self.settle();
        }
    }

    /// Whether no name of a cluster waits for its first answer.
    pub(super) fn is_resolved(&self, name: &str) -> bool {
        self.resolutions
            .get(name)
            .is_none_or(|resolution| resolution.waiting.is_empty())
    }
}
