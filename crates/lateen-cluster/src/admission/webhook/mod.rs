//! Admission webhooks: MutatingWebhookConfigurations and ValidatingWebhookConfigurations, called over HTTPS.
//!
//! Configurations are compiled into [`hook::Hook`]s and kept until one of them changes, which the store tells at no cost
//! per request. Who is called and in which order, and what a failure means, follows Kubernetes' dispatchers.

mod connection;
mod endpoint;
mod hook;
mod outcome;
mod review;
mod selector;

use std::collections::HashSet;
use std::sync::Arc;

use futures_util::future::{self, BoxFuture};
use parking_lot::Mutex;
use serde_json::{Map, Value};
use tokio::sync::watch;

use super::{Admission, Attributes, Operation};
use crate::status::{Result, Status};
use crate::store::{Key, Store};
use crate::strategy::{FieldValidation, Part, RequestInfo};

use connection::Connections;
use hook::{Hook, Kind};
use outcome::Failure;
use review::Review;

/// API group of the configurations.
const GROUP: &str = "admissionregistration.k8s.io";

/// The admission hook that calls webhooks.
pub struct Webhooks {
    store: Store,
    connections: Connections,
    mutating: Compiled,
    validating: Compiled,
}

/// The hooks of one kind of configuration, as of a revision.
struct Compiled {
    kind: Kind,
    changes: watch::Receiver<u64>,
    latest: Mutex<Option<(u64, Arc<Vec<Hook>>)>>,
}

impl Compiled {
    fn new(store: &Store, kind: Kind) -> Self {
        Self {
            kind,
            changes: store.subscribe(kind.resource()),
            latest: Mutex::new(None),
        }
    }

    /// The hooks as they are now, in the order in which they are called.
    fn hooks(&self, store: &Store) -> Arc<Vec<Hook>> {
        let revision = *self.changes.borrow();
        let mut latest = self.latest.lock();
        if let Some((known, hooks)) = latest.as_ref()
            && *known == revision
        {
            return hooks.clone();
        }
        // The list is in order of names, which is the order of calls.
        let (configurations, _) = store.list(self.kind.resource(), None, None);
        let hooks: Vec<Hook> = configurations
            .iter()
            .flat_map(|found| Hook::compile(found, self.kind))
            .collect();
        let hooks = Arc::new(hooks);
        *latest = Some((revision, hooks.clone()));
        hooks
    }
}

impl Webhooks {
    /// A hook that reads configurations, namespaces and services from `store`.
    pub fn new(store: Store) -> Self {
        Self {
            mutating: Compiled::new(&store, Kind::Mutating),
            validating: Compiled::new(&store, Kind::Validating),
            connections: Connections::default(),
            store,
        }
    }

    /// The version in which `hook` is to see the request, if it is to see it.
    fn chosen(
        &self,
        hook: &Hook,
        attributes: Attributes<'_>,
        object: Option<&Value>,
    ) -> Result<Option<Version>> {
        // Nobody may lock everyone out of the configurations.
        if attributes.resource.group == GROUP {
            return Ok(None);
        }
        let Some((group, name)) = hook.version(&attributes) else {
            return Ok(None);
        };
        if !hook.object_selector.is_empty() {
            let matches = |object: Option<&Value>| {
                object.is_some_and(|object| hook.object_selector.matches(labels(object)))
            };
            if !matches(object) && !matches(attributes.old) {
                return Ok(None);
            }
        }
        if !self.namespace_matches(hook, attributes, object)? {
            return Ok(None);
        }
        Ok(Some(Version {
            group: group.to_owned(),
            name: name.to_owned(),
        }))
    }

    fn namespace_matches(
        &self,
        hook: &Hook,
        attributes: Attributes<'_>,
        object: Option<&Value>,
    ) -> Result<bool> {
        let selector = &hook.namespace_selector;
        let of_namespace =
            attributes.resource.group.is_empty() && attributes.resource.plural == "namespaces";
        if selector.is_empty() || (attributes.namespace.is_empty() && !of_namespace) {
            return Ok(true);
        }
        // The labels that a namespace is about to have.
        if of_namespace
            && attributes.subresource.is_empty()
            && matches!(attributes.operation, Operation::Create | Operation::Update)
        {
            return Ok(object.is_some_and(|namespace| selector.matches(labels(namespace))));
        }
        let name = if of_namespace {
            attributes.name
        } else {
            attributes.namespace
        };
        let key = Key {
            resource: "namespaces".into(),
            namespace: String::new(),
            name: name.to_owned(),
        };
        let namespace = self
            .store
            .get(&key)
            .ok_or_else(|| Status::not_found("", "namespaces", name))?;
        Ok(selector.matches(labels(&namespace)))
    }

