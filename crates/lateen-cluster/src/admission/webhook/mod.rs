//! Admission webhooks: MutatingWebhookConfigurations and ValidatingWebhookConfigurations, called over HTTPS.
//!
//! Configurations are compiled into [`hook::Hook`]s and kept until one of them changes, which the store tells at no cost
//! per request. Who is called and in which order, and what a failure means, follows Kubernetes' dispatchers.

mod connection;
mod endpoint;
mod hook;
mod outcome;
mod review;

use std::collections::HashSet;

use futures_util::future::{self, BoxFuture};
use serde_json::Value;

use super::cache::Compiled;
use super::matching::Version;
use super::{Admission, Attributes, condition};
use crate::status::{Result, Status};
use crate::store::Store;
use crate::strategy::{FieldValidation, Part, RequestInfo};

use connection::Connections;
use hook::{Hook, Kind};
use outcome::Failure;
use review::Review;

/// The admission hook that calls webhooks.
pub struct Webhooks {
    store: Store,
    connections: Connections,
    mutating: Compiled<Vec<Hook>>,
    validating: Compiled<Vec<Hook>>,
}

impl Webhooks {
    /// A hook that reads configurations, namespaces and services from `store`.
    pub fn new(store: Store) -> Self {
        // Configurations come in order of names, which is the order of calls.
        let mutating = Compiled::new(
            &store,
            &["mutatingwebhookconfigurations.admissionregistration.k8s.io"],
            |found| {
                found
                    .iter()
                    .flatten()
                    .flat_map(|one| Hook::compile(one, Kind::Mutating))
                    .collect()
            },
        );
        let validating = Compiled::new(
            &store,
            &["validatingwebhookconfigurations.admissionregistration.k8s.io"],
            |found| {
                found
                    .iter()
                    .flatten()
                    .flat_map(|one| Hook::compile(one, Kind::Validating))
                    .collect()
            },
        );
        Self {
            mutating,
            validating,
            connections: Connections::default(),
            store,
        }
    }

    /// Calls one webhook. `Ok(None)` when its conditions do not hold or it failed and may.
    async fn call(
        &self,
        hook: &Hook,
        version: &Version,
        attributes: Attributes<'_>,
        object: Option<&Value>,
    ) -> Result<Option<review::Answer>> {
        let review = Review::new(version, &attributes, object)?;
        if !conditions_hold(hook, &review, &attributes)? {
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
        let hooks = self.mutating.get(&self.store);
        let mut warnings = Vec::new();
        // Hooks that ran and want to see later changes, and those that are to run again.
        let (mut ran, mut again) = (HashSet::new(), HashSet::new());
        for round in 0..2 {
            for (index, hook) in hooks.iter().enumerate() {
                if round == 1 && !again.contains(&index) {
                    continue;
                }
                let Some(version) =
                    hook.matcher
                        .version(&self.store, &attributes, Some(object), false)?
                else {
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
        let hooks = self.validating.get(&self.store);
        let mut chosen = Vec::new();
        for hook in hooks.iter() {
            if let Some(version) = hook
                .matcher
                .version(&self.store, &attributes, object, false)?
            {
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

/// Whether the conditions of `hook` hold.
///
/// # Errors
/// One cannot be evaluated, none is false, and the webhook fails closed.
fn conditions_hold(hook: &Hook, review: &Review, attributes: &Attributes<'_>) -> Result<bool> {
    if hook.conditions.is_empty() {
        return Ok(true);
    }
    match hook
        .conditions
        .hold(&condition::variables(review.request()))
    {
        Ok(hold) => Ok(hold),
        Err(_) if !hook.fails_closed => Ok(false),
        Err(fault) => Err(Status::forbidden(format!(
            "{} {:?} is forbidden: {fault}",
            attributes.resource.storage_key(),
            attributes.name
        ))),
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

#[cfg(test)]
mod tests;
