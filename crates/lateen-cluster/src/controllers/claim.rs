//! Who owns an object: a controller keeps what is its own and matches its selector, lets go of what no longer matches,
//! and adopts what matches and has no controller.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource;
use kube::core::{NamespaceResourceScope, Selector};
use serde_json::json;

use super::cache::{Cache, Kind};
use super::error::Error;
use super::meta::{ObjectKey, controller_of, controller_reference, selects};

/// What a controller does with one object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claim {
    /// It is the controller's own.
    Keep,
    /// The reference to the controller is added.
    Adopt,
    /// The reference to the controller is removed.
    Release,
    /// It belongs to someone else, or to nobody and doesn't match.
    Ignore,
}

/// Decides over `object` for the controller `owner`, which selects by `selector`.
pub(super) fn claim(owner: &ObjectMeta, selector: &Selector, object: &ObjectMeta) -> Claim {
    let leaving = owner.deletion_timestamp.is_some();
    let matches = selects(selector, object);
    match controller_of(object) {
        Some(controller) if Some(&controller.uid) != owner.uid.as_ref() => Claim::Ignore,
        Some(_) if matches => Claim::Keep,
        Some(_) if leaving => Claim::Ignore,
        Some(_) => Claim::Release,
        None if leaving || !matches || object.deletion_timestamp.is_some() => Claim::Ignore,
        None => Claim::Adopt,
    }
}

/// Carries out an adoption; returns the object with its new owner.
pub(super) async fn adopt<O, K>(cache: &Cache<K>, owner: &O, object: &K) -> Result<K, Error>
where
    O: Kind,
    K: Kind + Resource<Scope = NamespaceResourceScope>,
{
    let mut references = object.meta().owner_references.clone().unwrap_or_default();
    references.push(controller_reference(owner));
    set_owners(cache, object, &references).await
}

/// Removes the reference to `owner`. That the object is gone already is no error.
pub(super) async fn release<O, K>(cache: &Cache<K>, owner: &O, object: &K) -> Result<(), Error>
where
    O: Kind,
    K: Kind + Resource<Scope = NamespaceResourceScope>,
{
    let mut references = object.meta().owner_references.clone().unwrap_or_default();
    references.retain(|reference| Some(&reference.uid) != owner.meta().uid.as_ref());
    match set_owners(cache, object, &references).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}

async fn set_owners<K>(
    cache: &Cache<K>,
    object: &K,
    references: &[OwnerReference],
) -> Result<K, Error>
where
    K: Kind + Resource<Scope = NamespaceResourceScope>,
{
    // The resource version makes sure that no reference of someone else is lost, the uid that it still is this object.
    let patch = json!({"metadata": {
        "uid": object.meta().uid,
        "resourceVersion": object.meta().resource_version,
        "ownerReferences": references,
    }});
    cache.merge(&ObjectKey::of(object.meta()), &patch).await
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

    use super::*;
    use crate::controllers::meta::parse_selector;

    fn check(owner_deleted: bool, controller: &str, app: &str, deleted: bool, expected: Claim) {
        let time = |set: bool| set.then_some("2026-01-01T00:00:00Z");
        let owner: ObjectMeta =
            serde_json::from_value(json!({"uid": "me", "deletionTimestamp": time(owner_deleted)}))
                .unwrap();
        let references: Vec<_> = (!controller.is_empty())
            .then(|| json!({"apiVersion": "v1", "kind": "X", "name": "x", "uid": controller, "controller": true}))
            .into_iter()
            .collect();
        let object: ObjectMeta = serde_json::from_value(json!({
            "labels": {"app": app},
            "ownerReferences": references,
            "deletionTimestamp": time(deleted),
        }))
        .unwrap();
        let selector: LabelSelector =
            serde_json::from_value(json!({"matchLabels": {"app": "a"}})).unwrap();
        let selector = parse_selector(&selector, "X", &ObjectKey::new("n", "x")).unwrap();
        assert_eq!(
            claim(&owner, &selector, &object),
            expected,
            "owner deleted {owner_deleted}, controller {controller:?}, app {app}, deleted {deleted}"
        );
    }

    #[test]
    fn objects_are_kept_adopted_and_released() {
        check(false, "me", "a", false, Claim::Keep);
        check(false, "me", "b", false, Claim::Release);
        check(false, "other", "a", false, Claim::Ignore);
        check(false, "", "a", false, Claim::Adopt);
        check(false, "", "b", false, Claim::Ignore);
        check(false, "", "a", true, Claim::Ignore);
        check(true, "", "a", false, Claim::Ignore);
        check(true, "me", "a", false, Claim::Keep);
        check(true, "me", "b", false, Claim::Ignore);
    }
}
