//! Deletion of namespaces: everything in one goes, then the namespace.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream;
use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use super::Shared;
use super::error::Error;
use super::meta::{ObjectKey, now};
use super::queue::Queue;
use super::resources::Served;

const WORKERS: usize = 8;
/// Requests under way at once for one namespace.
const PARALLEL: usize = 4;
/// The finalizer, in the spec of a namespace, that stands for its content.
const CONTENT: &str = "kubernetes";

/// Starts the controller.
pub(super) fn start(shared: &Arc<Shared>) {
    let queue = Queue::new();
    let to = Arc::clone(&queue);
    shared.namespaces.on_change(move |_, new| {
        if let Some(namespace) = new.filter(|namespace| is_leaving(namespace)) {
            to.add(namespace.name_any());
        }
    });
    // What waits for a node or a finalizer goes later; then the namespace is looked at again.
    let (to, namespaces) = (Arc::clone(&queue), Arc::clone(&shared.namespaces));
    shared.resources.on_object(move |_, meta, gone| {
        if let Some(namespace) = meta.namespace.as_deref().filter(|_| gone)
            && namespaces
                .get(&ObjectKey::new("", namespace))
                .is_some_and(|namespace| is_leaving(&namespace))
        {
            to.add(namespace.to_owned());
        }
    });
    shared.when_synced(async move |shared| {
        shared.namespaces.synced().await;
        shared.resources.synced().await;
        let controller = Arc::clone(&shared);
        shared.work(&queue, "namespace", WORKERS, move |name| {
            let shared = Arc::clone(&controller);
            async move { reconcile(&shared, &name).await }
        });
    });
}

fn is_leaving(namespace: &Namespace) -> bool {
    let finalizers = namespace
        .spec
        .as_ref()
        .and_then(|spec| spec.finalizers.as_ref());
    namespace.metadata.deletion_timestamp.is_some()
        && finalizers
            .into_iter()
            .flatten()
            .any(|finalizer| finalizer == CONTENT)
}

/// What is still there after everything was told to go.
#[derive(Debug, Default)]
struct Remains {
    /// Objects by resource.
    objects: BTreeMap<String, usize>,
    /// Objects by finalizer.
    finalizers: BTreeMap<String, usize>,
    /// Why something could not be deleted.
    failures: Vec<String>,
}

async fn reconcile(shared: &Shared, name: &str) -> Result<(), Error> {
    let key = ObjectKey::new("", name);
    let namespace = shared.namespaces.get(&key);
    let Some(namespace) = namespace.filter(|namespace| is_leaving(namespace)) else {
        return Ok(());
    };
    if !shared.resources.is_discovered() {
        return Err(Error::Waiting {
            subject: format!("Namespace {name}"),
            reason: "the served resources are not known yet".to_owned(),
        });
    }
    let rows = shared.resources.all();
    let mut outcomes = stream::iter(rows.into_iter().filter(|row| row.namespaced))
        .map(|row| async move {
            let left = empty(shared, &row, name).await;
            (row, left)
        })
        .buffer_unordered(PARALLEL);
    let mut remains = Remains::default();
    let mut first_failure = None;
    while let Some((row, outcome)) = outcomes.next().await {
        match outcome {
            Ok(left) => remains.add(&row, &left),
            // A resource that is no longer served has no objects.
            Err(error) if error.is_not_found() => {}
            Err(error) => {
                remains.failures.push(error.server_message());
                first_failure.get_or_insert(error);
            }
        }
    }
    drop(outcomes);
    if remains.objects.is_empty() && remains.failures.is_empty() {
        return finalize(shared, &namespace).await;
    }
    report(shared, &namespace, &remains).await?;
    // Those that remain are watched, so their end brings the next pass; a failure is tried again.
    first_failure.map_or(Ok(()), Err)
}

/// Deletes all objects of one resource; returns the finalizers of each that remains.
async fn empty(shared: &Shared, row: &Served, namespace: &str) -> Result<Vec<Vec<String>>, Error> {
    let api = row.objects(&shared.client, namespace);
    let failed = |source| Error::List {
        kind: row.api.kind.clone(),
        namespace: namespace.to_owned(),
        source: Box::new(source),
    };
    let present = api
        .list_metadata(&ListParams::default())
        .await
        .map_err(failed)?;
    if present.items.is_empty() {
        return Ok(Vec::new());
    }
    let parameters = DeleteParams::background();
    let not_deleted = |name: &str, source| Error::Delete {
        kind: row.api.kind.clone(),
        key: ObjectKey::new(namespace, name),
        source: Box::new(source),
    };
    if row.deletes_collections {
        let deleted = api
            .delete_collection(&parameters, &ListParams::default())
            .await;
        deleted.map_err(|source| not_deleted("*", source))?;
    } else {
        for object in &present.items {
            let name = object.name_any();
            match api.delete(&name, &parameters).await {
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                outcome => drop(outcome.map_err(|source| not_deleted(&name, source))?),
            }
        }
    }
    let left = api
        .list_metadata(&ListParams::default())
        .await
        .map_err(failed)?;
    Ok(left
        .items
        .into_iter()
        .map(|object| object.metadata.finalizers.unwrap_or_default())
        .collect())
}

impl Remains {
    fn add(&mut self, row: &Served, left: &[Vec<String>]) {
        if left.is_empty() {
            return;
        }
        self.objects.insert(row.qualified(), left.len());
        for finalizer in left.iter().flatten() {
            *self.finalizers.entry(finalizer.clone()).or_default() += 1;
        }
    }