    /// Calls one webhook. `Ok(None)` when its conditions do not hold or it failed and may.
    async fn call(
        &self,
        hook: &Hook,
        version: &Version,
        attributes: Attributes<'_>,
        object: Option<&Value>,
    ) -> Result<Option<review::Answer>> {
        let review = Review::new(version, attributes, object)?;
        if !hook.conditions_hold(&review, &attributes)? {
            return Ok(None);
        }
        let asked = async {
            if attributes.dry_run && !hook.dry_run {
                return Err(Failure::Refused(Status::bad_request(format!(
                    "admission webhook {:?} does not support dry run",
                    hook.name
                ))));
            }
            let endpoint = hook
                .endpoint
                .as_ref()
                .map_err(|why| Failure::Call(why.clone()))?;
            let body = self
                .connections
                .post(&self.store, endpoint, hook.timeout, review.body())
                .await
                .map_err(|why| Failure::Call(format!("failed to call webhook: {why}")))?;
            review
                .answer(&body, hook.kind)
                .map_err(|why| Failure::Call(format!("received invalid webhook response: {why}")))
        };
        match asked.await {
            Ok(answer) => Ok(Some(answer)),
            Err(Failure::Call(why)) if !hook.fails_closed => {
                tracing::warn!(webhook = %hook.name, %why, "the webhook failed, which its policy allows");
                Ok(None)
            }
            Err(failure) => Err(failure.into_status(&hook.name)),
        }
    }

    async fn mutate_all(
        &self,
        attributes: Attributes<'_>,
        object: &mut Value,
    ) -> Result<Vec<String>> {
        let hooks = self.mutating.hooks(&self.store);
        let mut warnings = Vec::new();
        // Hooks that ran and want to see later changes, and those that are to run again.
        let (mut ran, mut again) = (HashSet::new(), HashSet::new());
        for round in 0..2 {
            for (index, hook) in hooks.iter().enumerate() {
                if round == 1 && !again.contains(&index) {
                    continue;
                }
                let Some(version) = self.chosen(hook, attributes, Some(object))? else {
                    continue;
                };
                let answer = self.call(hook, &version, attributes, Some(object)).await?;
                let Some(answer) = answer else { continue };
                warnings.extend(answer.warnings.iter().cloned());
                answer.allowed(&hook.name)?;
                if answer.patch.is_some() && patch(&answer, &version, attributes, object, hook)? {
                    again.extend(ran.drain());
                }
                if hook.reinvoke {
                    ran.insert(index);
                }
            }
            if again.is_empty() {
                break;
            }
        }
        Ok(warnings)
    }

    async fn validate_all(
        &self,
        attributes: Attributes<'_>,
        object: Option<&Value>,
    ) -> Result<Vec<String>> {
        let hooks = self.validating.hooks(&self.store);
        let mut chosen = Vec::new();
        for hook in hooks.iter() {
            if let Some(version) = self.chosen(hook, attributes, object)? {
                chosen.push((hook, version));
            }
        }
        let calls = chosen
            .iter()
            .map(|(hook, version)| self.call(hook, version, attributes, object));
        let mut warnings = Vec::new();
        for (answer, (hook, _)) in future::join_all(calls).await.into_iter().zip(&chosen) {
            let Some(answer) = answer? else { continue };
            warnings.extend(answer.warnings.iter().cloned());
            answer.allowed(&hook.name)?;
        }
        Ok(warnings)
    }
}

impl Admission for Webhooks {
    fn mutate<'a>(
        &'a self,
        attributes: Attributes<'a>,
        object: &'a mut Value,
    ) -> BoxFuture<'a, Result<Vec<String>>> {
        Box::pin(self.mutate_all(attributes, object))
    }

    fn validate<'a>(
        &'a self,
        attributes: Attributes<'a>,
        object: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<Vec<String>>> {
        Box::pin(self.validate_all(attributes, object))
    }
}

/// A version of the request's resource.
struct Version {
    group: String,
    name: String,
}

impl Version {
    fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.name.clone()
        } else {
            format!("{}/{}", self.group, self.name)
        }
    }
}

/// Applies the answer's patch; returns whether that changed the object.
fn patch(
    answer: &review::Answer,
    version: &Version,
    attributes: Attributes<'_>,
    object: &mut Value,
    hook: &Hook,
) -> Result<bool> {
    let Some(patch) = &answer.patch else {
        return Ok(false);
    };
    let strategy = &attributes.resource.strategy;
    let api_version = version.api_version();
    let mut patched = object.clone();
    strategy.convert_from_storage(&mut patched, &api_version)?;
    json_patch::patch(&mut patched, patch).map_err(|error| {
        Status::internal(format!(
            "the patch of webhook {:?} does not apply: {error}",
            hook.name
        ))
    })?;
    let info = RequestInfo {
        api_version: &api_version,
        namespace: attributes.namespace,
        part: if attributes.subresource == "status" {
            Part::Status
        } else {
            Part::Main
        },
    };
    strategy.decode(&mut patched, info, FieldValidation::Ignore)?;
    strategy.convert_to_storage(&mut patched, info)?;
    patched["apiVersion"] = Value::String(attributes.resource.storage_api_version());
    strategy.default(&mut patched);
    let changed = patched != *object;
    *object = patched;
    Ok(changed)
}

/// The labels of an object.
fn labels(object: &Value) -> Option<&Map<String, Value>> {
    object["metadata"]["labels"].as_object()
}

#[cfg(test)]
mod tests;
