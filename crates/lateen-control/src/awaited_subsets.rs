//! Virtual services that name subsets before anybody has defined them.
//!
//! Each kind has a watch of its own, so that a destination rule which was written first may be told second. Routes to a subset
//! that no proxy has would answer 503 meanwhile, so what names one waits a little for its rule.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use lateen_mesh::{Change, Index, Key, ObjectKind};

/// How long a virtual service waits. Whoever names a subset that does not exist at all sees it in effect so much later.
const PATIENCE: Duration = Duration::from_millis(500);

/// Changes of virtual services that are still to be applied.
#[derive(Debug, Default)]
pub(crate) struct Waiting(BTreeMap<Key, (Box<Change>, Option<Instant>)>);

impl Waiting {
    /// Keeps a change of a virtual service until [`Self::take`]; gives any other back.
    pub(crate) fn put(&mut self, change: Box<Change>) -> Option<Box<Change>> {
        let key = match &*change {
            Change::VirtualService(service) => Key::new(service.namespace(), service.name()),
            Change::Deleted(ObjectKind::VirtualService, key) => key.clone(),
            _ => return Some(change),
        };
        // The newest state of an object is the only one that counts.
        self.0.insert(key, (change, None));
        None
    }

    /// What is to be applied now: services whose subsets are known, or have been waited for long enough. Nothing waits before
    /// everything that was there at the start has been told.
    pub(crate) fn take(&mut self, index: &Index, synced: bool, now: Instant) -> Vec<Change> {
        let ready = self.0.extract_if(.., |_, (change, due)| {
            let Change::VirtualService(service) = &**change else {
                return true;
            };
            !synced || !index.lacks_subset_of(service) || *due.get_or_insert(now + PATIENCE) <= now
        });
        ready.map(|(_, (change, _))| *change).collect()
    }

    /// When the next of them has waited long enough.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.0.values().filter_map(|(_, due)| *due).min()
    }
}

#[cfg(test)]
mod tests {
    use lateen_api::decode;
    use lateen_mesh::MeshConfig;
    use serde_json::{Value, json};

    use super::*;

    fn object(kind: &str, spec: Value) -> Value {
        json!({
            "apiVersion": "networking.istio.io/v1", "kind": kind,
            "metadata": { "name": "web", "namespace": "lab" }, "spec": spec,
        })
    }

    fn service(subset: &str) -> Change {
        let to = json!({ "destination": { "host": "web", "subset": subset } });
        let spec = json!({ "hosts": ["web"], "http": [{ "route": [to] }] });
        Change::VirtualService(decode(&object("VirtualService", spec)).unwrap())
    }

    fn rule(host: &str, subsets: &[&str]) -> Change {
        let subsets: Vec<_> = subsets.iter().map(|name| json!({ "name": name })).collect();
        let spec = json!({ "host": host, "subsets": subsets });
        Change::DestinationRule(decode(&object("DestinationRule", spec)).unwrap())
    }

    /// How many changes are applied of these, after this rule.
    #[track_caller]
    fn check(rule: Change, changes: Vec<Change>, synced: bool, expected: usize) {
        let mut index = Index::new(MeshConfig::default());
        index.apply(rule);
        let mut waiting = Waiting::default();
        for change in changes {
            assert!(waiting.put(Box::new(change)).is_none());
        }
        assert_eq!(waiting.take(&index, synced, Instant::now()).len(), expected);
        assert_eq!(waiting.due().is_none(), waiting.0.is_empty());
    }

    #[test]
    fn services_wait_for_subsets_that_are_not_defined() {
        let deleted = || {
            let key = Key::new("lab", "web");
            Change::Deleted(ObjectKind::VirtualService, key)
        };
        check(rule("web", &["a", "b"]), vec![service("b")], true, 1);
        check(
            rule("*.lab.svc.cluster.local", &["a"]),
            vec![service("a")],
            true,
            1,
        );
        check(rule("other", &["a"]), vec![service("")], true, 1);
        check(rule("web", &["a"]), vec![service("b")], true, 0);
        check(rule("other", &["b"]), vec![service("b")], true, 0);
        // The newest state counts; what is gone waits for nothing.
        check(
            rule("web", &["a"]),
            vec![service("b"), service("a")],
            true,
            1,
        );
        check(rule("web", &["a"]), vec![service("b"), deleted()], true, 1);
        check(rule("web", &["a"]), vec![service("b")], false, 1);
    }

    #[test]
    fn they_wait_for_the_rule_or_a_little_while() {
        let mut index = Index::new(MeshConfig::default());
        let mut waiting = Waiting::default();
        let now = Instant::now();
        waiting.put(Box::new(service("a")));
        assert!(waiting.take(&index, true, now).is_empty());
        assert!(waiting.take(&index, true, now + PATIENCE / 2).is_empty());
        index.apply(rule("web", &["a"]));
        assert_eq!(waiting.take(&index, true, now).len(), 1);

        waiting.put(Box::new(service("c")));
        assert!(waiting.take(&index, true, now).is_empty());
        assert_eq!(waiting.due(), Some(now + PATIENCE));
        assert_eq!(waiting.take(&index, true, now + PATIENCE).len(), 1);
        assert_eq!(waiting.due(), None);
    }
}