    /// The conditions that tell of it, as in Kubernetes.
    fn conditions(&self) -> Vec<NamespaceCondition> {
        let condition =
            |type_: &str, holds: bool, reason: &str, message: String| NamespaceCondition {
                type_: type_.to_owned(),
                status: if holds { "True" } else { "False" }.to_owned(),
                reason: Some(reason.to_owned()),
                message: Some(message),
                last_transition_time: Some(now()),
            };
        let failed = !self.failures.is_empty();
        let (failure_reason, failure) = if failed {
            let listed = self.failures.join(", ");
            (
                "ContentDeletionFailed",
                format!(
                    "Failed to delete all resource types, {} remaining: {listed}",
                    self.failures.len()
                ),
            )
        } else {
            (
                "ContentDeleted",
                "All content successfully deleted, may be waiting on finalization".to_owned(),
            )
        };
        let listed: Vec<String> = self
            .objects
            .iter()
            .map(|(resource, count)| format!("{resource} has {count} resource instances"))
            .collect();
        let (remaining_reason, remaining) = if listed.is_empty() {
            (
                "ContentRemoved",
                "All content successfully removed".to_owned(),
            )
        } else {
            (
                "SomeResourcesRemain",
                format!("Some resources are remaining: {}", listed.join(", ")),
            )
        };
        let holding: Vec<String> = self
            .finalizers
            .iter()
            .map(|(finalizer, count)| format!("{finalizer} in {count} resource instances"))
            .collect();
        let (held_reason, held) = if holding.is_empty() {
            (
                "ContentHasNoFinalizers",
                "All content-preserving finalizers finished".to_owned(),
            )
        } else {
            (
                "SomeFinalizersRemain",
                format!(
                    "Some content in the namespace has finalizers remaining: {}",
                    holding.join(", ")
                ),
            )
        };
        vec![
            condition(
                "NamespaceDeletionDiscoveryFailure",
                false,
                "ResourcesDiscovered",
                "All resources successfully discovered".to_owned(),
            ),
            condition(
                "NamespaceDeletionGroupVersionParsingFailure",
                false,
                "ParsedGroupVersions",
                "All legacy kube types successfully parsed".to_owned(),
            ),
            condition(
                "NamespaceDeletionContentFailure",
                failed,
                failure_reason,
                failure,
            ),
            condition(
                "NamespaceContentRemaining",
                !listed.is_empty(),
                remaining_reason,
                remaining,
            ),
            condition(
                "NamespaceFinalizersRemaining",
                !holding.is_empty(),
                held_reason,
                held,
            ),
        ]
    }
}

/// Tells in the namespace's status what it waits for.
async fn report(shared: &Shared, namespace: &Namespace, remains: &Remains) -> Result<(), Error> {
    let mut conditions = remains.conditions();
    let present = namespace
        .status
        .as_ref()
        .and_then(|status| status.conditions.clone())
        .unwrap_or_default();
    for condition in &mut conditions {
        let before = present
            .iter()
            .find(|before| before.type_ == condition.type_);
        if let Some(before) = before.filter(|before| before.status == condition.status) {
            condition.last_transition_time = before.last_transition_time.clone();
        }
    }
    if conditions == present {
        return Ok(());
    }
    let api: Api<Namespace> = Api::all(shared.client.clone());
    let patch = json!({"status": {"conditions": conditions}});
    let name = namespace.name_any();
    let outcome = api
        .patch_status(&name, &PatchParams::default(), &Patch::Merge(patch))
        .await;
    changed(&name, outcome)
}

/// Takes the content's finalizer off the namespace, which lets it go unless someone else holds it.
async fn finalize(shared: &Shared, namespace: &Namespace) -> Result<(), Error> {
    let mut emptied = namespace.clone();
    if let Some(finalizers) = emptied
        .spec
        .as_mut()
        .and_then(|spec| spec.finalizers.as_mut())
    {
        finalizers.retain(|finalizer| finalizer != CONTENT);
    }
    let api: Api<Namespace> = Api::all(shared.client.clone());
    let name = namespace.name_any();
    let outcome = api
        .replace_subresource("finalize", &name, &PostParams::default(), &emptied)
        .await;
    changed(&name, outcome)
}

fn changed(name: &str, outcome: kube::Result<Namespace>) -> Result<(), Error> {
    match outcome {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(source) => Err(Error::Change {
            kind: "Namespace".to_owned(),
            key: ObjectKey::new("", name),
            source: Box::new(source),
        }),
        Ok(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_tells_what_it_waits_for() {
        let remains = Remains {
            objects: BTreeMap::from([("configmaps.".to_owned(), 1), ("boats.sail".to_owned(), 2)]),
            finalizers: BTreeMap::from([("example.org/hold".to_owned(), 1)]),
            failures: Vec::new(),
        };
        let told: Vec<String> = remains
            .conditions()
            .into_iter()
            .filter(|condition| condition.status == "True")
            .map(|condition| condition.message.unwrap_or_default())
            .collect();
        assert_eq!(
            told,
            [
                "Some resources are remaining: boats.sail has 2 resource instances, configmaps. has 1 resource instances",
                "Some content in the namespace has finalizers remaining: example.org/hold in 1 resource instances",
            ]
        );
    }
}
