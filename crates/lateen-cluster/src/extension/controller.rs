//! Keeps the table of resources in step with the stored CustomResourceDefinitions.
//!
//! The controller reads and writes the store itself instead of going through the request handler: it owns the status of
//! definitions, and a definition must be served before a client can read that it is.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::server::{Api, full};
use crate::store::{Key, WriteError, revision_of};
use crate::user::User;

use super::definition::{FINALIZER, GROUP, PLURAL};
use super::{custom, status};

/// How often the instances of a deleted definition are counted, while finalizers hold some of them.
const COUNT_INTERVAL: Duration = Duration::from_millis(100);
/// How long to wait after a write that the store refused.
const RETRY: Duration = Duration::from_secs(1);

/// The controller.
pub struct Definitions {
    api: Arc<Api>,
    /// The rows that are in the table because of definitions: what they were made from, by name of the definition.
    rows: HashMap<String, Made>,
}

/// What a row was made from; it is made again when this changes.
struct Made {
    group: String,
    plural: String,
    spec: Value,
    accepted: Value,
}

/// What is left to do after one round.
#[derive(PartialEq)]
enum Next {
    /// Nothing, until a definition changes.
    Wait,
    /// Look again soon.
    Again(Duration),
}

impl Definitions {
    /// A controller of the definitions in the store of `api`.
    pub fn new(api: Arc<Api>) -> Self {
        Self {
            api,
            rows: HashMap::new(),
        }
    }

    /// Serves the definitions that were established before the last stop. To be called before requests are taken.
    pub fn restore(&mut self) {
        let (definitions, _) = self.api.store().list(&store_key(), None, None);
        for definition in definitions
            .iter()
            .filter(|definition| status::is_established(definition))
        {
            self.serve(definition);
        }
    }

