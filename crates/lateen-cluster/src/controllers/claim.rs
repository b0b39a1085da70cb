//! Who owns an object: a controller keeps what is its own and matches its selector, lets go of what no longer matches,
//! and adopts what matches and has no controller.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource;
use kube::core::NamespaceResourceScope;
use serde_json::json;

use super::cache::{Cache, Kind};
use super::error::Error;
use super::meta::{ObjectKey, controller_of, controller_reference};
use super::{ensure_current, orphans_of};

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

/// Decides over `object` for the controller `owner`, which it `matches` or not.
pub(super) fn claim(owner: &ObjectMeta, matches: bool, object: &ObjectMeta) -> Claim {
    let leaving = owner.deletion_timestamp.is_some();
    match controller_of(object) {
        Some(controller) if Some(&controller.uid) != owner.uid.as_ref() => Claim::Ignore,
        Some(_) if matches => Claim::Keep,
        Some(_) if leaving => Claim::Ignore,
        Some(_) => Claim::Release,
        None if leaving || !matches || object.deletion_timestamp.is_some() => Claim::Ignore,
        None => Claim::Adopt,
    }
}

/// The objects of `cache`, which is indexed by owner, that are `owner`'s, after adoption and release. `matches` tells which
/// fit it.
pub(super) async fn claimed<O, K>(
    owners: &Cache<O>,
    owner: &O,
    cache: &Cache<K>,
    matches: impl Fn(&K) -> bool,
) -> Result<Vec<K>, Error>
where
    O: Kind + Resource<Scope = NamespaceResourceScope>,
    K: Kind + Resource<Scope = NamespaceResourceScope>,
{
    let meta = owner.meta();
    let own = cache.indexed(meta.uid.as_deref().unwrap_or_default());
    let orphans = cache.indexed(&orphans_of(meta.namespace.as_deref().unwrap_or_default()));
    let mut kept = Vec::new();
    for object in own.into_iter().chain(orphans) {
        match claim(meta, matches(&object), object.meta()) {
            Claim::Keep => kept.push(K::clone(&object)),
            Claim::Adopt => {
                ensure_current(owners, owner).await?;
                kept.push(adopt(cache, owner, &*object).await?);
            }
            Claim::Release => release(cache, owner, &*object).await?,
            Claim::Ignore => {}
        }
    }
    Ok(kept)
}

/// Carries out an adoption; returns the object with its new owner.
async fn adopt<O, K>(cache: &Cache<K>, owner: &O, object: &K) -> Result<K, Error>
where
    O: Kind,
    K: Kind + Resource<Scope = NamespaceResourceScope>,
{
    let mut references = object.meta().owner_references.clone().unwrap_or_default();
    references.push(controller_reference(owner));
    set_owners(cache, object, &references).await
}

/// Removes the reference to `owner`. That the object is gone already is no error.
async fn release<O, K>(cache: &Cache<K>, owner: &O, object: &K) -> Result<(), Error>
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
    use super::*;

    fn check(owner_deleted: bool, controller: &str, matches: bool, deleted: bool, expected: Claim) {
        let time = |set: bool| set.then_some("2026-01-01T00:00:00Z");
        let owner: ObjectMeta =
            serde_json::from_value(json!({"uid": "me", "deletionTimestamp": time(owner_deleted)}))
                .unwrap();
        let references: Vec<_> = (!controller.is_empty())
            .then(|| json!({"apiVersion": "v1", "kind": "X", "name": "x", "uid": controller, "controller": true}))
            .into_iter()
            .collect();
        let object: ObjectMeta = serde_json::from_value(json!({
            "ownerReferences": references,
            "deletionTimestamp": time(deleted),
        }))
        .unwrap();
        assert_eq!(
            claim(&owner, matches, &object),
            expected,
            "owner deleted {owner_deleted}, controller {controller:?}, matches {matches}, deleted {deleted}"
        );
    }

    #[test]
    fn objects_are_kept_adopted_and_released() {
        check(false, "me", true, false, Claim::Keep);
        check(false, "me", false, false, Claim::Release);
        check(false, "other", true, false, Claim::Ignore);
        check(false, "", true, false, Claim::Adopt);
        check(false, "", false, false, Claim::Ignore);
        check(false, "", true, true, Claim::Ignore);
        check(true, "", true, false, Claim::Ignore);
        check(true, "me", true, false, Claim::Keep);
        check(true, "me", false, false, Claim::Ignore);
    }
}
