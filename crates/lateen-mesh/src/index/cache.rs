//! Translations that several proxies share.
//!
//! What a proxy is sent of other workloads' services depends on its class alone: namespace, extensions, and those of its
//! labels that some rule asks for. Each resource is translated once for a class, and kept until a change concerns it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use lateen_xds::{Resource, ResourceType};

use crate::{Impact, ProxyKind, Scope, index::Locality, names::ClusterName};

/// Most translations that are kept; beyond it all are dropped and made anew when asked for.
const MAX_KEPT: usize = 1 << 20;

/// What translations for sharing depend on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Class {
    pub(crate) kind: ProxyKind,
    pub(crate) namespace: String,
    /// Labels that rules ask for.
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) extensions: BTreeSet<String>,
    pub(crate) locality: Locality,
}

/// Resources of one subject: the clusters of a host, the endpoints of a cluster, a route configuration.
type Shared = Arc<Vec<Resource>>;
/// By type and subject, then by class.
type Entries = HashMap<(ResourceType, String), HashMap<Arc<Class>, Shared>>;

/// The kept translations, and how many were made so far.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    kept: Mutex<(Entries, usize)>,
    made: AtomicU64,
}

/// A copy of the mesh begins without translations.
impl Clone for Cache {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl Cache {
    /// The resources of a subject as a class sees them, made when they are not there.
    pub(crate) fn get(
        &self,
        class: &Arc<Class>,
        kind: ResourceType,
        subject: &str,
        make: impl FnOnce() -> Vec<Resource>,
    ) -> Shared {
        let key = (kind, subject.to_owned());
        if let Some(found) = self
            .lock()
            .0
            .get(&key)
            .and_then(|classes| classes.get(class))
        {
            return Arc::clone(found);
        }
        // Made without the lock: two proxies that ask at once may both make it, to the same bytes.
        let made = Arc::new(make());
        let mut kept = self.lock();
        if kept.1 >= MAX_KEPT {
            *kept = (Entries::new(), 0);
        }
        let classes = kept.0.entry(key).or_default();
        let added = classes.insert(Arc::clone(class), Arc::clone(&made));
        kept.1 += usize::from(added.is_none());
        made
    }

    /// Drops what a change concerns. `moved`: the clusters of which only endpoints moved.
    pub(crate) fn forget(&mut self, impact: &Impact, moved: impl IntoIterator<Item = String>) {
        let (entries, count) = self.kept.get_mut().unwrap_or_else(PoisonError::into_inner);
        let mut whole = false;
        for (scope, kinds) in impact.types() {
            match scope {
                // The parts of one workload, and gateways' listeners and routes, are not shared.
                Scope::Workload(_)
                | Scope::Gateways(_)
                | Scope::Selected(..)
                | Scope::Address(_) => continue,
                Scope::All => entries.retain(|(kind, _), _| !kinds.contains(kind)),
                Scope::Namespace(namespace) => {
                    for ((kind, _), classes) in entries.iter_mut() {
                        if kinds.contains(kind) {
                            classes.retain(|class, _| class.namespace != *namespace);
                        }
                    }
                }
            }
            whole = true;
        }
        let named = impact
            .named()
            .map(|(kind, name)| (kind, subject(kind, name)));
        let moved = moved.into_iter().map(|name| (ResourceType::Endpoint, name));
        for key in named.chain(moved) {
            let dropped = entries.remove(&key);
            *count -= dropped.map_or(0, |classes| classes.len());
        }
        if whole {
            *count = entries.values().map(HashMap::len).sum();
        }
    }

    /// Notes that a resource was translated.
    pub(crate) fn count(&self) {
        self.made.fetch_add(1, Ordering::Relaxed);
    }

    /// How many resources were translated so far.
    pub(crate) fn made(&self) -> u64 {
        self.made.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, (Entries, usize)> {
        // What is kept is whole at any time.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a resource is kept under.
fn subject(kind: ResourceType, name: &str) -> String {
    let cluster = || ClusterName::parse(name).or_else(|| ClusterName::parse_server_name(name));
    match kind {
        ResourceType::Cluster => cluster().map_or("", |cluster| cluster.host).to_owned(),
        _ => name.to_owned(),
    }
}
