//! From an object that changes to what has to be looked at: the object itself, or those that own it.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::cache::{Cache, Kind};
use super::meta::{ObjectKey, controller_of, parse_selector, selects};
use super::queue::Queue;

/// Adds each object of a cache that comes, changes or goes to `queue`.
pub(super) fn enqueue_changed<K: Kind>(cache: &Cache<K>, queue: &Arc<Queue<ObjectKey>>) {
    let to = Arc::clone(queue);
    cache.on_change(move |old, new| {
        if let Some(object) = new.or(old) {
            to.add(ObjectKey::of(object.meta()));
        }
    });
}

/// Adds to `queue` the controllers of each object of `owned` that changes, if they are of the kind of `owners`: the one it
/// names, or had named before, and for an orphan all that would select it.
pub(super) fn enqueue_owners<O, K>(
    owned: &Cache<K>,
    owners: &Arc<Cache<O>>,
    queue: &Arc<Queue<ObjectKey>>,
    selector_of: fn(&O) -> Option<&LabelSelector>,
) where
    O: Kind + k8s_openapi::Resource,
    K: Kind,
{
    let (to, owners) = (Arc::clone(queue), Arc::clone(owners));
    owned.on_change(move |old, new| {
        for object in old.into_iter().chain(new) {
            let meta = object.meta();
            let namespace = meta.namespace.clone().unwrap_or_default();
            match controller_of(meta) {
                Some(owner) if owner.kind == O::KIND => {
                    to.add(ObjectKey::new(namespace, owner.name.clone()));
                }
                Some(_) => {}
                None => {
                    for owner in owners.in_namespace(&namespace) {
                        let key = ObjectKey::of(owner.meta());
                        let selector = selector_of(&owner)
                            .and_then(|selector| parse_selector(selector, O::KIND, &key).ok());
                        if selector.is_some_and(|selector| selects(&selector, meta)) {
                            to.add(key);
                        }
                    }
                }
            }
        }
    });
}
