//! Garbage collection: what has owners goes when the last of them is gone.
//!
//! The graph tells what to look at; before anything is deleted the server is asked, since the graph may lag behind.

mod graph;

use std::collections::HashSet;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions, PropagationPolicy};
use kube::core::ObjectMeta;
use parking_lot::Mutex;
use serde_json::{Value, json};

use self::graph::{FOREGROUND, Graph, Node, ORPHAN, Work, group_of};
use super::Shared;
use super::error::Error;
use super::meta::ObjectKey;
use super::queue::Queue;
use super::resources::Served;

const WORKERS: usize = 8;

/// Starts the collector.
pub(super) fn start(shared: &Arc<Shared>) {
    let queue = Queue::new();
    let collector = Arc::new(Collector {
        shared: Arc::clone(shared),
        graph: Mutex::default(),
        queue: Arc::clone(&queue),
        unresolved: Mutex::default(),
    });
    let to = Arc::downgrade(&collector);
    shared.resources.on_object(move |served, meta, gone| {
        if let Some(collector) = to.upgrade() {
            collector.note(served, meta, gone);
        }
    });
    let to = Arc::downgrade(&collector);
    shared.resources.on_rows(move || {
        if let Some(collector) = to.upgrade() {
            for uid in collector.unresolved.lock().drain() {
                collector.queue.add(Work::Check(uid));
            }
        }
    });
    shared.when_synced(async move |shared| {
        shared.resources.synced().await;
        shared.work(&queue, "garbage", WORKERS, move |work| {
            let collector = Arc::clone(&collector);
            async move { collector.reconcile(&work).await }
        });
    });
}

struct Collector {
    shared: Arc<Shared>,
    graph: Mutex<Graph>,
    queue: Arc<Queue<Work>>,
    /// Objects with an owner of a kind that isn't served (yet).
    unresolved: Mutex<HashSet<String>>,
}

/// What became of an owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    /// It exists.
    Solid,
    /// There is no such object.
    Gone,
    /// It is being deleted and waits for its dependents.
    Waiting,
}

impl Collector {
    fn note(&self, served: &Served, meta: &ObjectMeta, gone: bool) {
        let uid = meta.uid.clone().unwrap_or_default();
        let mut graph = self.graph.lock();
        let work = if gone {
            self.unresolved.lock().remove(&uid);
            graph.remove(&uid)
        } else {
            graph.apply(Node {
                uid,
                group: served.api.group.clone(),
                kind: served.api.kind.clone(),
                key: ObjectKey::of(meta),
                owners: meta.owner_references.clone().unwrap_or_default(),
                deleting: meta.deletion_timestamp.is_some(),
                foreground: has_finalizer(meta, FOREGROUND),
                orphan: has_finalizer(meta, ORPHAN),
            })
        };
        drop(graph);
        for item in work {
            self.queue.add(item);
        }
    }

    async fn reconcile(&self, work: &Work) -> Result<(), Error> {
        let (Work::Check(uid) | Work::Orphan(uid)) = work;
        let Some(node) = self.graph.lock().get(uid).cloned() else {
            return Ok(());
        };
        let Some(served) = self.shared.resources.find(&node.group, &node.kind) else {
            return Ok(());
        };
        let item = Item {
            collector: self,
            served: &served,
            node: &node,
        };
        match work {
            Work::Check(_) => item.check().await,
            Work::Orphan(_) => item.orphan_dependents().await,
        }
    }
}

/// One object that is looked at.
struct Item<'a> {
    collector: &'a Collector,
    served: &'a Served,
    node: &'a Node,
}