    /// Follows the definitions until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut changes = self.api.store().subscribe(&store_key());
        loop {
            changes.mark_unchanged();
            let next = self.round().await;
            let pause = match next {
                Next::Wait => None,
                Next::Again(pause) => Some(pause),
            };
            tokio::select! {
                () = stop.cancelled() => return,
                changed = changes.changed() => if changed.is_err() { return },
                () = async {
                    match pause {
                        Some(pause) => tokio::time::sleep(pause).await,
                        None => std::future::pending().await,
                    }
                } => {}
            }
        }
    }

    /// Works off all definitions, oldest first, so that names go to who asked first.
    async fn round(&mut self) -> Next {
        let (mut definitions, _) = self.api.store().list(&store_key(), None, None);
        definitions.sort_by_cached_key(|definition| {
            (
                text(&definition["metadata"]["creationTimestamp"]),
                name(definition),
            )
        });
        let present: HashSet<String> = definitions
            .iter()
            .map(|definition| name(definition))
            .collect();
        let gone: Vec<String> = self
            .rows
            .keys()
            .filter(|name| !present.contains(*name))
            .cloned()
            .collect();
        for name in gone {
            self.withdraw(&name);
        }
        let mut next = Next::Wait;
        for index in 0..definitions.len() {
            let definition = definitions[index].clone();
            let deleted = definition["metadata"].get("deletionTimestamp").is_some();
            let outcome = if deleted {
                self.finish(&definition).await
            } else {
                let mut settled = Value::clone(&definition);
                let others: Vec<&Value> = definitions
                    .iter()
                    .enumerate()
                    .filter(|(other, _)| *other != index)
                    .map(|(_, other)| &**other)
                    .collect();
                if status::settle(&mut settled, &others) {
                    self.serve(&settled);
                }
                let outcome = self.store(&definition, settled.clone()).await;
                definitions[index] = Arc::new(settled);
                outcome
            };
            next = match (next, outcome) {
                (Next::Again(first), Next::Again(second)) => Next::Again(first.min(second)),
                (Next::Again(pause), Next::Wait) | (Next::Wait, Next::Again(pause)) => {
                    Next::Again(pause)
                }
                (Next::Wait, Next::Wait) => Next::Wait,
            };
        }
        next
    }

    /// Puts the definition's resource in the table, unless it is there already or a built-in one has its place.
    fn serve(&mut self, definition: &Value) {
        let (name, spec) = (name(definition), &definition["spec"]);
        let accepted = &definition["status"]["acceptedNames"];
        let made = self.rows.get(&name);
        if made.is_some_and(|made| made.spec == *spec && made.accepted == *accepted) {
            return;
        }
        let (group, plural) = (text(&spec["group"]), text(&accepted["plural"]));
        let table = self.api.registry().table();
        if made.is_none() && table.resource(&group, &plural).is_some() {
            tracing::warn!(%name, "a built-in resource has the definition's name; it stays");
            return;
        }
        self.api.registry().insert(custom::resource(definition));
        tracing::debug!(%name, "serving");
        let made = Made {
            group,
            plural,
            spec: spec.clone(),
            accepted: accepted.clone(),
        };
        self.rows.insert(name, made);
    }

    fn withdraw(&mut self, name: &str) {
        if let Some(made) = self.rows.remove(name) {
            self.api.registry().remove(&made.group, &made.plural);
            tracing::debug!(%name, "no longer serving");
        }
    }

    /// Removes the instances of a deleted definition, and then lets it go.
    async fn finish(&mut self, definition: &Arc<Value>) -> Next {
        let mut last = Value::clone(definition);
        let held = last["metadata"]["finalizers"]
            .as_array()
            .is_some_and(|list| list.iter().any(|name| name == FINALIZER));
        if !held {
            return Next::Wait;
        }
        let served = self.rows.contains_key(&name(definition));
        let (group, plural) = (
            text(&last["spec"]["group"]),
            text(&last["spec"]["names"]["plural"]),
        );
        let built_in = !served
            && self
                .api
                .registry()
                .table()
                .resource(&group, &plural)
                .is_some();
        // The objects of a built-in resource are not the definition's to remove.
        let left = if built_in {
            0
        } else {
            self.remove_instances(definition).await
        };
        if left > 0 {
            let (reason, message) = (
                "InstanceDeletionInProgress",
                "CustomResource deletion is in progress",
            );
            status::set_condition(&mut last, "Terminating", true, reason, message);
            return match self.store(definition, last).await {
                Next::Wait => Next::Again(COUNT_INTERVAL),
                again => again,
            };
        }
        self.withdraw(&name(definition));
        // A create may have come between the count and the end of serving.
        if !built_in && self.remove_instances(definition).await > 0 {
            return Next::Again(COUNT_INTERVAL);
        }
        let (reason, message) = ("InstanceDeletionCompleted", "removed all instances");
        status::set_condition(&mut last, "Terminating", false, reason, message);
        let metadata = last["metadata"].as_object_mut();
        let mut free = false;
        if let Some(finalizers) = metadata
            .and_then(|metadata| metadata.get_mut("finalizers"))
            .and_then(Value::as_array_mut)
        {
            finalizers.retain(|name| name != FINALIZER);
            free = finalizers.is_empty();
        }
        if !free {
            return self.store(definition, last).await;
        }
        if let Some(metadata) = last["metadata"].as_object_mut() {
            metadata.shift_remove("finalizers");
        }
        let written = self
            .api
            .store()
            .delete(key(definition), last, revision_of(definition))
            .await;
        outcome(written.map(drop))
    }

    /// Asks for the removal of all instances and returns how many are left.
    async fn remove_instances(&self, definition: &Value) -> usize {
        let spec = &definition["spec"];
        let (group, plural) = (text(&spec["group"]), text(&spec["names"]["plural"]));
        let resource = format!("{plural}.{group}");
        let store = self.api.store();
        let (instances, _) = store.list(&resource, None, None);
        let served = spec["versions"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|version| version["served"] == true);
        for instance in &instances {
            let metadata = &instance["metadata"];
            if metadata.get("deletionTimestamp").is_some() {
                continue;
            }
            let (namespace, name) = (text(&metadata["namespace"]), text(&metadata["name"]));
            let Some(version) =
                served.filter(|_| self.rows.contains_key(&format!("{plural}.{group}")))
            else {
                // Nobody serves the objects, so nobody's finalizers can be worked off.
                let key = Key {
                    resource: resource.as_str().into(),
                    namespace,
                    name,
                };
                let removed = store
                    .delete(key, Value::clone(instance), revision_of(instance))
                    .await;
                if let Err(error) = removed {
                    tracing::debug!(%error, "an instance changed while it was removed");
                }
                continue;
            };
            let version = text(&version["name"]);
            let path = match namespace.as_str() {
                "" => format!("/apis/{group}/{version}/{plural}/{name}"),
                _ => format!("/apis/{group}/{version}/namespaces/{namespace}/{plural}/{name}"),
            };
            let Ok(request) = Request::delete(&path).body(full("")) else {
                continue;
            };
            let response = self.api.clone().handle(request, Some(User::admin())).await;
            if !response.status().is_success() && response.status() != 404 {
                tracing::debug!(%path, status = %response.status(), "an instance was not removed");
            }
        }
        store.list(&resource, None, None).0.len()
    }

    /// Stores `new` in place of `old`, if it differs.
    async fn store(&self, old: &Arc<Value>, new: Value) -> Next {
        if **old == new {
            return Next::Wait;
        }
        outcome(
            self.api
                .store()
                .update(key(old), new, revision_of(old))
                .await
                .map(drop),
        )
    }
}

/// Another write that came first wakes the controller by itself.
fn outcome(written: Result<(), WriteError>) -> Next {
    match written {
        Ok(()) | Err(WriteError::Changed | WriteError::Missing | WriteError::Closed) => Next::Wait,
        Err(error) => {
            tracing::warn!(%error, "cannot store a definition");
            Next::Again(RETRY)
        }
    }
}

/// The name under which definitions are stored.
fn store_key() -> String {
    format!("{PLURAL}.{GROUP}")
}

fn key(definition: &Value) -> Key {
    Key {
        resource: store_key().as_str().into(),
        namespace: String::new(),
        name: name(definition),
    }
}

fn name(definition: &Value) -> String {
    text(&definition["metadata"]["name"])
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests;
