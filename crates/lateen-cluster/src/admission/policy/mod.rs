//! ValidatingAdmissionPolicies with their bindings: rules in CEL that decide in this process.
//!
//! Not supported is the variable `authorizer`: every user may do everything here. Audit annotations go nowhere, as there
//! is no audit log.

mod compile;
mod parameters;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use kube_cel::cel::Value as Cel;
use serde_json::{Value, json};

use super::cache::Compiled;
use super::{Admission, Attributes, condition, matching, request};
use crate::expression;
use crate::names;
use crate::registry::Registry;
use crate::status::{Result, Status};
use crate::store::Store;

use compile::{Binding, Policy, Validation};

/// Longest message that an expression may make, in bytes.
const MAX_MESSAGE: usize = 5 << 10;

/// The admission hook that asks the policies.
pub struct Policies {
    store: Store,
    registry: Registry,
    compiled: Compiled<Vec<Policy>>,
}

/// Why a policy refuses.
struct Denial {
    message: String,
    reason: &'static str,
}

impl Denial {
    fn new(message: String) -> Self {
        Self {
            message,
            reason: "Invalid",
        }
    }
}

impl Policies {
    /// A hook that reads policies and their parameters from `store`; `registry` knows the parameters' kinds.
    pub fn new(store: Store, registry: Registry) -> Self {
        let compiled = Compiled::new(
            &store,
            &[
                "validatingadmissionpolicies.admissionregistration.k8s.io",
                "validatingadmissionpolicybindings.admissionregistration.k8s.io",
            ],
            |found| match found {
                [policies, bindings] => Policy::compile_all(policies, bindings),
                _ => Vec::new(),
            },
        );
        Self {
            store,
            registry,
            compiled,
        }
    }

    fn check(&self, attributes: &Attributes<'_>, object: Option<&Value>) -> Result<Vec<String>> {
        let mut warnings = Vec::new();
        let mut refusal = None;
        for policy in self.compiled.get(&self.store).iter() {
            let version = policy
                .matcher
                .version(&self.store, attributes, object, false)?;
            let Some(version) = version else { continue };
            let request = request::request(&names::uid(), &version, attributes, object)?;
            for binding in &policy.bindings {
                if binding
                    .matcher
                    .version(&self.store, attributes, object, true)?
                    .is_none()
                {
                    continue;
                }
                for denial in self.ask(policy, binding, attributes, &request)? {
                    let message = &denial.message;
                    if binding.warns {
                        warnings.push(format!(
                            "Validation failed for ValidatingAdmissionPolicy '{}' with binding '{}': {message}",
                            policy.name, binding.name
                        ));
                    }
                    if binding.denies {
                        let status = || refused(policy, binding, attributes, &denial);
                        refusal.get_or_insert_with(status);
                    }
                }
            }
        }
        refusal.map_or(Ok(warnings), Err)
    }

    /// All denials of one policy through one binding.
    fn ask(
        &self,
        policy: &Policy,
        binding: &Binding,
        attributes: &Attributes<'_>,
        request: &Value,
    ) -> Result<Vec<Denial>> {
        let found = parameters::find(&self.store, &self.registry, policy, binding, attributes);
        let found = match found {
            Ok(found) => found,
            Err(why) if policy.fails_closed => {
                return Ok(vec![Denial::new(format!(
                    "failed to configure binding: {why}"
                ))]);
            }
            Err(_) => return Ok(Vec::new()),
        };
        let namespace = if attributes.namespace.is_empty() || matching::is_namespace(attributes) {
            None
        } else {
            Some(matching::namespace(&self.store, attributes.namespace)?)
        };
        let mut denials = Vec::new();
        for parameter in found {
            denials.extend(judge(
                policy,
                request,
                namespace.as_deref(),
                parameter.as_ref(),
            ));
        }
        Ok(denials)
    }
}

/// What `policy` has against the request.
fn judge(
    policy: &Policy,
    request: &Value,
    namespace: Option<&Value>,
    parameter: Option<&Arc<Value>>,
) -> Vec<Denial> {
    let failed = |fault: String| match policy.fails_closed {
        true => vec![Denial::new(fault)],
        false => Vec::new(),
    };
    let mut variables = condition::variables(request);
    let or_null = |value: Option<&Value>| value.map_or(Cel::Null, expression::object);
    variables.push(("params", or_null(parameter.map(|parameter| &**parameter))));
    variables.push(("namespaceObject", or_null(namespace)));
    match policy.conditions.hold(&variables) {
        Ok(true) => {}
        Ok(false) => return Vec::new(),
        Err(fault) => return failed(fault),
    }
    // A variable may use those before it; one that fails only matters to who uses it.
    let mut named: Vec<(String, Cel)> = Vec::new();
    for (name, expression) in &policy.variables {
        let mut known = variables.clone();
        known.push(("variables", expression::map(named.clone())));
        let value = expression.as_ref().map_err(Clone::clone);
        if let Ok(value) = value.and_then(|expression| expression.evaluate(&known)) {
            named.push((name.clone(), value));
        }
    }
    variables.push(("variables", expression::map(named)));
    let mut denials = Vec::new();
    for validation in &policy.validations {
        let outcome = validation.expression.as_ref().map_err(Clone::clone);
        match outcome.and_then(|expression| expression.holds(&variables)) {
            Ok(true) => {}
            Ok(false) => denials.push(Denial {
                message: message(validation, &variables),
                reason: validation.reason,
            }),
            Err(fault) => {
                let source = &validation.source;
                let fault = format!("expression '{source}' resulted in error: {fault}");
                denials.extend(failed(fault));
            }
        }
    }
    denials
}

fn message(validation: &Validation, variables: &[(&str, Cel)]) -> String {
    if let Some(Ok(expression)) = &validation.message_expression
        && let Ok(Cel::String(text)) = expression.evaluate(variables)
    {
        let text = text.trim();
        if !text.is_empty() && text.len() <= MAX_MESSAGE && !text.contains('\n') {
            return text.to_owned();
        }
    }
    match validation.message.as_str() {
        "" => format!("failed expression: {}", validation.source),
        message => message.to_owned(),
    }
}

fn refused(
    policy: &Policy,
    binding: &Binding,
    attributes: &Attributes<'_>,
    denial: &Denial,
) -> Status {
    let message = format!(
        "ValidatingAdmissionPolicy '{}' with binding '{}' denied request: {}",
        policy.name, binding.name, denial.message
    );
    let resource = attributes.resource;
    let code = match denial.reason {
        "Forbidden" => 403,
        "Unauthorized" => 401,
        "RequestEntityTooLarge" => 413,
        _ => 422,
    };
    let text = format!(
        "{} {:?} is forbidden: {message}",
        resource.storage_key(),
        attributes.name
    );
    let mut status = Status::new(code, denial.reason, text);
    status.details = json!({"name": attributes.name});
    if !resource.group.is_empty() {
        status.details["group"] = json!(resource.group);
    }
    status.details["kind"] = json!(resource.plural);
    status.details["causes"] = json!([{"message": message}]);
    status
}

impl Admission for Policies {
    fn mutate<'a>(
        &'a self,
        _attributes: Attributes<'a>,
        _object: &'a mut Value,
    ) -> BoxFuture<'a, Result<Vec<String>>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    fn validate<'a>(
        &'a self,
        attributes: Attributes<'a>,
        object: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<Vec<String>>> {
        Box::pin(std::future::ready(self.check(&attributes, object)))
    }
}

#[cfg(test)]
mod tests;