impl Item<'_> {
    /// The object's metadata from the server, if it still is the same object.
    async fn live(&self) -> Result<Option<ObjectMeta>, Error> {
        let client = &self.collector.shared.client;
        let live = self.served.metadata(client, &self.node.key).await?;
        Ok(live.filter(|meta| meta.uid.as_ref() == Some(&self.node.uid)))
    }

    async fn check(&self) -> Result<(), Error> {
        if self.node.deleting && !self.node.foreground {
            return Ok(());
        }
        let Some(live) = self.live().await? else {
            return Ok(());
        };
        if live.deletion_timestamp.is_some() {
            return if has_finalizer(&live, FOREGROUND) {
                self.finish_foreground(&live).await
            } else {
                Ok(())
            };
        }
        let references = live.owner_references.clone().unwrap_or_default();
        if references.is_empty() {
            return Ok(());
        }
        let mut states = Vec::new();
        for reference in &references {
            match self.owner_state(reference).await? {
                Some(state) => states.push(state),
                // An owner of an unknown kind cannot be judged, so the object stays until the kind is served.
                None => {
                    let uid = self.node.uid.clone();
                    self.collector.unresolved.lock().insert(uid);
                    return Ok(());
                }
            }
        }
        if states.contains(&Owner::Solid) {
            if states.iter().all(|state| *state == Owner::Solid) {
                return Ok(());
            }
            let kept: Vec<_> = references
                .iter()
                .zip(&states)
                .filter(|(_, state)| **state == Owner::Solid)
                .map(|(reference, _)| reference)
                .collect();
            return self.patch(&live, json!({"ownerReferences": kept})).await;
        }
        let has_dependents = {
            let graph = self.collector.graph.lock();
            graph.dependents(&self.node.uid).next().is_some()
        };
        if states.contains(&Owner::Waiting) && has_dependents {
            self.unblock_circle(&live, &references).await?;
            return self.delete(&live, PropagationPolicy::Foreground).await;
        }
        let policy = if has_finalizer(&live, ORPHAN) {
            PropagationPolicy::Orphan
        } else if has_finalizer(&live, FOREGROUND) {
            PropagationPolicy::Foreground
        } else {
            PropagationPolicy::Background
        };
        self.delete(&live, policy).await
    }

    /// What became of the owner; None when its kind isn't served.
    async fn owner_state(&self, owner: &OwnerReference) -> Result<Option<Owner>, Error> {
        let known = {
            let graph = self.collector.graph.lock();
            let node = graph.owner(owner, self.node);
            node.map(Node::waits_for_dependents)
        };
        // A known owner that is gone in truth will be reported so, and then this object is looked at again.
        match known {
            Some(true) => return Ok(Some(Owner::Waiting)),
            Some(false) => return Ok(Some(Owner::Solid)),
            None => {}
        }
        let resources = &self.collector.shared.resources;
        let Some(served) = resources.find(group_of(&owner.api_version), &owner.kind) else {
            return Ok(None);
        };
        // A cluster-scoped object cannot have an owner in a namespace: it is not known in which one to look.
        if served.namespaced && self.node.key.namespace.is_empty() {
            return Ok(Some(Owner::Solid));
        }
        let namespace = if served.namespaced {
            self.node.key.namespace.as_str()
        } else {
            ""
        };
        let key = ObjectKey::new(namespace, owner.name.clone());
        let live = served.metadata(&self.collector.shared.client, &key).await?;
        Ok(Some(match live {
            Some(meta) if meta.uid.as_ref() != Some(&owner.uid) => Owner::Gone,
            Some(meta) if meta.deletion_timestamp.is_some() && has_finalizer(&meta, FOREGROUND) => {
                Owner::Waiting
            }
            Some(_) => Owner::Solid,
            None => Owner::Gone,
        }))
    }

    /// Lets the object go when nothing that it waits for is left.
    async fn finish_foreground(&self, live: &ObjectMeta) -> Result<(), Error> {
        let (blockers, pending) = {
            let graph = self.collector.graph.lock();
            let uid = &self.node.uid;
            let pending: Vec<String> = graph
                .blockers(uid)
                .filter(|node| !node.deleting)
                .map(|node| node.uid.clone())
                .collect();
            (graph.blockers(uid).count(), pending)
        };
        if blockers == 0 {
            return self.remove_finalizer(live, FOREGROUND).await;
        }
        for uid in pending {
            self.collector.queue.add(Work::Check(uid));
        }
        Ok(())
    }

    /// Objects that own each other in a circle would wait for each other for ever; the first one waits for none.
    async fn unblock_circle(
        &self,
        live: &ObjectMeta,
        references: &[OwnerReference],
    ) -> Result<(), Error> {
        let in_circle = {
            let graph = self.collector.graph.lock();
            graph
                .dependents(&self.node.uid)
                .any(Node::waits_for_dependents)
        };
        let blocks = references
            .iter()
            .any(|reference| reference.block_owner_deletion == Some(true));
        if !in_circle || !blocks {
            return Ok(());
        }
        let mut references = references.to_vec();
        for reference in &mut references {
            reference.block_owner_deletion = Some(false);
        }
        self.patch(live, json!({"ownerReferences": references}))
            .await?;
        // The deletion that follows asks for the version that was read.
        Err(Error::Waiting {
            subject: format!("{} {}", self.node.kind, self.node.key),
            reason: "it was taken out of a circle of owners first".to_owned(),
        })
    }

    /// Frees the dependents of an object that is being deleted, then lets it go.
    async fn orphan_dependents(&self) -> Result<(), Error> {
        let Some(live) = self.live().await? else {
            return Ok(());
        };
        if live.deletion_timestamp.is_none() || !has_finalizer(&live, ORPHAN) {
            return Ok(());
        }
        let dependents: Vec<Node> = {
            let graph = self.collector.graph.lock();
            graph.dependents(&self.node.uid).cloned().collect()
        };
        for node in &dependents {
            let resources = &self.collector.shared.resources;
            let Some(served) = resources.find(&node.group, &node.kind) else {
                continue;
            };
            let dependent = Item {
                collector: self.collector,
                served: &served,
                node,
            };
            let Some(meta) = dependent.live().await? else {
                continue;
            };
            let mut references = meta.owner_references.clone().unwrap_or_default();
            references.retain(|reference| reference.uid != self.node.uid);
            dependent
                .patch(&meta, json!({"ownerReferences": references}))
                .await?;
        }
        self.remove_finalizer(&live, ORPHAN).await
    }

    async fn remove_finalizer(&self, live: &ObjectMeta, name: &str) -> Result<(), Error> {
        let mut finalizers = live.finalizers.clone().unwrap_or_default();
        finalizers.retain(|finalizer| finalizer != name);
        self.patch(live, json!({"finalizers": finalizers})).await
    }

    /// Changes the object's metadata, if it still is as in `live`. That it is gone is no error.
    async fn patch(&self, live: &ObjectMeta, mut metadata: Value) -> Result<(), Error> {
        metadata["uid"] = json!(live.uid);
        metadata["resourceVersion"] = json!(live.resource_version);
        let patch = json!({"metadata": metadata});
        let client = &self.collector.shared.client;
        let api = self.served.objects(client, &self.node.key.namespace);
        let outcome = api
            .patch_metadata(
                &self.node.key.name,
                &PatchParams::default(),
                &Patch::Merge(patch),
            )
            .await;
        self.done(outcome.map(|_| ()), |kind, key, source| Error::Change {
            kind,
            key,
            source: Box::new(source),
        })
    }

    async fn delete(&self, live: &ObjectMeta, policy: PropagationPolicy) -> Result<(), Error> {
        let parameters = DeleteParams {
            propagation_policy: Some(policy),
            ..DeleteParams::default()
        }
        .preconditions(Preconditions {
            uid: live.uid.clone(),
            resource_version: live.resource_version.clone(),
        });
        let client = &self.collector.shared.client;
        let api = self.served.objects(client, &self.node.key.namespace);
        let outcome = api.delete(&self.node.key.name, &parameters).await;
        self.done(outcome.map(|_| ()), |kind, key, source| Error::Delete {
            kind,
            key,
            source: Box::new(source),
        })
    }

    fn done(
        &self,
        outcome: kube::Result<()>,
        failure: fn(String, ObjectKey, kube::Error) -> Error,
    ) -> Result<(), Error> {
        match outcome {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(source) => Err(failure(
                self.node.kind.clone(),
                self.node.key.clone(),
                source,
            )),
            Ok(()) => Ok(()),
        }
    }
}

fn has_finalizer(meta: &ObjectMeta, name: &str) -> bool {
    meta.finalizers
        .iter()
        .flatten()
        .any(|finalizer| finalizer == name)
}
